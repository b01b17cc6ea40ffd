"""The process of a service: what each of them makes first, and in which order all of it ends.

A service's wiring makes its own parts between the two steps here:

    async with foundation("metadata", settings, "headrace_metadata.migrations") as base:
        execution = base.channel(settings.execution_target)
        ...
        await base.serve(stop, services, agents)
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import grpc

from headrace_chassis import migrations
from headrace_chassis.agents import Agent, AgentRunner
from headrace_chassis.bus import Bus
from headrace_chassis.channels import open_channel
from headrace_chassis.database import Database
from headrace_chassis.identity import ServiceTokens
from headrace_chassis.lifecycle import Stop
from headrace_chassis.observability import logs, tracing
from headrace_chassis.observability.metrics import OperationsServer
from headrace_chassis.outbox import EventLog, OutboxRelay
from headrace_chassis.paging import Cursors
from headrace_chassis.server import GrpcServer, Service
from headrace_chassis.settings import ServiceSettings
from headrace_chassis.verification import TokenVerifier


class Foundation:
    """What every service has: a migrated database, a bus, an outbox, its tokens and its cursors."""

    def __init__(self, name: str, settings: ServiceSettings, stack: AsyncExitStack) -> None:
        self.name = name
        self.settings = settings
        self._stack = stack
        self.db = Database(
            settings.database_url,
            pool_size=settings.database_pool_size,
            application_name=f"headrace-{name}",
        )
        stack.push_async_callback(self.db.close)
        self.bus = Bus(settings.nats_url, name)
        stack.push_async_callback(self.bus.close)
        self.log = EventLog(self.db)
        self.relay = OutboxRelay(self.db, name, self.bus, self.log)
        self.tokens = ServiceTokens(name, settings.internal_key_file)
        self.cursors = Cursors.from_file(settings.cursor_key_file)

    def channel(self, target: str) -> grpc.aio.Channel:
        """Opens a channel to another service; it is closed after all that may use it has ended."""
        channel = open_channel(target)
        self._stack.push_async_callback(channel.close)
        return channel

    def on_end(self, close: Callable[[], object]) -> None:
        """Has something closed at the end, before what was made earlier."""
        self._stack.callback(close)

    async def serve(
        self,
        stop: Stop,
        services: Sequence[Service],
        agents: Sequence[Agent],
        *,
        on_drain: Sequence[Callable[[], Awaitable[None]]] = (),
    ) -> None:
        """Serves and runs the agents (those of the outbox among them) until `stop` is set, and drains.

        The order of the end: not ready any more, no new calls, running calls finish, agents stop; then the
        caller's block ends, and channels, bus and database close.
        """
        settings = self.settings
        async with AsyncExitStack() as stack:
            operations = None
            if settings.metrics_listen is not None:
                operations = OperationsServer(settings.metrics_listen, {"database": self.db.ping})
                stack.push_async_callback(operations.stop)
                await operations.start()
            await self.bus.start()
            runner = AgentRunner([*self.relay.agents, *agents])
            stack.push_async_callback(runner.stop)
            await runner.start()
            server = GrpcServer(settings, TokenVerifier(settings), services, on_drain=on_drain)
            stack.push_async_callback(server.stop)
            stack.push_async_callback(server.drain)
            await server.start()
            if operations is not None:
                stack.callback(operations.drain)
            await stop.wait()


@asynccontextmanager
async def foundation(
    name: str, settings: ServiceSettings, migrations_package: str
) -> AsyncIterator[Foundation]:
    """Sets up logs and traces, waits for the database, and migrates it."""
    logs.configure(name, level=settings.log_level, form=settings.log_format)
    if settings.otel_exporter_otlp_endpoint is not None:
        tracing.configure(name, settings.otel_exporter_otlp_endpoint)
    async with AsyncExitStack() as stack:
        stack.callback(tracing.shut_down)
        base = Foundation(name, settings, stack)
        await migrations.upgrade(settings.database_url, migrations_package)
        yield base
