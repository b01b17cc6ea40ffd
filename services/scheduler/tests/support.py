"""A scheduler in process under a clock of the test's own, with metadata and execution as servicers beside
it."""

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from headrace.common.v1 import event_log_pb2, event_log_pb2_grpc, reasons_pb2
from headrace.execution.v1 import internal_pb2
from headrace.metadata.v1 import (
    definitions_pb2,
    pipelines_pb2,
    workspaces_pb2,
)
from headrace.scheduler.v1 import events_pb2, schedules_pb2, schedules_pb2_grpc
from headrace_chassis.channels import Metadata, call_metadata
from headrace_chassis.database import driver
from headrace_chassis.errors import HeadraceError, InvalidParameters, NotFound, Problem, from_rpc_error
from headrace_chassis.identity import current_principal
from headrace_chassis.ids import uuid7
from headrace_chassis.server import Service as ServedService
from headrace_chassis.service import Foundation
from headrace_chassis.testing.authority import Authority
from headrace_chassis.testing.stand_ins import stand_in
from headrace_scheduler.wiring import Parts
from sqlalchemy.ext.asyncio import AsyncConnection

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
"""A Wednesday."""


class Clock:
    """The time, as a test sets it."""

    def __init__(self, now: datetime = NOON) -> None:
        self.now = now

    async def __call__(self, conn: AsyncConnection) -> datetime:
        return self.now

    def advance(self, **span: float) -> None:
        """Lets time pass; backwards where negative."""
        self.now += timedelta(**span)


class MetadataStandIn:
    """Metadata as the scheduler sees it: pipelines and workspaces of tenants, and a log of events."""

    def __init__(self) -> None:
        self.pipelines: dict[tuple[UUID, str], pipelines_pb2.Pipeline] = {}
        self.workspaces: dict[tuple[UUID, str], workspaces_pb2.Workspace] = {}
        self.events: list[event_log_pb2.Event] = []
        self.acknowledged: list[tuple[str, str]] = []

    async def GetPipeline(
        self, request: pipelines_pb2.GetPipelineRequest, context: Any
    ) -> pipelines_pb2.Pipeline:
        principal = current_principal()
        found = self.pipelines.get((principal.tenant, request.id))
        if found is None or not principal.may_use(UUID(found.workspace_id)):
            raise NotFound("pipeline", request.id)
        return found

    async def GetWorkspace(
        self, request: workspaces_pb2.GetWorkspaceRequest, context: Any
    ) -> workspaces_pb2.Workspace:
        return self.workspaces[current_principal().tenant, request.id]

    async def AcknowledgePurge(
        self, request: definitions_pb2.AcknowledgePurgeRequest, context: Any
    ) -> definitions_pb2.AcknowledgePurgeResponse:
        self.acknowledged.append((request.pipeline_id, request.owner))
        return definitions_pb2.AcknowledgePurgeResponse()

    async def ListEvents(
        self, request: event_log_pb2.ListEventsRequest, context: Any
    ) -> event_log_pb2.ListEventsResponse:
        events = [event for event in self.events if event.position > request.after]
        last = events[-1].position if events else request.after
        return event_log_pb2.ListEventsResponse(events=events, next_after=last, oldest=1)

    def tell(self, kind: str, tenant: UUID, subject: str, data: bytes) -> None:
        """Adds an event to the log."""
        self.events.append(
            event_log_pb2.Event(
                position=len(self.events) + 1,
                id=str(uuid.uuid4()),
                type=kind,
                tenant=str(tenant),
                subject=subject,
                time=stamp(NOON),
                data=data,
            )
        )


