"""Small helpers of the text lane: numbers of rows, and how long a row may be."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from headrace_connectors.errors import ConnectorError, configuration
from headrace_connectors.model import SourceSpec

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")

ROW = "__row"
_BLOCK_BYTES = 1024 * 1024
_LARGE_BLOCK_BYTES = 64 * 1024 * 1024


def block_sizes(spec: SourceSpec) -> tuple[int, ...]:
    """The parser's block sizes to try in turn: a row must fit into a block, and small blocks are faster and
    cost less memory.  ``options.max_row_bytes`` sets the largest.

    :raises ConnectorError: OPTION_INVALID.
    """
    value = spec.options.get("max_row_bytes", _LARGE_BLOCK_BYTES)
    if not isinstance(value, int) or not 1024 <= value <= 1024**3:
        raise configuration("OPTION_INVALID", "max_row_bytes is a number of bytes between 1024 and 1 GiB")
    return tuple(dict.fromkeys((min(value, _BLOCK_BYTES), value)))


async def with_growing_blocks(spec: SourceSpec, load: Callable[[int], Awaitable[T]]) -> T:
    """Run ``load(block size)``, and again with larger blocks when a row was too long for the first."""
    *smaller, largest = block_sizes(spec)
    for size in smaller:
        try:
            return await load(size)
        except ConnectorError as error:
            if error.code != "ROW_TOO_LONG":
                raise
    return await load(largest)


def open_csv(file: Any, schema: pa.Schema, **options: Any) -> pa.RecordBatchReader:
    """Arrow's streaming CSV reader; a file without a byte gives no rows of ``schema`` instead of an error."""
    import pyarrow as pa
    from pyarrow import csv

    try:
        return csv.open_csv(file, **options)
    except pa.ArrowInvalid as error:
        if "Empty CSV file" not in str(error):
            raise
        return pa.RecordBatchReader.from_batches(schema, [])


def first_batch(reader: pa.RecordBatchReader) -> pa.RecordBatchReader:
    """Only the first batch of a reader."""
    import pyarrow as pa

    return pa.RecordBatchReader.from_batches(reader.schema, itertools.islice(reader, 1))


def with_row_numbers(reader: pa.RecordBatchReader) -> pa.RecordBatchReader:
    """The same batches with the number of each row, from 0, as a last column :data:`ROW`."""
    import pyarrow as pa

    schema = reader.schema.append(pa.field(ROW, pa.int64()))

    def numbered() -> Iterator[pa.RecordBatch]:
        start = 0
        for batch in reader:
            numbers = pa.arange(start, start + batch.num_rows)
            start += batch.num_rows
            yield pa.RecordBatch.from_arrays([*batch.columns, numbers], schema=schema)

    return pa.RecordBatchReader.from_batches(schema, numbered())
