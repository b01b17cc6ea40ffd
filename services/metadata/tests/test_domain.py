"""Rules that need no database: names, slugs, settings, the table of deletion."""

import unicodedata
from itertools import islice

import pytest
from headrace_chassis.ids import uuid7
from headrace_metadata.domain.deletion import TRANSITIONS, Deletion
from headrace_metadata.domain.names import (
    MAX_NAME_LENGTH,
    copy_names,
    name_flaw,
    normalise_name,
    slug_candidates,
    slug_of,
)
from headrace_metadata.domain.pipelines import Change, Content, Declared, Given
from hypothesis import given
from hypothesis import strategies as st

from .support import Service


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Billing \u2013 Daily Load", "billing-daily-load"),
        ("Żółta łódź", "zolta-lodz"),
        ("測試", "pipeline"),
        ("--a--", "a"),
        ("x" * 200, "x" * 48),
    ],
)
def test_slugs_are_safe_for_files_and_identifiers(name: str, slug: str) -> None:
    assert slug_of(normalise_name(name)) == slug


@given(st.text(max_size=250))
def test_any_name_is_either_refused_or_printable_and_short(text: str) -> None:
    name = normalise_name(text)
    if name_flaw(name) is None:
        assert 1 <= len(name) <= MAX_NAME_LENGTH
        assert name.isprintable()
        assert unicodedata.is_normalized("NFC", name)


@given(st.text(min_size=1, max_size=200))
def test_slug_candidates_differ_and_are_safe(text: str) -> None:
    candidates = list(slug_candidates(text, uuid7()))
    assert len(set(candidates)) == 3
    assert all(set(slug) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") for slug in candidates)


def test_copies_are_numbered_and_never_too_long() -> None:
    assert list(islice(copy_names("a"), 3)) == ["a (copy)", "a (copy 2)", "a (copy 3)"]
    assert {len(name) for name in islice(copy_names("x" * 200), 12)} == {200}


@given(
    given=st.builds(Given, description=st.none() | st.text(), max_retries=st.none() | st.integers()),
    declared=st.builds(Declared, description=st.none() | st.text(), max_retries=st.none() | st.integers()),
)
def test_what_is_given_wins_over_what_the_text_declares(given: Given, declared: Declared) -> None:
    content = Content("n", "t", given, declared)
    for name in ("description", "max_retries"):
        winner = getattr(given, name) if getattr(given, name) is not None else getattr(declared, name)
        if winner is not None:
            assert getattr(content.settings, name) == winner
    cleared = Change(cleared=frozenset({"description"})).given_after(given)
    assert cleared.description is None
    assert cleared.max_retries == given.max_retries


@pytest.mark.parametrize("before", Deletion)
@pytest.mark.parametrize("after", Deletion)
async def test_the_database_takes_exactly_the_edges_of_deletion(
    service: Service, before: Deletion, after: Deletion
) -> None:
    created = await service.create()
    path = {Deletion.NONE: [], Deletion.CLOSING: ["CLOSING"], Deletion.DELETED: ["CLOSING", "DELETED"]}
    move = "UPDATE pipeline SET deletion = $2 WHERE id = $1"
    for step in path[before]:
        await service.rows(move, created.id, step)
    if after == before or after in TRANSITIONS[before]:
        await service.rows(move, created.id, after.value)
    else:
        with pytest.raises(Exception, match="cannot go from"):
            await service.rows(move, created.id, after.value)
