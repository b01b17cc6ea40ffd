"""Cross-origin requests (the Fetch standard, 3.2), for the origins that the operator names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from .exchange import Header, Request

_EXPOSED: Final = (
    b"ETag, Location, X-Request-Id, Retry-After, RateLimit, RateLimit-Policy, Accept-Ranges, Content-Range, "
    b"Content-Disposition"
)
_ALLOWED: Final = (
    b"Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, If-Range, Range, X-Request-Id, "
    b"X-Tenant-ID"
)
_MAX_AGE: Final = b"600"


class CrossOrigins:
    """Which origins may call."""

    def __init__(self, origins: Iterable[str]) -> None:
        self._origins = frozenset(origin.encode("latin-1") for origin in origins)

    def headers(self, request: Request) -> list[Header]:
        """Returns the headers that let a script of the request's origin read the answer; none where it may
        not."""
        if not self._origins:
            return []
        origin = request.headers.get(b"origin")
        if origin not in self._origins or origin is None:
            return [(b"vary", b"Origin")]
        return [
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", _EXPOSED),
            (b"vary", b"Origin"),
        ]

    def preflight(self, request: Request, methods: Iterable[str]) -> list[Header]:
        """Returns the headers that answer whether a script may send a request (they go with `headers`)."""
        if (
            request.headers.get(b"origin") not in self._origins
            or b"access-control-request-method" not in request.headers
        ):
            return []
        return [
            (b"access-control-allow-methods", ", ".join(methods).encode("ascii")),
            (b"access-control-allow-headers", _ALLOWED),
            (b"access-control-max-age", _MAX_AGE),
        ]
