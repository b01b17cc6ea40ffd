"""The only place where the parts of the service are made, leaves first."""

from collections.abc import Callable
from contextlib import AsyncExitStack

import grpc
from headrace.common.v1 import event_log_pb2_grpc
from headrace.metadata.v1 import (
    connections_pb2,
    connections_pb2_grpc,
    definitions_pb2,
    definitions_pb2_grpc,
    pipelines_pb2,
    pipelines_pb2_grpc,
    workspaces_pb2,
    workspaces_pb2_grpc,
)
from headrace_chassis import migrations
from headrace_chassis.agents import Agent, AgentRunner
from headrace_chassis.bus import Bus
from headrace_chassis.channels import open_channel, service_metadata
from headrace_chassis.consumer import EventConsumer
from headrace_chassis.database import Database
from headrace_chassis.identity import ServiceTokens, TokenVerifier
from headrace_chassis.ids import NIL
from headrace_chassis.lifecycle import Stop
from headrace_chassis.observability import logs, tracing
from headrace_chassis.observability.metrics import OperationsServer
from headrace_chassis.outbox import OutboxRelay, event_log
from headrace_chassis.paging import Cursors
from headrace_chassis.server import GrpcServer, Service
from headrace_chassis.settings import SettingsError

from headrace_metadata.application.connections import ConnectionWriter
from headrace_metadata.application.definitions import DefinitionChecker
from headrace_metadata.application.deletion import PipelineDeletion
from headrace_metadata.application.execution import Execution
from headrace_metadata.application.pipelines import PipelineWriter
from headrace_metadata.application.probes import ConnectionProbes
from headrace_metadata.application.validation import PipelineValidator
from headrace_metadata.application.writes import Writes
from headrace_metadata.config import MetadataSettings
from headrace_metadata.keyring import Keyring
from headrace_metadata.loops.pipeline_deleter import PipelineDeleter
from headrace_metadata.loops.run_follower import RUN_EVENTS, follow_runs
from headrace_metadata.loops.secret_rotator import SecretRotator
from headrace_metadata.servicers.connections import ConnectionServicer
from headrace_metadata.servicers.definitions import DefinitionServicer
from headrace_metadata.servicers.pipelines import PipelineServicer
from headrace_metadata.servicers.workspaces import WorkspaceServicer
from headrace_metadata.store import connections

SERVICE = "metadata"


class Parts:
    """What the service is made of, beside its server: what tests put together as the process does."""

    def __init__(
        self,
        settings: MetadataSettings,
        db: Database,
        execution: grpc.aio.Channel,
        wake: Callable[[], None],
        bus: Bus | None = None,
    ) -> None:
        self._db = db
        self._tokens = ServiceTokens(SERVICE, settings.internal_key_file)
        self._cursors = Cursors.from_file(settings.cursor_key_file)
        self._policy = settings.reference_policy()
        self._channel = execution
        self._bus = bus
        self.keyring: Keyring = settings.keyring()
        self.execution = Execution(execution, self._tokens)
        self.checker = DefinitionChecker(settings.definition_threads, settings.definition_max_bytes)
        self.writes = Writes(db, wake)
        self.deletion = PipelineDeletion(db, self.execution, wake)

    async def demand_all_keys(self) -> None:
        """Raises SettingsError where a stored secret needs a key that the keyring lacks."""
        async with self._db.read() as conn:
            missing = self.keyring.missing(await connections.key_ids(conn))
        if missing:
            named = ", ".join(missing)
            raise SettingsError(f"the encryption keyring lacks keys that stored secrets need: {named}")

    def services(self) -> list[Service]:
        """What the server serves."""
        db, writes, cursors = self._db, self.writes, self._cursors
        pipelines = PipelineServicer(
            db,
            writes,
            PipelineWriter(db, self.checker),
            PipelineValidator(db, self.checker),
            self.deletion,
            cursors,
        )
        writer = ConnectionWriter(self.keyring, self._policy)
        probes = ConnectionProbes(self.execution)
        return [
            (
                workspaces_pb2.DESCRIPTOR.services_by_name["WorkspaceService"],
                workspaces_pb2_grpc.add_WorkspaceServiceServicer_to_server,
                WorkspaceServicer(db, writes, cursors),
            ),
            (
                pipelines_pb2.DESCRIPTOR.services_by_name["PipelineService"],
                pipelines_pb2_grpc.add_PipelineServiceServicer_to_server,
                pipelines,
            ),
            (
                connections_pb2.DESCRIPTOR.services_by_name["ConnectionService"],
                connections_pb2_grpc.add_ConnectionServiceServicer_to_server,
                ConnectionServicer(db, writes, writer, probes, cursors),
            ),
            (
                definitions_pb2.DESCRIPTOR.services_by_name["DefinitionService"],
                definitions_pb2_grpc.add_DefinitionServiceServicer_to_server,
                DefinitionServicer(db, writes, self.keyring),
            ),
            event_log(db),
        ]

    def agents(self) -> list[Agent]:
        """What runs beside the server, but for the relay of the outbox."""
        log: event_log_pb2_grpc.EventLogServiceAsyncStub = event_log_pb2_grpc.EventLogServiceStub(
            self._channel
        )
        follower = EventConsumer(
            self._db,
            "metadata.run_status",
            "execution",
            log,
            lambda: service_metadata(self._tokens, NIL),
            follow_runs,
            types=RUN_EVENTS,
            bus=self._bus,
        )
        return [follower, PipelineDeleter(self.deletion), SecretRotator(self._db, self.keyring)]


async def serve(settings: MetadataSettings, stop: Stop) -> None:
    """Runs the service until `stop` is set, then drains it: the server before what it uses."""
    logs.configure(SERVICE, level=settings.log_level, form=settings.log_format)
    if settings.otel_exporter_otlp_endpoint is not None:
        tracing.configure(SERVICE, settings.otel_exporter_otlp_endpoint)
    async with AsyncExitStack() as stack:
        stack.callback(tracing.shut_down)
        db = Database(
            settings.database_url,
            pool_size=settings.database_pool_size,
            application_name=f"headrace-{SERVICE}",
        )
        stack.push_async_callback(db.close)
        bus = Bus(settings.nats_url, SERVICE)
        stack.push_async_callback(bus.close)
        execution = open_channel(settings.execution_target)
        stack.push_async_callback(execution.close)
        relay = OutboxRelay(db, SERVICE, bus)
        parts = Parts(settings, db, execution, relay.wake, bus)
        stack.callback(parts.checker.close)
        runner = AgentRunner([*relay.agents, *parts.agents()])

        await migrations.upgrade(settings.database_url, "headrace_metadata.migrations")
        await parts.demand_all_keys()

        operations = None
        if settings.metrics_listen is not None:
            operations = OperationsServer(settings.metrics_listen, {"database": db.ping})
            await operations.start()
            stack.push_async_callback(operations.stop)
        await bus.start()
        stack.push_async_callback(runner.stop)
        await runner.start()
        server = GrpcServer(settings, TokenVerifier(settings), parts.services())
        stack.push_async_callback(server.stop)
        await server.start()
        stack.push_async_callback(server.drain)
        if operations is not None:
            stack.callback(operations.drain)
        await stop.wait()