class ExecutionStandIn:
    """Execution as the scheduler sees it: the same key always gets the same decision."""

    def __init__(self) -> None:
        self.decided: dict[str, internal_pb2.StartDecision] = {}
        self.started: list[internal_pb2.StartRun] = []
        self.calls = 0
        self.failures: list[HeadraceError] = []
        self.refuse: Callable[[internal_pb2.StartRun], HeadraceError | None] = lambda start: None
        self.skip: set[str] = set()
        self.refused: dict[str, str] = {}
        """Why there can be no run, by pipeline."""
        self.undeclared: set[str] = set()

    async def CheckParameters(
        self, request: internal_pb2.CheckParametersRequest, context: Any
    ) -> internal_pb2.CheckParametersResponse:
        return checked(request, self.undeclared)

    async def StartRuns(
        self, request: internal_pb2.StartRunsRequest, context: Any
    ) -> internal_pb2.StartRunsResponse:
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        for start in request.starts:
            if (refused := self.refuse(start)) is not None:
                raise refused
        return internal_pb2.StartRunsResponse(decisions=map(self._decide, request.starts))

    def _decide(self, start: internal_pb2.StartRun) -> internal_pb2.StartDecision:
        if start.key not in self.decided:
            decision = internal_pb2.StartDecision(key=start.key)
            if start.trigger_id in self.skip:
                decision.outcome = internal_pb2.START_OUTCOME_SKIPPED
                decision.reason, decision.message = "OVERLAP_RUNNING", "an earlier run is going on"
            elif start.pipeline_id in self.refused:
                decision.outcome = internal_pb2.START_OUTCOME_REFUSED
                decision.reason, decision.message = self.refused[start.pipeline_id], "it cannot run"
            else:
                decision.outcome = internal_pb2.START_OUTCOME_STARTED
                decision.run_id = str(uuid7())
                self.started.append(start)
            self.decided[start.key] = decision
        return self.decided[start.key]

    def times(self, schedule: schedules_pb2.Schedule) -> list[datetime]:
        """The logical times of the runs of a schedule, in the order of their starts."""
        return [
            start.logical_date.ToDatetime(tzinfo=UTC)
            for start in self.started
            if start.trigger_id == schedule.id
        ]


def checked(
    request: internal_pb2.CheckParametersRequest, undeclared: set[str]
) -> internal_pb2.CheckParametersResponse:
    """What execution says of values; raises where some of the names are not declared."""
    names = sorted(set(json.loads(request.parameters or b"{}")) & undeclared)
    if names:
        raise InvalidParameters(
            [Problem("UNKNOWN_PARAMETER", f"parameters.{name}", "none") for name in names]
        )
    return internal_pb2.CheckParametersResponse()


def execution_services(behind: ExecutionStandIn) -> list[ServedService]:
    """What a server of execution's stand-in serves."""
    return [stand_in(internal_pb2.DESCRIPTOR.services_by_name["ExecutionInternalService"], behind)]


def metadata_services(behind: MetadataStandIn) -> list[ServedService]:
    """What a server needs to serve the stand-in."""
    return [
        stand_in(pipelines_pb2.DESCRIPTOR.services_by_name["PipelineService"], behind),
        stand_in(workspaces_pb2.DESCRIPTOR.services_by_name["WorkspaceService"], behind),
        stand_in(definitions_pb2.DESCRIPTOR.services_by_name["DefinitionService"], behind),
        stand_in(event_log_pb2.DESCRIPTOR.services_by_name["EventLogService"], behind),
    ]


