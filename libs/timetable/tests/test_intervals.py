"""Intervals of backfills: dates in, half-open spans of a zone out."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from headrace_timetable.intervals import Granularity, Interval, count, intervals, range_of
from hypothesis import given, settings
from hypothesis import strategies as st

WARSAW = ZoneInfo("Europe/Warsaw")


def hours(zone: ZoneInfo, granularity: Granularity, first: str, last: str) -> list[float]:
    found = intervals(granularity, zone, range_of(first, last, zone))
    return [(interval.end - interval.start) / timedelta(hours=1) for interval in found]


def test_dates_are_inclusive() -> None:
    november = range_of("2025-11-01", "2025-11-30", WARSAW)
    assert november == Interval(
        datetime(2025, 10, 31, 23, tzinfo=UTC), datetime(2025, 11, 30, 23, tzinfo=UTC)
    )
    assert count(Granularity.DAILY, WARSAW, november, 100) == 30
    assert count(Granularity.MONTHLY, WARSAW, november, 100) == 1
    assert count(Granularity.DAILY, WARSAW, november, 10) == 11


@pytest.mark.parametrize(
    ("zone", "granularity", "first", "last", "expected"),
    [
        ("Europe/Warsaw", Granularity.DAILY, "2025-03-29", "2025-03-31", [24, 23, 24]),
        ("Europe/Warsaw", Granularity.DAILY, "2025-10-25", "2025-10-27", [24, 25, 24]),
        ("Europe/Warsaw", Granularity.HOURLY, "2025-03-30", "2025-03-30", [1] * 23),
        ("Europe/Warsaw", Granularity.HOURLY, "2025-10-26", "2025-10-26", [1] * 25),
        # Thursday to Thursday: clipped to the range on both sides.
        ("UTC", Granularity.WEEKLY, "2025-11-06", "2025-11-20", [96, 168, 96]),
        ("UTC", Granularity.MONTHLY, "2025-01-31", "2025-03-01", [24, 28 * 24, 24]),
        ("UTC", Granularity.HOURLY, "2025-01-01T10:30:00Z", "2025-01-01T13:15:00+01:00", [0.5, 1, 0.25]),
        # Half an hour forward at 02:00, and back.
        ("Australia/Lord_Howe", Granularity.HOURLY, "2025-10-05", "2025-10-05", [1, 1, 0.5] + [1] * 21),
        ("Australia/Lord_Howe", Granularity.HOURLY, "2025-04-06", "2025-04-06", [1, 1.5] + [1] * 22),
        # Midnight of that day was skipped; the day of Apia that never was has no interval.
        ("America/Havana", Granularity.DAILY, "2025-03-08", "2025-03-10", [24, 23, 24]),
        ("Pacific/Apia", Granularity.DAILY, "2011-12-29", "2011-12-31", [24, 24]),
        ("Asia/Kathmandu", Granularity.HOURLY, "2025-01-01T00:00:00Z", "2025-01-01T01:00:00Z", [0.25, 0.75]),
    ],
)
def test_intervals_follow_the_clock_of_the_zone(
    zone: str, granularity: Granularity, first: str, last: str, expected: list[float]
) -> None:
    assert hours(ZoneInfo(zone), granularity, first, last) == expected


@pytest.mark.parametrize(
    ("first", "last", "message"),
    [
        ("2025-11-02", "2025-11-01", "empty"),
        ("2025-11-02T00:00:00Z", "2025-11-02T00:00:00Z", "empty"),
        ("yesterday", "2025-11-01", "'yesterday' is neither a date"),
        ("2025-11-01T00:00:00", "2025-11-02", "needs an offset"),
        ("2025-02-29", "2025-03-01", "neither a date"),
        ("2025-W01-1", "2025-01-02", "neither a date"),
        ("20251101", "20251102", "neither a date"),
        ("1066-10-14", "2025-03-01", "years are from 1900"),
        ("2025-02-28", "9999-12-31", "years are from 1900"),
    ],
)
def test_ranges_that_mean_nothing_are_refused(first: str, last: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        range_of(first, last, WARSAW)


def test_a_hundred_thousand_hours_are_counted() -> None:
    span = range_of("2010-01-01", "2025-01-01", WARSAW)
    total = count(Granularity.HOURLY, WARSAW, span, 1_000_000)
    assert total == (span.end - span.start) / timedelta(hours=1)


ZONES = st.sampled_from(
    [
        "UTC",
        "Europe/Warsaw",
        "America/Havana",
        "America/St_Johns",
        "America/Santiago",
        "Australia/Lord_Howe",
        "Asia/Kathmandu",
        "Asia/Gaza",
        "Africa/Casablanca",
        "Antarctica/Troll",
        "Pacific/Apia",
        "Pacific/Kwajalein",
    ]
)
INSTANTS = st.datetimes(datetime(1985, 1, 1), datetime(2035, 1, 1)).map(lambda at: at.replace(tzinfo=UTC))  # noqa: DTZ001
LENGTHS = st.timedeltas(timedelta(seconds=1), timedelta(days=120))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(Granularity), ZONES, INSTANTS, LENGTHS)
def test_intervals_cover_a_range_exactly(
    granularity: Granularity, zone_name: str, start: datetime, length: timedelta
) -> None:
    zone, span = ZoneInfo(zone_name), Interval(start, start + length)
    found = list(intervals(granularity, zone, span))
    assert found[0].start == span.start
    assert found[-1].end == span.end
    assert all(one.end == two.start for one, two in pairwise(found))
    assert all(interval.start < interval.end for interval in found)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(Granularity), ZONES, INSTANTS, LENGTHS, st.integers(0, 3000))
def test_no_interval_depends_on_where_the_range_begins(
    granularity: Granularity, zone_name: str, start: datetime, length: timedelta, within: int
) -> None:
    # given a range, and one that begins where one of its intervals does
    zone, end = ZoneInfo(zone_name), start + length
    found = list(intervals(granularity, zone, Interval(start, end)))
    place = within % len(found)
    # then
    assert list(intervals(granularity, zone, Interval(found[place].start, end))) == found[place:]


@settings(max_examples=60, deadline=None)
@given(
    # Zones whose clocks never went back over a midnight, so that a date is one span.
    st.sampled_from(["UTC", "Europe/Warsaw", "America/Havana", "Australia/Lord_Howe", "Pacific/Apia"]),
    INSTANTS,
    st.timedeltas(timedelta(hours=1), timedelta(days=30)),
)
def test_days_are_the_dates_that_the_clock_shows(zone_name: str, start: datetime, length: timedelta) -> None:
    # given the dates that the clock of the zone shows, each quarter of an hour
    zone, span = ZoneInfo(zone_name), Interval(start, start + length)
    quarters = [start + n * timedelta(minutes=15) for n in range(-(-length // timedelta(minutes=15)))]
    shown = [instant.astimezone(zone).date() for instant in quarters]
    # then
    days = intervals(Granularity.DAILY, zone, span)
    assert {day.start.astimezone(zone).date() for day in days} >= set(shown)
    for day in intervals(Granularity.DAILY, zone, span):
        inside = {
            date for instant, date in zip(quarters, shown, strict=True) if day.start <= instant < day.end
        }
        assert inside <= {day.start.astimezone(zone).date()}
