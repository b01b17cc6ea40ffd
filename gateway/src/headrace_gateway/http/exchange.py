"""A request as the gateway reads it and an answer as it writes it: the thin layer over ASGI."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from headrace_chassis.identity import Principal

from headrace_gateway.routes import Route

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Header = tuple[bytes, bytes]

JSON: Final = (b"content-type", b"application/json")
SECURITY: Final[tuple[Header, ...]] = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
"""Headers of every answer that is data: a browser neither guesses its type, frames it, nor keeps it."""


_NOTABLE: Final = 64 * 1024
"""An unread body of fewer bytes may pass by, so that its connection can be used again."""


class Request:
    """One HTTP request. Headers are by lower-case name; of a header that stands several times the last one
    counts."""

    __slots__ = (
        "has_read_body",
        "headers",
        "method",
        "path",
        "query",
        "receive",
        "request_id",
        "scope",
        "traceparent",
    )

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope = scope
        self.receive = receive
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query: bytes = scope["query_string"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.has_read_body = False
        self.request_id = ""
        self.traceparent = ""

    @property
    def leaves_much_unread(self) -> bool:
        """There is a body of unknown or notable size that nobody has read."""
        if self.has_read_body:
            return False
        return b"transfer-encoding" in self.headers or int(self.headers.get(b"content-length", 0)) > _NOTABLE

    def header(self, name: bytes) -> str | None:
        """Returns a header as text, or None where it is not there."""
        value = self.headers.get(name)
        return value.decode("latin-1") if value is not None else None


class BodyStream(Protocol):
    """A body that is sent as it comes. Whoever holds one closes it."""

    async def read(self) -> bytes | None:
        """Returns the next piece, or None at the end.

        Raises HeadraceError where there is no more to be had, and ClientGoneError.
        """

    def close(self) -> None:
        """Ends the stream, whether it was read or not. Again does nothing."""


@dataclass(slots=True)
class Answer:
    """One HTTP answer. Content length, request id and the headers of all answers are added when it is
    sent."""

    status: int
    body: bytes = b""
    headers: list[Header] = field(default_factory=list)
    stream: BodyStream | None = None
    """What the body is read from, piece by piece, in place of `body`."""


class Endpoint(Protocol):
    """Serves one route."""

    route: Route

    async def serve(self, request: Request, principal: Principal, values: list[str]) -> Answer:
        """Answers a request whose caller is known; `values` are the texts of the path's variables.

        Raises HeadraceError, and ClientGoneError where the client has gone.
        """
