"""Execution as backfills see it, and a scheduler whose backfills a test drives by hand."""

import uuid
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any
from uuid import UUID

from headrace.common.v1 import event_log_pb2
from headrace.execution.v1 import events_pb2, internal_pb2, runs_pb2
from headrace.scheduler.v1 import backfills_pb2 as pb
from headrace.scheduler.v1 import backfills_pb2_grpc
from headrace_chassis.database import driver
from headrace_chassis.errors import Unavailable
from headrace_chassis.identity import current_principal
from headrace_chassis.ids import uuid7
from headrace_chassis.server import Service as ServedService
from headrace_chassis.service import Foundation
from headrace_chassis.testing.authority import Authority
from headrace_chassis.testing.serving import serve
from headrace_chassis.testing.stand_ins import stand_in
from headrace_scheduler.config import SchedulerSettings
from headrace_scheduler.domain.backfills import BackfillStatus, IntervalState
from headrace_scheduler.loops.backfill_driver import BackfillDriver
from headrace_scheduler.store import backfill_intervals
from headrace_scheduler.wiring import SERVICE, Parts

from .support import (
    NOON,
    Clock,
    ExecutionStandIn,
    MetadataStandIn,
    Service,
    checked,
    metadata_services,
    stamp,
)

_POSITIONS = count(1)
"""One database remembers how far all tests of a process have followed."""

ANY_STATE = pb.BACKFILL_INTERVAL_STATE_UNSPECIFIED
LIVE = (runs_pb2.RUN_STATE_PENDING, runs_pb2.RUN_STATE_RUNNING)


@dataclass
class StandInRun:
    """A run of the stand-in."""

    id: str
    tenant: UUID
    start: internal_pb2.StartRun
    state: int = runs_pb2.RUN_STATE_RUNNING


