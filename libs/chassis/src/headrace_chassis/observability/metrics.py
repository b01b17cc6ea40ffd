"""The HTTP side of a process for its operators: /metrics (Prometheus), /healthz (it lives) and /readyz (it
can work).

Served by the event loop of the process itself, so that a loop that is stuck does not answer /healthz.
Liveness asks nothing of PostgreSQL or NATS: restarting a process does not heal its database.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from headrace_chassis.errors import HeadraceError

_log = structlog.get_logger(__name__)

ReadyCheck = Callable[[], Awaitable[None]]
"""Raises a HeadraceError where something that the process needs is away."""

_REQUEST_SECONDS = 5.0
_CHECK_SECONDS = 2.0
_LONGEST_LINE = 8 * 1024
_REASONS = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


class OperationsServer:
    """Serves the three paths on "host:port". `checks` are asked, by name, for readiness."""

    def __init__(self, listen: str, checks: Mapping[str, ReadyCheck] | None = None) -> None:
        self._host, _, port = listen.rpartition(":")
        self._wanted_port = int(port)
        self._checks = dict(checks or {})
        self._server: asyncio.Server | None = None
        self._is_draining = False

    @property
    def port(self) -> int:
        """The port that it listens on; 0 before it was started."""
        return self._server.sockets[0].getsockname()[1] if self._server is not None else 0

    async def start(self) -> None:
        """Binds and serves."""
        self._server = await asyncio.start_server(
            self._serve, self._host, self._wanted_port, limit=_LONGEST_LINE
        )

    def drain(self) -> None:
        """Says not ready from now on."""
        self._is_draining = True

    async def stop(self) -> None:
        """Stops serving. Stopping again does nothing."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                request = (await reader.readuntil(b"\r\n")).split(b" ")
                while (await reader.readuntil(b"\r\n")) != b"\r\n":
                    pass
                status, kind, body = await self._answer(request)
                head = (
                    f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {kind}\r\n"
                    f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                )
                writer.write(head.encode() + (b"" if request[0] == b"HEAD" else body))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            _log.debug("operations request was not answered", error=type(error).__name__)
        finally:
            writer.close()

    async def _answer(self, request: list[bytes]) -> tuple[int, str, bytes]:
        method, path = request[0], request[1].partition(b"?")[0] if len(request) > 1 else b""
        text = "text/plain; charset=utf-8"
        if method not in (b"GET", b"HEAD"):
            return 405, text, b"only GET and HEAD are served\n"
        if path == b"/metrics":
            return 200, CONTENT_TYPE_LATEST, generate_latest()
        if path == b"/healthz":
            return 200, text, b"ok\n"
        if path == b"/readyz":
            problems = await self.problems()
            return (
                (503, text, "".join(f"{told}\n" for told in problems).encode())
                if problems
                else (200, text, b"ok\n")
            )
        return 404, text, b"/metrics, /healthz and /readyz are served\n"

    async def problems(self) -> list[str]:
        """Returns why the process is not ready; an empty list where it is."""
        if self._is_draining:
            return ["draining"]
        answers = await asyncio.gather(*(_asked(name, check) for name, check in self._checks.items()))
        return [told for told in answers if told]


async def _asked(name: str, check: ReadyCheck) -> str:
    try:
        async with asyncio.timeout(_CHECK_SECONDS):
            await check()
    except HeadraceError as error:
        return f"{name}: {error.message}"
    except TimeoutError:
        return f"{name}: no answer within {_CHECK_SECONDS} s"
    return ""
