"""The grammar of cron expressions."""

import pytest
from croniter import croniter
from croniter.croniter import CroniterError
from headrace_timetable import CronError, CronExpression, parse
from hypothesis import assume, given, settings
from hypothesis import strategies as st

FIELDS = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of month", 1, 31, ()),
    ("month", 1, 12, ("jan", "FEB", "Mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "DEC")),
    ("day of week", 0, 7, ("sun", "MON", "Tue", "wed", "thu", "fri", "SAT")),
)


@st.composite
def parts(draw: st.DrawFn, low: int, high: int, names: tuple[str, ...]) -> str:
    """One element of a list: a star, a value or a range, with or without a step."""
    kind = draw(st.sampled_from(["star", "value", "range", "name"]))
    step = draw(st.sampled_from(["", "/1", "/2", "/5"]))
    if kind == "star":
        return "*" + step
    if kind == "name" and names:
        return draw(st.sampled_from(names))
    first = draw(st.integers(low, high))
    if kind == "range":
        last = draw(st.integers(first, high))
        # croniter reads `1-1` as a range around the whole field; Debian's cron, as the one value
        assume(first < last)
        return f"{first}-{last}{step}"
    return str(first)


@st.composite
def expressions(draw: st.DrawFn) -> str:
    """Valid-looking expressions of the whole grammar."""
    fields = [
        ",".join(draw(st.lists(parts(low, high, names), min_size=1, max_size=3)))
        for _, low, high, names in FIELDS
    ]
    return " ".join(fields)


def parse_or_none(text: str) -> CronExpression | None:
    try:
        return parse(text)
    except CronError:
        return None


@settings(deadline=None)
@given(expressions())
def test_rendering_and_parsing_again_gives_an_equal_expression(text: str) -> None:
    cron = parse_or_none(text)
    assume(cron is not None)
    assert parse(str(cron)) == cron


@settings(deadline=None)
@given(expressions())
def test_values_agree_with_croniter_where_both_accept(text: str) -> None:
    cron = parse_or_none(text)
    assume(cron is not None)
    try:
        expanded, _ = croniter.expand(text)
    except CroniterError:
        assume(False)
    assert cron is not None
    ours = (cron.minutes, cron.hours, cron.days_of_month, cron.months, cron.days_of_week)
    for values, theirs, (name, low, high, _) in zip(ours, expanded, FIELDS, strict=True):
        top = 6 if name == "day of week" else high
        full = frozenset(range(low, top + 1))
        expected = full if "*" in theirs else frozenset(int(value) for value in theirs)
        if name == "day of week":
            expected = frozenset(value % 7 for value in expected)
        assert values == expected, name


@given(st.text(max_size=40))
def test_any_text_parses_or_raises_a_cron_error(text: str) -> None:
    cron = parse_or_none(text)
    assert cron is None or cron.minutes


@pytest.mark.parametrize(
    ("text", "field", "position"),
    [
        ("61 * * * *", "minute", 1),
        ("* 24 * * *", "hour", 3),
        ("1-5/0 * * * *", "minute", 5),
        ("* 22-2 * * *", "hour", 3),
        ("0 0 * * fri-mon", "day of week", 9),
        ("1-0 * * * *", "minute", 1),
        ("0 0 0 * *", "day of month", 5),
        ("0 0 ? * *", "day of month", 5),
        ("0 0 L * *", "day of month", 5),
        ("0 0 15W * *", "day of month", 5),
        ("0 0 * * 1#2", "day of week", 9),
        ("R R * * *", "minute", 1),
        ("0 0 * * 8", "day of week", 9),
        ("0,,5 * * * *", "minute", 3),
        ("0 0 1, * *", "day of month", 7),
        ("*/x * * * *", "minute", 3),
        ("*/61 * * * *", "minute", 3),
        ("-5 * * * *", "minute", 1),
        ("5- * * * *", "minute", 3),
        ("0 0 * foo *", "month", 7),
        ("0 0 30 2 *", "day of month", 5),
        ("0 0 31 4,6,9,11 *", "day of month", 5),
        ("٣ * * * *", "minute", 1),
    ],
)
def test_errors_name_the_field_and_the_character(text: str, field: str, position: int) -> None:
    with pytest.raises(CronError) as caught:
        parse(text)
    assert (caught.value.field, caught.value.position) == (field, position)


@pytest.mark.parametrize(
    "text", ["", "* * * *", "* * * * * *", "0 0 0 * * * *", "@daily", "@reboot", "*" * 2000]
)
def test_anything_but_five_fields_is_refused(text: str) -> None:
    with pytest.raises(CronError) as caught:
        parse(text)
    assert caught.value.field == ""


def test_sunday_is_zero_and_seven_and_sun() -> None:
    assert parse("0 0 * * 0") == parse("0 0 * * 7") == parse("0 0 * * Sun")


def test_a_range_may_end_the_week_with_sunday() -> None:
    assert parse("0 0 * * fri-sun").days_of_week == {5, 6, 0}
    assert parse("0 0 * * 5-7").days_of_week == {5, 6, 0}


def test_day_fields_join_by_or_unless_one_begins_with_a_star() -> None:
    either = parse("0 0 13 * 5")
    assert either.matches_day(6, 13, 1)
    assert either.matches_day(6, 12, 5)
    both = parse("0 0 */5 * 1")
    assert both.days_must_agree
    assert not both.matches_day(1, 6, 3)
    assert both.matches_day(1, 6, 1)


def test_an_impossible_date_may_stand_beside_a_weekday() -> None:
    # given both day fields restricted, the weekday alone is enough
    assert parse("0 0 30 2 1").matches_day(2, 5, 1)


def test_a_wildcard_job_is_one_whose_minute_or_hour_begins_with_a_star() -> None:
    assert parse("*/30 2 * * *").follows_wall_clock
    assert parse("0 * * * *").follows_wall_clock
    assert not parse("30 2 * * *").follows_wall_clock


def test_tabs_and_many_blanks_separate_fields() -> None:
    assert parse("  0\t2   *  * * ") == parse("0 2 * * *")


def test_an_end_of_line_is_left_off_and_places_stay_right() -> None:
    assert parse("0 2 * * *\n") == parse("0 2 * * *")
    with pytest.raises(CronError) as caught:
        parse("\n0 24 * * *\n")
    assert (caught.value.field, caught.value.position) == ("hour", 4)


def test_a_range_of_one_value_is_that_value() -> None:
    assert parse("0 0 * 3-3 0-0").months == {3}
    assert parse("0 0 * 3-3 0-0").days_of_week == {0}


def test_a_step_on_a_single_start_runs_to_the_end() -> None:
    assert parse("5/15 * * * *").minutes == {5, 20, 35, 50}
