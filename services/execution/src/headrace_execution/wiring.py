"""The only place where the parts of the service are made, leaves first."""

import random
import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import grpc
from headrace.common.v1 import event_log_pb2_grpc
from headrace.execution.v1 import (
    alerts_pb2,
    alerts_pb2_grpc,
    internal_pb2,
    internal_pb2_grpc,
    logs_pb2,
    logs_pb2_grpc,
    metrics_pb2,
    metrics_pb2_grpc,
    outputs_pb2,
    outputs_pb2_grpc,
    runs_pb2,
    runs_pb2_grpc,
    stream_tickets_pb2,
    stream_tickets_pb2_grpc,
    workers_pb2,
    workers_pb2_grpc,
    workflow_pb2,
    workflow_pb2_grpc,
)
from headrace.metadata.v1 import definitions_pb2_grpc
from headrace_artifacts.urls import open_store
from headrace_chassis.agents import Agent
from headrace_chassis.bound_tokens import BoundTokens
from headrace_chassis.channels import service_metadata
from headrace_chassis.consumer import EventConsumer
from headrace_chassis.event_sources import OwnEvents, ServiceEvents
from headrace_chassis.ids import NIL, uuid7
from headrace_chassis.lifecycle import Stop
from headrace_chassis.outbox import event_log
from headrace_chassis.server import Service
from headrace_chassis.service import Foundation, foundation
from headrace_chassis.slots import StreamSlots
from headrace_chassis.writes import Writes
from headrace_outbound.posting import GuardedPoster

from headrace_execution import signals
from headrace_execution.acceptance.acceptor import Acceptor
from headrace_execution.acceptance.compiling import Compiler
from headrace_execution.acceptance.definitions import DefinitionReader
from headrace_execution.acceptance.preparing import Preparer
from headrace_execution.acceptance.start_orders import StartOrders
from headrace_execution.acceptance.starting import Starter
from headrace_execution.acceptance.variables import VariableChecker
from headrace_execution.alerting.late_watcher import LateWatcher
from headrace_execution.alerting.schedule_follower import SCHEDULER_EVENTS, ScheduleFollower
from headrace_execution.cancels import RunCanceller
from headrace_execution.clock import Moments
from headrace_execution.config import ExecutionSettings
from headrace_execution.domain.recipe import Channel
from headrace_execution.dry_runs import DryRunner
from headrace_execution.logs.reading import LogReader
from headrace_execution.loops.artifact_sweeper import ArtifactSweeper
from headrace_execution.loops.dispatcher import Dispatcher
from headrace_execution.loops.due_timer import DueTimer, HeldReleaser
from headrace_execution.loops.lease_reaper import LeaseReaper
from headrace_execution.loops.log_keeper import LogKeeper
from headrace_execution.loops.progress_folder import ProgressFolder
from headrace_execution.loops.purger import PIPELINE_DELETED, DeletionFollower, Purger
from headrace_execution.loops.result_folder import ResultFolder
from headrace_execution.loops.run_follower import RunFollower
from headrace_execution.loops.stop_courier import StopCourier
from headrace_execution.notifying.mails import MailSender, NoMail
from headrace_execution.notifying.notifier import Notifier
from headrace_execution.notifying.outcomes import Sender
from headrace_execution.notifying.posts import Posts, SlackSender, WebhookSender
from headrace_execution.notifying.secrets import Secrets
from headrace_execution.openlineage.wiring import lineage_forwarder
from headrace_execution.probing import Prober
from headrace_execution.servicers.alerts import AlertServicer
from headrace_execution.servicers.internal import InternalServicer
from headrace_execution.servicers.logs import RunLogServicer
from headrace_execution.servicers.metrics import MetricsServicer
from headrace_execution.servicers.outputs import RunOutputServicer
from headrace_execution.servicers.runs import RunServicer
from headrace_execution.servicers.stream_tickets import StreamTicketServicer
from headrace_execution.servicers.workers import WorkerServicer
from headrace_execution.servicers.workflow import WorkflowServicer
from headrace_execution.signalling import SignalReceiver
from headrace_execution.store.sql import SqlStore
from headrace_execution.watching.interest import Interest
from headrace_execution.watching.watcher import RunWatcher
from headrace_execution.workers.leases import LeaseBook
from headrace_execution.workers.pool import WorkerPool

SERVICE = "execution"
MIGRATIONS = "headrace_execution.migrations"


