"""The only place where the parts of the service are made, leaves first."""

import grpc
from headrace.scheduler.v1 import schedules_pb2, schedules_pb2_grpc
from headrace_chassis import database
from headrace_chassis.agents import Agent
from headrace_chassis.lifecycle import Stop
from headrace_chassis.outbox import event_log
from headrace_chassis.server import Service
from headrace_chassis.service import Foundation, foundation
from headrace_chassis.writes import Writes

from headrace_scheduler.application.metadata import Metadata
from headrace_scheduler.application.schedules import Clock, ScheduleWriter
from headrace_scheduler.config import SchedulerSettings
from headrace_scheduler.servicers.schedules import ScheduleServicer

SERVICE = "scheduler"
MIGRATIONS = "headrace_scheduler.migrations"


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
        self.metadata = Metadata(metadata, base.tokens)
        self.writes = Writes(SERVICE, base.db, base.relay.wake)
        self.writer = ScheduleWriter(clock)

    def services(self) -> list[Service]:
        """What the server serves."""
        schedules = ScheduleServicer(
            db=self._base.db,
            writes=self.writes,
            writer=self.writer,
            metadata=self.metadata,
            cursors=self._base.cursors,
            clock=self._clock,
            changed=lambda: None,
        )
        return [
            (
                schedules_pb2.DESCRIPTOR.services_by_name["ScheduleService"],
                schedules_pb2_grpc.add_ScheduleServiceServicer_to_server,
                schedules,
            ),
            event_log(self._base.db),
        ]

    def agents(self) -> list[Agent]:
        """What runs beside the server and the outbox."""
        return []


async def serve(settings: SchedulerSettings, stop: Stop) -> None:
    """Runs the service until `stop` is set, then drains it: the server before what it uses."""
    async with foundation(SERVICE, settings, MIGRATIONS) as base:
        parts = Parts(
            settings, base, base.channel(settings.metadata_target), base.channel(settings.execution_target)
        )
        await base.serve(stop, parts.services(), parts.agents())
