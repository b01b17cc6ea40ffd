"""One RPC as a WebSocket: what it is asked, and the subscriptions that its watchers share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import grpc
from google.protobuf import message_factory
from headrace_chassis.identity import Principal
from prometheus_client import Gauge

from headrace_gateway.http.bodies import BodyReader
from headrace_gateway.http.exchange import Request
from headrace_gateway.http.request_reader import Codecs, RequestReader
from headrace_gateway.socket_routes import SocketRoute

from .subscription import Subscription
from .tickets import TicketOffice

WATCHERS: Final = Gauge("hr_socket_watchers", "WebSockets that are open.", ["operation"])
SUBSCRIPTIONS: Final = Gauge(
    "hr_socket_subscriptions", "Calls to services that serve the open WebSockets.", ["operation"]
)

Key = tuple[object, ...]


class SocketEndpoint:
    """Serves one route over a channel.

    Watchers who ask for the same with the same rights (tenant and workspaces) share one subscription; the
    role is the route's, and checked for each watcher before it comes here.
    """

    def __init__(
        self,
        socket: SocketRoute,
        channel: grpc.aio.Channel,
        codecs: Codecs,
        bodies: BodyReader,
        tickets: TicketOffice | None,
    ) -> None:
        """`tickets` redeems the tickets of the route, where it takes any."""
        self.tickets = tickets
        self.route = socket.route
        response_type = message_factory.GetMessageClass(self.route.rpc.output_type)
        self._begin: Callable[..., Any] = channel.unary_stream(
            self.route.grpc_path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response_type.FromString,
        )
        self._reader = RequestReader(self.route, codecs.decoders, bodies)
        encode = codecs.encoders.encoder(self.route.rpc.output_type)
        self._encode: Callable[[Any], str] = lambda message: encode(message).decode("utf-8")
        self._revision: Callable[[Any], int] = lambda message: int(getattr(message, socket.revision_field))
        self._open: dict[Key, Subscription] = {}
        self._watchers = WATCHERS.labels(self.route.operation_id)
        self._subscriptions = SUBSCRIPTIONS.labels(self.route.operation_id)

    @property
    def subscriptions(self) -> int:
        """How many calls to the service there are."""
        return len(self._open)

    async def asked(self, request: Request, values: list[str]) -> Any:
        """Returns the RPC's request. Raises HeadraceError with all problems that were found."""
        return await self._reader.message(request, values)

    @contextmanager
    def joined(self, message: Any, principal: Principal, watcher: object) -> Iterator[Subscription]:
        """Joins the subscription that serves a caller for a request, for the time of a block."""
        key = (principal.tenant, principal.workspaces, message.SerializeToString(deterministic=True))
        subscription = self._open.get(key)
        if subscription is None or subscription.has_ended:
            subscription = self._open[key] = Subscription(
                lambda **options: self._begin(message, **options), self._encode, self._revision
            )
        subscription.join(watcher, principal)
        self._count()
        try:
            yield subscription
        finally:
            subscription.leave(watcher)
            if not subscription.watchers and self._open.get(key) is subscription:
                del self._open[key]
            self._count()

    def _count(self) -> None:
        self._subscriptions.set(len(self._open))
        self._watchers.set(sum(subscription.watchers for subscription in self._open.values()))