class RunningExecution:
    """Decides each key once, and keeps runs going until a test ends them."""

    def __init__(self) -> None:
        self.pipelines: set[str] = set()
        self.refused: dict[str, str] = {}
        self.decisions: dict[tuple[UUID, str], internal_pb2.StartDecision] = {}
        self.runs: dict[str, StandInRun] = {}
        self.events: list[event_log_pb2.Event] = []
        self.away = 0
        self.calls: Counter[str] = Counter()
        self.ends_at_once = False
        """Whether runs end as soon as they are started."""

    async def CheckParameters(
        self, request: internal_pb2.CheckParametersRequest, context: Any
    ) -> internal_pb2.CheckParametersResponse:
        return checked(request, {"regoin"})

    async def StartRuns(
        self, request: internal_pb2.StartRunsRequest, context: Any
    ) -> internal_pb2.StartRunsResponse:
        self._called("StartRuns")
        tenant = current_principal().tenant
        return internal_pb2.StartRunsResponse(
            decisions=[self._decide(tenant, start) for start in request.starts]
        )

    async def GetStarts(
        self, request: internal_pb2.GetStartsRequest, context: Any
    ) -> internal_pb2.GetStartsResponse:
        self._called("GetStarts")
        tenant = current_principal().tenant
        found = [self.decisions[tenant, key] for key in request.keys if (tenant, key) in self.decisions]
        return internal_pb2.GetStartsResponse(
            starts=[
                internal_pb2.Start(
                    decision=each,
                    state=self.runs[each.run_id].state if each.run_id in self.runs else 0,  # type: ignore[arg-type]
                )
                for each in found
            ]
        )

    async def CancelRuns(
        self, request: internal_pb2.CancelRunsRequest, context: Any
    ) -> internal_pb2.CancelRunsResponse:
        self._called("CancelRuns")
        self.end(request.run_ids, runs_pb2.RUN_STATE_CANCELLED)
        standing = [self.runs[run_id] for run_id in request.run_ids if run_id in self.runs]
        return internal_pb2.CancelRunsResponse(
            runs=[internal_pb2.RunStanding(run_id=run.id, state=run.state) for run in standing]  # type: ignore[arg-type]
        )

    async def ListEvents(
        self, request: event_log_pb2.ListEventsRequest, context: Any
    ) -> event_log_pb2.ListEventsResponse:
        events = [event for event in self.events if event.position > request.after][: request.limit]
        last = events[-1].position if events else request.after
        return event_log_pb2.ListEventsResponse(events=events, next_after=last, oldest=1)

    def live(self, tenant: UUID) -> list[StandInRun]:
        """The runs of a tenant that go on, in the order of their starts."""
        return [run for run in self.runs.values() if run.tenant == tenant and run.state in LIVE]

    def end(
        self, run_ids: Sequence[str], state: int = runs_pb2.RUN_STATE_COMPLETED, *, told: bool = True
    ) -> None:
        """Ends runs that go on, and tells so in the log unless the event is to be lost."""
        for run_id in run_ids:
            run = self.runs[run_id]
            if run.state not in LIVE:
                continue
            run.state = state
            if told:
                self._tell(run)

    def _called(self, name: str) -> None:
        self.calls[name] += 1
        if self.away:
            self.away -= 1
            raise Unavailable("execution")

    def _decide(self, tenant: UUID, start: internal_pb2.StartRun) -> internal_pb2.StartDecision:
        known = self.decisions.get((tenant, start.key))
        if known is not None:
            return known
        decision = internal_pb2.StartDecision(key=start.key, decided_at=stamp(NOON))
        refusal = self.refused.get(start.pipeline_id)
        if refusal is None and start.pipeline_id not in self.pipelines:
            refusal = "NOT_FOUND"
        if refusal is not None:
            decision.outcome = internal_pb2.START_OUTCOME_REFUSED
            decision.reason, decision.message = refusal, "it cannot start"
        else:
            run = StandInRun(str(uuid7()), tenant, start)
            self.runs[run.id] = run
            decision.outcome, decision.run_id = internal_pb2.START_OUTCOME_STARTED, run.id
            if self.ends_at_once:
                self.end([run.id])
        self.decisions[tenant, start.key] = decision
        return decision

    def _tell(self, run: StandInRun) -> None:
        word = runs_pb2.RunState.Name(run.state).removeprefix("RUN_STATE_").lower()  # type: ignore[arg-type]
        payload = events_pb2.RunEvent(
            run_id=run.id,
            pipeline_id=run.start.pipeline_id,
            state=run.state,  # type: ignore[arg-type]
            trigger=run.start.trigger,
            trigger_id=run.start.trigger_id,
            start_key=run.start.key,
        )
        self.events.append(
            event_log_pb2.Event(
                position=next(_POSITIONS),
                id=str(uuid.uuid4()),
                type=f"io.headrace.run.{word}.v1",
                tenant=str(run.tenant),
                subject=run.id,
                time=stamp(NOON),
                data=payload.SerializeToString(),
            )
        )


@asynccontextmanager
async def backfills_of(settings: SchedulerSettings, authority: Authority) -> AsyncIterator["Backfills"]:
    """A scheduler in process beside its metadata and execution; agents run when a test says so."""
    metadata, execution, clock = MetadataStandIn(), RunningExecution(), Clock()
    async with AsyncExitStack() as stack:
        beside = await stack.enter_async_context(serve(authority, metadata_services(metadata)))
        behind = await stack.enter_async_context(serve(authority, running_execution_services(execution)))
        base = Foundation(SERVICE, settings, stack)
        parts = Parts(settings, base, beside.channel, behind.channel, clock=clock)
        served = await stack.enter_async_context(serve(authority, parts.services()))
        unused = ExecutionStandIn()
        service = Service(base, parts, metadata, unused, clock, authority, served.channel)
        async with base.db.transaction() as conn:
            # The agents look after all that there is, also after what other tests have left.
            await driver(conn).execute("TRUNCATE backfill CASCADE")
        yield Backfills(service, execution)


