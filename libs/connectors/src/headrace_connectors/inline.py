"""Rows written in the definition itself."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from decimal import Decimal

import orjson

from headrace_connectors import canonical
from headrace_connectors.errors import configuration
from headrace_connectors.identifiers import literal, quote
from headrace_connectors.model import Column, ProgressListener, SourceResult, SourceSpec, no_progress
from headrace_connectors.previews import ReadPreview
from headrace_connectors.scratch import Scratch

_BATCH = 1000


class InlineSource:
    """``values: [{id: 1, name: x}]``.  A key a row does not have is NULL; declared types are law, others are
    seen."""

    def __init__(self, spec: SourceSpec) -> None:
        rows = list(spec.values or ())
        names = list(dict.fromkeys(name for row in rows for name in row)) or list(spec.schema)
        if not names:
            raise configuration("NO_COLUMNS", "inline values need at least one row, or a schema")
        unknown = [name for name in spec.schema if name not in names]
        if unknown:
            raise configuration(
                "COLUMN_NOT_FOUND", f"no inline row has column {unknown[0]}", column=unknown[0]
            )
        chosen = list(spec.columns) or names
        missing = [name for name in chosen if name not in names]
        if missing:
            raise configuration(
                "COLUMN_NOT_FOUND", f"no inline row has column {missing[0]}", column=missing[0]
            )
        self._rows: Sequence[Mapping[str, object]] = rows
        self._columns = [
            Column(
                name,
                canonical.normalise(spec.schema[name], name) if name in spec.schema else _seen(name, rows),
            )
            for name in chosen
        ]

    async def columns(self) -> list[Column]:
        """The columns in the order of their first appearance."""
        return list(self._columns)

    async def load(
        self, scratch: Scratch, relation: str, progress: ProgressListener = no_progress
    ) -> SourceResult:
        """Insert the rows, as text, through the same strict conversion as any other text."""
        await scratch.make(relation, self._columns)
        names = [f"c{index}" for index in range(len(self._columns))]
        expressions = [
            canonical.converting(f"CAST({name} AS VARCHAR)", column.type, column.name, "'row ' || r", "fail")
            for name, column in zip(names, self._columns, strict=True)
        ]
        for start in range(0, len(self._rows), _BATCH):
            rows = self._rows[start : start + _BATCH]
            tuples = ", ".join(
                f"({number}, {', '.join(_text(row.get(column.name)) for column in self._columns)})"
                for number, row in enumerate(rows, start + 1)
            )
            await scratch.execute(
                f"INSERT INTO {quote(relation)} SELECT {', '.join(expressions)} "
                f"FROM (VALUES {tuples}) AS v(r, {', '.join(names)})"
            )
            progress(start + len(rows), 0)
        return SourceResult(len(self._rows), 0)

    async def preview(self, scratch: Scratch) -> ReadPreview:
        """The columns; how many rows there are is known."""
        return ReadPreview(tuple(self._columns), estimated_rows=len(self._rows))

    async def close(self) -> None:
        """Nothing to let go of."""


def _text(value: object) -> str:
    """A value of YAML or JSON as an SQL literal of its text."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "'true'" if value else "'false'"
    if isinstance(value, dt.datetime | dt.date | dt.time):
        return literal(value.isoformat(sep=" ") if isinstance(value, dt.datetime) else value.isoformat())
    if isinstance(value, dict | list):
        return literal(orjson.dumps(value).decode())
    text = str(value)
    if "\0" in text:
        return " || chr(0) || ".join(literal(part) for part in text.split("\0"))
    return literal(text)


def _seen(name: str, rows: Sequence[Mapping[str, object]]) -> str:
    """The narrowest type that holds every value of a column exactly.

    :raises ConnectorError: TYPES_MIXED.
    """
    kinds = {_kind(row[name]) for row in rows if row.get(name) is not None}
    if not kinds:
        return "VARCHAR"
    if len(kinds) == 1:
        return kinds.pop()
    numbers = {"BIGINT", "HUGEINT", "DOUBLE"}
    if kinds <= numbers and "DOUBLE" not in kinds:
        return "HUGEINT"
    if kinds <= numbers and not any(_loses_digits(row.get(name)) for row in rows):
        return "DOUBLE"
    raise configuration(
        "TYPES_MIXED",
        f"column {name} of the inline values holds {' and '.join(sorted(kinds))}; declare its type in schema",
        column=name,
    )


def _loses_digits(value: object) -> bool:
    """Whether a DOUBLE would round it."""
    return (
        isinstance(value, int) and abs(value) > 2**53 and (abs(value) > 2**1023 or int(float(value)) != value)
    )


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "BOOLEAN"
    if isinstance(value, int):
        return "BIGINT" if -(2**63) <= value < 2**63 else "HUGEINT"
    if isinstance(value, float):
        return "DOUBLE"
    if isinstance(value, Decimal):
        return f"DECIMAL(38,{max(0, -int(value.as_tuple().exponent))})"
    if isinstance(value, dt.datetime):
        return canonical.TIMESTAMPTZ if value.tzinfo else "TIMESTAMP"
    if isinstance(value, dt.date):
        return "DATE"
    return "JSON" if isinstance(value, dict | list) else "VARCHAR"
