"""Handing stages and probes to workers: within the transaction that leases them, and down the stream after
it.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from headrace.execution.v1 import workers_pb2

from headrace_execution.convert import timestamp
from headrace_execution.domain.assignments import assign
from headrace_execution.domain.moment import Moment
from headrace_execution.domain.run import CursorValue, Purpose, Run, Stage
from headrace_execution.domain.states import StageState
from headrace_execution.recording import Change
from headrace_execution.store.port import Lease, Probe, ProbeKind, Tx
from headrace_execution.workers.pool import Session, WorkerPool

_PROBE_KINDS = {
    ProbeKind.TEST: workers_pb2.ASSIGNMENT_KIND_TEST_CONNECTION,
    ProbeKind.TABLES: workers_pb2.ASSIGNMENT_KIND_LIST_TABLES,
}


@dataclass(frozen=True, slots=True)
class Handout:
    """An assignment for a reserved slot, to be sent when its lease is durable."""

    session: Session
    assignment: UUID
    fence: int
    message: workers_pb2.Assignment


async def claim_stages(
    tx: Tx, slots: Sequence[Session], moment: Moment
) -> tuple[list[Change], list[tuple[Run, Stage, Session]]]:
    """Leases waiting stages to free slots: returns the changes to record, and who gets what."""
    claims = await tx.runs.claim(len(slots))
    before = await tx.runs.lock({claim.run for claim in claims})
    after = dict(before)
    given: list[tuple[UUID, UUID, Session]] = []
    free = iter(slots)
    for claim in claims:
        run = after.get(claim.run)
        stage = run.stage(claim.stage) if run is not None else None
        if run is None or stage is None or stage.state is not StageState.READY:
            continue  # it changed between the look for it and the lock
        session = next(free)
        after[run.id] = assign(run, stage.id, session.worker.id, claim.fence, moment)
        given.append((run.id, stage.id, session))
    changes = [(before[run_id], after[run_id]) for run_id in before]
    return changes, [
        (after[run_id], stage, session)
        for run_id, stage_id, session in given
        if (stage := after[run_id].stage(stage_id)) is not None
    ]


async def stage_handouts(tx: Tx, given: Sequence[tuple[Run, Stage, Session]]) -> list[Handout]:
    """The messages that go with leased stages, with the cursors as they stand now."""
    loads = {
        (run.pipeline, sink)
        for run, stage, _ in given
        if run.spec(stage).incremental and stage.purpose is Purpose.RUN
        for sink in run.spec(stage).loads
    }
    cursors = await tx.pipelines.cursors(loads)
    return [
        Handout(session, stage.id, stage.fence, _stage_message(run, stage, cursors))
        for run, stage, session in given
    ]


def probe_handouts(claimed: Sequence[tuple[Probe, Lease]], slots: Sequence[Session]) -> list[Handout]:
    """The messages that go with leased probes."""
    free: dict[UUID, list[Session]] = defaultdict(list)
    for session in slots:
        free[session.worker.id].append(session)
    return [
        Handout(free[lease.worker].pop(), probe.id, lease.fence, _probe_message(probe, lease))
        for probe, lease in claimed
    ]


def send(pool: WorkerPool, handouts: Sequence[Handout], slots: Sequence[Session]) -> None:
    """Sends what is durable now, a message a worker, and hands back the reserved slots that nothing took."""
    batches: dict[Session, list[workers_pb2.Assignment]] = defaultdict(list)
    unused = list(slots)
    for handout in handouts:
        unused.remove(handout.session)
        pool.fill(handout.session, handout.assignment, handout.fence)
        batches[handout.session].append(handout.message)
    pool.hand_back(unused)
    for session, assignments in batches.items():
        batch = workers_pb2.AssignmentBatch(assignments=assignments)
        session.send(workers_pb2.ConnectResponse(assignments=batch))


def _stage_message(
    run: Run, stage: Stage, cursors: dict[tuple[UUID, str], list[CursorValue]]
) -> workers_pb2.Assignment:
    spec = run.spec(stage)
    settles = stage.purpose is Purpose.SETTLE
    return workers_pb2.Assignment(
        ref=workers_pb2.AssignmentRef(assignment_id=str(stage.id), fence=stage.fence),
        kind=workers_pb2.ASSIGNMENT_KIND_SETTLE if settles else workers_pb2.ASSIGNMENT_KIND_STAGE,
        tenant=str(run.tenant),
        run_id=str(run.id),
        root_run_id=str(run.root_id),
        pipeline_id=str(run.pipeline),
        attempt=stage.attempt,
        payload=spec.payload,
        parameters=run.parameters,
        logical_date=timestamp(run.logical_date),
        interval_start=timestamp(run.interval_start),
        interval_end=timestamp(run.interval_end),
        cursors=[
            workers_pb2.Cursor(sink=cursor.sink, source=cursor.source, value=cursor.value)
            for sink in spec.loads
            for cursor in cursors.get((run.pipeline, sink), ())
        ],
        full_refresh=run.full_refresh,
        timeout_ms=int(run.recipe.policy.attempt_timeout.total_seconds() * 1000),
        traceparent=run.traceparent,
    )


def _probe_message(probe: Probe, lease: Lease) -> workers_pb2.Assignment:
    return workers_pb2.Assignment(
        ref=workers_pb2.AssignmentRef(assignment_id=str(probe.id), fence=lease.fence),
        kind=_PROBE_KINDS[probe.kind],
        tenant=str(probe.tenant),
        attempt=1,
        payload=probe.payload,
    )
