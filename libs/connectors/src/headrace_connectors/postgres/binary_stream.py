"""Rows in PostgreSQL's binary COPY format on their way from COPY TO to COPY FROM, untouched.

A stream is a header, rows, and a mark of its end.  The server sends each row as a message of its own, and the
driver hands on whole messages, so the blocks of several readers may follow each other in any order once each
is freed of its header and its mark: that is how key ranges become one stream again.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator
from typing import Any

from headrace_connectors.errors import transient
from headrace_connectors.transfer import Meter

_SIGNATURE = b"PGCOPY\n\xff\r\n\0"
_HEADER = _SIGNATURE + bytes(8)
"""The signature, no flags, and an extension of no bytes: all that any version of the server writes."""
_END = b"\xff\xff"
_QUEUE_BLOCKS = 8


class BinaryStream:
    """A short queue of blocks that one or more readers fill and one writer empties."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._queue: asyncio.Queue[bytearray | None] = asyncio.Queue(_QUEUE_BLOCKS)
        self.check = 0
        """The sum of the checksums of what the readers brought, whatever the order they came in."""

    async def read(self, raw: Any, query: str) -> None:
        """Put the rows of a query into the queue; several may be read at a time.

        :raises ConnectorError: COPY_FORMAT_UNKNOWN when the server writes another header.
        """
        held = bytearray()
        began = False
        check = 0

        async def put(block: bytearray) -> None:
            nonlocal held, began, check
            if not began:
                if not block.startswith(_HEADER):
                    raise transient("COPY_FORMAT_UNKNOWN", "the source writes an unknown form of binary COPY")
                began = True
                block = block[len(_HEADER) :]
            check = zlib.crc32(block, check)
            self._meter.add(0, len(block))
            if held:
                await self._queue.put(held)
            held = block  # kept back, since the last one ends with the mark; the driver does not use it again

        status = str(await raw.copy_from_query(query, output=put, format="binary"))
        if rest := held.removesuffix(_END):
            await self._queue.put(rest)
        self._meter.add(int(status.rpartition(" ")[2]), 0)
        self.check += check

    async def end(self) -> None:
        """No more rows come."""
        await self._queue.put(None)

    async def blocks(self) -> AsyncIterator[bytes | bytearray]:
        """The stream for COPY FROM, block by block as the server has sent it: each copy would cost a tenth of
        what the client spends.
        """
        yield _HEADER
        while (rows := await self._queue.get()) is not None:
            yield rows
        yield _END
