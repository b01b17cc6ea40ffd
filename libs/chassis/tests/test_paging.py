"""Page cursors: made by us, for one list, or refused."""

import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest
from headrace_chassis.errors import InvalidCursor
from headrace_chassis.paging import Cursors, SortValue, page_limit
from hypothesis import given
from hypothesis import strategies as st

KEY = b"k" * 32
CURSORS = Cursors(KEY)

values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.uuids(),
    st.datetimes(timezones=st.just(UTC)),
)


@given(st.lists(values, max_size=4))
def test_values_come_back_as_they_were(row: list[SortValue]) -> None:
    assert CURSORS.decode("pipelines", CURSORS.encode("pipelines", *row)) == tuple(row)


def test_a_cursor_is_url_safe() -> None:
    text = CURSORS.encode("pipelines", datetime(2026, 1, 2, tzinfo=UTC), uuid.uuid4(), "ü?&=/")
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


@given(st.data())
def test_an_altered_cursor_is_refused(data: st.DataObject) -> None:
    text = CURSORS.encode("pipelines", "name", 3)
    index = data.draw(st.integers(0, len(text) - 2))  # the last character may have bits that do not count
    other = data.draw(st.sampled_from("ABCabc019-_").filter(lambda c: c != text[index]))
    with pytest.raises(InvalidCursor):
        CURSORS.decode("pipelines", text[:index] + other + text[index + 1 :])


@pytest.mark.parametrize(
    "text", ["", "x", "====", "a b", "ä", "A" * 100, "A" * 10_000, "'; DROP TABLE x; --"]
)
def test_a_made_up_cursor_is_refused(text: str) -> None:
    with pytest.raises(InvalidCursor):
        CURSORS.decode("pipelines", text)


def test_a_cursor_of_another_list_or_key_is_refused() -> None:
    text = CURSORS.encode("pipelines", 1)
    with pytest.raises(InvalidCursor):
        CURSORS.decode("runs", text)
    with pytest.raises(InvalidCursor):
        Cursors(b"x" * 32).decode("pipelines", text)


def test_a_short_key_fails_the_start(tmp_path: Path) -> None:
    short = tmp_path / "cursor.key"
    short.write_bytes(b"x" * 31 + b"\n")
    with pytest.raises(ValueError, match=r"CURSOR_KEY_FILE: .* fewer than 32"):
        Cursors.from_file(short)


@pytest.mark.parametrize(("asked", "given_"), [(0, 20), (-1, 20), (1, 1), (200, 200), (201, 200)])
def test_a_page_has_its_bounds(asked: int, given_: int) -> None:
    assert page_limit(asked) == given_
