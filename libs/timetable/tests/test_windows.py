"""Maintenance windows over midnight and through changes of the clock."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from headrace_timetable.windows import InstantWindow, WeeklyWindow, Windows

WARSAW = ZoneInfo("Europe/Warsaw")


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def weekly(days: set[int], start: float, end: float) -> WeeklyWindow:
    return WeeklyWindow(frozenset(days), timedelta(hours=start), timedelta(hours=end))


@pytest.mark.parametrize(
    ("window", "instant", "end"),
    [
        # Friday 22:00 to Saturday 06:00 in Warsaw, an hour ahead of UTC.
        (weekly({4}, 22, 6), "2025-11-07 20:59", None),
        (weekly({4}, 22, 6), "2025-11-07 21:00", "2025-11-08 05:00"),
        (weekly({4}, 22, 6), "2025-11-08 04:59", "2025-11-08 05:00"),
        (weekly({4}, 22, 6), "2025-11-08 05:00", None),
        (weekly({4}, 22, 6), "2025-11-08 22:00", None),
        (weekly({5}, 0, 24), "2025-11-08 12:00", "2025-11-08 23:00"),
        # 02:00-03:00 comes twice on 2025-10-26, from 00:00 and from 01:00 UTC: the window goes on.
        (weekly({6}, 1, 2.5), "2025-10-26 00:45", "2025-10-26 01:30"),
        (weekly({6}, 1, 2.5), "2025-10-26 01:15", "2025-10-26 01:30"),
        # 02:00-03:00 does not come on 2025-03-30: a window from 02:30 begins at 03:00, which is 01:00 UTC.
        (weekly({6}, 2.5, 4), "2025-03-30 00:59", None),
        (weekly({6}, 2.5, 4), "2025-03-30 01:00", "2025-03-30 02:00"),
        (weekly({6}, 2.25, 2.5), "2025-03-30 01:00", None),
        (InstantWindow(utc("2025-01-01 00:00"), utc("2025-01-02 00:00")), "2025-01-02 00:00", None),
    ],
)
def test_a_window_ends(window: WeeklyWindow | InstantWindow, instant: str, end: str | None) -> None:
    assert Windows((window,)).end_at(utc(instant), WARSAW) == (utc(end) if end else None)


def test_adjoining_windows_are_one() -> None:
    # given every night from 22:00 to 02:00, from 02:00 to 04:00, and once from 04:00 to noon
    once = InstantWindow(utc("2025-11-08 03:00"), utc("2025-11-08 11:00"))
    windows = Windows((weekly(set(range(7)), 22, 2), weekly(set(range(7)), 2, 4), once))
    # then
    assert windows.end_at(utc("2025-11-07 21:30"), WARSAW) == utc("2025-11-08 11:00")
    assert windows.end_at(utc("2025-11-08 21:30"), WARSAW) == utc("2025-11-09 03:00")


@pytest.mark.parametrize(
    "windows",
    [
        (weekly(set(range(7)), 0, 24),),
        (weekly(set(range(7)), 20, 8), weekly(set(range(7)), 8, 20)),
        (weekly({5, 6}, 0, 24), weekly({0, 1, 2, 3, 4}, 0, 24)),
    ],
)
def test_windows_that_leave_no_time_are_refused(windows: tuple[WeeklyWindow, ...]) -> None:
    with pytest.raises(ValueError, match="no time of the week"):
        Windows(windows)
    for window in windows:
        shorter = WeeklyWindow(window.days, window.start, window.end - timedelta(minutes=1))
        Windows(tuple(shorter if other is window else other for other in windows))


def test_empty_windows_are_refused() -> None:
    with pytest.raises(ValueError, match="length"):
        weekly({1}, 2, 2)
    with pytest.raises(ValueError, match="at least one day"):
        weekly(set(), 2, 3)
    with pytest.raises(ValueError, match="end after"):
        InstantWindow(utc("2025-01-02 00:00"), utc("2025-01-02 00:00"))