@dataclass
class Service:
    """The service under test, with a tenant of this test's own that has one workspace."""

    base: Foundation
    parts: Parts
    metadata: MetadataStandIn
    execution: ExecutionStandIn
    clock: Clock
    authority: Authority
    channel: grpc.aio.Channel
    tenant: UUID = field(default_factory=uuid7)

    def __post_init__(self) -> None:
        self.schedules: Any = schedules_pb2_grpc.ScheduleServiceStub(self.channel)
        self.log: Any = event_log_pb2_grpc.EventLogServiceStub(self.channel)
        self.workspace = str(uuid7())
        self.set_workspace()

    def set_workspace(self, **fields: Any) -> None:
        """What metadata tells of the workspace from now on."""
        told = {"timezone": "UTC", "updated_at": stamp(NOON), **fields}
        self.metadata.workspaces[self.tenant, self.workspace] = workspaces_pb2.Workspace(
            id=self.workspace, slug="default", **told
        )

    def user(self, role: str = "editor", *, key: str | None = None, **claims: Any) -> Metadata:
        """The metadata of a user of the tenant, or of the tenant in `claims`."""
        token = self.authority.user(role, **{"tenant": self.tenant, **claims})
        return call_metadata(token, idempotency_key=key)

    def pipeline(self, **fields: Any) -> str:
        """A pipeline that metadata has."""
        told = {"id": str(uuid7()), "workspace_id": self.workspace, "version": 1, "is_active": True, **fields}
        self.metadata.pipelines[self.tenant, told["id"]] = pipelines_pb2.Pipeline(**told)
        return str(told["id"])

    async def create(self, cron: str = "0 2 * * *", **fields: Any) -> schedules_pb2.Schedule:
        """A schedule of a pipeline of its own, unless one is named."""
        fields.setdefault("pipeline_id", self.pipeline())
        request = schedules_pb2.CreateScheduleRequest(cron_expression=cron, **fields)
        made: schedules_pb2.Schedule = await self.schedules.CreateSchedule(request, metadata=self.user())
        return made

    async def get(self, schedule: schedules_pb2.Schedule | str) -> schedules_pb2.Schedule:
        """A schedule as it is now."""
        identity = schedule if isinstance(schedule, str) else schedule.id
        found: schedules_pb2.Schedule = await self.schedules.GetSchedule(
            schedules_pb2.GetScheduleRequest(id=identity), metadata=self.user()
        )
        return found

    async def tick(self, rounds: int = 20) -> None:
        """Lets ticker and starter do all that is due now."""
        for _ in range(rounds):
            more = await self.parts.ticker.run_once()
            for starter in self.parts.starters:
                more = await starter.run_once() or more
            if not more and not await self._is_due():
                return
        raise AssertionError("there is no end of what is due")

    async def _is_due(self) -> bool:
        found = await self.rows(
            "SELECT FROM progress WHERE tenant = $1 AND NOT starting AND next_due <= $2 UNION ALL "
            "SELECT FROM tick WHERE tenant = $1 AND state = 'DUE'",
            self.tenant,
            self.clock.now,
        )
        return bool(found)

    async def decisions(self, schedule: schedules_pb2.Schedule) -> list[tuple[datetime, str, str | None]]:
        """What came of the ticks of a schedule, in their order."""
        found = await self.rows(
            "SELECT at, state, reason FROM tick WHERE schedule_id = $1 ORDER BY at", uuid.UUID(schedule.id)
        )
        return [tuple(row) for row in found]

    async def events(self) -> list[str]:
        """The types of the tenant's events, in their order."""
        found = await self.rows("SELECT type FROM outbox_event WHERE tenant = $1 ORDER BY id", self.tenant)
        return [row["type"].removeprefix("io.headrace.schedule.").removesuffix(".v1") for row in found]

    async def ticked(self) -> list[events_pb2.ScheduleEvent]:
        """What was told of ticks of the tenant's schedules, in their order."""
        found = await self.rows(
            "SELECT data FROM outbox_event WHERE tenant = $1 AND type = 'io.headrace.schedule.ticked.v1' "
            "ORDER BY id",
            self.tenant,
        )
        told = [events_pb2.SchedulesTickedEvent.FromString(row["data"]) for row in found]
        return [schedule for each in told for schedule in each.schedules]

    async def refused(self, of: str) -> list[events_pb2.RefusedStart]:
        """What was told of refused starts of the tenant's schedules or dependencies, in their order."""
        found = await self.rows(
            "SELECT data FROM outbox_event WHERE tenant = $1 AND type = $2 ORDER BY id",
            self.tenant,
            f"io.headrace.{of}.refused.v1",
        )
        told = [events_pb2.StartsRefusedEvent.FromString(row["data"]) for row in found]
        return [start for each in told for start in each.starts]

    async def rows(self, sql: str, *values: Any) -> list[Any]:
        """Rows straight from the database."""
        async with self.base.db.read() as conn:
            return list(await driver(conn).fetch(sql, *values))


def stamp(value: datetime) -> Timestamp:
    """An instant as a message."""
    made = Timestamp()
    made.FromDatetime(value)
    return made


def at(text: str) -> datetime:
    """An instant of UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def away() -> HeadraceError:
    """What execution raises while it is away, where no channel repeats the call."""
    return HeadraceError("away", reason=reasons_pb2.REASON_UNAVAILABLE, may_repeat=False)


async def failure(call: Any) -> HeadraceError:
    """The error that a call ends with; fails where it succeeds."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return from_rpc_error(raised.value)
