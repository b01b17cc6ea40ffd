"""Rows of the scratch into a file: CSV, JSON or Parquet, streamed and synced."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from headrace_connectors import canonical
from headrace_connectors.blocking import in_thread
from headrace_connectors.csv_blocks import csv_blocks
from headrace_connectors.errors import configuration
from headrace_connectors.files.options import Dialect
from headrace_connectors.gate import Check
from headrace_connectors.identifiers import literal, quote
from headrace_connectors.model import Column, FileFormat
from headrace_connectors.scratch import Scratch
from headrace_connectors.transfer import Meter, batches, translate

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")

_NOT_IN_PARQUET = ("INTERVAL", "BIT", "TIME WITH TIME ZONE", "UHUGEINT")


def checks(columns: Sequence[Column], form: FileFormat) -> list[Check]:
    """What every row must satisfy to be written in a format.

    :raises ConnectorError: TYPE_NOT_SUPPORTED.
    """
    found: list[Check] = []
    for column in columns:
        sql = quote(column.name)
        if form == "csv" and canonical.is_nested(column.type):
            raise _not_supported(column, "CSV", "turn it into JSON (to_json) or scalar columns")
        if form == "parquet" and any(kind in column.type for kind in _NOT_IN_PARQUET):
            raise _not_supported(column, "Parquet", "cast it to VARCHAR")
        if form == "parquet" and column.type == "HUGEINT":
            bad = f"{sql} IS NOT NULL AND TRY_CAST({sql} AS DECIMAL(38,0)) IS NULL"
            found.append(Check(column.name, bad, "Parquet's 38 digits", "a number out of range"))
        if form == "json" and column.type in canonical.FLOATS:
            bad = f"coalesce(NOT isfinite({sql}), false)"
            found.append(Check(column.name, bad, "JSON, which knows finite numbers only", "NaN or infinity"))
    return found


async def write(
    scratch: Scratch,
    relation: str,
    columns: Sequence[Column],
    path: Path,
    form: FileFormat,
    dialect: Dialect,
    array: bool,
    row_bytes: int,
    meter: Meter,
) -> int:
    """Write the relation to ``path`` and sync it; gives the size of the file.

    :raises ConnectorError: DISK_FULL, FILE_IO, PERMISSION_DENIED.
    """
    what = f"writing {path.name}"
    if form == "parquet":
        return await _write_parquet(scratch, relation, columns, path, row_bytes, meter)
    if form == "csv":
        listed = ", ".join(f"{_csv_value(column)} AS {quote(column.name)}" for column in columns)
        sql = f"SELECT {listed} FROM {quote(relation)}"
        head = _csv_header(columns, dialect) if dialect.header else b""
        async with aclosing(csv_blocks(scratch, sql, row_bytes, meter, what, dialect.delimiter)) as blocks:
            return await _write_blocks(path, head, blocks, b"", what)
    async with aclosing(_json_lines(scratch, relation, columns, row_bytes, meter, array)) as texts:
        return await _write_blocks(path, b"[\n" if array else b"", texts, b"\n]\n" if array else b"", what)


async def _write_blocks(path: Path, head: bytes, blocks: AsyncIterator[bytes], tail: bytes, what: str) -> int:
    file = await _on_disk(lambda: path.open("wb"), what)
    try:
        await _on_disk(lambda: file.write(head), what)
        async for block in blocks:
            await _on_disk(lambda: file.write(block), what)  # noqa: B023
        await _on_disk(lambda: file.write(tail), what)
        return await _on_disk(lambda: _synced(file), what)
    finally:
        await _on_disk(lambda: _shut(file), what)


async def _write_parquet(
    scratch: Scratch, relation: str, columns: Sequence[Column], path: Path, row_bytes: int, meter: Meter
) -> int:
    from pyarrow import parquet

    what = f"writing {path.name}"
    listed = ", ".join(f"{_parquet_value(column)} AS {quote(column.name)}" for column in columns)
    file = await _on_disk(lambda: path.open("wb"), what)
    writer: Any = None
    try:
        schema: pa.Schema = await in_thread(lambda: _schema(scratch, listed, relation))
        writer = await _on_disk(lambda: parquet.ParquetWriter(file, schema, compression="zstd"), what)
        sql = f"SELECT {listed} FROM {quote(relation)}"
        async with aclosing(batches(scratch, sql, row_bytes, what)) as rows:
            async for batch in rows:
                await _on_disk(lambda: writer.write_batch(batch), what)  # noqa: B023
                meter.add(batch.num_rows, batch.nbytes)
        await _on_disk(writer.close, what)
        return await _on_disk(lambda: _synced(file), what)
    finally:
        await _on_disk(lambda: _shut(file), what)


def _schema(scratch: Scratch, listed: str, relation: str) -> pa.Schema:
    """The Arrow schema, which a result without rows has too."""
    cursor = scratch.cursor()
    try:
        return cursor.sql(f"SELECT {listed} FROM {quote(relation)} LIMIT 0").to_arrow_reader(1).schema
    finally:
        cursor.close()


async def _json_lines(
    scratch: Scratch, relation: str, columns: Sequence[Column], row_bytes: int, meter: Meter, array: bool
) -> AsyncGenerator[bytes, None]:
    pairs = ", ".join(f"{literal(column.name)}, {_json_value(column)}" for column in columns)
    sql = f"SELECT CAST(json_object({pairs}) AS VARCHAR) AS line FROM {quote(relation)}"
    between = ",\n" if array else "\n"
    first = True
    async with aclosing(batches(scratch, sql, row_bytes, "writing JSON")) as rows:
        async for batch in rows:
            text = between.join(batch.column(0).to_pylist())
            block = (text if array else text + "\n").encode()
            if array and not first:
                block = between.encode() + block
            first = False
            meter.add(batch.num_rows, len(block))
            yield block


def _csv_header(columns: Sequence[Column], dialect: Dialect) -> bytes:
    names = ('"' + column.name.replace('"', '""') + '"' for column in columns)
    return (dialect.delimiter.join(names) + "\n").encode()


def _csv_value(column: Column) -> str:
    sql = quote(column.name)
    plain = column.type in canonical.INTEGER_RANGES or column.type in (
        "BOOLEAN",
        "VARCHAR",
        "DOUBLE",
        "FLOAT",
    )
    return sql if plain and column.type not in ("HUGEINT", "UHUGEINT") else f"CAST({sql} AS VARCHAR)"


def _json_value(column: Column) -> str:
    sql = quote(column.name)
    kind = column.type
    structured = (
        canonical.is_nested(kind) or kind in ("JSON", "BOOLEAN", "VARCHAR") or kind in canonical.FLOATS
    )
    number = kind in canonical.INTEGER_RANGES or canonical.decimal_of(kind) is not None
    return sql if structured or number else f"CAST({sql} AS VARCHAR)"


def _parquet_value(column: Column) -> str:
    sql = quote(column.name)
    if column.type == "HUGEINT":
        return f"CAST({sql} AS DECIMAL(38,0))"
    return f"CAST({sql} AS VARCHAR)" if column.type.startswith("ENUM") or column.type == "JSON" else sql


async def _on_disk(call: Callable[[], T], what: str) -> T:
    def guarded() -> T:
        try:
            return call()
        except Exception as error:
            raise translate(error, what) from error

    return await in_thread(guarded)


def _synced(file: IO[bytes]) -> int:
    file.flush()
    os.fsync(file.fileno())
    return file.tell()


def _shut(file: IO[bytes]) -> None:
    """Close; bytes that a full disk has refused once are refused again here, and that was reported
    already."""
    try:
        file.close()
    except OSError:
        if not file.closed:
            raise


def _not_supported(column: Column, form: str, hint: str) -> Exception:
    return configuration(
        "TYPE_NOT_SUPPORTED",
        f"column {column.name}: {form} has no place for {column.type}; {hint}",
        column=column.name,
        type=column.type,
    )
