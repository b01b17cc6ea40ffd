"""One RPC as an HTTP endpoint: from the request's parts to the message, through the call, and back.

Everything that the route tells beforehand is worked out when the endpoint is made.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Final

import grpc
from google.protobuf import empty_pb2, message_factory
from google.protobuf.descriptor import Descriptor
from headrace_chassis import faults
from headrace_chassis.channels import Metadata, call_metadata
from headrace_chassis.errors import InvalidRequest, Problem, from_rpc_error
from headrace_chassis.identity import Principal

from headrace_gateway.codec.compile_decode import Decoder, DecoderCompiler
from headrace_gateway.codec.compile_encode import EncoderCompiler
from headrace_gateway.codec.fields import rules
from headrace_gateway.codec.findings import Findings
from headrace_gateway.codec.parameters import QueryDecoder, Setter, path_setter
from headrace_gateway.routes import Route, scalar_field

from .bodies import BodyReader, ClientGoneError
from .conditions import entity_tag, expected_version, none_match
from .exchange import JSON, Answer, Request
from .failures import EntityTagMismatch, refused

_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")
"""An Idempotency-Key, whose rule is the services'. It is checked here too because gRPC cannot carry other
text."""

_WATCH_AFTER_SECONDS: Final = 0.25
"""From when on a call is cancelled if its client goes away. Shorter calls are not worth the watching."""

Call = Callable[..., Awaitable[Any]]
"""A gRPC method: call(message, metadata=…, timeout=…)."""


class Codecs:
    """The compilers of one gateway."""

    def __init__(self) -> None:
        self.encoders = EncoderCompiler()
        self.decoders = DecoderCompiler()


class RpcEndpoint:
    """Serves one route over one or several channels in turn. `deadline_seconds` holds where the contract
    names none."""

    def __init__(
        self,
        route: Route,
        channels: Sequence[grpc.aio.Channel],
        codecs: Codecs,
        bodies: BodyReader,
        deadline_seconds: float,
    ) -> None:
        rpc = route.rpc
        self.route = route
        self._request_type: Callable[[], Any] = message_factory.GetMessageClass(rpc.input_type)
        response_type = message_factory.GetMessageClass(rpc.output_type)
        self._calls: Iterator[Call] = itertools.cycle(
            channel.unary_unary(
                route.grpc_path,
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=response_type.FromString,
            )
            for channel in channels
        )
        self._encode = None if route.answers_nothing else codecs.encoders.encoder(rpc.output_type)
        self._path_setters = [_path_setter(rpc.input_type, v.field_path) for v in route.template.variables]
        self._decode_body = _body_decoder(route, codecs.decoders)
        self._exact = _holds_json(rpc.input_type, set())
        body_fields = {route.body} if route.body not in ("", "*") else set()
        bound = route.template.fields | body_fields
        # Where the body gives all that the path leaves, nothing is left for a query.
        asked = rpc.input_type if route.query_allowed else empty_pb2.Empty.DESCRIPTOR
        self._query = QueryDecoder(asked, frozenset(bound))
        self._bodies = bodies
        self._timeout = float(route.deadline_seconds or deadline_seconds)
        self._headers = [JSON] if self._encode else []

    async def serve(self, request: Request, principal: Principal, values: list[str]) -> Answer:
        """Answers a request whose caller is known; `values` are the texts of the path's variables.

        Raises HeadraceError, and ClientGoneError where the client has gone.
        """
        message = await self._message(request, values)
        faults.point("gateway.forward.before")
        response = await self._called(request, message, self._metadata(request, principal))
        faults.point("gateway.forward.after")
        return self._answer(request, response)

    async def _message(self, request: Request, values: list[str]) -> Any:
        """Returns the RPC's request. Raises HeadraceError with all problems that were found."""
        message = self._request_type()
        found = Findings()
        for setter, value in zip(self._path_setters, values, strict=True):
            setter(message, [value], found)
        if request.query:
            self._query.decode(request.query, message, found)
        if self._decode_body is not None:
            self._decode_body(await self._bodies.read(request, self._exact), message, "", found)
        if found:
            raise refused(found.problems, found.unknown)
        self._expect_version(request, message)
        return message

    def _expect_version(self, request: Request, message: Any) -> None:
        if_match = request.header(b"if-match")
        if if_match is None or request.method in ("GET", "HEAD"):
            return
        version = expected_version(if_match)
        if version is None:
            return
        if not self.route.if_match_field:
            raise EntityTagMismatch(if_match)
        setattr(message, self.route.if_match_field, version)

    @staticmethod
    def _metadata(request: Request, principal: Principal) -> Metadata:
        key = None if request.method in ("GET", "HEAD") else request.header(b"idempotency-key")
        if key is not None and not _KEY.fullmatch(key):
            message = "1 to 255 printable ASCII characters without spaces are expected"
            raise InvalidRequest([Problem("INVALID_FORMAT", "Idempotency-Key", message)])
        return call_metadata(principal.token, idempotency_key=key)

    async def _called(self, request: Request, message: Any, metadata: Metadata) -> Any:
        """Returns the RPC's response; cancels the call where the client goes away while it takes long."""
        call: Any = next(self._calls)(message, metadata=metadata, timeout=self._timeout)
        watch = _ClientWatch(request, call)
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            if watch.client_gone:
                raise ClientGoneError from None
            raise from_rpc_error(error) from error
        except asyncio.CancelledError:
            if watch.client_gone:
                raise ClientGoneError from None
            raise
        finally:
            watch.stop()

    def _answer(self, request: Request, response: Any) -> Answer:
        route = self.route
        answer = Answer(route.success_status, headers=self._headers.copy())
        if self._encode is not None:
            answer.body = self._encode(response)
        if route.location is not None:
            values = {v.field_path: str(_value_at(response, v.field_path)) for v in route.location.variables}
            answer.headers.append((b"location", route.location.expand(values).encode("ascii")))
        if route.etag_field:
            tag = entity_tag(_value_at(response, route.etag_field))
            answer.headers.append((b"etag", tag))
            known = request.header(b"if-none-match") if request.method in ("GET", "HEAD") else None
            if known is not None and not none_match(known, tag):
                answer.status, answer.body = 304, b""
        return answer


