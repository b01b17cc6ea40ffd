"""The HTTP server: uvicorn, with limits on the head of a request that it does not have of its own."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import Iterator
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

MAX_HEAD_BYTES: Final = 64 * 1024
"""The largest head of a request: request line and headers. A token is at most 16 KiB."""

_FILES: Final = 65_536
_IDLE_SECONDS: Final = 75
_FLUSH_SECONDS: Final = 1.0
_MAX_FRAME_BYTES: Final = 4096
"""The largest message that a client may send on a WebSocket; none is expected."""

_BACKLOG: Final = 2048
_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)

_EXPECTED: Final = (
    b"this is no opening of a WebSocket: a GET without a body is expected, and headers of 8 KiB at most"
)
_NO_OPENING: Final = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n"
    b"connection: close\r\n\r\n%s" % (len(_EXPECTED), _EXPECTED)
)


def guarded_protocol(header_seconds: float) -> type[HttpToolsProtocol]:
    """Returns uvicorn's HTTP protocol with a limit on the size of a request's head and on the time it may
    take.

    Without them, a client that sends a head without end fills the memory, and one that sends it slowly keeps
    its connection for ever.
    """

    class GuardedProtocol(HttpToolsProtocol):
        _head_timer: asyncio.TimerHandle | None = None
        _head_bytes = 0

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._expect_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._got_head()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self._head_timer is not None:
                self._head_bytes += len(data)
            super().data_received(data)
            if (
                self._head_timer is not None
                and self._head_bytes > MAX_HEAD_BYTES
                and not self.transport.is_closing()
            ):
                self.transport.write(_TOO_LARGE)
                self.transport.close()

        def on_message_begin(self) -> None:
            super().on_message_begin()
            if self._head_timer is None:
                self._expect_head()

        def on_headers_complete(self) -> None:
            self._got_head()
            super().on_headers_complete()

        def _expect_head(self) -> None:
            self._head_bytes = 0
            self._head_timer = self.loop.call_later(header_seconds, self._give_up)

        def _got_head(self) -> None:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

        def _give_up(self) -> None:
            self._head_timer = None
            if not self.transport.is_closing():
                self.transport.close()

    return GuardedProtocol


class _GuardedSocket(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol with three things mended.

    It waits for ever until a client that has gone silent takes what was written for it: here the connection
    is cut. It calls each refusal an error of the application: here a refusal ends the handshake. And it
    leaves a connection open whose head it could not read: here the client is told, and it is closed.
    """

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            self.handshake_complete = True

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self.handshake_initiated and self.conn.handshake_exc is not None:
            # The HTTP parser has taken the head; this one takes lines of 8 KiB, 128 headers and no body.
            self.handshake_initiated = True
            self.transport.write(_NO_OPENING)
            self.transport.close()

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self.loop.call_later(_FLUSH_SECONDS, self.transport.abort)

    def shutdown(self) -> None:
        super().shutdown()
        self.loop.call_later(_FLUSH_SECONDS, self.transport.abort)


class HttpServer:
    """Serves an ASGI application on "host:port"; port 0 picks a free one. `ping_seconds` is how often the
    clients of WebSockets are pinged, and how long they may take to answer."""

    def __init__(
        self, app: Any, listen: str, header_seconds: float, drain_seconds: float, ping_seconds: float = 20.0
    ) -> None:
        host, _, port = listen.rpartition(":")
        self._address = (host.strip("[]"), int(port))
        self._socket: socket.socket | None = None
        self._serving: asyncio.Task[None] | None = None
        config = uvicorn.Config(
            app,
            http=guarded_protocol(header_seconds),
            loop="none",
            ws=_GuardedSocket,
            ws_max_size=_MAX_FRAME_BYTES,
            ws_ping_interval=ping_seconds,
            ws_ping_timeout=ping_seconds,
            # Compression would keep a window for each of thousands of watchers, for messages that are small.
            ws_per_message_deflate=False,
            # At "info" it logs the address of each WebSocket with its query.
            log_level="warning",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_IDLE_SECONDS,
            timeout_graceful_shutdown=max(int(drain_seconds), 1),
            backlog=_BACKLOG,
        )
        self._server = _QuietServer(config)

    @property
    def port(self) -> int:
        """The port that it listens on; 0 before it was started."""
        return int(self._socket.getsockname()[1]) if self._socket is not None else 0

    async def start(self) -> None:
        """Listens and serves. Raises OSError where the address is taken."""
        _allow_files()
        self._socket = _listening(self._address)
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._socket]))

    async def drain(self) -> None:
        """Accepts no more connections, lets running requests finish within the drain time, and stops."""
        self._server.should_exit = True
        if self._serving is not None:
            await self._serving
            self._serving = None


def _allow_files() -> None:
    """Lets this process have as many files open as it may: each watcher is one, and the usual limit of 1,024
    is for programs that still call select(2)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _listening(address: tuple[str, int]) -> socket.socket:
    """Returns a listening socket. Raises OSError where the address is taken.

    The protocol is named, because asyncio turns Nagle's algorithm off only for sockets that name it: with it,
    an answer of two writes waits 40 ms for the client's delayed acknowledgement.
    """
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


class _QuietServer(uvicorn.Server):
    """Leaves signals to the process, which drains more than this server."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
