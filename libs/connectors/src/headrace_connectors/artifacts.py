"""Relations handed from one stage to the next as Parquet files, with every type restored on arrival."""

from __future__ import annotations

import os
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace_connectors import canonical
from headrace_connectors.blocking import in_thread
from headrace_connectors.errors import configuration
from headrace_connectors.files.ledger import sync_folder
from headrace_connectors.gate import inspect
from headrace_connectors.identifiers import quote
from headrace_connectors.model import Column, SourceResult, Staged, no_progress
from headrace_connectors.scratch import Scratch
from headrace_connectors.transfer import Meter, batches, insert, translate

if TYPE_CHECKING:
    import pyarrow as pa

_NAMES, _TYPES = b"headrace.names", b"headrace.types"
_BATCH_ROWS = 16_384


async def export_parquet(scratch: Scratch, relation: str, path: str) -> Staged:
    """See :func:`headrace_connectors.api.export_parquet`."""
    columns = await scratch.columns(relation)
    passed = await inspect(scratch, relation, columns, ())
    listed = ", ".join(f"{_out(column)} AS c{index}" for index, column in enumerate(columns))
    final = Path(path)
    fresh = final.with_name(final.name + ".new")
    writer: list[Any] = []

    def add(batch: pa.RecordBatch) -> None:
        from pyarrow import parquet

        if not writer:
            schema = batch.schema.with_metadata(_metadata(columns))
            writer.append(parquet.ParquetWriter(fresh, schema, compression="zstd"))
        writer[0].write_batch(batch.replace_schema_metadata(_metadata(columns)))

    final.parent.mkdir(parents=True, exist_ok=True)
    sql = f"SELECT {listed} FROM {quote(relation)}"
    empty = await in_thread(lambda: _empty(scratch, sql))
    try:
        await _guarded(lambda: add(empty), final)
        try:
            async with aclosing(batches(scratch, sql, passed.row_bytes, f"writing {final.name}")) as rows:
                async for batch in rows:
                    await _guarded(lambda: add(batch), final)  # noqa: B023
        finally:
            await _guarded(lambda: writer[0].close(), final)
        size = await _guarded(lambda: _land(fresh, final), final)
    except BaseException:
        fresh.unlink(missing_ok=True)  # half a file may be what fills the disk
        raise
    return Staged(passed.rows, size, passed.checksum)


def _land(fresh: Path, final: Path) -> int:
    """Sync a file and give it its name. Returns its bytes."""
    descriptor = os.open(fresh, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    fresh.replace(final)
    sync_folder(final.parent)
    return final.stat().st_size


async def import_parquet(scratch: Scratch, relation: str, path: str) -> SourceResult:
    """See :func:`headrace_connectors.api.import_parquet`."""
    from pyarrow import parquet

    columns = await _guarded(lambda: _restored(parquet.read_schema(path)), Path(path))
    await scratch.make(relation, columns)
    meter = Meter(no_progress)

    def reader() -> Any:
        import pyarrow as pa

        file = parquet.ParquetFile(path)
        return pa.RecordBatchReader.from_batches(
            file.schema_arrow, file.iter_batches(batch_size=_BATCH_ROWS, use_threads=False)
        )

    casts = [f"CAST(c{index} AS {column.type})" for index, column in enumerate(columns)]
    await insert(scratch, relation, casts, reader, meter, what=Path(path).name)
    return SourceResult(meter.rows, meter.bytes)


def _out(column: Column) -> str:
    return canonical.through_arrow(quote(column.name), column.type, column.name)


def _metadata(columns: list[Column]) -> dict[bytes, bytes]:
    import orjson

    return {
        _NAMES: orjson.dumps([column.name for column in columns]),
        _TYPES: orjson.dumps([column.type for column in columns]),
    }


def _restored(schema: pa.Schema) -> list[Column]:
    import orjson

    metadata = schema.metadata or {}
    if _NAMES not in metadata:
        raise configuration("ARTIFACT_INVALID", "the file is not an artifact of a stage")
    names, types = orjson.loads(metadata[_NAMES]), orjson.loads(metadata[_TYPES])
    return [Column(name, kind) for name, kind in zip(names, types, strict=True)]


def _empty(scratch: Scratch, sql: str) -> pa.RecordBatch:
    import pyarrow as pa

    cursor = scratch.cursor()
    try:
        schema = cursor.sql(f"{sql} LIMIT 0").to_arrow_reader(1).schema
    finally:
        cursor.close()
    return pa.RecordBatch.from_pylist([], schema=schema)


async def _guarded(call: Any, path: Path) -> Any:
    def guarded() -> Any:
        try:
            return call()
        except Exception as error:
            raise translate(error, path.name) from error

    return await in_thread(guarded)
