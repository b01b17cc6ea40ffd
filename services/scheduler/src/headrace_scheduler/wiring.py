"""The only place where the parts of the service are made, leaves first."""

import asyncio
from datetime import timedelta

import grpc
from headrace.common.v1 import event_log_pb2_grpc
from headrace.scheduler.v1 import (
    backfills_pb2,
    backfills_pb2_grpc,
    dependencies_pb2,
    dependencies_pb2_grpc,
    schedules_pb2,
    schedules_pb2_grpc,
)
from headrace_chassis import database
from headrace_chassis.agents import Agent
from headrace_chassis.channels import service_metadata
from headrace_chassis.consumer import EventConsumer
from headrace_chassis.event_sources import ServiceEvents
from headrace_chassis.ids import NIL
from headrace_chassis.lifecycle import Stop
from headrace_chassis.outbox import event_log
from headrace_chassis.server import Service
from headrace_chassis.service import Foundation, foundation
from headrace_chassis.writes import Writes

from headrace_scheduler.application.backfill_starts import BackfillStarts
from headrace_scheduler.application.backfills import BackfillWriter
from headrace_scheduler.application.dependencies import DependencyWriter
from headrace_scheduler.application.execution import Execution
from headrace_scheduler.application.metadata import Metadata
from headrace_scheduler.application.pipelines import EVENTS, PipelineFollower
from headrace_scheduler.application.schedules import Clock, ScheduleWriter
from headrace_scheduler.config import SchedulerSettings
from headrace_scheduler.loops.backfill_driver import BackfillDriver
from headrace_scheduler.loops.dependency_gate import DependencyGate
from headrace_scheduler.loops.dependent_starter import DependentStarter
from headrace_scheduler.loops.purger import Purger
from headrace_scheduler.loops.run_end_follower import RunEndFollower
from headrace_scheduler.loops.schedule_ticker import ScheduleTicker
from headrace_scheduler.loops.tick_pruner import TickPruner
from headrace_scheduler.loops.tick_starter import TickStarter
from headrace_scheduler.servicers.backfills import BackfillServicer
from headrace_scheduler.servicers.dependencies import DependencyServicer
from headrace_scheduler.servicers.schedules import ScheduleServicer

SERVICE = "scheduler"
MIGRATIONS = "headrace_scheduler.migrations"
WAKE_SUBJECT = "headrace.wake.scheduler"

STARTER_LANES = 2
"""While execution decides on one batch, the next is leased and sent."""


class Parts:
    """What the service is made of, beside its foundation and its server: what tests put together as the
    process does, with a clock of their own."""

    def __init__(
        self,
        settings: SchedulerSettings,
        base: Foundation,
        metadata: grpc.aio.Channel,
        execution: grpc.aio.Channel,
        *,
        clock: Clock = database.now,
    ) -> None:
        self._base = base
        self._clock = clock
        self._channel = metadata
        self._wakes: set[asyncio.Future[bool]] = set()
        self.metadata = Metadata(metadata, base.tokens)
        self.execution = Execution(execution, base.tokens, settings.start_timeout_seconds)
        self.ticker = ScheduleTicker(
            base.db,
            clock,
            timedelta(seconds=settings.late_grace_seconds),
            start=self._start,
            look=lambda: self.gate.wake(),
            tell=base.relay.wake,
        )
        self.starters = [
            TickStarter(base.db, self.execution, clock, settled=self.ticker.wake, lane=lane)
            for lane in range(STARTER_LANES)
        ]
        self.gate = DependencyGate(base.db, clock, released=self._start)
        self.dependent_starter = DependentStarter(base.db, self.execution, clock)
        runs_ended = ServiceEvents(
            "execution",
            event_log_pb2_grpc.EventLogServiceStub(execution),
            lambda: service_metadata(base.tokens, NIL),
        )
        self.follower = PipelineFollower(clock, self._changed)
        self.purger = Purger(base.db, self.metadata)
        self.pruner = TickPruner(base.db, clock, timedelta(days=settings.tick_retention_days))
        base.bus.subscribe(WAKE_SUBJECT, lambda _: self._woken())
        self.writes = Writes(SERVICE, base.db, base.relay.wake)
        self.writer = ScheduleWriter(clock)
        starts = BackfillStarts(self.execution, execution, base.tokens)
        self.backfill_driver = BackfillDriver(base.db, starts, committed=base.relay.wake, clock=clock)
        self.run_end_follower = RunEndFollower(
            base.db,
            runs_ended,
            base.bus,
            intervals_ended=self._intervals_ended,
            upstreams_ended=self._upstreams_ended,
        )

    def services(self) -> list[Service]:
        """What the server serves."""
        schedules = ScheduleServicer(
            db=self._base.db,
            writes=self.writes,
            writer=self.writer,
            metadata=self.metadata,
            execution=self.execution,
            cursors=self._base.cursors,
            clock=self._clock,
            changed=self._changed,
        )
        backfills = BackfillServicer(
            db=self._base.db,
            writes=self.writes,
            writer=BackfillWriter(self._clock),
            metadata=self.metadata,
            execution=self.execution,
            cursors=self._base.cursors,
            changed=self.backfill_driver.wake,
        )
        dependencies = DependencyServicer(
            db=self._base.db,
            writes=self.writes,
            writer=DependencyWriter(self._clock),
            metadata=self.metadata,
            changed=self._changed,
        )
        return [
            (
                schedules_pb2.DESCRIPTOR.services_by_name["ScheduleService"],
                schedules_pb2_grpc.add_ScheduleServiceServicer_to_server,
                schedules,
            ),
            (
                backfills_pb2.DESCRIPTOR.services_by_name["BackfillService"],
                backfills_pb2_grpc.add_BackfillServiceServicer_to_server,
                backfills,
            ),
            (
                dependencies_pb2.DESCRIPTOR.services_by_name["DependencyService"],
                dependencies_pb2_grpc.add_DependencyServiceServicer_to_server,
                dependencies,
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
            "scheduler.pipelines",
            ServiceEvents("metadata", log, lambda: service_metadata(self._base.tokens, NIL)),
            self.follower.handle,
            types=EVENTS,
            bus=self._base.bus,
        )
        return [
            self.ticker,
            *self.starters,
            self.pruner,
            self.backfill_driver,
            self.gate,
            self.dependent_starter,
            self.run_end_follower,
            self.purger,
            follower,
        ]

    def _start(self) -> None:
        for starter in self.starters:
            starter.wake()

    def _woken(self) -> None:
        self.ticker.wake()
        self.gate.wake()
        self._start()

    def _changed(self) -> None:
        """A schedule may be due sooner than was known, also to the other replicas."""
        self.ticker.wake()
        self.gate.wake()
        self._wakes.add(task := asyncio.ensure_future(self._base.bus.publish_wake(WAKE_SUBJECT)))
        task.add_done_callback(self._wakes.discard)

    def _upstreams_ended(self) -> None:
        self.dependent_starter.wake()
        self.gate.wake()

    def _intervals_ended(self) -> None:
        self.backfill_driver.wake()
        self._base.relay.wake()


async def serve(settings: SchedulerSettings, stop: Stop) -> None:
    """Runs the service until `stop` is set, then drains it: the server before what it uses."""
    async with foundation(SERVICE, settings, MIGRATIONS) as base:
        parts = Parts(
            settings, base, base.channel(settings.metadata_target), base.channel(settings.execution_target)
        )
        await base.serve(stop, parts.services(), parts.agents())
