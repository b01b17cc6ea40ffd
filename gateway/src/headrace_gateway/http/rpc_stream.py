"""An RPC that answers with a stream, as an HTTP endpoint whose body is sent as it comes.

A stream of `google.api.HttpBody` is its raw bytes, any other one JSON text a line. Nothing is gathered: a
piece is asked of the service when the one before it has gone out, so that a slow client slows the service
down.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

import grpc
from google.protobuf import message_factory
from headrace_chassis.errors import DeadlineExceeded, from_rpc_error
from headrace_chassis.identity import Principal
from headrace_chassis.slots import StreamSlots

from headrace_gateway.routes import Route

from .bodies import BodyReader, ClientGoneError
from .client_watch import ClientWatch
from .exchange import Answer, Header, Request
from .request_reader import METADATA_PREFIX, Codecs, RequestReader

NDJSON: Final = "application/x-ndjson"

STATUS: Final = METADATA_PREFIX + "status"
"""The metadata with which an RPC chooses the status: one of `STATUSES`."""

STATUSES: Final = frozenset({200, 206, 304, 416})
HEADERS: Final[Mapping[str, bytes]] = {
    METADATA_PREFIX + name: name.encode("ascii")
    for name in (
        "accept-ranges",
        "content-disposition",
        "content-length",
        "content-range",
        "etag",
        "last-modified",
    )
}
"""The headers that an RPC may give as initial metadata, by the names that they have there."""

_OCTETS: Final = "application/octet-stream"


class StreamEndpoint:
    """Serves one route over a channel.

    The first message must come within the deadline (`deadline_seconds` where the contract names none); the
    stream as a whole has none.
    """

    def __init__(
        self,
        route: Route,
        channel: grpc.aio.Channel,
        codecs: Codecs,
        bodies: BodyReader,
        deadline_seconds: float,
        slots: StreamSlots,
    ) -> None:
        self.route = route
        response_type = message_factory.GetMessageClass(route.rpc.output_type)
        self._begin: Callable[..., Any] = channel.unary_stream(
            route.grpc_path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response_type.FromString,
        )
        self._reader = RequestReader(route, codecs.decoders, bodies)
        self._piece = _raw if route.answers_bytes else _line(codecs, route)
        self._seconds = float(route.deadline_seconds or deadline_seconds)
        self._slots = slots

    async def serve(self, request: Request, principal: Principal, values: list[str]) -> Answer:
        """Answers with a stream that has begun; `values` are the texts of the path's variables.

        Raises HeadraceError where the RPC failed before its first message, and ClientGoneError.
        """
        return await self.answer(request, principal, await self._reader.message(request, values))

    async def answer(self, request: Request, principal: Principal, message: Any) -> Answer:
        """Answers a request that was read. Raises HeadraceError and ClientGoneError."""
        metadata = self._reader.metadata(request, principal)
        give_back = self._slots.take((principal.tenant, principal.subject))
        stream = _RpcStream(request, self._begin(message, metadata=metadata), self._piece, give_back)
        try:
            first = await self._first(stream)
            told = await stream.initial_metadata()
        except BaseException:
            stream.close()
            raise
        headers = [(name, told[key].encode("ascii")) for key, name in HEADERS.items() if key in told]
        headers += self._content_type(first)
        status = int(told.get(STATUS, self.route.success_status))
        if status not in STATUSES:
            stream.close()
            raise ValueError(f"{self.route.rpc.full_name} answered with the status {status}")
        return Answer(status, headers=headers, stream=stream)

    async def _first(self, stream: _RpcStream) -> Any:
        scope = asyncio.timeout(self._seconds)
        try:
            async with scope:
                return await stream.begin()
        except TimeoutError:
            if scope.expired():
                raise DeadlineExceeded(self.route.rpc.name) from None
            raise

    def _content_type(self, first: Any) -> list[Header]:
        if not self.route.answers_bytes:
            return [(b"content-type", NDJSON.encode("ascii"))]
        if first is None:
            return []
        return [(b"content-type", (first.content_type or _OCTETS).encode("ascii"))]


class _RpcStream:
    """The body of an answer, from the messages of a call."""

    def __init__(
        self, request: Request, call: Any, piece: Callable[[Any], bytes], give_back: Callable[[], None]
    ) -> None:
        self._call = call
        self._piece = piece
        self._give_back = give_back
        self._watch = ClientWatch(request, call)
        self._first: Any = None

    async def begin(self) -> Any:
        """Waits for the first message, keeps it as the first piece, and returns it; None where there is
        none."""
        self._first = await self._message()
        return self._first

    async def initial_metadata(self) -> dict[str, str]:
        """Returns what the service told before its first message."""
        return {key: value for key, value in await self._call.initial_metadata() if isinstance(value, str)}

    async def read(self) -> bytes | None:
        """Returns the next piece, or None at the end. Raises HeadraceError and ClientGoneError."""
        message, self._first = self._first, None
        if message is None:
            message = await self._message()
        return None if message is None else self._piece(message)

    def close(self) -> None:
        """Cancels the call where it still runs."""
        self._watch.stop()
        self._call.cancel()
        self._give_back()

    async def _message(self) -> Any:
        try:
            message = await self._call.read()
        except grpc.aio.AioRpcError as error:
            if self._watch.client_gone:
                raise ClientGoneError from None
            raise from_rpc_error(error) from error
        except asyncio.CancelledError:
            if self._watch.client_gone:
                raise ClientGoneError from None
            raise
        return None if message is grpc.aio.EOF else message


def _raw(message: Any) -> bytes:
    data: bytes = message.data
    return data


def _line(codecs: Codecs, route: Route) -> Callable[[Any], bytes]:
    encode = codecs.encoders.encoder(route.rpc.output_type)
    return lambda message: encode(message) + b"\n"
