"""Handing stages and probes to workers: within the transaction that leases them, and down the stream after
it.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from google.protobuf import json_format
from headrace.execution.v1 import workers_pb2
from headrace_chassis import faults
from headrace_chassis.messages import timestamp

from headrace_execution.convert_workers import landed_output
from headrace_execution.domain.assignments import assign
from headrace_execution.domain.moment import Moment
from headrace_execution.domain.recipe import StageSpec
from headrace_execution.domain.run import Purpose, Run, Stage, StandingCursor
from headrace_execution.domain.states import StageState
from headrace_execution.recording import Change
from headrace_execution.store.port import Lease, Probe, ProbeKind, Tx
from headrace_execution.workers.pool import Session, WorkerPool

_PROBE_KINDS = {
    ProbeKind.TEST: workers_pb2.ASSIGNMENT_KIND_TEST_CONNECTION,
    ProbeKind.TABLES: workers_pb2.ASSIGNMENT_KIND_LIST_TABLES,
    ProbeKind.DRY_RUN: workers_pb2.ASSIGNMENT_KIND_DRY_RUN,
}


@dataclass(frozen=True, slots=True)
class Handout:
    """An assignment for a reserved slot, to be sent when its lease is durable."""

    session: Session
    assignment: UUID
    fence: int
    message: workers_pb2.Assignment


@dataclass(slots=True)
class Hand:
    """Runs in the hands of one transaction: as they were locked (new ones were not), as they are now, and
    which stages go where.
    """

    before: dict[UUID, Run] = field(default_factory=dict)
    after: dict[UUID, Run] = field(default_factory=dict)
    given: list[tuple[UUID, UUID, Session]] = field(default_factory=list)

    @property
    def changes(self) -> list[Change]:
        """What is to be recorded."""
        return [(self.before[run_id], self.after[run_id]) for run_id in self.before]

    def give(self, run_id: UUID, stage_id: UUID, session: Session, fence: int, moment: Moment) -> None:
        """Leases a stage."""
        self.after[run_id] = assign(self.after[run_id], stage_id, session.worker.id, fence, moment)
        self.given.append((run_id, stage_id, session))

    def was_ready(self, run_id: UUID, stage: Stage) -> bool:
        """Whether a stage was ready before this transaction."""
        before = self.before.get(run_id)
        return before is not None and before.stages[stage.position].state is StageState.READY

    def stage(self, run_id: UUID, stage_id: UUID) -> Stage | None:
        """A stage as it is now."""
        return self.after[run_id].stage(stage_id)


def is_limited(run: Run, stage: Stage) -> bool:
    """Whether a limit of a connection may keep a stage from running: then only a claim hands it out, which
    counts those that run."""
    return stage.purpose is Purpose.RUN and bool(run.spec(stage).limits)


async def lease_stages(tx: Tx, hand: Hand, slots: Sequence[Session], moment: Moment) -> None:
    """Fills free slots: with stages that wait in the store, then with those that this transaction makes
    ready.
    """
    free = iter(slots)
    claims, runs = await tx.runs.claim(len(slots))
    for run_id, run in runs.items():
        hand.before.setdefault(run_id, run)
        hand.after.setdefault(run_id, run)
    for claim in claims:
        stage = hand.stage(claim.run, claim.stage)
        if stage is not None and stage.state is StageState.READY:
            hand.give(claim.run, claim.stage, next(free), claim.fence, moment)
    left = list(free)
    ready = [
        (run_id, stage.id)
        for run_id, run in hand.after.items()
        for stage in run.stages
        if stage.state is StageState.READY
        and not hand.was_ready(run_id, stage)
        and not is_limited(run, stage)
    ][: len(left)]
    fences = await tx.runs.fences(len(ready))
    for (run_id, stage_id), session, fence in zip(ready, left, fences, strict=False):
        hand.give(run_id, stage_id, session, fence, moment)


async def stage_handouts(tx: Tx, hand: Hand) -> list[Handout]:
    """The messages that go with leased stages, with the cursors as they stand now: to be asked for when
    what this transaction changes is recorded."""
    given = [
        (hand.after[run_id], stage, session)
        for run_id, stage_id, session in hand.given
        if (stage := hand.stage(run_id, stage_id)) is not None
    ]
    loads = {
        (run.pipeline, sink)
        for run, stage, _ in given
        if stage.purpose is Purpose.RUN
        for sink, _source in run.spec(stage).cursors
    }
    found = await tx.pipelines.cursors(loads)
    cursors = {
        (pipeline, cursor.sink, cursor.source): cursor
        for (pipeline, _sink), values in found.items()
        for cursor in values
    }
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
        handout.session.fill(handout.assignment, handout.fence)
        batches[handout.session].append(handout.message)
    pool.hand_back(unused)
    if batches:
        faults.point("execution.assign.before_send")
    for session, assignments in batches.items():
        batch = workers_pb2.AssignmentBatch(assignments=assignments)
        session.send(workers_pb2.ConnectResponse(assignments=batch))
        faults.point("execution.assign.sent")


def _stage_message(
    run: Run, stage: Stage, cursors: dict[tuple[UUID, str, str], StandingCursor]
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
        variables=run.variables or b"",
        signals=_signals(run, spec),
        logical_date=timestamp(run.logical_date),
        interval_start=timestamp(run.interval_start),
        interval_end=timestamp(run.interval_end),
        cursors=[
            _cursor(sink, source, cursors.get((run.pipeline, sink, source)))
            for sink, source in spec.cursors
            if not settles
        ],
        full_refresh=run.full_refresh,
        timeout_ms=int(run.recipe.policy.attempt_timeout.total_seconds() * 1000),
        traceparent=run.traceparent,
        landed=[landed_output(receipt) for receipt in stage.receipts if receipt.output is not None],
    )


def _cursor(sink: str, source: str, standing: StandingCursor | None) -> workers_pb2.Cursor:
    if standing is None:
        return workers_pb2.Cursor(sink=sink, source=source, fence=0)
    return workers_pb2.Cursor(sink=sink, source=source, value=standing.value, fence=standing.fence)


def _signals(run: Run, spec: StageSpec) -> bytes:
    """What the signals said that a stage uses; nothing for those without which its run went on."""
    if not spec.signals:
        return b""
    waits = [(run.recipe.stages[position].wait, run.stages[position].signal) for position in spec.signals]
    said = {
        wait.signal: json.loads(signal.data)
        for wait, signal in waits
        if wait is not None and signal is not None
    }
    return json.dumps(said, separators=(",", ":")).encode()


def _probe_message(probe: Probe, lease: Lease) -> workers_pb2.Assignment:
    message = workers_pb2.Assignment(payload=probe.payload)
    if probe.kind is ProbeKind.DRY_RUN:
        message = json_format.Parse(probe.payload, workers_pb2.Assignment())
    message.ref.assignment_id, message.ref.fence = str(probe.id), lease.fence
    message.kind = _PROBE_KINDS[probe.kind]
    message.tenant, message.attempt = str(probe.tenant), 1
    return message
