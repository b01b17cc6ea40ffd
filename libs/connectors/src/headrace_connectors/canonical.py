"""Canonical types: DuckDB's type names, and how text becomes a value of one without changing on the way."""

from __future__ import annotations

import re

from headrace_connectors.errors import configuration
from headrace_connectors.identifiers import literal

INTEGER_RANGES: dict[str, tuple[int, int]] = {
    **{
        name: (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        for name, bits in (
            ("TINYINT", 8),
            ("SMALLINT", 16),
            ("INTEGER", 32),
            ("BIGINT", 64),
            ("HUGEINT", 128),
        )
    },
    **{
        name: (0, 2**bits - 1)
        for name, bits in (
            ("UTINYINT", 8),
            ("USMALLINT", 16),
            ("UINTEGER", 32),
            ("UBIGINT", 64),
            ("UHUGEINT", 128),
        )
    },
}
FLOATS = frozenset({"FLOAT", "DOUBLE"})
TEMPORAL = frozenset(
    {"DATE", "TIME", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"}
)
TIMESTAMPTZ = "TIMESTAMP WITH TIME ZONE"

_DECIMAL = re.compile(r"DECIMAL\((\d+),\s*(\d+)\)")
_DECLARABLE = re.compile(r"""[A-Za-z_][A-Za-z0-9_ ,()\[\]"']*""")


def normalise(declared: str, column: str) -> str:
    """The canonical name of a type a user wrote (``int`` → ``INTEGER``, ``string`` → ``VARCHAR``).

    :raises ConnectorError: TYPE_UNKNOWN.
    """
    import duckdb

    problem = configuration(
        "TYPE_UNKNOWN", f"column {column}: {declared!r} is not a type", column=column, type=declared
    )
    if not _DECLARABLE.fullmatch(declared.strip()):
        raise problem
    try:
        return str(duckdb.sqltype(declared.strip()))
    except duckdb.Error as error:
        raise problem from error


def is_number(kind: str) -> bool:
    """Whether values of a canonical type are numbers."""
    return kind in INTEGER_RANGES or kind in FLOATS or decimal_of(kind) is not None


def decimal_of(kind: str) -> tuple[int, int] | None:
    """Precision and scale of a DECIMAL type, else None."""
    match = _DECIMAL.fullmatch(kind)
    return (int(match[1]), int(match[2])) if match else None


def is_nested(kind: str) -> bool:
    """Whether values of the type have parts (lists, structs, maps, unions)."""
    return kind.endswith("]") or kind.startswith(("STRUCT", "MAP", "UNION", "LIST"))


_NOT_IN_ARROW = ("INTERVAL", "BIT", "TIME WITH TIME ZONE", "HUGEINT")
"""What Arrow would change: it counts intervals in nanoseconds, has no zone for a time, and 38 digits at
most."""


def through_arrow(sql: str, kind: str, column: str) -> str:
    """SQL for a value on its way through Arrow: text where Arrow would change it; a CAST to ``kind`` brings
    it back.

    :raises ConnectorError: TYPE_NOT_SUPPORTED for such a type inside a list or struct.
    """
    if is_nested(kind):
        if any(part in kind for part in _NOT_IN_ARROW):
            raise configuration(
                "TYPE_NOT_SUPPORTED",
                f"column {column}: {kind} cannot be moved without loss; cast its parts to VARCHAR",
                column=column,
                type=kind,
            )
        return sql
    if kind in _NOT_IN_ARROW or kind in ("UHUGEINT", "UUID", "JSON") or kind.startswith("ENUM"):
        return f"CAST({sql} AS VARCHAR)"
    return sql


def reading(text: str, kind: str) -> tuple[str, str]:
    """SQL for reading the text expression ``text`` as ``kind``: the value, and whether it is what the text
    said.

    DuckDB's own casts round (``'1.005'`` to ``1.01``, ``'1.5'`` to ``2``), cut (a timestamp to its date,
    nanoseconds to microseconds) and overflow to infinity.  The second expression is false for each of these.
    """
    value = f"TRY_CAST({text} AS {kind})"
    if kind == "VARCHAR":
        return text, "true"
    if kind in INTEGER_RANGES:
        return value, _matches(text, r"\s*[+-]?[0-9]+\s*")
    decimal = decimal_of(kind)
    if decimal is not None:
        scale = decimal[1]
        return value, _matches(
            text, rf"\s*[+-]?([0-9]+(\.[0-9]{{0,{scale}}}0*)?|\.[0-9]{{1,{max(scale, 1)}}}0*)\s*"
        )
    if kind in FLOATS:
        return value, f"(NOT isinf({value}) OR contains(lower({text}), 'inf'))"
    if kind == "DATE":
        return value, f"NOT contains({text}, ':')"
    if kind in TEMPORAL:
        digits = {"TIMESTAMP_S": 0, "TIMESTAMP_MS": 3, "TIMESTAMP_NS": 9}.get(kind, 6)
        # Most stamps have no fraction, and looking for a point costs a tenth of the pattern.
        exact = (
            f"(NOT contains({text}, '.') OR NOT regexp_matches({text}, '\\.[0-9]{{{digits}}}[0-9]*[1-9]'))"
        )
        if kind in (TIMESTAMPTZ, "TIME"):
            return value, exact
        return value, f"({exact} AND NOT regexp_matches({text}, ':[0-9.]+\\s*([a-zA-Z]|[+-][0-9])'))"
    if kind == "JSON":
        return f"CAST({text} AS JSON)", f"json_valid({text})"
    return value, "true"


def converting(
    text: str, kind: str, column: str, row: str, on_unrepresentable: str, value: str | None = None
) -> str:
    """SQL that turns ``text`` into ``kind``, or stops with the column, the row and the class of the value.

    ``row`` is SQL for what finds the row; ``value`` replaces the cast where the text has a form of its own.
    """
    cast, faithful = reading(text, kind)
    if value is not None:
        cast, faithful = value, "true"
    if kind == "VARCHAR" and value is None:
        return text
    good = f"{faithful} AND {cast} IS NOT NULL"
    if on_unrepresentable == "null":
        return f"CASE WHEN {text} IS NOT NULL AND {good} THEN {cast} END"
    failing = _failing(text, kind, column, row)
    return f"CASE WHEN {text} IS NULL THEN NULL WHEN {good} THEN {cast} ELSE {failing} END"


def value_class(text: str) -> str:
    """SQL that says what kind of value a text is, without showing it."""
    return (
        f"CASE WHEN {text} = '' THEN 'an empty string' WHEN lower({text}) = 'nan' THEN 'NaN'"
        f" WHEN lower({text}) IN ('infinity', '-infinity', 'inf', '-inf') THEN 'infinity'"
        f" WHEN TRY_CAST({text} AS DOUBLE) IS NOT NULL THEN 'a number outside the range or precision of "
        "the type'"
        f" WHEN regexp_matches({text}, '^[+-]?[0-9]{{4,6}}-[0-9]{{2}}-[0-9]{{2}}')"
        f" THEN 'a date or time outside the range or precision of the type' ELSE 'text' END"
    )


def _matches(text: str, pattern: str) -> str:
    return f"regexp_full_match({text}, {literal(pattern)})"


def _failing(text: str, kind: str, column: str, row: str) -> str:
    """``error(…)`` with everything :func:`headrace_connectors.duck.translate` needs for a precise message."""
    return (
        f"error('headrace:' || CAST(json_object('column', {literal(column)}, 'type', {literal(kind)}, "
        f"'row', {row}, 'value_class', {value_class(text)}) AS VARCHAR))"
    )
