"""Small helpers of the text lane: numbers of rows, and how long a row may be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from headrace_connectors.errors import configuration
from headrace_connectors.model import SourceSpec

if TYPE_CHECKING:
    import pyarrow as pa

ROW = "__row"
_DEFAULT_ROW_BYTES = 4 * 1024 * 1024
_LEAST_BLOCK = 1024 * 1024


def row_bytes(spec: SourceSpec) -> int:
    """The longest row a source may have, in bytes of text (``options.max_row_bytes``, 4 MiB): it must fit
    into a block of the parser.

    :raises ConnectorError: OPTION_INVALID.
    """
    value = spec.options.get("max_row_bytes", _DEFAULT_ROW_BYTES)
    if not isinstance(value, int) or not 1024 <= value <= 1024**3:
        raise configuration("OPTION_INVALID", "max_row_bytes is a number of bytes between 1024 and 1 GiB")
    return max(value, _LEAST_BLOCK)


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


def with_row_numbers(reader: pa.RecordBatchReader) -> pa.RecordBatchReader:
    """The same batches with the number of each row, from 0, as a last column :data:`ROW`."""
    import numpy as np
    import pyarrow as pa

    schema = reader.schema.append(pa.field(ROW, pa.int64()))

    def numbered() -> Iterator[pa.RecordBatch]:
        start = 0
        for batch in reader:
            numbers = pa.array(np.arange(start, start + batch.num_rows, dtype=np.int64))
            start += batch.num_rows
            yield pa.RecordBatch.from_arrays([*batch.columns, numbers], schema=schema)

    return pa.RecordBatchReader.from_batches(schema, numbered())
