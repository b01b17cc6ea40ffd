"""API keys as credentials: each is exchanged, at the service that owns them, for a token that lives seconds.

What an exchange said is believed for a moment, under a hash of the key: then it is asked again, so that a
revoked key opens nothing a moment later. Many requests with one key share one exchange.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import grpc
from headrace.metadata.v1 import api_keys_pb2, api_keys_pb2_grpc
from headrace_chassis.errors import Unauthenticated, Unavailable, from_rpc_error
from headrace_chassis.identity import Principal
from headrace_chassis.verification import TokenVerifier

PREFIX: Final = "hr_"
"""How API keys begin; no JSON Web Token does."""

BELIEVED_SECONDS: Final = 2.0
"""How long an answer is believed: how long a revoked key is taken here at the most."""

_TIMEOUT_SECONDS: Final = 5.0
_MAX_KNOWN: Final = 10_000
_MAX_RUNNING: Final = 256
_MAX_LENGTH: Final = 200


class ApiKeyExchange:
    """Finds out who is behind an API key. `channel` leads to the service that owns the keys; the clock is
    monotonic, in seconds."""

    def __init__(
        self, channel: grpc.aio.Channel, verifier: TokenVerifier, clock: Callable[[], float]
    ) -> None:
        self._stub: api_keys_pb2_grpc.ApiKeyServiceAsyncStub = api_keys_pb2_grpc.ApiKeyServiceStub(channel)
        self._verifier = verifier
        self._clock = clock
        self._known: OrderedDict[bytes, tuple[Principal | None, float]] = OrderedDict()
        self._running: dict[bytes, asyncio.Task[Principal]] = {}

    async def principal(self, key: str) -> Principal:
        """Returns whom a key stands for.

        Raises Unauthenticated, always alike, where the key is not valid, and Unavailable where that cannot be
        found out.
        """
        if len(key) > _MAX_LENGTH:
            raise _refused()
        digest = hashlib.sha256(key.encode("latin-1")).digest()
        known = self._known.get(digest)
        if known is not None and self._clock() < known[1]:
            if known[0] is None:
                raise _refused()
            return known[0]
        task = self._running.get(digest)
        if task is None:
            if len(self._running) >= _MAX_RUNNING:
                raise Unavailable("the exchange of API keys (too many are being asked for)")
            task = asyncio.create_task(self._ask(key, digest))
            self._running[digest] = task
            task.add_done_callback(lambda done: self._finished(digest, done))
        # A client that goes away must not take the answer from the others that wait for it.
        return await asyncio.shield(task)

    async def _ask(self, key: str, digest: bytes) -> Principal:
        begun = self._clock()
        request = api_keys_pb2.ExchangeApiKeyRequest(key=key)
        try:
            answer = await self._stub.ExchangeApiKey(request, timeout=_TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as error:
            told = from_rpc_error(error)
            if told.reason == Unauthenticated.reason:
                self._remember(digest, None, begun)
                raise _refused() from None
            raise told from error
        principal = await self._verifier.verify(answer.token)
        self._remember(digest, principal, begun)
        return principal

    def _remember(self, digest: bytes, principal: Principal | None, begun: float) -> None:
        self._known[digest] = (principal, begun + BELIEVED_SECONDS)
        self._known.move_to_end(digest)
        while len(self._known) > _MAX_KNOWN:
            self._known.popitem(last=False)

    def _finished(self, digest: bytes, task: asyncio.Task[Principal]) -> None:
        del self._running[digest]
        if not task.cancelled():
            task.exception()  # whoever waited has got it; nobody may have waited to the end


def _refused() -> Unauthenticated:
    return Unauthenticated("the API key is not valid")
