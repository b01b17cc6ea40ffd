"""Whether the gateway can do its work: it can while the services behind it say that they can."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from headrace_chassis.errors import Unavailable
from headrace_chassis.observability.metrics import ReadyCheck

_CHECK_SECONDS = 1.0


class Readiness:
    """Asks the services behind the gateway over grpc.health.v1."""

    def __init__(self, channels: Mapping[str, grpc.aio.Channel]) -> None:
        self._stubs = {name: health_pb2_grpc.HealthStub(channel) for name, channel in channels.items()}
        self._draining = False

    def drain(self) -> None:
        """Says from now on that no further requests are welcome."""
        self._draining = True

    def checks(self) -> dict[str, ReadyCheck]:
        """Returns a check for each service, which raises Unavailable where it does not serve."""

        def check(name: str) -> ReadyCheck:
            return lambda: self._ask(name)

        return {name: check(name) for name in self._stubs}

    async def failures(self) -> list[str]:
        """Returns why no requests are welcome; empty where they are."""
        if self._draining:
            return ["draining"]
        told = await asyncio.gather(*(self._ask(name) for name in self._stubs), return_exceptions=True)
        return [str(failure) for failure in told if failure is not None]

    async def _ask(self, name: str) -> None:
        request = health_pb2.HealthCheckRequest()
        try:
            answer = await self._stubs[name].Check(request, timeout=_CHECK_SECONDS, wait_for_ready=True)
        except grpc.aio.AioRpcError:
            raise Unavailable(f"the {name} service") from None
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            raise Unavailable(f"the {name} service")
