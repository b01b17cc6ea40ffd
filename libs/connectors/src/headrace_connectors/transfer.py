"""Rows in and out of the scratch, as Arrow batches: the one way they move, bounded in memory."""

from __future__ import annotations

import asyncio
import io
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import TYPE_CHECKING, Any

from headrace_connectors import duck
from headrace_connectors.blocking import in_thread
from headrace_connectors.errors import ConnectorError
from headrace_connectors.identifiers import quote
from headrace_connectors.model import ProgressListener
from headrace_connectors.scratch import Scratch

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK_BYTES = 1024 * 1024
_BATCH_BYTES = 8 * 1024 * 1024
_STREAM = "__headrace_stream"


class Meter:
    """Counts what moves and tells the listener on its event loop; used from any thread."""

    def __init__(self, listener: ProgressListener) -> None:
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._guard = threading.Lock()
        self.rows = 0
        self.bytes = 0

    def add(self, rows: int, size: int) -> None:
        with self._guard:
            self.rows += rows
            self.bytes += size
            rows, size = self.rows, self.bytes
        self._loop.call_soon_threadsafe(self._listener, rows, size)

    def reset(self) -> None:
        """Count anew: what was moved is read once more."""
        with self._guard:
            self.rows = self.bytes = 0


class BlockFeed(io.RawIOBase):
    """A file for a reading thread that an async task fills: :meth:`put` waits while enough lies ready."""

    def __init__(self, limit: int = 8 * BLOCK_BYTES) -> None:
        super().__init__()
        self._blocks: deque[bytes] = deque()
        self._ready = 0
        self._limit = limit
        self._ended = False
        self._aborted = False
        self._changed = threading.Condition()
        self._loop = asyncio.get_running_loop()
        self._space = asyncio.Event()
        self._space.set()

    async def put(self, block: bytes) -> None:
        """Add a block; waits for room.

        :raises BrokenPipeError: when the reader has gone.
        """
        await self._space.wait()
        with self._changed:
            if self._aborted:
                raise BrokenPipeError("the reader of the rows has stopped")
            self._blocks.append(bytes(block))
            self._ready += len(block)
            if self._ready >= self._limit:
                self._space.clear()
            self._changed.notify()

    def end(self) -> None:
        """No more blocks come."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    def abort(self) -> None:
        """Wake both sides: the reader meets an error, and so does the next :meth:`put`."""
        with self._changed:
            self._aborted = True
            self._changed.notify()
        self._loop.call_soon_threadsafe(self._space.set)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        """Exactly ``size`` bytes, fewer only at the end: the parser's blocks must hold whole rows."""
        parts: list[bytes] = []
        missing = size
        with self._changed:
            while missing > 0:
                while not self._blocks and not self._ended and not self._aborted:
                    self._changed.wait()
                if self._aborted:
                    raise BrokenPipeError("the source of the rows has stopped")
                if not self._blocks:
                    break
                block = self._blocks.popleft()
                if len(block) > missing:
                    self._blocks.appendleft(block[missing:])
                    block = block[:missing]
                parts.append(block)
                missing -= len(block)
                self._ready -= len(block)
            if self._ready < self._limit:
                self._loop.call_soon_threadsafe(self._space.set)
        return b"".join(parts)


