"""Ticks through changes of the clock, held against a second implementation where the two should agree."""

from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from zoneinfo import ZoneInfo, available_timezones

import pytest
from cronsim import CronSim
from headrace_timetable import CronExpression, next_tick, parse, ticks
from headrace_timetable.clock_changes import changes_in
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
ZONES = st.sampled_from(sorted(available_timezones() - {"Factory", "localtime"}))
YEARS = st.integers(1980, 2100)
YEARS_COMPARED = 4
COMPARED = 15
"""How many ticks of each case are looked at."""


@st.composite
def places(draw: st.DrawFn) -> tuple[str, datetime]:
    """A zone and an instant: mostly within days of a change of its clock, which is where rules differ."""
    name, year = draw(ZONES), draw(YEARS)
    changes = changes_in(ZoneInfo(name), year)
    day = datetime(year, 1, 1) + timedelta(days=draw(st.integers(0, 364)))  # noqa: DTZ001
    begin = draw(st.sampled_from([day, *(change.at for change in changes for _ in range(2))]))
    return name, (begin + timedelta(hours=draw(st.floats(-72, 24)))).replace(tzinfo=UTC)


class Endless(Exception):  # noqa: N818 - it names a fact
    """The second implementation goes round in a circle."""


class SecondImplementation(CronSim):
    """cronsim, which says so when it does not get on."""

    steps = 0

    def tick(self, seconds: int = 1) -> None:
        self.steps += 1
        if self.steps > 50_000:  # some thousands are the most that it takes where it gets on
            raise Endless
        super().tick(seconds)


def comparable_until(expression: CronExpression, zone: ZoneInfo, after: datetime) -> datetime:
    """Up to when the two should agree: four years, or the first change of the clock that cronsim 2.8 treats
    otherwise.

    - A jump of more than three hours is a correction of the clock (cron(8)), after which nothing is made up
      for. cronsim has no such rule: Apia, which had no 30 December 2011, Vostok, Casey.
    - It goes on to a day by its midnight, even where a clock has none because it jumps over it (Santiago,
      Beirut, Novosibirsk 1984): jobs that follow the clock then fire at a time that is none, or miss the
      first hour that is one.
    - It steps by whole hours, and so comes out beside its hours where jobs follow a clock that jumps by
      another amount (Lord Howe, by half an hour).
    """
    start = after.replace(tzinfo=None)
    end = last_compared(after)
    for year in range(start.year, end.year):
        for change in changes_in(zone, year):
            shown, shows = change.at + change.before, change.at + change.after
            jumps_midnight = (
                shown < shows
                and (shows - timedelta(microseconds=1)).date() != (shown - timedelta(microseconds=1)).date()
            )
            odd = bool(change.shift % timedelta(hours=1))
            unlike = expression.follows_wall_clock and (jumps_midnight or odd)
            if start - timedelta(days=1) < change.at and (abs(change.shift) > timedelta(hours=3) or unlike):
                return change.at.replace(tzinfo=UTC)
    return end


def last_compared(after: datetime) -> datetime:
    """Up to when ticks are compared where all changes are plain."""
    return datetime(after.year + YEARS_COMPARED, 1, 1, tzinfo=UTC)


@settings(max_examples=500, deadline=None)
@given(EXPRESSIONS, places())
def test_ticks_agree_with_a_second_implementation(expression: str, place: tuple[str, datetime]) -> None:
    # given a starting point in the zone; cronsim yields aware times of it
    name, after = place
    zone, parsed = ZoneInfo(name), parse(expression)
    until = comparable_until(parsed, zone, after)
    # when
    found = list(islice(takewhile(lambda tick: tick < until, ticks(parsed, zone, after)), COMPARED))
    # then
    expected, is_whole = second(expression, after.astimezone(zone), until)
    assert is_whole or until < last_compared(after), "endless where all changes are plain"
    assert (found if is_whole else found[: len(expected)]) == expected


def second(expression: str, after: datetime, until: datetime) -> tuple[list[datetime], bool]:
    """The ticks of cronsim before an instant, and whether it came to an end: asked for the tick after the
    last one it may look at a change that it does not know how to treat, and go round in a circle there.
    """
    found: list[datetime] = []
    theirs = SecondImplementation(expression, after)
    try:
        while len(found) < COMPARED and (tick := next(theirs).astimezone(UTC)) < until:
            found.append(tick)
    except Endless:
        return found, False
    return found, True


@settings(max_examples=100, deadline=None)
@given(EXPRESSIONS, places())
def test_the_next_tick_does_not_depend_on_where_one_starts(
    expression: str, place: tuple[str, datetime]
) -> None:
    name, after = place
    zone, parsed = ZoneInfo(name), parse(expression)
    one, two, three = islice(ticks(parsed, zone, after), 3)
    assert next_tick(parsed, zone, one) == two
    assert next_tick(parsed, zone, two - timedelta(seconds=1)) == two
    assert one < two < three
