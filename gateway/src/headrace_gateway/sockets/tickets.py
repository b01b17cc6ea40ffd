"""One-time tickets in the address of a WebSocket: each is redeemed, at the service that made it, for a token
that is good for this stream and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from headrace_chassis.errors import Unauthenticated, Unavailable, from_rpc_error
from headrace_chassis.identity import Principal
from headrace_chassis.verification import TokenVerifier

from headrace_gateway.routes import grpc_path
from headrace_gateway.socket_routes import SocketRoute

_FORM: Final = re.compile(r"[A-Za-z0-9_-]{22,200}")
_TIMEOUT_SECONDS: Final = 5.0
_MAX_RUNNING: Final = 256
"""Whoever shows a ticket is not known yet and has no limit of their own."""


class TicketOffice:
    """Redeems the tickets of one route over a channel."""

    def __init__(
        self,
        socket: SocketRoute,
        rpc: MethodDescriptor,
        channel: grpc.aio.Channel,
        verifier: TokenVerifier,
    ) -> None:
        self._request_type = message_factory.GetMessageClass(rpc.input_type)
        response_type = message_factory.GetMessageClass(rpc.output_type)
        self._call: Callable[..., Any] = channel.unary_unary(
            grpc_path(rpc),
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response_type.FromString,
        )
        self._fields = [variable.field_path for variable in socket.route.template.variables]
        self._rpc = socket.route.grpc_path
        self._verifier = verifier
        self._running = 0

    async def redeem(self, message: Any, ticket: str) -> Principal:
        """Returns for whom a ticket was made that is shown with a request of the stream.

        Raises Unauthenticated, always alike, where it is not valid, and Unavailable where that cannot be
        found out.
        """
        if not _FORM.fullmatch(ticket):
            raise _refused()
        if self._running >= _MAX_RUNNING:
            raise Unavailable("the counter for tickets (too many are being shown)")
        self._running += 1
        try:
            named = {name: getattr(message, name) for name in self._fields}
            request = self._request_type(ticket=ticket, **named)
            answer: Any = await self._call(request, timeout=_TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as error:
            told = from_rpc_error(error)
            if told.reason == Unauthenticated.reason:
                raise _refused() from None
            raise told from error
        finally:
            self._running -= 1
        principal = await self._verifier.verify(answer.token)
        if principal.bound_to is None or principal.bound_to.rpc != self._rpc:
            raise _refused()
        return principal


def _refused() -> Unauthenticated:
    return Unauthenticated("the ticket is not valid; make a new one")