async def insert(
    scratch: Scratch,
    relation: str,
    expressions: list[str],
    open_reader: Callable[[], pa.RecordBatchReader],
    meter: Meter,
    *,
    what: str,
    stop: Callable[[], object] | None = None,
) -> None:
    """Insert a stream of batches into ``relation`` through SQL ``expressions`` over the stream's columns.

    ``open_reader`` runs in the reading thread; ``stop`` wakes it when the task is cancelled.

    :raises ConnectorError: what ``open_reader`` and its batches raise, and what the expressions meet.
    """
    cursor = scratch.cursor()
    failures: list[Exception] = []

    def take(schema: pa.Schema, rows: Iterator[pa.RecordBatch]) -> None:
        import pyarrow as pa

        cursor.register(_STREAM, pa.RecordBatchReader.from_batches(schema, rows))
        cursor.execute(f"INSERT INTO {quote(relation)} SELECT {', '.join(expressions)} FROM {_STREAM}")
        cursor.unregister(_STREAM)

    def call() -> None:
        try:
            reader = open_reader()
            counted = _counted(reader, scratch, relation, meter, failures)
            if not scratch.is_filed(relation):
                first = _First(counted, scratch, relation)
                take(reader.schema, first.rows())
                if first.ended:
                    return
                scratch.move_to_file(relation, cursor)
            take(reader.schema, counted)
        except ConnectorError:
            raise
        except Exception as error:
            if failures:
                raise translate(failures[0], what) from failures[0]
            raise translate(error, what) from error
        finally:
            cursor.close()

    def interrupt() -> None:
        cursor.interrupt()
        if stop is not None:
            stop()

    await in_thread(call, interrupt)


class _First:
    """The batches that memory has room for."""

    def __init__(self, batches: Iterator[pa.RecordBatch], scratch: Scratch, relation: str) -> None:
        self._batches = batches
        self._scratch = scratch
        self._relation = relation
        self.ended = False
        """Whether there are no others."""

    def rows(self) -> Iterator[pa.RecordBatch]:
        """One batch after the other until the room is taken, be it by others."""
        while self._scratch.has_room():
            batch = next(self._batches, None)
            if batch is None:
                self.ended = True
                return
            self._scratch.note_growth(self._relation, batch.nbytes)
            yield batch


def _counted(
    reader: pa.RecordBatchReader, scratch: Scratch, relation: str, meter: Meter, failures: list[Exception]
) -> Iterator[pa.RecordBatch]:
    """The batches, counted; DuckDB only passes on the text of an error, so the error itself is kept."""
    try:
        for batch in reader:
            if scratch.is_filed(relation):
                scratch.check_file()
            meter.add(batch.num_rows, batch.nbytes)
            yield batch
    except Exception as error:
        failures.append(error)
        raise


def translate(error: Exception, what: str) -> ConnectorError:
    """An exception out of Arrow, a file or DuckDB in our words."""
    import pyarrow as pa

    from headrace_connectors.files.errors import from_arrow, from_damage, from_os

    if isinstance(error, ConnectorError):
        return error
    if isinstance(error, OSError) and error.errno is None:
        return from_damage(error, what)
    if isinstance(error, OSError) and not isinstance(error, pa.ArrowException):
        return from_os(error, what)
    if isinstance(error, pa.ArrowException):
        return from_arrow(error, what)
    return duck.translate(error, what)


async def batches(
    scratch: Scratch, sql: str, row_bytes: int, what: str
) -> AsyncGenerator[pa.RecordBatch, None]:
    """The result of a query as batches of a few megabytes, the next one being computed while one is used.

    Whoever takes them closes the generator (``aclosing``): left alone it would still use the scratch when
    that is closed.
    """
    cursor = scratch.cursor()
    rows = max(128, min(65_536, _BATCH_BYTES // max(row_bytes, 1)))
    readers: list[Any] = []

    def following() -> pa.RecordBatch | None:
        try:
            if not readers:
                readers.append(cursor.sql(sql).to_arrow_reader(rows))
            return next(readers[0], None)
        except Exception as error:
            raise translate(error, what) from error

    async def ask() -> pa.RecordBatch | None:
        return await in_thread(following, cursor.interrupt)

    upcoming = asyncio.ensure_future(ask())
    try:
        while True:
            batch = await upcoming
            if batch is None:
                return
            upcoming = asyncio.ensure_future(ask())
            yield batch
    finally:
        upcoming.cancel()
        await asyncio.gather(upcoming, return_exceptions=True)
        readers.clear()
        cursor.close()
