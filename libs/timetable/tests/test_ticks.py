"""Ticks through changes of the clock, held against a second implementation where the two should agree."""

from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from headrace_timetable import next_tick, parse, ticks
from hypothesis import given, settings
from hypothesis import strategies as st


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def first(expression: str, zone: str, after: str, count: int) -> list[str]:
    found = islice(ticks(parse(expression), ZoneInfo(zone), utc(after)), count)
    return [tick.strftime("%Y-%m-%d %H:%M") for tick in found]


@pytest.mark.parametrize(
    ("expression", "zone", "after", "expected"),
    [
        # Warsaw skips 02:00-03:00 on 2025-03-30, at 01:00 UTC.
        ("30 2 * * *", "Europe/Warsaw", "2025-03-29 12:00", ["2025-03-30 01:00", "2025-03-31 00:30"]),
        ("15,45 2 * * *", "Europe/Warsaw", "2025-03-29 12:00", ["2025-03-30 01:00", "2025-03-31 00:15"]),
        ("0 2,3 * * *", "Europe/Warsaw", "2025-03-29 12:00", ["2025-03-30 01:00", "2025-03-31 00:00"]),
        ("0 */2 * * *", "Europe/Warsaw", "2025-03-29 23:30", ["2025-03-30 02:00", "2025-03-30 04:00"]),
        ("*/30 * * * *", "Europe/Warsaw", "2025-03-30 00:15", ["2025-03-30 00:30", "2025-03-30 01:00"]),
        # Warsaw repeats 02:00-03:00 on 2025-10-26, at 01:00 UTC.
        ("30 2 * * *", "Europe/Warsaw", "2025-10-25 12:00", ["2025-10-26 00:30", "2025-10-27 01:30"]),
        ("30 2 * * *", "Europe/Warsaw", "2025-10-26 01:10", ["2025-10-27 01:30"]),
        ("30 * * * *", "Europe/Warsaw", "2025-10-26 00:00", ["2025-10-26 00:30", "2025-10-26 01:30"]),
        ("*/30 2 * * *", "Europe/Warsaw", "2025-10-26 00:45", ["2025-10-26 01:00", "2025-10-26 01:30"]),
        ("15 1-3 * * *", "America/New_York", "2025-11-02 04:00", ["2025-11-02 05:15", "2025-11-02 07:15"]),
        # Lord Howe's clock moves by half an hour.
        ("45 1 * * *", "Australia/Lord_Howe", "2025-04-04 16:00", ["2025-04-05 14:45", "2025-04-06 15:15"]),
        # Apia had no 30 December 2011: a jump of a day is a correction, so nothing is caught up.
        ("0 12 30,31 12 *", "Pacific/Apia", "2011-12-29 00:00", ["2011-12-30 22:00", "2012-12-29 22:00"]),
        # Days: OR where neither starts with a star, else AND.
        (
            "0 0 13 * 5",
            "UTC",
            "2025-01-01 00:00",
            ["2025-01-03 00:00", "2025-01-10 00:00", "2025-01-13 00:00"],
        ),
        ("0 0 */5 * 1", "UTC", "2025-01-01 00:00", ["2025-01-06 00:00", "2025-03-31 00:00"]),
        ("0 0 29 2 *", "UTC", "2096-03-01 00:00", ["2104-02-29 00:00"]),
    ],
)
def test_ticks_follow_debians_rules(expression: str, zone: str, after: str, expected: list[str]) -> None:
    assert first(expression, zone, after, len(expected)) == expected


def test_an_instant_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        next_tick(parse("* * * * *"), ZoneInfo("UTC"), datetime(2025, 1, 1))  # noqa: DTZ001


def _field(low: int, high: int) -> st.SearchStrategy[str]:
    value = st.integers(low, high)
    span = st.tuples(value, value).map(lambda pair: f"{min(pair)}-{max(pair)}")
    step = st.integers(2, max(2, high // 2)).map(lambda number: f"*/{number}")
    return st.one_of(st.just("*"), value.map(str), span, step)


EXPRESSIONS = st.tuples(_field(0, 59), _field(0, 23), _field(1, 28), _field(1, 12), _field(0, 6)).map(
    " ".join
)
ZONES = st.sampled_from(
    [
        "UTC",
        "Europe/Warsaw",
        "America/New_York",
        "Australia/Lord_Howe",
        "Asia/Kathmandu",
        "America/St_Johns",
        "Pacific/Chatham",
        "Africa/Casablanca",
        "America/Santiago",
        "Asia/Gaza",
        "Antarctica/Troll",
    ]
)
INSTANTS = st.datetimes(datetime(2005, 1, 1), datetime(2035, 1, 1)).map(lambda at: at.replace(tzinfo=UTC))  # noqa: DTZ001


@settings(max_examples=400, deadline=None)
@given(EXPRESSIONS, ZONES, INSTANTS)
def test_ticks_agree_with_a_second_implementation(expression: str, zone_name: str, after: datetime) -> None:
    # given a starting point in the zone; cronsim yields aware times of it
    zone = ZoneInfo(zone_name)
    expected = [tick.astimezone(UTC) for tick in islice(CronSim(expression, after.astimezone(zone)), 25)]
    # when
    found = list(islice(ticks(parse(expression), zone, after), 25))
    # then
    assert found == expected


@settings(max_examples=200, deadline=None)
@given(EXPRESSIONS, ZONES, INSTANTS)
def test_the_next_tick_does_not_depend_on_where_one_starts(
    expression: str, zone_name: str, after: datetime
) -> None:
    zone, parsed = ZoneInfo(zone_name), parse(expression)
    one, two, three = islice(ticks(parsed, zone, after), 3)
    assert next_tick(parsed, zone, one) == two
    assert next_tick(parsed, zone, two - timedelta(seconds=1)) == two
    assert one < two < three
