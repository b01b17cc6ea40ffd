"""Lengths of time."""

from datetime import timedelta

import pytest
from headrace_definition.durations import format_duration, parse_duration
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5m", 300),
        ("1h30m", 5400),
        ("2d", 172_800),
        ("1w", 604_800),
        ("250ms", 0.25),
        ("PT5M", 300),
        ("P1DT2H", 93_600),
        ("PT0.5S", 0.5),
        ("pt1m", 60),
        ("P2W", 1_209_600),
        ("90", 90),
        (90, 90),
        (0, 0),
        (" 5m ", 300),
    ],
)
def test_usual_spellings(text: str | int, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "5x",
        "m5",
        "30m1h",
        "-5m",
        "P",
        "PT",
        "P1DT",
        "P1Y",
        "P1M",
        "1.5h",
        "5 m",
        "\u0665m",
        True,
        -1,
    ],
)
def test_other_texts_are_refused(text: str | int) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["40000d", "9" * 30 + "s", 10**30, "P99999999999D"])
def test_more_than_a_hundred_years_is_refused(text: str | int) -> None:
    with pytest.raises(ValueError, match="hundred years"):
        parse_duration(text)


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=36_500)))
def test_formatting_and_parsing_gives_the_same_duration(duration: timedelta) -> None:
    assert parse_duration(format_duration(duration)) == duration


@given(st.text(alphabet="PTDHMSWdhmsw0123456789.", max_size=12))
def test_any_text_parses_or_raises_a_value_error(text: str) -> None:
    try:
        duration = parse_duration(text)
    except ValueError:
        return
    assert timedelta(0) <= duration <= timedelta(days=36_500)
