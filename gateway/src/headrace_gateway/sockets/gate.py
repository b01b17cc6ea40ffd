"""The door of WebSockets: who may come in, what is sent to them, and how it ends.

A refusal is an HTTP answer with a problem document, before the upgrade. A caller comes in when the first
message is there, so that whatever the service refuses has its status, too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any, Final

import structlog
from headrace_chassis.errors import DeadlineExceeded, HeadraceError, Internal, RoleRequired, Unauthenticated
from headrace_chassis.identity import LEEWAY_SECONDS, Principal, Role
from headrace_chassis.slots import StreamSlots

from headrace_gateway.http.callers import CallerChecks
from headrace_gateway.http.exchange import SECURITY, Receive, Request, Send
from headrace_gateway.http.failures import NoSuchRoute
from headrace_gateway.http.problems import problem_answer
from headrace_gateway.http.ratelimit import RateLimiter
from headrace_gateway.router import Router

from .closing import COMPLETE, EXPIRED, FAILED, Closing, closing_of
from .credentials import BEARER, Credential, credential_of, take_ticket
from .endpoint import SocketEndpoint
from .subscription import CompleteError, Subscription

_log = structlog.get_logger(__name__)

_LEAST_RENEWAL_SECONDS: Final = 1.0

_REASON_BYTES: Final = 123
"""The longest reason that a close frame can bear."""


class SocketGate:
    """Serves WebSockets. `first_seconds` is how long a caller waits at the door for the first message."""

    def __init__(
        self,
        endpoints: Iterable[SocketEndpoint],
        callers: CallerChecks,
        limiter: RateLimiter,
        slots: StreamSlots,
        first_seconds: float,
    ) -> None:
        """Raises RouteConflictError where two routes would serve the same requests."""
        self._router: Router[SocketEndpoint] = Router(
            (endpoint.route.http_method, endpoint.route.template, endpoint) for endpoint in endpoints
        )
        self._callers = callers
        self._limiter = limiter
        self._slots = slots
        self._first_seconds = first_seconds

    def serves(self, raw_path: bytes) -> bool:
        """Tells whether a path is one of a WebSocket."""
        return self._router.match(raw_path) is not None

    async def serve(self, request: Request, receive: Receive, send: Send) -> None:
        """Serves one connection that asks for an upgrade."""
        watcher = _Watcher(request, send)
        try:
            await self._admit(watcher, receive)
        except HeadraceError as error:
            await watcher.refuse(error)
        except Exception:  # noqa: BLE001 - the last line of defence; the text stays in the log
            _log.exception("socket failed", path=request.path)
            await watcher.refuse(Internal())

    async def _admit(self, watcher: _Watcher, receive: Receive) -> None:
        request = watcher.request
        match = self._router.match(request.scope["raw_path"])
        found = match.get("GET") if match is not None else None
        if found is None:
            raise NoSuchRoute
        endpoint, values = found
        ticket = take_ticket(request) if endpoint.tickets is not None else None
        credential = credential_of(request, ticket)
        if credential.is_ticket:
            message = await endpoint.asked(request, values)
            principal = await self._redeemed(endpoint, message, credential)
        else:
            principal = await self._callers.bearer(credential.text, request)
            self._limiter.admit((principal.tenant, principal.subject))
            if not principal.has(endpoint.route.role):
                raise RoleRequired(Role(endpoint.route.role).name.lower())
            message = await endpoint.asked(request, values)
        give_back = self._slots.take((principal.tenant, principal.subject))
        try:
            with endpoint.joined(message, principal, watcher) as subscription:
                first = await self._first(endpoint, subscription)
                await watcher.accept(credential)
                closing = await self._until_gone(watcher, receive, subscription, credential, principal, first)
                if closing is not None:
                    await watcher.close(closing)
        finally:
            give_back()

    async def _redeemed(self, endpoint: SocketEndpoint, message: Any, credential: Credential) -> Principal:
        """Returns for whom a ticket was made. It is bound to what the request asks for: its maker has seen to
        that, and the service sees to it again."""
        if endpoint.tickets is None:
            raise RoleRequired(Role(endpoint.route.role).name.lower())
        principal = await endpoint.tickets.redeem(message, credential.text)
        self._limiter.admit((principal.tenant, principal.subject))
        if not principal.may_call(endpoint.route.grpc_path, endpoint.route.role):
            raise RoleRequired(Role(endpoint.route.role).name.lower())
        return principal

    async def _first(self, endpoint: SocketEndpoint, subscription: Subscription) -> tuple[int, str]:
        scope = asyncio.timeout(self._first_seconds)
        try:
            async with scope:
                return await subscription.latest.after(-1)
        except TimeoutError:
            if scope.expired():
                raise DeadlineExceeded(endpoint.route.rpc.name) from None
            raise

    async def _until_gone(
        self,
        watcher: _Watcher,
        receive: Receive,
        subscription: Subscription,
        credential: Credential,
        principal: Principal,
        first: tuple[int, str],
    ) -> Closing | None:
        """Sends what comes until something ends it; returns how to close, or None where the client has
        gone."""
        tasks = [
            asyncio.create_task(_gone(receive)),
            asyncio.create_task(_sent(watcher, subscription, first)),
            asyncio.create_task(self._expired(watcher, subscription, credential, principal)),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        gone, *others = tasks
        if gone in done:
            return None
        return next(task.result() for task in others if task in done)

    async def _expired(
        self, watcher: _Watcher, subscription: Subscription, credential: Credential, principal: Principal
    ) -> Closing:
        """Waits until the caller may not watch any more.

        What stands behind an API key is asked anew when its token expires; services believe the old one for
        some seconds yet, so that the stream does not stop meanwhile.
        """
        while credential.is_renewable:
            await asyncio.sleep(max(principal.expires_at - time.time(), _LEAST_RENEWAL_SECONDS))
            try:
                principal = await self._callers.bearer(credential.text, watcher.request)
            except Unauthenticated as error:
                return closing_of(error)
            except HeadraceError:
                # It cannot be found out now: what was known is good for as long as services believe it.
                if principal.expires_at + LEEWAY_SECONDS < time.time():
                    return EXPIRED
                continue
            subscription.join(watcher, principal)
        await asyncio.sleep(max(principal.expires_at + LEEWAY_SECONDS - time.time(), 0.0))
        return EXPIRED


class _Watcher:
    """One WebSocket, from its request to its end."""

    def __init__(self, request: Request, send: Send) -> None:
        self.request = request
        self._send = send

    async def accept(self, credential: Credential) -> None:
        """Upgrades the connection."""
        headers = [(b"x-request-id", self.request.request_id.encode("ascii"))]
        subprotocol = BEARER if credential.in_subprotocol else None
        await self._send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": headers})

    async def send(self, text: str) -> None:
        """Sends a message; waits while too much of earlier ones is on its way yet."""
        await self._send({"type": "websocket.send", "text": text})

    async def close(self, closing: Closing) -> None:
        """Says goodbye."""
        reason = closing.reason.encode()[:_REASON_BYTES].decode("utf-8", "ignore")
        await self._send({"type": "websocket.close", "code": closing.code, "reason": reason})

    async def refuse(self, error: HeadraceError) -> None:
        """Answers with a problem document instead of the upgrade."""
        answer = problem_answer(error, self.request.path, self.request.request_id)
        headers = [*answer.headers, *SECURITY, (b"x-request-id", self.request.request_id.encode("ascii"))]
        headers.append((b"content-length", str(len(answer.body)).encode("ascii")))
        await self._send(
            {"type": "websocket.http.response.start", "status": answer.status, "headers": headers}
        )
        await self._send({"type": "websocket.http.response.body", "body": answer.body})


async def _gone(receive: Receive) -> None:
    """Returns when the client has gone. What it sends is read and dropped."""
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def _sent(watcher: _Watcher, subscription: Subscription, first: tuple[int, str]) -> Closing:
    """Sends the first message and all that come; a client that is slow misses those between."""
    order, text = first
    while True:
        await watcher.send(text)
        try:
            order, text = await subscription.latest.after(order)
        except CompleteError:
            return COMPLETE
        except HeadraceError as error:
            return closing_of(error)
        except Exception:  # noqa: BLE001 - what a subscription ends with is one of the two
            _log.exception("socket failed", path=watcher.request.path)
            return FAILED
