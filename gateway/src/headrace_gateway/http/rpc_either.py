"""A route with two RPCs: one that answers at once, and one that streams where the request asks for that."""

from __future__ import annotations

from headrace_chassis.identity import Principal

from headrace_gateway.routes import Route

from .exchange import Answer, Request
from .rpc import RpcEndpoint
from .rpc_stream import StreamEndpoint


class EitherEndpoint:
    """Serves one route by either of two endpoints that take the same request."""

    def __init__(self, route: Route, at_once: RpcEndpoint, stream: StreamEndpoint) -> None:
        self.route = route
        self._at_once = at_once
        self._stream = stream

    async def serve(self, request: Request, principal: Principal, values: list[str]) -> Answer:
        """Answers a request whose caller is known; `values` are the texts of the path's variables.

        Raises HeadraceError, and ClientGoneError where the client has gone.
        """
        message = await self._at_once.message(request, values)
        chosen = self._stream if getattr(message, self.route.stream_field) else self._at_once
        return await chosen.answer(request, principal, message)
