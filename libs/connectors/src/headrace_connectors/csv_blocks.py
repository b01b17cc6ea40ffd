"""Rows of the scratch as CSV in blocks of about a megabyte: NULL is bare, every text is quoted."""

from __future__ import annotations

import io
from collections.abc import AsyncGenerator
from contextlib import aclosing

from headrace_connectors.blocking import in_thread
from headrace_connectors.scratch import Scratch
from headrace_connectors.transfer import BLOCK_BYTES, Meter, batches


async def csv_blocks(
    scratch: Scratch, sql: str, row_bytes: int, meter: Meter, what: str, delimiter: str = ","
) -> AsyncGenerator[bytes, None]:
    """The result of ``sql`` as CSV without a header; to be closed like :func:`batches`.

    :raises ConnectorError: what the query meets.
    """
    from pyarrow import csv

    options = csv.WriteOptions(include_header=False, quoting_style="needed", delimiter=delimiter)
    async with aclosing(batches(scratch, sql, row_bytes, what)) as rows:
        async for batch in rows:

            def encode() -> bytes:
                buffer = io.BytesIO()
                csv.write_csv(batch, buffer, options)  # noqa: B023 - runs before the next batch is asked for
                return buffer.getvalue()

            text = await in_thread(encode)
            for start in range(0, len(text), BLOCK_BYTES):
                yield text[start : start + BLOCK_BYTES]
            meter.add(batch.num_rows, len(text))
