"""The gate before a load: do all rows fit, how many are they, and what is their checksum — in one scan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headrace_connectors import canonical
from headrace_connectors.errors import ConnectorError, configuration, data
from headrace_connectors.identifiers import quote, quote_all
from headrace_connectors.model import Column, PartitionRange
from headrace_connectors.scratch import Scratch

_OUT = "__headrace_out"


@dataclass(frozen=True)
class Check:
    """A condition no row may meet: ``violated`` is SQL over the relation."""

    column: str
    violated: str
    expected: str
    value_class: str


@dataclass(frozen=True)
class Passed:
    """What the gate learned of rows that may pass.  ``row_bytes`` is the average size of a row as text,
    roughly."""

    relation: str
    rows: int
    checksum: str
    row_bytes: int


async def materialised(scratch: Scratch, relation: str) -> str:
    """``relation`` itself when it is a table, else a table made of it: what was checked must be what is
    loaded."""
    if await scratch.fetch("SELECT 1 FROM duckdb_tables() WHERE table_name = ?", [relation]):
        return relation
    table = f"{_OUT}_{relation}"
    await scratch.compute(table, f"SELECT * FROM {quote(relation)}")
    return table


async def release(scratch: Scratch, relation: str, table: str) -> None:
    """Drop the table :func:`materialised` made, if it made one."""
    if table != relation:
        await scratch.drop(table)


async def inspect(
    scratch: Scratch, table: str, columns: Sequence[Column], checks: Sequence[Check], keys: Sequence[str] = ()
) -> Passed:
    """Scan the table once: count, checksum, size and the first row that violates each check.

    The checksum is the sum of 64-bit row hashes, so it does not depend on the order of rows, and a doubled
    row shows.

    :raises ConnectorError: VALUE_DOES_NOT_FIT (class DATA) with column, row number, key and the class of the
        value.
    """
    names = [quote(column.name) for column in columns]
    sizes = [f"coalesce(sum(strlen({quote(c.name)})), 0)" for c in columns if c.type in ("VARCHAR", "JSON")]
    firsts = [f"min(rowid) FILTER (WHERE {check.violated})" for check in checks]
    selected = ["count(*)", f"coalesce(sum(hash({', '.join(names)})), 0)", " + ".join(sizes) or "0", *firsts]
    row = (await scratch.fetch(f"SELECT {', '.join(selected)} FROM {quote(table)}"))[0]
    count = int(str(row[0]))
    bad = [
        (int(str(first)), check) for first, check in zip(row[3:], checks, strict=True) if first is not None
    ]
    if bad:
        number, check = min(bad, key=lambda entry: entry[0])
        raise await _misfit(scratch, table, number, check, keys)
    checksum = f"hash64:{int(str(row[1])) % 2**64:016x}"
    return Passed(table, count, checksum, 16 * len(columns) + int(str(row[2])) // max(count, 1))


async def _misfit(scratch: Scratch, table: str, number: int, check: Check, keys: Sequence[str]) -> Exception:
    key = await _key_of(scratch, table, number, keys)
    place = f"row {number + 1}" + (f" ({key})" if key else "")
    details = {"column": check.column, "row": str(number + 1), "value_class": check.value_class}
    if key:
        details["key"] = key
    return data(
        "VALUE_DOES_NOT_FIT",
        f"column {check.column}, {place}: {check.value_class} does not fit {check.expected}",
        **details,
    )


async def _key_of(scratch: Scratch, table: str, number: int, keys: Sequence[str]) -> str:
    if not keys:
        return ""
    texts = ", ".join(f"CAST({quote(key)} AS VARCHAR)" for key in keys)
    rows = await scratch.fetch(f"SELECT {texts} FROM {quote(table)} WHERE rowid = {number}")
    return ", ".join(f"{key}={value}" for key, value in zip(keys, rows[0], strict=True)) if rows else ""


async def require_unique(scratch: Scratch, table: str, keys: Sequence[str]) -> None:
    """Refuse an incoming set that has a key twice: which of the rows should win is not ours to guess.

    :raises ConnectorError: DUPLICATE_KEY (class DATA) naming one such key.
    """
    for parts in _PARTS:
        try:
            found = await _repeated(scratch, table, keys, parts)
            break
        except ConnectorError as error:
            if error.code != "MEMORY_LIMIT" or parts == _PARTS[-1]:
                raise
    if found:
        *values, times = found[0]
        key = ", ".join(f"{name}={value}" for name, value in zip(keys, values, strict=True))
        raise duplicate_key(key, int(str(times)))


_PARTS = (1, 8, 64)
"""Into how many parts the keys are divided where memory is too small for all of them at once: DuckDB spills
groups, but not beyond a few times its memory."""


async def _repeated(
    scratch: Scratch, table: str, keys: Sequence[str], parts: int
) -> list[tuple[object, ...]]:
    """One key that stands there more than once, as texts, with how often."""
    listed = quote_all(tuple(keys))
    texts = ", ".join(f"CAST({quote(key)} AS VARCHAR)" for key in keys)
    for part in range(parts):
        origin = quote(table) + (f" WHERE hash({listed}) % {parts} = {part}" if parts > 1 else "")
        found = await scratch.fetch(
            f"SELECT {texts}, count(*) FROM {origin} GROUP BY {listed} HAVING count(*) > 1 LIMIT 1"
        )
        if found:
            return found
    return []


def duplicate_key(key: str, times: int) -> Exception:
    """The error for a merge whose incoming rows have a key more than once."""
    return data("DUPLICATE_KEY", f"the incoming rows have the key {key} {times} times", key=key)


def key_checks(keys: Sequence[str]) -> list[Check]:
    """Keys must be there in every row."""
    return [Check(key, f"{quote(key)} IS NULL", "a key", "NULL") for key in keys]


def partition_checks(partition: PartitionRange, kind: str) -> list[Check]:
    """Rows of a replace_partition load must lie in the range that is replaced, or a repeat would leave them
    behind.

    :raises ConnectorError: TYPE_MISMATCH when the column cannot be compared with the ends of the range.
    """
    numbers = isinstance(partition.start, int)
    wanted = "numbers" if numbers else "dates or times"
    if kind == "TIME" or not (canonical.is_number(kind) if numbers else kind in canonical.TEMPORAL):
        raise configuration(
            "TYPE_MISMATCH",
            f"the partition goes from {partition.start} to {partition.end}, and the column "
            f"{partition.column} of the rows is {kind}: it must hold {wanted}",
            column=partition.column,
            type=kind,
        )
    column = quote(partition.column)
    low, high = (bound_literal(value, kind) for value in (partition.start, partition.end))
    inside = f"{column} >= {low} AND {column} < {high}"
    return [
        Check(
            partition.column,
            f"NOT coalesce({inside}, false)",
            f"the partition [{partition.start}, {partition.end})",
            "a value outside the partition",
        )
    ]


def bound_literal(value: object, kind: str) -> str:
    """An end of a partition range as SQL that compares with a column of canonical type ``kind``."""
    import datetime as dt

    from headrace_connectors.canonical import TIMESTAMPTZ

    if isinstance(value, dt.datetime):
        if kind == TIMESTAMPTZ:
            aware = value if value.tzinfo else value.replace(tzinfo=dt.UTC)
            return f"TIMESTAMPTZ '{aware.astimezone(dt.UTC).isoformat(sep=' ')}'"
        naive = value.astimezone(dt.UTC).replace(tzinfo=None) if value.tzinfo else value
        return f"TIMESTAMP '{naive.isoformat(sep=' ')}'"
    if isinstance(value, dt.date):
        label = "TIMESTAMPTZ" if kind == TIMESTAMPTZ else "DATE"
        return f"{label} '{value.isoformat()}{' 00:00:00+00' if label == 'TIMESTAMPTZ' else ''}'"
    return str(int(str(value)))
