"""What waits to be sent to the server: in its order, and results that follow each other in one message."""

from __future__ import annotations

import asyncio
from collections import deque

from headrace.execution.v1 import workers_pb2

LARGEST_BATCH = 200
LARGEST_BYTES = 1 << 20
"""Of the results in one message, but for the last one."""

_Request = workers_pb2.ConnectRequest


class Outgoing:
    """The messages of one stream.

    A message costs both sides about as much as what is in it: short stages would otherwise spend more on
    telling of their end than on their work.
    """

    def __init__(self, *, joins_results: bool) -> None:
        """`joins_results` says whether the server takes results in batches."""
        self.joins_results = joins_results
        self._waiting: deque[_Request] = deque()
        self._something = asyncio.Event()
        self._flushed = asyncio.Event()
        self._flushed.set()

    @property
    def waiting(self) -> int:
        """How many messages have not been taken."""
        return len(self._waiting)

    def put(self, request: _Request) -> None:
        """Adds a message."""
        self._waiting.append(request)
        self._flushed.clear()
        self._something.set()

    async def take(self) -> _Request:
        """The next message, once there is one. Say `sent` when it is."""
        while not self._waiting:
            self._something.clear()
            await self._something.wait()
        first = self._waiting.popleft()
        if not (self.joins_results and self._starts_with_result and first.HasField("result")):
            return first
        results, size = [first.result], first.ByteSize()
        while self._starts_with_result and len(results) < LARGEST_BATCH and size < LARGEST_BYTES:
            following = self._waiting.popleft()
            results.append(following.result)
            size += following.ByteSize()
        return _Request(results=workers_pb2.ResultBatch(results=results))

    @property
    def _starts_with_result(self) -> bool:
        return bool(self._waiting) and self._waiting[0].HasField("result")

    def sent(self) -> None:
        """What was taken is written."""
        if not self._waiting:
            self._flushed.set()

    async def flushed(self) -> None:
        """Returns when nothing is left to be written."""
        await self._flushed.wait()
