"""The order of the rules, catch-up, and work that stays bounded."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from headrace_timetable import parse
from headrace_timetable.calendars import Calendar
from headrace_timetable.merging import in_order
from headrace_timetable.rules import (
    CatchUp,
    CatchUpStrategy,
    Run,
    Skip,
    Timetable,
    decide,
    interval_of,
    latest,
    next_runs,
    next_start,
    upcoming,
    walk,
)
from headrace_timetable.windows import InstantWindow, WeeklyWindow, Windows
from hypothesis import given, settings
from hypothesis import strategies as st

WARSAW = ZoneInfo("Europe/Warsaw")
UTC_ZONE = ZoneInfo("UTC")
GRACE = timedelta(minutes=5)
ALL = CatchUp(CatchUpStrategy.RUN_ALL)
CURRENT = CatchUp()


def last_n(limit: int) -> CatchUp:
    return CatchUp(CatchUpStrategy.RUN_LATEST_N, limit)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def night(catch_up: CatchUp) -> Timetable:
    """Each hour, but not from 22:00 to 02:00 on any day."""
    window = WeeklyWindow(frozenset(range(7)), timedelta(hours=22), timedelta(hours=2))
    return Timetable(parse("0 * * * *"), UTC_ZONE, windows=Windows((window,)), catch_up=catch_up)


def shown(entries: list[Run | Skip]) -> list[str]:
    return [
        f"{entry.tick:%d %H:%M}" + (f" at {entry.starts_at:%H:%M}" if entry.starts_at != entry.tick else "")
        if isinstance(entry, Run)
        else f"{entry.first:%d %H:%M}-{entry.last:%d %H:%M} {entry.reason} {entry.detail}"
        for entry in entries
    ]


def test_the_calendar_goes_by_the_date_in_the_zone_and_skips_whole_days() -> None:
    # given twice a day in Warsaw, at 00:30 and 12:00, without holidays; 11 November is one
    calendar = Calendar(skip_holidays=True, country="PL")
    timetable = Timetable(parse("0,30 0,12 * * *"), WARSAW, calendar)
    # when
    found = list(islice(upcoming(timetable, utc("2025-11-10 11:15")), 3))
    # then
    assert shown(found) == [
        "10 11:30",
        "10 23:00-11 11:30 HOLIDAY National Independence Day",
        "11 23:00",
    ]


@pytest.mark.parametrize(
    ("catch_up", "expected"),
    [
        (
            ALL,
            ["01 21:00", "01 22:00 at 02:00", "01 23:00 at 02:00", "02 00:00 at 02:00", "02 01:00 at 02:00"],
        ),
        (
            last_n(2),
            [
                "01 21:00",
                "01 22:00-01 22:00 MAINTENANCE_WINDOW catch-up is RUN_LATEST_N (2)",
                "01 23:00-01 23:00 MAINTENANCE_WINDOW catch-up is RUN_LATEST_N (2)",
                "02 00:00-02 00:00 MAINTENANCE_WINDOW catch-up is RUN_LATEST_N (2)",
                "02 01:00 at 02:00",
            ],
        ),
        (
            CURRENT,
            ["01 21:00"]
            + [
                f"{hour}-{hour} MAINTENANCE_WINDOW catch-up is SKIP_TO_CURRENT"
                for hour in ("01 22:00", "01 23:00", "02 00:00", "02 01:00")
            ],
        ),
    ],
)
def test_maintenance_holds_ticks_until_catch_up_decides(catch_up: CatchUp, expected: list[str]) -> None:
    found = list(islice(upcoming(night(catch_up), utc("2025-06-01 20:30")), 6))
    assert shown(found) == [*expected, "02 02:00"]


def test_what_maintenance_holds_now_runs_at_its_end() -> None:
    now, decided = utc("2025-06-02 00:30"), utc("2025-06-01 20:30")
    found = upcoming(night(ALL), now, decided_until=decided)
    hours = ["01 21:00", "01 22:00", "01 23:00", "02 00:00", "02 01:00"]
    assert shown(list(islice(found, 7))) == [*(f"{hour} at 02:00" for hour in hours), "02 02:00", "02 03:00"]
    skipped = upcoming(night(CURRENT), now, decided_until=utc("2025-06-01 21:30"))
    assert [isinstance(entry, Skip) for entry in islice(skipped, 5)] == [True] * 4 + [False]


@pytest.mark.parametrize(
    ("after", "reasons"),
    [
        ("2025-06-01 22:00", ["MAINTENANCE_WINDOW"]),
        ("2025-06-01 23:00", ["MAINTENANCE_WINDOW"]),
        ("2025-06-01 20:30", ["CATCH_UP"]),
    ],
)
def test_ticks_that_are_skipped_together_in_maintenance_are_not_missed(
    after: str, reasons: list[str]
) -> None:
    minutely = replace(night(CURRENT), expression=parse("* * * * *"))
    decided = decide(minutely, utc(after), utc("2025-06-02 02:00"), grace=GRACE, at_once=100)
    assert [entry.reason for entry in decided.entries if isinstance(entry, Skip)] == reasons
    late = decide(minutely, utc(after), utc("2025-06-02 02:30"), grace=GRACE, at_once=100)
    assert [entry.reason for entry in late.entries if isinstance(entry, Skip)][-1] == "CATCH_UP"


@pytest.mark.parametrize("catch_up", [CURRENT, ALL, last_n(2)])
@pytest.mark.parametrize(
    "now", ["2025-06-01 20:30", "2025-06-01 21:30", "2025-06-02 00:30", "2025-06-02 02:00"]
)
@pytest.mark.parametrize("decided", [None, "2025-06-01 19:30", "2025-06-01 21:30", "2025-06-02 00:00"])
def test_the_next_start_is_that_of_the_first_run(catch_up: CatchUp, now: str, decided: str | None) -> None:
    until = None if decided is None else min(utc(decided), utc(now))
    found = upcoming(night(catch_up), utc(now), decided_until=until)
    first = next(entry.starts_at for entry in found if isinstance(entry, Run))
    assert next_start(night(catch_up), utc(now), decided_until=until) == first


def test_nothing_is_decided_while_maintenance_goes_on() -> None:
    during = decide(night(ALL), utc("2025-06-01 20:30"), utc("2025-06-02 01:59"), grace=GRACE)
    assert (during.entries, during.until) == ((), utc("2025-06-01 20:30"))
    after = decide(night(ALL), utc("2025-06-01 20:30"), utc("2025-06-02 02:00"), grace=GRACE)
    assert len(after.runs) == 6
    assert after.until == utc("2025-06-02 02:00")


@pytest.mark.parametrize(
    ("catch_up", "now", "runs"),
    [
        (CURRENT, "2025-06-01 12:03", ["2025-06-01 12:00"]),
        (CURRENT, "2025-06-01 12:06", []),
        (last_n(1), "2025-06-01 12:06", ["2025-06-01 12:00"]),
        (last_n(2), "2025-06-01 12:06", ["2025-06-01 11:00", "2025-06-01 12:00"]),
        (ALL, "2025-06-01 12:06", ["2025-06-01 10:00", "2025-06-01 11:00", "2025-06-01 12:00"]),
    ],
)
def test_catch_up_chooses(catch_up: CatchUp, now: str, runs: list[str]) -> None:
    timetable = Timetable(parse("0 * * * *"), UTC_ZONE)
    decided = decide(timetable, utc("2025-06-01 09:00"), utc(now), grace=GRACE, catch_up=catch_up)
    assert list(decided.runs) == [utc(run) for run in runs]
    assert len(decided.entries) == 3
    assert decided.until == utc(now)


@pytest.mark.parametrize(("catch_up", "runs"), [(CURRENT, 1), (last_n(3), 3), (last_n(700), 700), (ALL, 500)])
def test_years_of_missed_minutes_take_a_page_of_work(catch_up: CatchUp, runs: int) -> None:
    # given five years of minutes on business days; the last ones fall on a Friday
    timetable = Timetable(parse("* * * * *"), WARSAW, Calendar(business_days_only=True))
    after, now = utc("2020-01-03 00:00"), utc("2025-11-07 12:00")
    # when
    decided = decide(timetable, after, now, grace=GRACE, catch_up=catch_up)
    # then: what is not chosen is one skip, or left to be decided next
    assert len(decided.runs) == runs
    if catch_up is ALL:
        assert decided.until == decided.runs[-1] < now
        return
    skip = decided.entries[0]
    assert isinstance(skip, Skip)
    assert (skip.first, skip.last) == (after + timedelta(minutes=1), decided.runs[0] - timedelta(minutes=1))
    assert decided.until == now == decided.runs[-1]


def test_a_schedule_that_never_fires_ends() -> None:
    weekends = Timetable(parse("0 0 * * 6,0"), UTC_ZONE, Calendar(business_days_only=True))
    assert next_start(weekends, utc("2025-01-01 00:00")) is None
    maintained = WeeklyWindow(frozenset({5, 6}), timedelta(), timedelta(days=1))
    held = Timetable(parse("0 0 * * 6,0"), UTC_ZONE, windows=Windows((maintained,)))
    assert next_start(held, utc("2025-01-01 00:00")) is None
    christmas = Timetable(parse("0 0 25 12 *"), UTC_ZONE, Calendar(skip_holidays=True, country="PL"))
    assert next_start(christmas, utc("2026-01-01 00:00")) is None, "nobody knows the holidays of 2101"
    always = WeeklyWindow(frozenset(range(7)), timedelta(minutes=1), timedelta())
    minutes = Timetable(parse("5 * * * *"), UTC_ZONE, windows=Windows((always,)))
    assert next_start(minutes, utc("2025-01-01 00:00")) is None


def test_a_clock_that_goes_back_over_midnight_skips_no_day() -> None:
    # given a zone whose clock goes back at 00:01 of 7 November to 23:01 of the 6th, which is a holiday
    zone = ZoneInfo("America/St_Johns")
    holiday = frozenset({date(2010, 11, 6)})
    timetable = Timetable(parse("*/10 * * * *"), zone, Calendar(skip_holidays=True, own_holidays=holiday))
    # when
    found = list(islice(walk(timetable, utc("2010-11-06 02:15")), 7))
    # then: the first minute of the 7th counts, the hour of the 6th that comes again does not
    days = [entry.astimezone(zone).day if isinstance(entry, datetime) else "skipped" for entry in found]
    assert days == [5, "skipped", 7, "skipped", 7, 7, 7]


def test_the_interval_of_a_tick_begins_at_the_tick_before_whatever_is_left_out() -> None:
    timetable = Timetable(parse("0 2 * * *"), WARSAW, Calendar(business_days_only=True))
    assert interval_of(timetable, utc("2025-11-10 01:00")) == (
        utc("2025-11-09 01:00"),
        utc("2025-11-10 01:00"),
    )
    monthly = Timetable(parse("0 0 29 2 *"), UTC_ZONE)
    assert interval_of(monthly, utc("2104-02-29 00:00"))[0] == utc("2096-02-29 00:00")


def test_many_timetables_merge_and_only_those_whose_turn_comes_are_opened() -> None:
    # given a hundred thousand daily schedules, in the order of their next runs
    after = utc("2025-06-01 00:00")
    opened: list[int] = []

    def sources() -> Iterator[tuple[int, Timetable, datetime, None]]:
        for number in range(100_000):
            opened.append(number)
            minute, hour = number % 60, number // 60 % 24
            stored = after + timedelta(hours=hour, minutes=minute)
            yield number, Timetable(parse(f"{minute} {hour} * * *"), UTC_ZONE), stored, None

    # when
    found = list(islice(in_order(sources(), after), 20))
    # then
    assert [run.starts_at for _, run in found if isinstance(run, Run)] == [
        after + timedelta(minutes=minute) for minute in range(1, 21)
    ]
    assert len(opened) < 30


EXPRESSIONS = st.sampled_from(
    [
        "0 * * * *",
        "*/15 * * * *",
        "30 2 * * *",
        "0 9 * * 1-5",
        "15 1-3 * * *",
        "0 0 1 * *",
        "*/20 22-23 * * 6",
    ]
)
ZONES = st.sampled_from(["UTC", "Europe/Warsaw", "Australia/Lord_Howe", "Asia/Riyadh", "America/New_York"])
INSTANTS = st.datetimes(datetime(2015, 1, 1), datetime(2035, 1, 1)).map(lambda at: at.replace(tzinfo=UTC))  # noqa: DTZ001
WEEKLY = st.builds(
    lambda days, start, length: WeeklyWindow(
        frozenset(days), timedelta(minutes=start), timedelta(minutes=(start + length - 1) % 1440 + 1)
    ),
    st.sets(st.integers(0, 6), min_size=1),
    st.integers(0, 1439),
    st.integers(1, 1000),
)


@st.composite
def timetables(draw: st.DrawFn) -> Timetable:
    begin = draw(INSTANTS)
    once = InstantWindow(begin, begin + timedelta(days=draw(st.integers(1, 5))))
    try:
        windows = Windows((*draw(st.lists(WEEKLY, max_size=2)), once))
    except ValueError:
        windows = Windows((once,))
    calendar = Calendar(
        business_days_only=draw(st.booleans()),
        skip_holidays=draw(st.booleans()),
        country=draw(st.sampled_from(["PL", "SA", "US"])),
    )
    strategy = draw(st.sampled_from([ALL, CURRENT, last_n(1), last_n(3)]))
    return Timetable(parse(draw(EXPRESSIONS)), ZoneInfo(draw(ZONES)), calendar, windows, strategy)


@settings(max_examples=150, deadline=None)
@given(timetables(), INSTANTS, st.integers(1, 7))
def test_the_latest_ticks_are_the_last_of_all(timetable: Timetable, after: datetime, count: int) -> None:
    until = after + timedelta(days=40)
    everything = [entry for entry in walk(timetable, after, until) if isinstance(entry, datetime)]
    assert latest(timetable, after, until, count) == everything[-count:]


@settings(max_examples=150, deadline=None)
@given(timetables(), INSTANTS)
def test_one_who_decides_at_each_wake_starts_what_was_foretold(timetable: Timetable, after: datetime) -> None:
    # given what is foretold
    foretold = next_runs(timetable, after, 12)
    # when somebody wakes at each instant at which something starts, and decides
    position, started = after, []
    for wake in sorted({run.starts_at for run in foretold}):
        while position < wake:
            decided = decide(timetable, position, wake, grace=GRACE)
            assert decided.until > position
            position = decided.until
            started += [Run(tick, wake) for tick in decided.runs]
    # then; maintenance that ends at a tick holds more than were foretold at most
    assert started[: len(foretold)] == foretold


@settings(max_examples=150, deadline=None)
@given(timetables(), INSTANTS, st.integers(1, 4), st.integers(1, 6))
def test_deciding_in_pages_decides_each_tick_once(
    timetable: Timetable, after: datetime, days: int, at_once: int
) -> None:
    now, position = after + timedelta(days=days), after
    expected = [entry for entry in walk(timetable, after, now) if isinstance(entry, datetime)]
    runs: list[datetime] = []
    for _ in range(1000):
        decided = decide(timetable, position, now, grace=GRACE, catch_up=ALL, at_once=at_once)
        if decided.until == position:
            break  # maintenance goes on
        runs += decided.runs
        position = decided.until
        if position == now:
            break
    assert runs == (expected if position == now else [])
