"""The only place where the parts of the service are made, leaves first."""

import grpc
from headrace.common.v1 import event_log_pb2_grpc
from headrace.metadata.v1 import (
    api_keys_pb2,
    api_keys_pb2_grpc,
    audit_pb2,
    audit_pb2_grpc,
    connections_pb2,
    connections_pb2_grpc,
    definitions_pb2,
    definitions_pb2_grpc,
    lineage_pb2,
    lineage_pb2_grpc,
    pipelines_pb2,
    pipelines_pb2_grpc,
    templates_pb2,
    templates_pb2_grpc,
    workspaces_pb2,
    workspaces_pb2_grpc,
)
from headrace_chassis.agents import Agent
from headrace_chassis.api_key_tokens import ApiKeyTokens
from headrace_chassis.channels import service_metadata
from headrace_chassis.consumer import EventConsumer
from headrace_chassis.event_sources import ServiceEvents
from headrace_chassis.ids import NIL
from headrace_chassis.lifecycle import Stop
from headrace_chassis.outbox import event_log
from headrace_chassis.server import Service
from headrace_chassis.service import Foundation, foundation
from headrace_chassis.settings import SettingsError
from headrace_chassis.writes import Writes

from headrace_metadata.application.api_keys import TOKEN_SECONDS, ApiKeys
from headrace_metadata.application.connections import ConnectionWriter
from headrace_metadata.application.definitions import DefinitionChecker
from headrace_metadata.application.deletion import PipelineDeletion
from headrace_metadata.application.execution import Execution
from headrace_metadata.application.graphs import GraphReader
from headrace_metadata.application.lineage import LineageReader
from headrace_metadata.application.pipelines import PipelineWriter
from headrace_metadata.application.probes import ConnectionProbes
from headrace_metadata.application.templates import TemplateCatalogue
from headrace_metadata.application.validation import PipelineValidator
from headrace_metadata.config import MetadataSettings
from headrace_metadata.keyring import Keyring
from headrace_metadata.loops.pipeline_deleter import PipelineDeleter
from headrace_metadata.loops.run_follower import RUN_EVENTS, follow_runs
from headrace_metadata.loops.schedule_follower import SCHEDULE_EVENTS, follow_schedules
from headrace_metadata.loops.secret_rotator import SecretRotator
from headrace_metadata.servicers.api_keys import ApiKeyServicer
from headrace_metadata.servicers.audit import AuditServicer
from headrace_metadata.servicers.connections import ConnectionServicer
from headrace_metadata.servicers.definitions import DefinitionServicer
from headrace_metadata.servicers.lineage import LineageServicer
from headrace_metadata.servicers.pipelines import PipelineServicer
from headrace_metadata.servicers.templates import TemplateServicer
from headrace_metadata.servicers.workspaces import WorkspaceServicer
from headrace_metadata.store import connections

SERVICE = "metadata"
MIGRATIONS = "headrace_metadata.migrations"


class Parts:
    """What the service is made of, beside its foundation and its server: what tests put together as the
    process does."""

    def __init__(
        self,
        settings: MetadataSettings,
        base: Foundation,
        execution: grpc.aio.Channel,
        scheduler: grpc.aio.Channel,
    ) -> None:
        self._base = base
        self._policy = settings.reference_policy()
        self._channel = execution
        self._scheduler = scheduler
        self.keyring: Keyring = settings.keyring()
        self.execution = Execution(execution, base.tokens)
        self.checker = DefinitionChecker(settings.definition_threads, settings.definition_max_bytes)
        self.writes = Writes(SERVICE, base.db, base.relay.wake)
        self.templates = TemplateCatalogue.shipped()
        self.deletion = PipelineDeletion(base.db, self.execution, base.relay.wake)
        self.api_keys = ApiKeys(
            base.db,
            ApiKeyTokens(settings.internal_key_file, TOKEN_SECONDS),
            settings.api_keys_per_tenant,
        )

    async def demand_all_keys(self) -> None:
        """Raises SettingsError where a stored secret needs a key that the keyring lacks."""
        async with self._base.db.read() as conn:
            missing = self.keyring.missing(await connections.key_ids(conn))
        if missing:
            named = ", ".join(missing)
            raise SettingsError(f"the encryption keyring lacks keys that stored secrets need: {named}")

    def services(self) -> list[Service]:
        """What the server serves."""
        db, writes, cursors = self._base.db, self.writes, self._base.cursors
        pipeline_writer = PipelineWriter(db, self.checker)
        pipelines = PipelineServicer(
            db,
            writes,
            pipeline_writer,
            PipelineValidator(db, self.checker),
            self.deletion,
            GraphReader(db, self.checker),
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
                templates_pb2.DESCRIPTOR.services_by_name["TemplateService"],
                templates_pb2_grpc.add_TemplateServiceServicer_to_server,
                TemplateServicer(self.templates, writes, pipeline_writer, cursors),
            ),
            (
                audit_pb2.DESCRIPTOR.services_by_name["AuditService"],
                audit_pb2_grpc.add_AuditServiceServicer_to_server,
                AuditServicer(db, cursors),
            ),
            (
                lineage_pb2.DESCRIPTOR.services_by_name["LineageService"],
                lineage_pb2_grpc.add_LineageServiceServicer_to_server,
                LineageServicer(LineageReader(db, self.checker)),
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
            (
                api_keys_pb2.DESCRIPTOR.services_by_name["ApiKeyService"],
                api_keys_pb2_grpc.add_ApiKeyServiceServicer_to_server,
                ApiKeyServicer(db, writes, self.api_keys, cursors),
            ),
            event_log(self._base.log),
        ]

    def agents(self) -> list[Agent]:
        """What runs beside the server and the outbox."""
        log: event_log_pb2_grpc.EventLogServiceAsyncStub = event_log_pb2_grpc.EventLogServiceStub(
            self._channel
        )
        schedules: event_log_pb2_grpc.EventLogServiceAsyncStub = event_log_pb2_grpc.EventLogServiceStub(
            self._scheduler
        )
        followers = [
            EventConsumer(
                self._base.db,
                name,
                ServiceEvents(source, followed, lambda: service_metadata(self._base.tokens, NIL)),
                follow,
                types=types,
                bus=self._base.bus,
            )
            for name, source, followed, follow, types in (
                ("metadata.run_status", "execution", log, follow_runs, RUN_EVENTS),
                ("metadata.schedule_status", "scheduler", schedules, follow_schedules, SCHEDULE_EVENTS),
            )
        ]
        return [*followers, PipelineDeleter(self.deletion), SecretRotator(self._base.db, self.keyring)]


async def serve(settings: MetadataSettings, stop: Stop) -> None:
    """Runs the service until `stop` is set, then drains it: the server before what it uses."""
    async with foundation(SERVICE, settings, MIGRATIONS) as base:
        parts = Parts(
            settings, base, base.channel(settings.execution_target), base.channel(settings.scheduler_target)
        )
        base.on_end(parts.checker.close)
        await parts.demand_all_keys()
        await base.serve(stop, parts.services(), parts.agents())
