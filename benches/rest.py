"""A small HTTP/1.1 load generator: keep-alive connections and no framework, so that it measures the server.

General HTTP clients cost about as much CPU a request as the gateway does: on two cores that would halve what
is seen.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Answer:
    """An answer: its status, its body and how long it took in seconds."""

    status: int
    body: bytes
    seconds: float

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass
class Connection:
    """One keep-alive connection; one request at a time."""

    host: str
    port: int
    token: str
    reader: asyncio.StreamReader = field(init=False)
    writer: asyncio.StreamWriter = field(init=False)

    async def open(self) -> "Connection":
        """Connects."""
        self.reader, self.writer = await asyncio.open_connection(self.host, self.port, limit=1 << 20)
        return self

    async def request(self, method: str, path: str, body: bytes = b"", headers: str = "") -> Answer:
        """Sends one request and waits for its answer."""
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: {self.host}\r\nAuthorization: Bearer {self.token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        )
        started = time.perf_counter()
        self.writer.write(head.encode() + body)
        raw = await self.reader.readuntil(b"\r\n\r\n")
        status = int(raw[9:12])
        length = 0
        for line in raw.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line[15:])
        content = await self.reader.readexactly(length) if length else b""
        return Answer(status, content, time.perf_counter() - started)

    def close(self) -> None:
        """Closes the connection."""
        self.writer.close()


@asynccontextmanager
async def connections(
    host: str, port: int, tokens: Sequence[str], count: int
) -> AsyncIterator[list[Connection]]:
    """Opens some connections, of these callers in turn, and closes them at the end."""
    opened = await asyncio.gather(
        *(Connection(host, port, tokens[number % len(tokens)]).open() for number in range(count))
    )
    try:
        yield list(opened)
    finally:
        for connection in opened:
            connection.close()


async def drive(
    workers: list[Connection], requests: Iterable[tuple[str, str, bytes]], seen: Callable[[Answer], None]
) -> float:
    """Sends the requests over the connections as fast as answers come; returns the seconds it took in all."""
    pending = iter(requests)

    async def work(connection: Connection) -> None:
        for method, path, body in pending:
            seen(await connection.request(method, path, body))

    started = time.perf_counter()
    await asyncio.gather(*(work(connection) for connection in workers))
    return time.perf_counter() - started


def percentile(values: list[float], share: float) -> float:
    """The value below which that share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
