"""A TCP proxy that can cut connections at chosen moments, or swallow everything without a word."""

import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import psutil

RECEIPT = b"committed_at = clock_timestamp()"
"""In the statement that writes a load's receipt: the next COMMIT of its connection is the load's own."""

_COMMIT = b"COMMIT\0"
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER with no time: closing sends RST


@dataclass
class Connection:
    """One connection through the proxy."""

    client: socket.socket
    server: socket.socket
    received: int = 0
    """Bytes that came from the server."""
    wrote_receipt: bool = False
    swallow_answer: bool = False
    closed: threading.Event = field(default_factory=threading.Event)

    @property
    def peer(self) -> int | None:
        """The process at the client's end."""
        try:
            here, there = self.client.getsockname(), self.client.getpeername()
        except OSError:
            return None
        for found in psutil.net_connections("tcp"):
            if found.laddr == there and found.raddr == here:
                return found.pid
        return None

    def reset(self) -> None:
        """Breaks it in both directions at once."""
        self.closed.set()
        for end in (self.client, self.server):
            try:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                end.shutdown(socket.SHUT_RD)  # wakes who waits for it
            except OSError:
                pass  # it is broken already
            end.close()


class Proxy:
    """Forwards to a server on this machine, until it is told otherwise.

    `on_request` and `on_answer` see each block before it is forwarded and may reset the connection; where
    they return False, the block is dropped.
    """

    def __init__(self, server: int | str) -> None:
        """`server` is a TCP port of this machine, or the path of a Unix socket."""
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.connections: list[Connection] = []
        self.cut = 0
        """How many connections were broken on purpose."""
        self._flowing = threading.Event()
        self._flowing.set()
        self._closed = False
        self._away = False
        self.on_request: Callable[[Connection, bytes], bool] = lambda _, __: True
        self.on_answer: Callable[[Connection, bytes], bool] = lambda _, __: True
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        self._flowing.set()
        self._listener.close()
        for connection in self.connections:
            connection.reset()

    def behave(self) -> None:
        """Forwards everything again."""
        self._away = False
        self.on_request = self.on_answer = lambda _, __: True
        self._flowing.set()

    def swallow(self) -> None:
        """Becomes a black hole: what is sent stays on its way, and nobody is told."""
        self._flowing.clear()

    def cut_after(self, size: int) -> None:
        """Breaks the first connection that has brought so many bytes from the server."""

        def answer(connection: Connection, block: bytes) -> bool:
            connection.received += len(block)
            if connection.received < size:
                return True
            self.on_answer = lambda _, __: True
            return self._cut(connection)

        self.on_answer = answer

    def cut_at_commit(self, *, landed: bool, for_good: bool = False) -> None:
        """Breaks the connection of the next load at its COMMIT: before the server sees it, or after. With
        `for_good` no other connection is let through any more."""

        def request(connection: Connection, block: bytes) -> bool:
            connection.wrote_receipt = connection.wrote_receipt or RECEIPT in block
            if not (connection.wrote_receipt and _COMMIT in block):
                return True
            self.on_request = lambda _, __: True
            if not landed:
                return cut(connection)
            connection.swallow_answer = True
            return True

        def cut(connection: Connection) -> bool:
            self._away = for_good
            return self._cut(connection)

        self.on_answer = lambda connection, _: not connection.swallow_answer or cut(connection)
        self.on_request = request

    def _cut(self, connection: Connection) -> bool:
        self.cut += 1
        connection.reset()
        return False

    def _connect(self) -> socket.socket:
        if isinstance(self._server, int):
            return socket.create_connection(("127.0.0.1", self._server))
        server = socket.socket(socket.AF_UNIX)
        server.connect(self._server)
        return server

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                if self._away:
                    raise ConnectionRefusedError
                server = self._connect()
            except OSError:
                client.close()
                continue
            connection = Connection(client, server)
            self.connections.append(connection)
            for source, sink, hook in (
                (client, server, lambda c, b: self.on_request(c, b)),
                (server, client, lambda c, b: self.on_answer(c, b)),
            ):
                arguments = (connection, source, sink, hook)
                threading.Thread(target=self._pump, args=arguments, daemon=True).start()

    def _pump(
        self,
        connection: Connection,
        source: socket.socket,
        sink: socket.socket,
        hook: Callable[[Connection, bytes], bool],
    ) -> None:
        try:
            while block := source.recv(65536):
                self._flowing.wait()
                if connection.closed.is_set():
                    return
                if hook(connection, block):
                    sink.sendall(block)
            self._flowing.wait()
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            connection.reset()
