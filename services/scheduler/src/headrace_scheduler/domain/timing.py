"""From the terms of a schedule to its timetable."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache

from headrace_timetable import CronError, check_timezone, parse
from headrace_timetable.calendars import Calendar
from headrace_timetable.rules import CatchUp, CatchUpStrategy, Timetable, next_start
from headrace_timetable.windows import DAYS, InstantWindow, WeeklyWindow, Windows
from headrace_timetable.windows import Window as TimetableWindow

from headrace_scheduler.domain.schedules import Catchup, Schedule, Times, Window

MOST_CAUGHT_UP = 1000
"""How many missed ticks of a schedule run at the most, the latest ones."""


@dataclass(frozen=True)
class Flaw:
    """What is wrong with the times of a schedule: the field by its name in requests, and what was
    expected."""

    code: str
    path: str
    message: str


class BadTimes(ValueError):  # noqa: N818 - it names what is wrong
    """The times make no timetable."""

    def __init__(self, flaws: list[Flaw]) -> None:
        super().__init__("; ".join(f"{flaw.path}: {flaw.message}" for flaw in flaws))
        self.flaws = flaws


@lru_cache(maxsize=4096)
def timetable(
    times: Times,
    own_holidays: tuple[date, ...],
    catchup: Catchup = Catchup.SKIP_TO_CURRENT,
    limit: int | None = None,
) -> Timetable:
    """The timetable of a schedule. When its ticks are does not depend on `catchup` and `limit`; what becomes
    of those that maintenance holds does.

    Raises:
        BadTimes: naming every field that is wrong.
    """
    flaws: list[Flaw] = []
    expression = zone = calendar = windows = None
    try:
        expression = parse(times.cron_expression)
    except CronError as error:
        flaws.append(Flaw("INVALID_CRON", "cronExpression", str(error)))
    try:
        zone = check_timezone(times.timezone)
    except ValueError as error:
        flaws.append(Flaw("INVALID_TIMEZONE", "timezone", str(error)))
    try:
        calendar = Calendar(
            business_days_only=times.business_days_only,
            skip_holidays=times.skip_holidays,
            country=times.country,
            subdivision=times.subdivision,
            own_holidays=frozenset(own_holidays),
        )
    except ValueError as error:
        flaws.append(Flaw("INVALID_CALENDAR", _calendar_field(times), str(error)))
    try:
        windows = Windows(tuple(_windows(times.windows)))
    except BadTimes as error:
        flaws.extend(error.flaws)
    except ValueError as error:
        flaws.append(Flaw("INVALID_WINDOW", "maintenanceWindows", str(error)))
    if expression is None or zone is None or calendar is None or windows is None:
        raise BadTimes(flaws)
    return Timetable(expression, zone, calendar, windows, catch_up_of(catchup, limit))


def timetable_of(schedule: Schedule) -> Timetable:
    """The timetable of a schedule as it stands.

    Raises:
        BadTimes: what zones and holidays are known has changed since it was written.
    """
    terms = schedule.terms
    return timetable(terms.times, schedule.own_holidays, terms.catchup, terms.catchup_limit)


def catch_up_of(catchup: Catchup, limit: int | None) -> CatchUp:
    """What is done about missed ticks. All of them is the latest thousand: a flood of runs nobody can want
    helps nobody."""
    if catchup is Catchup.SKIP_TO_CURRENT:
        return CatchUp()
    count = MOST_CAUGHT_UP if catchup is Catchup.RUN_ALL else min(limit or 1, MOST_CAUGHT_UP)
    return CatchUp(CatchUpStrategy.RUN_LATEST_N, count)


def demand_runs(plan: Timetable, now: datetime) -> None:
    """Demands that a timetable starts a run some day.

    Raises:
        BadTimes: it never does.
    """
    if next_start(plan, now) is None:
        message = "with this time zone, calendar and these maintenance windows it would never start a run"
        raise BadTimes([Flaw("NEVER_FIRES", "cronExpression", message)])


def _calendar_field(times: Times) -> str:
    if times.subdivision is not None and times.country is not None:
        return "subdivision"
    return "country" if times.country is not None or times.subdivision is None else "subdivision"


def _windows(given: tuple[Window, ...]) -> Iterator[TimetableWindow]:
    flaws = []
    made: list[TimetableWindow] = []
    for index, window in enumerate(given):
        try:
            made.append(_window(window))
        except ValueError as error:
            flaws.append(Flaw("INVALID_WINDOW", f"maintenanceWindows[{index}]", str(error)))
    if flaws:
        raise BadTimes(flaws)
    yield from made


def _window(window: Window) -> TimetableWindow:
    once = window.start is not None or window.end is not None
    weekly = bool(window.days or window.from_time or window.to_time)
    if once == weekly:
        raise ValueError("give either start and end, or days, from and to")
    if once:
        if window.start is None or window.end is None:
            raise ValueError("a window that comes once needs both start and end")
        return InstantWindow(window.start, window.end)
    if not (window.days and window.from_time and window.to_time):
        raise ValueError("a weekly window needs days, from and to")
    days = frozenset(DAYS.index(day) for day in window.days)
    return WeeklyWindow(days, _time_of_day(window.from_time), _time_of_day(window.to_time))


def _time_of_day(text: str) -> timedelta:
    hours, _, minutes = text.partition(":")
    return timedelta(hours=int(hours), minutes=int(minutes))
