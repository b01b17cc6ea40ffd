"""Where a zone's offset from UTC changes. zoneinfo tells offsets and keeps the changes to itself."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

_STEP = timedelta(days=2)
"""No zone of the tz database changes its offset twice within it: the shortest time between two changes is
almost four days, in Freetown in 1939, and almost seven since 1970."""
_REACH = timedelta(days=2)
"""No offset, and no change of one, is longer."""


@dataclass(frozen=True, slots=True)
class Change:
    """An instant (UTC, naive) from which another offset holds."""

    at: datetime
    before: timedelta
    after: timedelta

    @property
    def shift(self) -> timedelta:
        """How far the wall clock jumps: forward where positive."""
        return self.after - self.before


def offset_at(zone: ZoneInfo, instant: datetime) -> timedelta:
    """The offset that holds at an instant (UTC, naive)."""
    offset = instant.replace(tzinfo=UTC).astimezone(zone).utcoffset()
    assert offset is not None  # noqa: S101 - a ZoneInfo always knows its offset
    return offset


@lru_cache(maxsize=8192)
def changes_in(zone: ZoneInfo, year: int) -> tuple[Change, ...]:
    """The changes of a zone in a year of UTC, in their order."""
    found = []
    end = datetime(year + 1, 1, 1)  # noqa: DTZ001 - instants of this module are naive and UTC
    left = datetime(year, 1, 1)  # noqa: DTZ001
    before = offset_at(zone, left - timedelta(seconds=1))
    first = offset_at(zone, left)
    if first != before:
        found.append(Change(left, before, first))
    before = first
    while left < end:
        right = min(left + _STEP, end - timedelta(seconds=1))
        if right <= left:
            break
        after = offset_at(zone, right)
        if after != before:
            found.append(Change(_bisect(zone, left, right, before), before, after))
            before = after
        left = right
    return tuple(found)


def _bisect(zone: ZoneInfo, left: datetime, right: datetime, before: timedelta) -> datetime:
    """The first second in (left, right] at which the offset is no longer the one at `left`."""
    while right - left > timedelta(seconds=1):
        middle = left + timedelta(seconds=int((right - left).total_seconds()) // 2)
        if offset_at(zone, middle) == before:
            left = middle
        else:
            right = middle
    return right


def first_instant(zone: ZoneInfo, wall: datetime) -> datetime:
    """When the clock of a zone first shows a time (naive) or, where a change skips it, a later one; in UTC.

    The first of two equal hours; the end of a gap for every time within it.
    """
    gap = _gap_over(zone, wall)
    return gap.at.replace(tzinfo=UTC) if gap else wall.replace(tzinfo=zone, fold=0).astimezone(UTC)


def last_instant(zone: ZoneInfo, wall: datetime) -> datetime:
    """When the clock of a zone last shows a time (naive), else as `first_instant`; in UTC."""
    gap = _gap_over(zone, wall)
    return gap.at.replace(tzinfo=UTC) if gap else wall.replace(tzinfo=zone, fold=1).astimezone(UTC)


def _gap_over(zone: ZoneInfo, wall: datetime) -> Change | None:
    """The change that skips a time of the wall clock."""
    shown = wall.replace(tzinfo=zone, fold=0).astimezone(UTC).astimezone(zone).replace(tzinfo=None)
    if shown == wall:
        return None
    for year in {(wall - _REACH).year, (wall + _REACH).year}:
        for change in changes_in(zone, year):
            if change.at + change.before <= wall < change.at + change.after:
                return change
    raise AssertionError("a time that a clock never shows is within a change of it")


def offsets(zone: ZoneInfo, start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime, timedelta]]:
    """Spans of one offset that make up [start, end): the first instant of each, its end, and its offset.

    All instants are naive and UTC.
    """
    begin, offset = start, offset_at(zone, start)
    for year in range(start.year, end.year + 1):
        for change in changes_in(zone, year):
            if start < change.at < end:
                yield begin, change.at, offset
                begin, offset = change.at, change.after
    if begin < end:
        yield begin, end, offset
