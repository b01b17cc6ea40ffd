"""Servers in process: a real gRPC server with all interceptors on a free port, and a channel to it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from headrace_chassis.channels import Metadata, call_metadata, open_channel
from headrace_chassis.server import GrpcServer, Service
from headrace_chassis.settings import ServerSettings
from headrace_chassis.testing.authority import Authority
from headrace_chassis.testing.waiting import eventually
from headrace_chassis.verification import TokenVerifier


@dataclass(frozen=True)
class Served:
    """A server that runs, and a channel to it."""

    server: GrpcServer
    channel: grpc.aio.Channel
    authority: Authority

    @property
    def target(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.server.port}"

    def as_user(self, role: str = "editor", **more: object) -> Metadata:
        """Returns the metadata of a user's call."""
        return call_metadata(self.authority.user(role, **more))  # type: ignore[arg-type]


@asynccontextmanager
async def serve(
    authority: Authority, services: Sequence[Service], *, default_deadline: float = 30.0
) -> AsyncIterator[Served]:
    """Serves services on a free port until the end of the block."""
    settings = ServerSettings(**{**authority.server_values(), "drain_seconds": 1.0})
    server = GrpcServer(settings, TokenVerifier(settings), services, default_deadline=default_deadline)
    await server.start()
    channel = open_channel(f"127.0.0.1:{server.port}")
    try:
        yield Served(server, channel, authority)
    finally:
        await channel.close()
        await server.drain()
        await server.stop()


async def until_healthy(target: str) -> None:
    """Waits until a server says over grpc.health.v1 that calls are welcome."""
    async with grpc.aio.insecure_channel(target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)

        async def serving() -> bool:
            try:
                answer = await stub.Check(health_pb2.HealthCheckRequest())
            except grpc.aio.AioRpcError:
                return False
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

        await eventually(serving)