def running_execution_services(behind: RunningExecution) -> list[ServedService]:
    """What a server needs to serve the stand-in."""
    return [
        stand_in(internal_pb2.DESCRIPTOR.services_by_name["ExecutionInternalService"], behind),
        stand_in(event_log_pb2.DESCRIPTOR.services_by_name["EventLogService"], behind),
    ]


class Backfills:
    """The backfills of a service under test."""

    def __init__(self, service: Service, execution: RunningExecution) -> None:
        self.service = service
        self.execution = execution
        self.stub: Any = backfills_pb2_grpc.BackfillServiceStub(service.channel)

    @property
    def driver(self) -> BackfillDriver:
        """The agent that starts intervals."""
        return self.service.parts.backfill_driver

    def pipeline(self) -> str:
        """A pipeline that metadata and execution have."""
        made = self.service.pipeline()
        self.execution.pipelines.add(made)
        return made

    async def create(self, first: str = "2025-11-01", last: str = "2025-11-30", **fields: Any) -> pb.Backfill:
        """A backfill of days, of a pipeline of its own unless one is named."""
        fields.setdefault("granularity", pb.GRANULARITY_DAILY)
        if "pipeline_id" not in fields:
            fields["pipeline_id"] = self.pipeline()
        request = pb.CreateBackfillRequest(from_text=first, to_text=last, **fields)
        made: pb.Backfill = await self.stub.CreateBackfill(request, metadata=self.service.user())
        return made

    async def ask(self, verb: str, backfill: pb.Backfill) -> pb.Backfill:
        """Pauses, resumes, cancels or retries a backfill, or gets its progress."""
        name = "GetBackfillProgress" if verb == "get" else f"{verb.capitalize()}Backfill"
        request = getattr(pb, f"{name}Request")(id=backfill.id)
        answer: pb.Backfill = await getattr(self.stub, name)(request, metadata=self.service.user())
        return answer

    async def intervals(
        self, backfill: pb.Backfill, state: "pb.BackfillIntervalState.ValueType" = ANY_STATE, **fields: Any
    ) -> list[pb.BackfillInterval]:
        """A page of its intervals."""
        request = pb.ListBackfillIntervalsRequest(id=backfill.id, state=state, **fields)
        answer = await self.stub.ListBackfillIntervals(request, metadata=self.service.user())
        return list(answer.data)

    async def drive(self) -> None:
        """Hears of all ends, and starts all that may start."""
        while await self.service.parts.run_end_follower.run_once():
            pass
        while await self.driver.run_once():
            pass

    async def run_to_the_end(self, backfill: pb.Backfill) -> pb.Backfill:
        """Ends all runs as they come, until none is left."""
        await self.drive()
        while live := self.execution.live(self.service.tenant):
            self.execution.end([run.id for run in live])
            await self.drive()
        return await self.ask("get", backfill)

    async def check_counts(self, backfill: pb.Backfill) -> pb.Backfill:
        """Demands that what is told of a backfill is what its intervals add up to."""
        async with self.service.base.db.transaction(isolation="repeatable_read") as conn:
            tally = await backfill_intervals.tally(conn, UUID(backfill.id))
            row = await driver(conn).fetchrow("SELECT * FROM backfill WHERE id = $1", UUID(backfill.id))
        pending = tally[IntervalState.PENDING]
        unstarted = 0
        if row["status"] == BackfillStatus.CANCELLED:
            pending, unstarted = 0, pending
        assert (row["pending"], row["live"], row["completed"], row["failed"], row["cancelled"]) == (
            pending,
            tally[IntervalState.STARTING] + tally[IntervalState.RUNNING],
            tally[IntervalState.COMPLETED],
            tally[IntervalState.FAILED],
            tally[IntervalState.CANCELLED] + unstarted,
        )
        return await self.ask("get", backfill)
