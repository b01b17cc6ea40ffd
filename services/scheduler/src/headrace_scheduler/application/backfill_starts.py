"""What backfills ask of execution."""

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

import grpc
from headrace.execution.v1 import internal_pb2 as pb
from headrace.execution.v1 import internal_pb2_grpc, runs_pb2
from headrace_chassis.channels import failure_of, service_metadata
from headrace_chassis.identity import ServiceTokens
from headrace_chassis.ids import NIL

from headrace_scheduler.application.execution import Decided, Execution, Start
from headrace_scheduler.domain.backfills import BackfillInterval, IntervalState, Move
from headrace_scheduler.store.backfill_intervals import Leased

AT_ONCE = 500
"""How many starts or runs one call takes."""

_PRIORITIES = {
    "LOW": runs_pb2.PRIORITY_LOW,
    "MEDIUM": runs_pb2.PRIORITY_NORMAL,
    "HIGH": runs_pb2.PRIORITY_HIGH,
}

ENDS = {
    runs_pb2.RUN_STATE_COMPLETED: (IntervalState.COMPLETED, None, None),
    runs_pb2.RUN_STATE_FAILED: (IntervalState.FAILED, "RUN_FAILED", "its run failed"),
    runs_pb2.RUN_STATE_CANCELLED: (IntervalState.CANCELLED, "RUN_CANCELLED", "its run was cancelled"),
}
"""What final states of runs make of intervals: the state, the reason, and the same in words."""

NO_ROOM = "CONCURRENCY_LIMIT"
"""Why execution refuses a start where the pipeline has no room and does not queue: it may have some soon."""


class BackfillStarts:
    """The execution service, asked for one tenant at a time, AT_ONCE intervals at the most.

    Every method raises the HeadraceError that execution raised, and Unavailable while it is away.
    """

    def __init__(self, execution: Execution, channel: grpc.aio.Channel, tokens: ServiceTokens) -> None:
        self.start_seconds = execution.start_seconds
        """How long execution may take to decide on a batch of starts."""
        self._execution = execution
        self._stub: internal_pb2_grpc.ExecutionInternalServiceAsyncStub = (
            internal_pb2_grpc.ExecutionInternalServiceStub(channel)
        )
        self._tokens = tokens

    async def start(self, tenant: UUID, intervals: Sequence[Leased]) -> list[Move]:
        """Starts the attempts of intervals, each once whatever happens; tells what became of each."""
        return await self._decide(tenant, intervals, [_start(each) for each in intervals])

    async def void(self, tenant: UUID, intervals: Sequence[Leased]) -> list[Move]:
        """Makes sure that attempts that have not started never do, also where somebody is about to start
        them; tells what became of each before.

        A key gets one decision, so a start that is refused for good is what does it: one of no pipeline.
        """
        starts = [replace(_start(each), pipeline_id=NIL) for each in intervals]
        moves = await self._decide(tenant, intervals, starts)
        return [
            move
            if move.to is IntervalState.RUNNING
            else replace(move, to=IntervalState.CANCELLED, reason=None, message=None)
            for move in moves
        ]

    async def standings(self, tenant: UUID, running: Sequence[Leased]) -> list[Move]:
        """What became of running intervals whose runs have ended, and of those whose runs are gone."""
        request = pb.GetStartsRequest(keys=[each.interval.key for each in running])
        try:
            response = await self._stub.GetStarts(request, metadata=self._metadata(tenant))
        except grpc.aio.AioRpcError as error:
            raise failure_of(error) from None
        starts = {start.decision.key: start for start in response.starts}
        moves = []
        for each in running:
            start = starts.get(each.interval.key)
            if start is None:
                continue  # the decision is older than execution remembers; the end of the run is still told
            if start.state == runs_pb2.RUN_STATE_UNSPECIFIED:
                moves.append(_lost(each.interval))
            elif start.state in ENDS:
                moves.append(_ended(each.interval, start.state))
        return moves

    async def cancel(self, tenant: UUID, running: Sequence[Leased]) -> list[Move]:
        """Asks that runs of intervals are cancelled; tells what became of those that have ended."""
        by_run = {str(each.interval.run_id): each.interval for each in running}
        request = pb.CancelRunsRequest(run_ids=list(by_run), reason="its backfill was cancelled")
        try:
            response = await self._stub.CancelRuns(request, metadata=self._metadata(tenant))
        except grpc.aio.AioRpcError as error:
            raise failure_of(error) from None
        standing = {run.run_id: run.state for run in response.runs}
        gone = [_lost(interval) for run_id, interval in by_run.items() if run_id not in standing]
        return gone + [_ended(by_run[run_id], state) for run_id, state in standing.items() if state in ENDS]

    async def _decide(self, tenant: UUID, intervals: Sequence[Leased], starts: Sequence[Start]) -> list[Move]:
        decided = await self._execution.start_runs(tenant, starts)
        return [_move(each.interval, decision) for each, decision in zip(intervals, decided, strict=True)]

    def _metadata(self, tenant: UUID) -> tuple[tuple[str, str], ...]:
        return service_metadata(self._tokens, tenant)


def _start(leased: Leased) -> Start:
    interval = leased.interval
    return Start(
        key=interval.key,
        pipeline_id=leased.pipeline_id,
        trigger=runs_pb2.TRIGGER_KIND_BACKFILL,
        trigger_id=str(interval.backfill_id),
        triggered_by=leased.triggered_by,
        # As the tick of a schedule that ends the same interval would have it.
        logical_date=interval.interval.end,
        interval_start=interval.interval.start,
        parameters=leased.parameters,
        priority=_PRIORITIES[leased.priority],
    )


def _move(interval: BackfillInterval, decided: Decided) -> Move:
    if decided.is_run:
        return interval.to(IntervalState.RUNNING, run_id=decided.run_id)
    state = IntervalState.PENDING if decided.reason == NO_ROOM else IntervalState.FAILED
    return interval.to(state, decided.reason, (decided.message or "")[:1000])


def _lost(interval: BackfillInterval) -> Move:
    return interval.to(IntervalState.FAILED, "RUN_LOST", "its run is not kept any more")


def _ended(interval: BackfillInterval, state: "runs_pb2.RunState.ValueType") -> Move:
    return interval.to(*ENDS[state], run_id=interval.run_id)
