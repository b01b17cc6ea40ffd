"""When things happen: the grammar of cron expressions, and names of time zones."""

from headrace_timetable.cron import CronError, CronExpression, parse
from headrace_timetable.ticks import next_tick, ticks
from headrace_timetable.timezones import check_timezone

__all__ = ["CronError", "CronExpression", "check_timezone", "next_tick", "parse", "ticks"]
