"""Types of text columns that nobody has declared: the narrowest one that every value is, exactly as
written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headrace_connectors.canonical import TIMESTAMPTZ
from headrace_connectors.identifiers import literal, quote
from headrace_connectors.scratch import Scratch

_INTEGER = "-?(0|[1-9][0-9]*)"
_CLOCK = "[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}(:[0-9]{2}(\\.[0-9]{1,6})?)?"
_FIRST_LOOK = 256
_ASKED_AT_ONCE = 32
"""Columns in one query: planning it costs the square of the expressions in it, so that a thousand columns in
one take half a minute."""
WRONG_GUESS = "WRONG_GUESS"
_PREDICATES = {
    "BOOLEAN": "lower({0}) IN ('true', 'false')",
    "BIGINT": f"regexp_full_match({{0}}, '{_INTEGER}') AND TRY_CAST({{0}} AS BIGINT) IS NOT NULL",
    # 15 digits are what a DOUBLE gives back as they were.
    "DOUBLE": f"regexp_full_match({{0}}, '{_INTEGER}(\\.[0-9]+)?([eE][+-]?[0-9]+)?') "
    "AND NOT isinf(TRY_CAST({0} AS DOUBLE)) "
    "AND length(ltrim(translate(split_part(lower({0}), 'e', 1), '-.', ''), '0')) <= 15",
    "DECIMAL": f"regexp_full_match({{0}}, '{_INTEGER}(\\.[0-9]+)?')",
    "DATE": "regexp_full_match({0}, '[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}') AND TRY_CAST({0} AS DATE) IS "
    "NOT NULL",
    "TIMESTAMP": f"regexp_full_match({{0}}, '{_CLOCK.replace('{', '{{').replace('}', '}}')}') "
    "AND TRY_CAST({0} AS TIMESTAMP) IS NOT NULL",
    TIMESTAMPTZ: f"regexp_full_match({{0}}, '{_CLOCK.replace('{', '{{').replace('}', '}}')}"
    "(Z|[+-][0-9]{{2}}(:?[0-9]{{2}})?)') "
    f"AND TRY_CAST({{0}} AS {TIMESTAMPTZ}) IS NOT NULL",
}


async def possible(scratch: Scratch, table: str, columns: Sequence[str]) -> dict[str, list[str]]:
    """The kinds that the first rows do not rule out, narrowest first, by column: one value is enough to rule
    most of them out.

    All columns are asked in the same expressions: planning one costs as much as hundreds of values.
    """
    if not columns:
        return {}
    first = f"SELECT {', '.join(columns)} FROM {quote(table)} LIMIT {_FIRST_LOOK}"
    held = ", ".join(
        f"bool_and(coalesce({predicate.format('value')}, false))" for predicate in _PREDICATES.values()
    )
    rows = await scratch.fetch(
        f"SELECT name, {held} FROM (UNPIVOT ({first}) ON {', '.join(columns)} INTO NAME name VALUE value) "
        "GROUP BY name"
    )
    seen = {
        str(name): [k for k, always in zip(_PREDICATES, holds, strict=True) if always]
        for name, *holds in rows
    }
    return {column: seen.get(column, list(_PREDICATES)) for column in columns}


async def infer(
    scratch: Scratch, table: str, columns: Sequence[str], left: dict[str, list[str]]
) -> list[str]:
    """The type of each text column of ``table``; ``left`` are the kinds that are not ruled out yet."""
    found = await _narrowest(scratch, table, columns, left)
    return [
        await _decimal(scratch, table, column) if found[column] == "DECIMAL" else found[column] or "VARCHAR"
        for column in columns
    ]


async def guess(
    scratch: Scratch, table: str, columns: Sequence[str], left: dict[str, list[str]]
) -> dict[str, str | None] | None:
    """What the first rows suggest, by column; None for one without a value yet.

    What they rule out goes out of ``left``.

    A type that every later value confirms (:func:`guessed`) is the one :func:`infer` would find, since the
    narrower ones are ruled out here already.  None altogether when a column needs its digits counted.
    """
    found = await _narrowest(scratch, table, columns, left)
    return None if "DECIMAL" in found.values() else found


def guessed(column: str, kind: str) -> str:
    """SQL that reads a text as the guessed type, or stops with :data:`WRONG_GUESS`."""
    if kind == "VARCHAR":
        return column
    held = _PREDICATES[kind].format(column)
    value = f"CAST({column} AS {kind})"
    return f"CASE WHEN {column} IS NULL THEN NULL WHEN {held} THEN {value} ELSE {wrong_guess()} END"


def wrong_guess() -> str:
    """SQL that stops with :data:`WRONG_GUESS`."""
    return f"error('headrace:' || CAST(json_object('code', {literal(WRONG_GUESS)}) AS VARCHAR))"


async def _narrowest(
    scratch: Scratch, table: str, columns: Sequence[str], left: dict[str, list[str]]
) -> dict[str, str | None]:
    """The first kind of ``left`` that every value is, by column; None for a column without a value.

    Every value is asked about one kind at a time, since the first that holds for all of them is the answer;
    those before it go out of ``left``.
    """
    counts = ", ".join(f"count({column})" for column in columns) or "0"
    values = dict(
        zip(columns, (await scratch.fetch(f"SELECT {counts} FROM {quote(table)}"))[0], strict=False)
    )
    found: dict[str, str | None] = {column: "VARCHAR" if values[column] else None for column in columns}
    asked = {column for column in columns if values[column] and left[column]}
    while asked:
        held = await _held(scratch, quote(table), {column: left[column][0] for column in sorted(asked)})
        for column, holds in held.items():
            if holds:
                found[column] = left[column][0]
            else:
                left[column].pop(0)
            if holds or not left[column]:
                asked.discard(column)
    return found


async def _held(scratch: Scratch, origin: str, kinds: Mapping[str, str]) -> dict[str, bool]:
    """Whether every value of a column is of a kind."""
    found: dict[str, bool] = {}
    asked = list(kinds.items())
    for start in range(0, len(asked), _ASKED_AT_ONCE):
        group = asked[start : start + _ASKED_AT_ONCE]
        parts = ", ".join(
            f"coalesce(bool_and(coalesce({_PREDICATES[kind].format(column)}, false)) "
            f"FILTER (WHERE {column} IS NOT NULL), true)"
            for column, kind in group
        )
        row = (await scratch.fetch(f"SELECT {parts} FROM {origin}"))[0]
        found |= {column: bool(holds) for (column, _), holds in zip(group, row, strict=True)}
    return found


async def _decimal(scratch: Scratch, table: str, column: str) -> str:
    """The DECIMAL that holds every digit, or text when there is none."""
    whole = f"max(length(ltrim(split_part({column}, '.', 1), '-')))"
    fraction = f"max(length(split_part({column}, '.', 2)))"
    row = (await scratch.fetch(f"SELECT {whole}, {fraction} FROM {quote(table)}"))[0]
    before, after = int(str(row[0])), int(str(row[1]))
    return f"DECIMAL({before + after},{after})" if before + after <= 38 else "VARCHAR"