class Parts:
    """What the service is made of, beside its foundation and its server: what tests put together as the
    process does."""

    def __init__(self, settings: ExecutionSettings, base: Foundation, metadata: grpc.aio.Channel) -> None:
        self._base = base
        self._channel = metadata
        self._scheduler = base.channel(settings.scheduler_target) if settings.scheduler_target else None
        self._bound_tokens = BoundTokens(SERVICE, settings.internal_key_file)
        self._tariff = settings.tariff()
        self._ticket_life = timedelta(seconds=settings.stream_ticket_seconds)
        definitions: definitions_pb2_grpc.DefinitionServiceAsyncStub = (
            definitions_pb2_grpc.DefinitionServiceStub(metadata)
        )
        self.store = SqlStore(base.db)
        self.pool = WorkerPool()
        self.signals = signals.Signals(base.bus)
        self.moments = Moments(settings.patience())
        self.signals.on_events(base.relay.wake)
        base.bus.subscribe(signals.SUBJECT, self.signals.heard)
        self.compiler = Compiler(settings.limits())
        self.acceptor = Acceptor(self.store, self.pool, self.signals, self.moments)
        self.reader = DefinitionReader(definitions, base.tokens, self.compiler)
        self.preparer = Preparer(self.reader, self.compiler)
        self.variables = VariableChecker(definitions, base.tokens)
        self.starter = Starter(self.store, self.pool, self.signals, self.moments)
        self.canceller = RunCanceller(self.store, self.signals, self.moments)
        self.dispatcher = Dispatcher(self.store, self.pool, self.signals, self.moments)
        self.results = ResultFolder(self.store, self.pool, self.signals, self.moments)
        self.progress = ProgressFolder(self.store, self.signals)
        self.artifacts = open_store(settings.artifacts_url)
        self.logs = LogKeeper(self.store, self.artifacts, self.signals, settings.log_limits())
        self.sweeper = ArtifactSweeper(self.store, self.artifacts, settings.retention())
        self.run_logs = RunLogServicer(
            store=self.store,
            reader=LogReader(self.store, self.artifacts, self.signals),
            slots=StreamSlots(settings.max_followed_logs, settings.max_followed_logs_per_caller),
        )
        self.outputs = RunOutputServicer(
            store=self.store,
            artifacts=self.artifacts,
            slots=StreamSlots(settings.max_downloads, settings.max_downloads_per_caller),
        )
        self._dry_runs = StreamSlots(settings.max_dry_runs, settings.max_dry_runs_per_caller, "dry run")
        self.stops = StopCourier(self.store, self.pool, self.signals, self.moments)
        self.reaper = LeaseReaper(self.store, self.signals, self.moments)
        self.timer = DueTimer(self.store, self.signals, self.moments)
        self.watcher = RunWatcher(
            self.store,
            self.signals,
            Interest(uuid7(), time.monotonic),
            StreamSlots(settings.max_watches, settings.max_watches_per_caller),
        )
        self.purger = Purger(
            self.store,
            self.signals,
            self.moments,
            definitions,
            base.tokens,
            timedelta(days=settings.start_retention_days),
            self.artifacts,
            timedelta(days=settings.alert_retention_days),
        )
        self.lineage = lineage_forwarder(settings, base, self.store, definitions)
        self._poster = GuardedPoster(settings.notification_guard(), timeout=settings.notify_timeout_seconds)
        posts = Posts(self._poster, Secrets(definitions, base.tokens), allow_http=settings.notify_allow_http)
        mail_server = settings.mail_server()
        self.senders: Mapping[Channel, Sender] = {
            Channel.WEBHOOK: WebhookSender(posts, time.time),
            Channel.SLACK: SlackSender(posts),
            Channel.EMAIL: NoMail()
            if mail_server is None
            else MailSender(mail_server, lambda: datetime.now(UTC)),
        }
        self.leases = LeaseBook(self.store, self.pool, self.signals, self.moments, settings.lease_terms())
        self.workers = WorkerServicer(
            store=self.store,
            pool=self.pool,
            leases=self.leases,
            results=self.results,
            progress=self.progress,
            logs=self.logs,
            stops=self.stops,
            signals=self.signals,
            metadata=definitions,
            tokens=base.tokens,
        )

    def services(self) -> list[Service]:
        """What the server serves."""
        prober = Prober(self.store, self.signals)
        runs = RunServicer(
            store=self.store,
            reader=self.reader,
            preparer=self.preparer,
            variables=self.variables,
            compiler=self.compiler,
            acceptor=self.acceptor,
            dry_runner=DryRunner(self.store, prober, self._dry_runs),
            canceller=self.canceller,
            watcher=self.watcher,
            cursors=self._base.cursors,
        )
        internal = InternalServicer(
            store=self.store,
            prober=prober,
            canceller=self.canceller,
            orders=StartOrders(self.reader, self.preparer, self.compiler),
            starter=self.starter,
        )
        return [
            (
                runs_pb2.DESCRIPTOR.services_by_name["RunService"],
                runs_pb2_grpc.add_RunServiceServicer_to_server,
                runs,
            ),
            (
                outputs_pb2.DESCRIPTOR.services_by_name["RunOutputService"],
                outputs_pb2_grpc.add_RunOutputServiceServicer_to_server,
                self.outputs,
            ),
            (
                alerts_pb2.DESCRIPTOR.services_by_name["AlertService"],
                alerts_pb2_grpc.add_AlertServiceServicer_to_server,
                AlertServicer(
                    self.store,
                    Writes(SERVICE, self._base.db, self._base.relay.wake),
                    self._base.cursors,
                ),
            ),
            (
                logs_pb2.DESCRIPTOR.services_by_name["RunLogService"],
                logs_pb2_grpc.add_RunLogServiceServicer_to_server,
                self.run_logs,
            ),
            (
                metrics_pb2.DESCRIPTOR.services_by_name["MetricsService"],
                metrics_pb2_grpc.add_MetricsServiceServicer_to_server,
                MetricsServicer(self.store, self.reader, self._tariff),
            ),
            (
                stream_tickets_pb2.DESCRIPTOR.services_by_name["StreamTicketService"],
                stream_tickets_pb2_grpc.add_StreamTicketServiceServicer_to_server,
                StreamTicketServicer(self.store, self._bound_tokens, self._ticket_life, secrets.token_bytes),
            ),
            (
                workflow_pb2.DESCRIPTOR.services_by_name["WorkflowService"],
                workflow_pb2_grpc.add_WorkflowServiceServicer_to_server,
                WorkflowServicer(self.store, SignalReceiver(self.store, self.signals, self.moments)),
            ),
            (
                workers_pb2.DESCRIPTOR.services_by_name["WorkerService"],
                workers_pb2_grpc.add_WorkerServiceServicer_to_server,
                self.workers,
            ),
            (
                internal_pb2.DESCRIPTOR.services_by_name["ExecutionInternalService"],
                internal_pb2_grpc.add_ExecutionInternalServiceServicer_to_server,
                internal,
            ),
            event_log(self._base.log),
        ]

    def agents(self) -> list[Agent]:
        """What runs beside the server and the outbox."""
        log: event_log_pb2_grpc.EventLogServiceAsyncStub = event_log_pb2_grpc.EventLogServiceStub(
            self._channel
        )
        follower = EventConsumer(
            self._base.db,
            "execution.purges",
            ServiceEvents("metadata", log, lambda: service_metadata(self._base.tokens, NIL)),
            DeletionFollower(self.store).handle,
            types=[PIPELINE_DELETED],
            bus=self._base.bus,
        )
        return [
            self.dispatcher,
            self.results,
            self.progress,
            self.logs,
            self.stops,
            self.reaper,
            self.timer,
            HeldReleaser(self.store, self.signals),
            self.watcher,
            self.purger,
            self.sweeper,
            follower,
            RunFollower(self._base.db, OwnEvents(SERVICE, self._base.log), self.store, self._base.bus),
            *self._alerting(),
            *((self.lineage,) if self.lineage is not None else ()),
        ]

    def _alerting(self) -> list[Agent]:
        """What makes alerts, behind the runs."""
        return [
            *self._following_the_scheduler(),
            LateWatcher(self.store, self.signals),
            *(
                Notifier(self.store, self.senders, self.signals, random.random, again=again)
                for again in (False, True)
            ),
        ]

    def _following_the_scheduler(self) -> list[Agent]:
        """Nothing, where there is no scheduler."""
        if self._scheduler is None:
            return []
        log: event_log_pb2_grpc.EventLogServiceAsyncStub = event_log_pb2_grpc.EventLogServiceStub(
            self._scheduler
        )
        follower = EventConsumer(
            self._base.db,
            "execution.schedules",
            ServiceEvents("scheduler", log, lambda: service_metadata(self._base.tokens, NIL)),
            ScheduleFollower(self.store).handle,
            types=SCHEDULER_EVENTS,
            bus=self._base.bus,
        )
        return [follower]


async def serve(settings: ExecutionSettings, stop: Stop) -> None:
    """Runs the service until `stop` is set, then drains it: the server before what it uses."""
    async with foundation(SERVICE, settings, MIGRATIONS) as base:
        parts = Parts(settings, base, base.channel(settings.metadata_target))
        # Workers go to another replica first; what they report until then is still folded.
        drains = [parts.workers.drain, parts.watcher.drain]
        await base.serve(stop, parts.services(), parts.agents(), on_drain=drains)
