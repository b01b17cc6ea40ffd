"""Which body is of which type, and how large it may be: reading bodies under limits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from headrace_chassis.errors import TooLarge, Unavailable

from .exchange import Message, Request
from .failures import BodyTimeout, UnsupportedMediaType
from .json_body import parse_json
from .yaml_body import parse_yaml

_LARGE_YAML = 32 * 1024
"""A YAML text of more bytes is parsed in a thread: it costs milliseconds, and others wait meanwhile."""


@dataclass(frozen=True)
class BodyLimits:
    """How large a body may be, how long it may take to arrive (seconds), and how many may be held at once."""

    max_bytes: int
    max_seconds: float
    max_concurrent: int


_LINGER_SECONDS = 1.0
_LINGER_BYTES = 8 * 1024 * 1024


class ClientGoneError(Exception):
    """The client closed its connection before the request was complete; nobody waits for an answer."""


class BodyReader:
    """Reads bodies within limits. One for the whole gateway, because it counts how many are held."""

    def __init__(self, limits: BodyLimits) -> None:
        self._limits = limits
        self._held = 0

    async def read(self, request: Request, exact: bool) -> object:
        """Returns the value of a request's body; an absent one is an empty object.

        `exact` keeps the digits of numbers. Raises HeadraceError where the body is too large, too slow, of
        another type or malformed, and ClientGoneError.
        """
        parse = _parser(request)
        if self._held >= self._limits.max_concurrent:
            raise Unavailable("room for another request body")
        self._held += 1
        try:
            body = await self._bytes(request)
            request.has_read_body = True
            if not body or body.isspace():
                return {}
            if parse is parse_yaml:
                return (
                    await asyncio.to_thread(parse_yaml, body) if len(body) > _LARGE_YAML else parse_yaml(body)
                )
            return parse_json(body, exact)
        finally:
            self._held -= 1

    async def _bytes(self, request: Request) -> bytes:
        limit = self._limits.max_bytes
        declared = request.headers.get(b"content-length")
        if declared is not None and int(declared) > limit:
            raise TooLarge("the body", limit, int(declared))
        message = await self._receive(request)
        if not message.get("more_body", False):
            first: bytes = message.get("body", b"")
            if len(first) > limit:
                raise TooLarge("the body", limit)
            return first
        chunks = [message.get("body", b"")]
        size = len(chunks[0])
        try:
            async with asyncio.timeout(self._limits.max_seconds):
                while message.get("more_body", False):
                    if size > limit:
                        raise TooLarge("the body", limit)
                    message = await self._receive(request)
                    chunks.append(message.get("body", b""))
                    size += len(chunks[-1])
        except TimeoutError:
            raise BodyTimeout(self._limits.max_seconds) from None
        if size > limit:
            raise TooLarge("the body", limit)
        return b"".join(chunks)

    @staticmethod
    async def _receive(request: Request) -> Message:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        return message


async def linger(request: Request) -> None:
    """Takes in what is left of a body for a moment, after its request was answered without reading it.

    A connection that is closed while its client still sends is reset, which may destroy the answer on its
    way. Who goes on sending after a second, or eight megabytes, loses it.
    """
    size = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_SECONDS):
            message = await request.receive()
            while message.get("more_body", False) and size < _LINGER_BYTES:
                size += len(message.get("body", b""))
                message = await request.receive()


def _parser(request: Request) -> Callable[..., object]:
    """Returns what parses a request's body by its Content-Type. Raises UnsupportedMediaType."""
    encoding = request.headers.get(b"content-encoding", b"identity").strip().lower()
    if encoding != b"identity":
        raise UnsupportedMediaType("compressed request bodies are not understood")
    given = request.headers.get(b"content-type")
    if given is None or given == b"application/json":
        return parse_json
    media_type, *parameters = (part.strip().lower() for part in given.decode("latin-1").split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name == "charset" and value.strip('"') not in ("utf-8", "utf8", "us-ascii"):
            raise UnsupportedMediaType(f"the charset of a body must be utf-8, not {value}")
    if media_type == "application/json" or (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        return parse_json
    if media_type in (
        "application/yaml",
        "application/x-yaml",
        "text/yaml",
        "text/x-yaml",
    ) or media_type.endswith("+yaml"):
        return parse_yaml
    raise UnsupportedMediaType(
        f"a body of type {media_type!r} is not understood; send application/json or application/yaml"
    )
