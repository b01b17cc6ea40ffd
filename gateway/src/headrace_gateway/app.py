"""The ASGI application: finds the route, checks the caller and the limits, and sends the answer.

It is one layer. RPCs are served here, without any framework between; whatever else is asked (documentation,
health) goes to the FastAPI application behind it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any, Final

import structlog
from headrace_chassis.call_context import set_request_id
from headrace_chassis.errors import HeadraceError, Internal, RoleRequired
from headrace_chassis.identity import Role
from headrace_chassis.ids import uuid7
from headrace_chassis.interceptors.request_id import is_sane
from headrace_chassis.observability import tracing

from .http.bodies import ClientGoneError, linger
from .http.callers import CallerChecks
from .http.compression import accepts_gzip, compress
from .http.cors import CrossOrigins
from .http.exchange import (
    SECURITY,
    Answer,
    BodyStream,
    Endpoint,
    Header,
    Message,
    Receive,
    Request,
    Scope,
    Send,
)
from .http.failures import MethodNotAllowed, UpgradeRequired
from .http.problems import problem_answer
from .http.ratelimit import RateLimiter
from .observation import RequestObserver
from .pages import REQUEST_ID
from .router import Match, Router
from .sockets.gate import SocketGate

_log = structlog.get_logger(__name__)
_CLIENT_GONE: Final = 499
"""The status under which a request is counted whose client went away; it is never sent."""


class Gateway:
    """Serves RPCs over HTTP, and hands everything else to `pages`."""

    def __init__(
        self,
        endpoints: Iterable[Endpoint],
        sockets: SocketGate,
        pages: Any,
        callers: CallerChecks,
        limiter: RateLimiter,
        origins: CrossOrigins,
        observer: RequestObserver,
        gzip_minimum_bytes: int,
        stall_seconds: float,
    ) -> None:
        """`stall_seconds` is how long a client may take to read a piece of a stream.

        Raises RouteConflictError where two routes would serve the same requests."""
        self._router: Router[Endpoint] = Router(
            (endpoint.route.http_method, endpoint.route.template, endpoint) for endpoint in endpoints
        )
        self._sockets = sockets
        self._pages = pages
        self._callers = callers
        self._limiter = limiter
        self._origins = origins
        self._observer = observer
        self._gzip_minimum = gzip_minimum_bytes
        self._stall_seconds = stall_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection of ASGI 3."""
        if scope["type"] == "websocket":
            # Its opening request is a GET (RFC 6455, 4.1), and read as one.
            await self._sockets.serve(_request({**scope, "method": "GET"}, receive), receive, send)
            return
        if scope["type"] != "http":
            await self._pages(scope, receive, send)
            return
        request = _request(scope, receive)
        match = self._router.match(scope["raw_path"])
        if match is None:
            if self._sockets.serves(scope["raw_path"]):
                refused = problem_answer(UpgradeRequired(), request.path, request.request_id)
                await self._send(request, refused, send)
            else:
                await self._serve_page(request, send)
            return
        found = match.get("GET" if request.method == "HEAD" else request.method)
        if not tracing.is_exporting():
            await self._respond(request, match, found, send)
            return
        name = f"{request.method} {found[0].route.template.text}" if found is not None else request.method
        with tracing.server_span(name, request.traceparent):
            await self._respond(request, match, found, send)

    async def _respond(
        self,
        request: Request,
        match: Match[Endpoint],
        found: tuple[Endpoint, list[str]] | None,
        send: Send,
    ) -> None:
        began = time.perf_counter()
        operation = found[0].route.operation_id if found is not None else ""
        try:
            answer = (
                await self._answer(request, *found) if found is not None else self._unserved(request, match)
            )
        except HeadraceError as error:
            answer = problem_answer(error, request.path, request.request_id)
        except ClientGoneError:
            self._observer.observe(request, operation, Answer(_CLIENT_GONE), time.perf_counter() - began)
            return
        except Exception:  # noqa: BLE001 - the last line of defence; the text stays in the log
            _log.exception("request failed", path=request.path)
            answer = problem_answer(Internal(), request.path, request.request_id)
        if answer.stream is not None:
            # How long the client then takes to read it says nothing about the service.
            self._observer.observe(request, operation, answer, time.perf_counter() - began)
            await self._send_stream(request, answer, answer.stream, send)
            return
        await self._send(request, answer, send)
        self._observer.observe(request, operation, answer, time.perf_counter() - began)

    async def _answer(self, request: Request, endpoint: Endpoint, values: list[str]) -> Answer:
        principal = await self._callers.principal(request)
        rate = self._limiter.admit((principal.tenant, principal.subject))
        role = endpoint.route.role
        if not principal.has(role):
            raise RoleRequired(Role(role).name.lower())
        answer = await endpoint.serve(request, principal, values)
        answer.headers += rate
        return answer

    def _unserved(self, request: Request, match: Match[Endpoint]) -> Answer:
        methods = match.methods()
        allowed = sorted({*methods, "OPTIONS", *(["HEAD"] if "GET" in methods else [])})
        if request.method != "OPTIONS":
            raise MethodNotAllowed(allowed)
        allow = (b"allow", ", ".join(allowed).encode("ascii"))
        return Answer(204, headers=[allow, *self._origins.preflight(request, allowed)])

    async def _send(self, request: Request, answer: Answer, send: Send) -> None:
        headers = self._finished(request, answer.headers)
        if len(answer.body) >= self._gzip_minimum:
            headers.append((b"vary", b"Accept-Encoding"))
            if accepts_gzip(request.headers.get(b"accept-encoding")):
                await compress(answer)
        if answer.status not in (204, 304):
            headers.append((b"content-length", str(len(answer.body)).encode("ascii")))
        closing = request.leaves_much_unread
        if closing:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        body = b"" if request.method == "HEAD" else answer.body
        await send({"type": "http.response.body", "body": body, "more_body": closing})
        if closing:
            await linger(request)
            await send({"type": "http.response.body", "body": b""})

    async def _send_stream(self, request: Request, answer: Answer, stream: BodyStream, send: Send) -> None:
        try:
            headers = self._finished(request, answer.headers)
            await send({"type": "http.response.start", "status": answer.status, "headers": headers})
            if request.method != "HEAD":
                while (piece := await stream.read()) is not None:
                    if piece:
                        async with asyncio.timeout(self._stall_seconds):
                            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        except HeadraceError as error:
            # The status has gone out: that the answer is not whole can only be told by cutting the
            # connection, which the server does where an answer is not completed.
            _log.warning("stream broken", path=request.path, code=error.code, error=error.message)
        except TimeoutError:
            _log.info("stream cut: its client does not read", path=request.path)
        except ClientGoneError:
            pass
        finally:
            stream.close()

    def _finished(self, request: Request, headers: list[Header]) -> list[Header]:
        """Returns an answer's headers with those of all answers."""
        headers += SECURITY
        headers.append((b"x-request-id", request.request_id.encode("ascii")))
        headers += self._origins.headers(request)
        return headers

    async def _serve_page(self, request: Request, send: Send) -> None:
        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name for name, _ in message["headers"]}
                added = [header for header in SECURITY if header[0] not in given]
                message["headers"] = [
                    *message["headers"],
                    *added,
                    (b"x-request-id", request.request_id.encode("ascii")),
                ]
            await send(message)

        request.scope[REQUEST_ID] = request.request_id
        await self._pages(request.scope, request.receive, send_safely)


def _request(scope: Scope, receive: Receive) -> Request:
    request = Request(scope, receive)
    given = request.header(b"x-request-id")
    request.request_id = given if given is not None and is_sane(given) else str(uuid7())
    request.traceparent = tracing.accepted_or_new(request.header(b"traceparent") or "")
    # Calls to services, and lines in the log, carry them on from here.
    set_request_id(request.request_id)
    tracing.set_traceparent(request.traceparent)
    return request
