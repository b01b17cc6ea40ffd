"""The instants at which a cron expression fires in a zone, through changes of its clocks.

The rules are those of Debian's cron (cron(8), "daylight saving time"). Where the clock jumps by no more
than three hours, a job whose minute and hour are both fixed runs once right after a gap that skips its
time, and only in the first of two equal hours; a job whose minute or hour starts with `*` follows the wall
clock. A larger jump is a correction of the clock: the new time counts at once, for all jobs.

All instants are computed in UTC. Comparing aware times of one zone would compare their wall clocks and
ignore the fold.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import takewhile
from zoneinfo import ZoneInfo

from headrace_timetable.clock_changes import Change, changes_in, offset_at
from headrace_timetable.cron import CronExpression

_CORRECTION = timedelta(hours=3)
_HORIZON_YEARS = 60
"""29 February on one weekday comes again after 40 years at the latest (across 2100)."""
_REACH = timedelta(hours=6)
_FIRST_LOOK = timedelta(hours=1)
_WIDER = 4
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""Nothing is looked for before it."""


def next_tick(expression: CronExpression, zone: ZoneInfo, after: datetime) -> datetime | None:
    """The first tick later than an instant, in UTC; None where none comes within sixty years.

    Raises ValueError for an instant without a zone.
    """
    return next(ticks(expression, zone, after), None)


def ticks(expression: CronExpression, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    """All ticks later than an instant, in UTC, in their order, for sixty years."""
    if after.tzinfo is None:
        raise ValueError("an instant needs a zone")
    start = after.astimezone(UTC).replace(tzinfo=None)
    for change, begin, end, offset in _stretches(zone, start):
        for tick in _in_stretch(expression, change, begin, end, offset):
            if tick > start:
                yield tick.replace(tzinfo=UTC)


def latest(
    later_than: Callable[[datetime], Iterator[datetime]],
    after: datetime,
    until: datetime,
    count: int,
    look: timedelta = _FIRST_LOOK,
) -> list[datetime]:
    """The last `count` instants in (after, until] of what ascends from any instant, in their order.

    Looks from the end in ever wider steps, of which `look` is the first, so that the cost follows what is
    taken and not the length of the span.
    """
    found: deque[datetime] = deque()
    end = until
    while end > after and len(found) < count:
        begin = max(after, end - look) if end - after > look else after
        inside = takewhile(lambda instant, end=end: instant <= end, later_than(begin))  # type: ignore[misc]
        found.extendleft(reversed(deque(inside, maxlen=count - len(found))))
        end, look = begin, look * _WIDER
    return list(found)


def previous_tick(expression: CronExpression, zone: ZoneInfo, before: datetime) -> datetime | None:
    """The last tick earlier than an instant, in UTC; None where none came since 1970."""
    return last_tick(expression, zone, _EPOCH, before.astimezone(UTC) - timedelta(microseconds=1))


def last_tick(
    expression: CronExpression, zone: ZoneInfo, after: datetime, until: datetime
) -> datetime | None:
    """The last tick later than an instant and no later than another, in UTC; None where there is none."""
    found = latest(lambda begin: ticks(expression, zone, begin), after, until, 1, _usual_gap(expression))
    return found[0] if found else None


def _usual_gap(expression: CronExpression) -> timedelta:
    """About twice the time between two ticks: where the last one is likely to be found at the first look."""
    days = 2.0
    if len(expression.days_of_week) < 7:
        days *= 4
    elif len(expression.days_of_month) < 31:
        days *= 31
    if len(expression.months) < 12:
        days *= 12
    return timedelta(days=days / len(_times_of_day(expression)))


def _stretches(
    zone: ZoneInfo, start: datetime
) -> Iterator[tuple[Change | None, datetime, datetime, timedelta]]:
    """Stretches of one offset: what began each, its first instant, its end (exclusive) and its offset.

    The first one reaches back to a change that is so recent that it may still hold fixed jobs back.
    """
    begin, offset = start, offset_at(zone, start)
    change: Change | None = None
    last_year = min(start.year + _HORIZON_YEARS, 9998)
    for year in range((start - _REACH).year, last_year + 1):
        for following in changes_in(zone, year):
            if following.at > start:
                yield change, begin, following.at, offset
                change, begin, offset = following, following.at, following.after
            elif following.at > start - _REACH:
                change, begin = following, following.at
        edge = datetime(year + 1, 1, 1)  # noqa: DTZ001
        if begin < edge - _REACH and year < last_year:
            # So that the first tick in a zone without changes does not need those of sixty years.
            yield change, begin, edge, offset
            change, begin = None, edge
    yield change, begin, datetime(last_year + 1, 1, 1), offset  # noqa: DTZ001


def _in_stretch(
    expression: CronExpression, change: Change | None, begin: datetime, end: datetime, offset: timedelta
) -> Iterator[datetime]:
    wall = begin + offset
    fixed = not expression.follows_wall_clock
    if change is not None and fixed and abs(change.shift) <= _CORRECTION:
        before = begin + change.before
        if before < wall:  # a gap: what it skipped runs now, once
            if next(_walls(expression, before, wall), None) is not None:
                yield begin
                wall += timedelta(microseconds=1)
        else:  # a repeated hour: its second pass is over for fixed jobs
            wall = before
    for match in _walls(expression, wall, end + offset):
        yield match - offset


def _walls(expression: CronExpression, begin: datetime, end: datetime) -> Iterator[datetime]:
    """The matching minutes of the wall clock in [begin, end)."""
    times = _times_of_day(expression)
    day, last = begin.date(), end.date()
    while day <= last:
        if day.month not in expression.months:
            day = _first_of_next_month(day)
            continue
        if expression.matches_day(day.month, day.day, day.isoweekday() % 7):
            midnight = datetime(day.year, day.month, day.day)  # noqa: DTZ001
            first = bisect_left(times, begin - midnight) if midnight < begin else 0
            for time in times[first:] if first else times:
                if midnight + time >= end:
                    return
                yield midnight + time
        day += timedelta(days=1)


@lru_cache(maxsize=1024)
def _times_of_day(expression: CronExpression) -> tuple[timedelta, ...]:
    return tuple(
        timedelta(hours=hour, minutes=minute)
        for hour in sorted(expression.hours)
        for minute in sorted(expression.minutes)
    )


def _first_of_next_month(day: date) -> date:
    return date(day.year + day.month // 12, day.month % 12 + 1, 1)
