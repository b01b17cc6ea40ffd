"""The line from a working stage process to its supervisor."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast

from headrace_worker.processes.frames import Frame, FrameBuffer, StopReason, pack


class SupervisorChannel(asyncio.Protocol):
    """Sends what the stage has to say, and waits for answers. `on_stop` hears that the stage shall end.

    There is one question at a time: the stage asks for secrets once, then for each output, then before each
    commit.
    """

    def __init__(self, on_stop: Callable[[StopReason], None]) -> None:
        self._on_stop = on_stop
        self._buffer = FrameBuffer()
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[tuple[Frame, bytes]] | None = None
        self._closed = asyncio.get_running_loop().create_future()

    @classmethod
    async def open(
        cls, connection: socket.socket, on_stop: Callable[[StopReason], None]
    ) -> SupervisorChannel:
        """Speak over the socket that the process was forked with."""
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        _, channel = await loop.create_connection(lambda: cls(on_stop), sock=connection)
        return channel

    def send(self, kind: Frame, body: bytes = b"") -> None:
        """Say something; lost where the supervisor is gone, and then so will be this process."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(pack(kind, body))

    async def ask(self, kind: Frame, body: bytes = b"") -> tuple[Frame, bytes]:
        """Ask something and wait for the answer."""
        self._answer = asyncio.get_running_loop().create_future()
        self.send(kind, body)
        try:
            return await self._answer
        finally:
            self._answer = None

    async def close(self) -> None:
        """Have everything delivered, and close."""
        if self._transport is not None:
            self._transport.close()
            await self._closed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        for kind, body in self._buffer.feed(data):
            if kind is Frame.STOP:
                self._on_stop(StopReason(body.decode()))
            elif self._answer is not None and not self._answer.done():
                self._answer.set_result((kind, body))

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio: the supervisor is gone, or this end was closed."""
        if not self._closed.done():
            self._closed.set_result(None)
        self._on_stop(StopReason.LEASE_LOST)
