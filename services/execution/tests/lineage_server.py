"""A service that takes OpenLineage events, over real HTTP, and misbehaves as a test says."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class LineageServer:
    """Keeps the events that it has taken. `answer` says what an event is answered with: a status line with
    headers, or None to hang up."""

    port: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    tries: int = 0
    delay: float = 0.0
    answer: Callable[[dict[str, Any]], str | None] = lambda event: "201 Created"

    @property
    def url(self) -> str:
        """Where it takes events."""
        return f"http://127.0.0.1:{self.port}/api/v1/lineage"

    @property
    def told(self) -> list[tuple[str, str]]:
        """The runs and types of the events that it has taken."""
        return [(event["run"]["runId"], event["eventType"]) for event in self.events]

    def of(self, run: str) -> list[str]:
        """The types of the events of a run that it has taken, in their order."""
        return [kind for each, kind in self.told if each == run]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers one request."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        request, *lines = head.strip().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        raw = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        event = json.loads(await reader.readexactly(int(headers["content-length"])))
        self.tries += 1
        assert request == "POST /api/v1/lineage HTTP/1.1"
        if self.delay:
            await asyncio.sleep(self.delay)
        status = self.answer(event)
        if status is not None:
            if status.startswith("2"):
                self.events.append(event)
                self.headers.append(raw)
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            await writer.drain()
        writer.close()


@asynccontextmanager
async def lineage_server(port: int = 0) -> AsyncIterator[LineageServer]:
    """Serves on a port of its own, or on this one."""
    server = LineageServer()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", port)
    server.port = listening.sockets[0].getsockname()[1]
    async with listening:
        yield server