class _ClientWatch:
    """Cancels a call once its client has gone. Costs a timer, and a task only where the call takes long."""

    __slots__ = ("_call", "_request", "_task", "_timer", "client_gone")

    def __init__(self, request: Request, call: Any) -> None:
        self.client_gone = False
        self._request = request
        self._call = call
        self._task: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(_WATCH_AFTER_SECONDS, self._start)

    def _start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._request.receive())["type"] != "http.disconnect":
            pass  # what is left of a body that nobody asked for
        self.client_gone = True
        self._call.cancel()

    def stop(self) -> None:
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()


def _path_setter(message: Descriptor, field_path: str) -> Setter:
    chain = scalar_field(message, field_path)
    if chain is None:
        raise ValueError(f"{field_path} is no single scalar of {message.full_name}")
    return path_setter(chain)


def _body_decoder(route: Route, decoders: DecoderCompiler) -> Decoder | None:
    if not route.body:
        return None
    if route.body == "*":
        bound = frozenset(name for name in route.template.fields if "." not in name)
        return decoders.decoder(route.rpc.input_type, bound)
    return decoders.field_decoder(route.rpc.input_type.fields_by_name[route.body])


def _holds_json(message: Descriptor, seen: set[str]) -> bool:
    """Tells whether a message, or one inside it, keeps raw JSON, whose digits must survive."""
    if message.full_name in seen:
        return False
    seen.add(message.full_name)
    return any(
        rules(field).json or (field.message_type is not None and _holds_json(field.message_type, seen))
        for field in message.fields
    )


def _value_at(message: Any, field_path: str) -> Any:
    for name in field_path.split("."):
        message = getattr(message, name)
    return message
