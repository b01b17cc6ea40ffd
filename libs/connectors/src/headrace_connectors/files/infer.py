"""Types of text columns that nobody has declared: the narrowest one that every value is, exactly as
written."""

from __future__ import annotations

from collections.abc import Sequence

from headrace_connectors.canonical import TIMESTAMPTZ
from headrace_connectors.identifiers import literal, quote
from headrace_connectors.scratch import Scratch

_INTEGER = "-?(0|[1-9][0-9]*)"
_CLOCK = "[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}(:[0-9]{2}(\\.[0-9]{1,6})?)?"
_FIRST_LOOK = 10_000
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


async def infer(scratch: Scratch, table: str, columns: Sequence[str]) -> list[str]:
    """The type of each text column of ``table``.

    A first look at some rows only rules candidates out (one value is enough for that); what is left is asked
    of every row.
    """
    candidates = {column: list(_PREDICATES) for column in columns}
    first = f"(SELECT * FROM {quote(table)} LIMIT {_FIRST_LOOK})"
    candidates = await _surviving(scratch, first, candidates)
    candidates = await _surviving(scratch, quote(table), candidates)
    chosen: list[str] = []
    for column in columns:
        kinds = candidates[column]
        kind = kinds[0] if kinds else "VARCHAR"
        chosen.append(await _decimal(scratch, table, column) if kind == "DECIMAL" else kind)
    return chosen


async def guess(scratch: Scratch, table: str, columns: Sequence[str]) -> dict[str, str | None] | None:
    """What the first rows suggest, by column; None for one without a value yet.

    A type that every later value confirms (:func:`guessed`) is the one :func:`infer` would find, since the
    narrower ones are ruled out here already.  None altogether when a column needs its digits counted.
    """
    candidates = await _surviving(scratch, quote(table), {column: list(_PREDICATES) for column in columns})
    counts = ", ".join(f"count({column})" for column in columns)
    held = (await scratch.fetch(f"SELECT {counts} FROM {quote(table)}"))[0]
    found = {column: (candidates[column] or ["VARCHAR"])[0] for column in columns}
    if "DECIMAL" in found.values():
        return None
    return {column: found[column] if count else None for column, count in zip(columns, held, strict=True)}


def guessed(column: str, kind: str) -> str:
    """SQL that reads a text as the guessed type, or stops with :data:`WRONG_GUESS`."""
    if kind == "VARCHAR":
        return column
    held = _PREDICATES[kind].format(column)
    wrong = f"error('headrace:' || CAST(json_object('code', {literal(WRONG_GUESS)}) AS VARCHAR))"
    return f"CASE WHEN {column} IS NULL THEN NULL WHEN {held} THEN CAST({column} AS {kind}) ELSE {wrong} END"


async def _surviving(scratch: Scratch, origin: str, candidates: dict[str, list[str]]) -> dict[str, list[str]]:
    """The candidates that hold for every value; a column without a value has none, and stays text."""
    parts: list[str] = []
    for column, kinds in candidates.items():
        parts.append(f"count({column})")
        parts += [f"count(*) FILTER (WHERE {_PREDICATES[kind].format(column)})" for kind in kinds]
    if not parts:
        return candidates
    counts = [
        int(str(value)) for value in (await scratch.fetch(f"SELECT {', '.join(parts)} FROM {origin}"))[0]
    ]
    survivors: dict[str, list[str]] = {}
    position = 0
    for column, kinds in candidates.items():
        total = counts[position]
        held = counts[position + 1 : position + 1 + len(kinds)]
        survivors[column] = (
            [kind for kind, count in zip(kinds, held, strict=True) if count == total]
            if total or origin.startswith("(")
            else []
        )
        position += 1 + len(kinds)
    return survivors


async def _decimal(scratch: Scratch, table: str, column: str) -> str:
    """The DECIMAL that holds every digit, or text when there is none."""
    whole = f"max(length(ltrim(split_part({column}, '.', 1), '-')))"
    fraction = f"max(length(split_part({column}, '.', 2)))"
    row = (await scratch.fetch(f"SELECT {whole}, {fraction} FROM {quote(table)}"))[0]
    before, after = int(str(row[0])), int(str(row[1]))
    return f"DECIMAL({before + after},{after})" if before + after <= 38 else "VARCHAR"
