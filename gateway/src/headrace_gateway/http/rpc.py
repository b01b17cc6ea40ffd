"""One RPC as an HTTP endpoint: from the request to the message, through the call, and back."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import grpc
from google.protobuf import message_factory
from headrace_chassis import faults
from headrace_chassis.channels import Metadata
from headrace_chassis.errors import from_rpc_error
from headrace_chassis.identity import Principal

from headrace_gateway.routes import Route

from .bodies import BodyReader, ClientGoneError
from .client_watch import ClientWatch
from .conditions import entity_tag, none_match
from .exchange import JSON, Answer, Request
from .request_reader import Codecs, RequestReader

Call = Callable[..., Awaitable[Any]]
"""A gRPC method: call(message, metadata=…, timeout=…)."""


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
        response_type = message_factory.GetMessageClass(rpc.output_type)
        self._calls: Iterator[Call] = itertools.cycle(
            channel.unary_unary(
                route.grpc_path,
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=response_type.FromString,
            )
            for channel in channels
        )
        self._reader = RequestReader(route, codecs.decoders, bodies)
        self._encode = None if route.answers_nothing else codecs.encoders.encoder(rpc.output_type)
        self._timeout = float(route.deadline_seconds or deadline_seconds)
        self._headers = [JSON] if self._encode else []

    async def serve(self, request: Request, principal: Principal, values: list[str]) -> Answer:
        """Answers a request whose caller is known; `values` are the texts of the path's variables.

        Raises HeadraceError, and ClientGoneError where the client has gone.
        """
        return await self.answer(request, principal, await self.message(request, values))

    async def message(self, request: Request, values: list[str]) -> Any:
        """Returns the RPC's request. Raises HeadraceError and ClientGoneError."""
        return await self._reader.message(request, values)

    async def answer(self, request: Request, principal: Principal, message: Any) -> Answer:
        """Answers a request that was read. Raises HeadraceError and ClientGoneError."""
        faults.point("gateway.forward.before")
        response = await self._called(request, message, self._reader.metadata(request, principal))
        faults.point("gateway.forward.after")
        return self._answer(request, response)

    async def _called(self, request: Request, message: Any, metadata: Metadata) -> Any:
        """Returns the RPC's response; cancels the call where the client goes away while it takes long."""
        call: Any = next(self._calls)(message, metadata=metadata, timeout=self._timeout)
        watch = ClientWatch(request, call)
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
            if all(values.values()):  # a dry run has made nothing that is somewhere
                answer.headers.append((b"location", route.location.expand(values).encode("ascii")))
        if route.etag_field:
            tag = entity_tag(_value_at(response, route.etag_field))
            answer.headers.append((b"etag", tag))
            known = request.header(b"if-none-match") if request.method in ("GET", "HEAD") else None
            if known is not None and not none_match(known, tag):
                answer.status, answer.body = 304, b""
        return answer


def _value_at(message: Any, field_path: str) -> Any:
    for name in field_path.split("."):
        message = getattr(message, name)
    return message
