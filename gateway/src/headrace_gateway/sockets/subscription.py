"""One call to a service whose messages many watchers get."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any, Final

import grpc
import structlog
from headrace.common.v1 import reasons_pb2
from headrace_chassis.channels import call_metadata
from headrace_chassis.errors import HeadraceError, Internal, Unauthenticated, Unavailable, from_rpc_error
from headrace_chassis.identity import LEEWAY_SECONDS, Principal
from headrace_chassis.latest import Latest

_log = structlog.get_logger(__name__)

FIRST_WAIT_SECONDS: Final = 0.1
LONGEST_WAIT_SECONDS: Final = 2.0

_PASSING: Final = frozenset(
    {
        reasons_pb2.REASON_UNAVAILABLE,
        reasons_pb2.REASON_DEADLINE_EXCEEDED,
        reasons_pb2.REASON_RATE_LIMITED,
        reasons_pb2.REASON_INTERNAL,
    }
)
"""Why a call may fail that is worth another try."""


class CompleteError(Exception):
    """The stream has come to its end: the last state was the last."""


class Subscription:
    """Holds the newest message, and asks again where the service goes away.

    `call` begins the RPC with a token's metadata; `encode` makes a message's text and `revision` tells its
    order. The tokens of its watchers serve by turns: the one that lives longest is used.
    """

    def __init__(
        self,
        call: Callable[..., Any],
        encode: Callable[[Any], str],
        revision: Callable[[Any], int],
    ) -> None:
        self._call = call
        self._encode = encode
        self._revision = revision
        self._watchers: dict[object, Principal] = {}
        self._task: asyncio.Task[None] | None = None
        self.latest: Latest[str] = Latest()

    @property
    def watchers(self) -> int:
        """How many watchers it has."""
        return len(self._watchers)

    @property
    def has_ended(self) -> bool:
        """Whether nothing new will come of it."""
        return self._task is not None and (self._task.done() or self._task.cancelling() > 0)

    def join(self, watcher: object, principal: Principal) -> None:
        """Takes a watcher in, or its new token."""
        self._watchers[watcher] = principal
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="subscription")

    def leave(self, watcher: object) -> None:
        """Lets a watcher go; with the last one, the call ends."""
        self._watchers.pop(watcher, None)
        if not self._watchers and self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            await self._follow()
        except CompleteError as complete:
            self.latest.end(complete)
        except HeadraceError as error:
            self.latest.end(error)
        except Exception:  # noqa: BLE001 - its watchers are told that it failed; the text stays in the log
            _log.exception("subscription failed")
            self.latest.end(Internal())

    async def _follow(self) -> None:
        failures = 0
        while True:
            before = self.latest.order
            try:
                await self._once()
            except HeadraceError as error:
                begun = self.latest.order >= 0
                if not self._is_passing(error, begun):
                    raise
                failures = 0 if self.latest.order > before else failures + 1
                if failures == 1:
                    _log.info("stream broken; asking again", code=error.code, watchers=self.watchers)
            ceiling = min(FIRST_WAIT_SECONDS * 2**failures, LONGEST_WAIT_SECONDS)
            # Jitter, so that the subscriptions of a service that comes back do not come all at once.
            await asyncio.sleep(random.uniform(ceiling / 2, ceiling))  # noqa: S311 - no secret

    def _is_passing(self, error: HeadraceError, begun: bool) -> bool:
        """Whether it makes sense to ask again. Before the first message the watchers are told instead, since
        they can still be given an answer with a status."""
        if error.reason == reasons_pb2.REASON_UNAUTHENTICATED:
            # One token has expired; each watcher is closed when its own has.
            return begun
        return begun and error.reason in _PASSING

    async def _once(self) -> None:
        """Makes one call and shows what comes. Raises CompleteError at its end, HeadraceError where it
        breaks."""
        principal = max(self._watchers.values(), key=lambda one: one.expires_at, default=None)
        if principal is None:
            raise Unavailable("a watcher")
        if principal.expires_at + LEEWAY_SECONDS < time.time():
            raise Unauthenticated("the token has expired")
        call = self._call(metadata=call_metadata(principal.token))
        try:
            while (message := await call.read()) is not grpc.aio.EOF:
                order = self._revision(message)
                if order > self.latest.order:
                    self.latest.show(order, self._encode(message))
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        finally:
            call.cancel()
        if self.latest.order < 0:
            raise Unavailable("the stream")
        raise CompleteError
