"""Maintenance windows: spans of time in which no tick starts a run."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from headrace_timetable.clock_changes import first_instant, last_instant

DAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
_DAY = timedelta(days=1)
_WEEK = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class InstantWindow:
    """One span, once: from its start up to its end (exclusive). Raises ValueError where it is empty."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.start.tzinfo is None or self.end.tzinfo is None:
            raise ValueError("an instant needs a zone")
        if self.end <= self.start:
            raise ValueError("a window must end after it starts")

    def end_at(self, instant: datetime, zone: ZoneInfo) -> datetime | None:
        """When the window that holds an instant ends, in UTC; None where it does not hold it."""
        return self.end.astimezone(UTC) if self.start <= instant < self.end else None


@dataclass(frozen=True, slots=True)
class WeeklyWindow:
    """A span on days of every week, by the wall clock; over midnight where it ends no later than it starts.

    It begins when the clock first shows its start and ends when the clock last shows its end, so that a
    repeated hour does not interrupt it. One that a change of the clock skips whole does not take place.
    Raises ValueError for no days, and for a span of no time.
    """

    days: frozenset[int]
    """The days on which it starts; 0 is Monday."""
    start: timedelta
    """Since midnight; below 24 hours."""
    end: timedelta
    """Since midnight; up to 24 hours."""

    def __post_init__(self) -> None:
        if not self.days:
            raise ValueError("a weekly window needs at least one day")
        if not self.days <= frozenset(range(7)):
            raise ValueError("days are numbers from 0 (Monday) to 6")
        if not timedelta() <= self.start < _DAY or not timedelta() <= self.end <= _DAY:
            raise ValueError("a window starts from 00:00 to 23:59 and ends from 00:00 to 24:00")
        if self.start == self.end:
            raise ValueError("a window needs some length; a whole day is from 00:00 to 24:00")

    @property
    def length(self) -> timedelta:
        """How long it lasts where no clock changes."""
        return self.end - self.start if self.end > self.start else self.end + _DAY - self.start

    def end_at(self, instant: datetime, zone: ZoneInfo) -> datetime | None:
        """When the window that holds an instant ends, in UTC; None where it does not hold it."""
        shown = instant.astimezone(zone).date()
        ends = [
            end
            # One of yesterday may last over midnight; a clock may jump over a day, or back over a midnight.
            for day in (shown - 2 * _DAY, shown - _DAY, shown, shown + _DAY)
            if day.weekday() in self.days
            for begin, end in [_span(self, day, zone)]
            if begin <= instant < end
        ]
        return max(ends, default=None)


@lru_cache(maxsize=4096)
def _span(window: WeeklyWindow, day: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """When a window that starts on a day begins and ends. Kept, since each tick of the day asks for it."""
    midnight = datetime(day.year, day.month, day.day)  # noqa: DTZ001 - a time of the wall clock
    begin = midnight + window.start
    return first_instant(zone, begin), last_instant(zone, begin + window.length)


Window = InstantWindow | WeeklyWindow


@dataclass(frozen=True, slots=True)
class Windows:
    """All windows of a schedule. Raises ValueError where weekly ones leave no time of a week free."""

    windows: tuple[Window, ...] = ()

    def __post_init__(self) -> None:
        if _cover_the_week([window for window in self.windows if isinstance(window, WeeklyWindow)]):
            raise ValueError("maintenance windows leave no time of the week in which anything could run")

    def end_at(self, instant: datetime, zone: ZoneInfo) -> datetime | None:
        """When maintenance that goes on at an instant is over, in UTC, through windows that adjoin; None
        where none goes on."""
        free = instant
        while ends := [end for window in self.windows if (end := window.end_at(free, zone)) is not None]:
            free = max(ends)
        return free if free > instant else None


def _cover_the_week(windows: list[WeeklyWindow]) -> bool:
    spans = sorted(
        (day * _DAY + window.start + week * _WEEK, window.length)
        for window in windows
        for day in window.days
        for week in (-1, 0)
    )
    reached = timedelta()
    for begin, length in spans:
        if begin > reached:
            return False
        reached = max(reached, begin + length)
    return bool(spans) and reached >= _WEEK
