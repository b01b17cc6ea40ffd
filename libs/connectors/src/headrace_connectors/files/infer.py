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
    """The type of each text column of ``table``."""
    found = await _narrowest(scratch, table, columns)
    return [
        await _decimal(scratch, table, column) if found[column] == "DECIMAL" else found[column] or "VARCHAR"
        for column in columns
    ]


async def guess(scratch: Scratch, table: str, columns: Sequence[str]) -> dict[str, str | None] | None:
    """What the first rows suggest, by column; None for one without a value yet.

    A type that every later value confirms (:func:`guessed`) is the one :func:`infer` would find, since the
    narrower ones are ruled out here already.  None altogether when a column needs its digits counted.
    """
    found = await _narrowest(scratch, table, columns)
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


async def _narrowest(scratch: Scratch, table: str, columns: Sequence[str]) -> dict[str, str | None]:
    """The first kind that every value is, by column; None for a column without a value.

    A look at the first rows rules most kinds out: one value is enough for that.  Then every value is asked
    about one kind at a time, since the first that holds for all of them is the answer.
    """
    first = f"(SELECT * FROM {quote(table)} LIMIT {_FIRST_LOOK})"
    held = await _held(scratch, first, {column: tuple(_PREDICATES) for column in columns})
    left = {column: [kind for kind, always in held[column].items() if always] for column in columns}
    counts = ", ".join(f"count({column})" for column in columns) or "0"
    values = dict(
        zip(columns, (await scratch.fetch(f"SELECT {counts} FROM {quote(table)}"))[0], strict=False)
    )
    found: dict[str, str | None] = {column: "VARCHAR" if values[column] else None for column in columns}
    asked = {column: kinds for column, kinds in left.items() if values[column] and kinds}
    while asked:
        held = await _held(scratch, quote(table), {column: (kinds[0],) for column, kinds in asked.items()})
        for column, kinds in list(asked.items()):
            kind = kinds.pop(0)
            if held[column][kind]:
                found[column] = kind
            if held[column][kind] or not kinds:
                del asked[column]
    return found


async def _held(
    scratch: Scratch, origin: str, kinds: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, bool]]:
    """Whether every value of a column is of a kind."""
    asked = [(column, kind) for column, some in kinds.items() for kind in some]
    if not asked:
        return {}
    parts = ", ".join(
        f"coalesce(bool_and(coalesce({_PREDICATES[kind].format(column)}, false)) "
        f"FILTER (WHERE {column} IS NOT NULL), true)"
        for column, kind in asked
    )
    row = (await scratch.fetch(f"SELECT {parts} FROM {origin}"))[0]
    answers: dict[str, dict[str, bool]] = {column: {} for column in kinds}
    for (column, kind), holds in zip(asked, row, strict=True):
        answers[column][kind] = bool(holds)
    return answers


async def _decimal(scratch: Scratch, table: str, column: str) -> str:
    """The DECIMAL that holds every digit, or text when there is none."""
    whole = f"max(length(ltrim(split_part({column}, '.', 1), '-')))"
    fraction = f"max(length(split_part({column}, '.', 2)))"
    row = (await scratch.fetch(f"SELECT {whole}, {fraction} FROM {quote(table)}"))[0]
    before, after = int(str(row[0])), int(str(row[1]))
    return f"DECIMAL({before + after},{after})" if before + after <= 38 else "VARCHAR"
