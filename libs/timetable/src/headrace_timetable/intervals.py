"""The intervals of a backfill: a range of time cut at the full hours, days, weeks or months of a zone.

Intervals are half-open, adjoin, cover the range exactly, and are clipped to it. A day over a change of the
clock has 23 or 25 hours. Where a change skips the time at which one would begin, it begins at the change;
where it skips one whole (as Apia's 30 December 2011), there is none. A repeated hour is two.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from itertools import islice
from zoneinfo import ZoneInfo

from headrace_timetable.clock_changes import first_instant, offsets

FIRST_YEAR = 1900
LAST_YEAR = 2199
_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)
_CALENDAR_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


class Granularity(StrEnum):
    """How long intervals are."""

    HOURLY = "HOURLY"
    DAILY = "DAILY"
    WEEKLY = "WEEKLY"
    """ISO weeks, which begin on Monday."""
    MONTHLY = "MONTHLY"


@dataclass(frozen=True, slots=True)
class Interval:
    """A half-open span, in UTC."""

    start: datetime
    end: datetime


def range_of(first: str, last: str, zone: ZoneInfo) -> Interval:
    """The range that two texts mean: each a date of the zone, the last one inclusive, or an instant
    (RFC 3339), the last one exclusive.

    Raises:
        ValueError: for a text that is neither, a year out of bounds, and a range that is empty.
    """
    start, end = _instant(first, zone, days=0), _instant(last, zone, days=1)
    if end <= start:
        raise ValueError("the range is empty: it must end after it starts")
    return Interval(start, end)


def intervals(granularity: Granularity, zone: ZoneInfo, span: Interval) -> Iterator[Interval]:
    """The intervals of a range, in their order."""
    begin = span.start
    for boundary in _boundaries(granularity, zone, span):
        if begin < boundary < span.end:
            yield Interval(begin, boundary)
            begin = boundary
    yield Interval(begin, span.end)


def count(granularity: Granularity, zone: ZoneInfo, span: Interval, limit: int) -> int:
    """How many intervals a range has; `limit` + 1 where it has more than that."""
    return sum(1 for _ in islice(intervals(granularity, zone, span), limit + 1))


def _boundaries(granularity: Granularity, zone: ZoneInfo, span: Interval) -> Iterator[datetime]:
    """Ascending instants that hold all at which an interval begins within a range."""
    if granularity is Granularity.HOURLY:
        yield from _hours(zone, span)
        return
    last = span.end.astimezone(zone).date()
    day = _first_day(granularity, span.start.astimezone(zone).date())
    while day <= last:
        yield first_instant(zone, datetime.combine(day, time()))
        day = _next_day(granularity, day)


def _hours(zone: ZoneInfo, span: Interval) -> Iterator[datetime]:
    shown: datetime | None = None
    start, end = (
        span.start.astimezone(UTC).replace(tzinfo=None),
        span.end.astimezone(UTC).replace(tzinfo=None),
    )
    for begin, until, offset in offsets(zone, start, end):
        wall = begin + offset
        hour = wall.replace(minute=0, second=0, microsecond=0)
        if hour < wall:
            if shown is not None and hour > shown:
                yield begin.replace(tzinfo=UTC)  # the change skipped the beginning of this hour
            hour += _HOUR
        instant = hour - offset
        while instant < until:
            yield instant.replace(tzinfo=UTC)
            instant += _HOUR
        shown = until + offset - timedelta(microseconds=1)


def _first_day(granularity: Granularity, day: date) -> date:
    if granularity is Granularity.WEEKLY:
        return day - day.weekday() * _DAY
    return day.replace(day=1) if granularity is Granularity.MONTHLY else day


def _next_day(granularity: Granularity, day: date) -> date:
    if granularity is Granularity.MONTHLY:
        return date(day.year + day.month // 12, day.month % 12 + 1, 1)
    return day + (7 if granularity is Granularity.WEEKLY else 1) * _DAY


def _instant(text: str, zone: ZoneInfo, *, days: int) -> datetime:
    """The instant that a text is, or the midnight so many days after the date that it is."""
    shown = repr(text[:40])
    neither = f"{shown} is neither a date (2025-11-01) nor an instant (2025-11-01T06:00:00Z)"
    if not _CALENDAR_DAY.match(text):  # ISO 8601 has other forms too, such as weeks, which Python reads
        raise ValueError(neither)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(neither) from error
    if not FIRST_YEAR <= moment.year <= LAST_YEAR:
        raise ValueError(f"{shown} is out of bounds: years are from {FIRST_YEAR} to {LAST_YEAR}")
    if len(text) == len("2025-11-01"):
        return first_instant(zone, moment + days * _DAY)
    if moment.tzinfo is None:
        raise ValueError(f"the instant {shown} needs an offset from UTC, such as Z or +01:00")
    return moment.astimezone(UTC)
