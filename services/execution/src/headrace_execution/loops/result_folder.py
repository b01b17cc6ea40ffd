"""Folds what workers report into runs: many results, one transaction."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

import structlog
from headrace.execution.v1 import workers_pb2
from headrace_chassis import faults
from headrace_chassis.agents import Agent
from headrace_chassis.errors import HeadraceError

from headrace_execution import convert_workers
from headrace_execution.clock import Moments
from headrace_execution.domain.assignments import finish
from headrace_execution.domain.run import ErrorClass, Failure, Outcome, StageResult
from headrace_execution.recording import Change, record
from headrace_execution.signals import Signals
from headrace_execution.store.port import Store, Tx
from headrace_execution.workers.handouts import Hand, Handout, lease_stages, send, stage_handouts
from headrace_execution.workers.pool import Session, WorkerPool

_log = structlog.get_logger(__name__)

BATCH = 300


@dataclass(frozen=True, slots=True)
class Reported:
    """A result as it came up a stream."""

    worker: UUID
    assignment: UUID
    fence: int
    result: StageResult
    answer: bytes = b""
    """The answer, where the assignment is a probe; without one it is why there is none."""


@dataclass(slots=True)
class _Fold:
    """What one transaction did."""

    changes: list[Change] = field(default_factory=list)
    handouts: list[Handout] = field(default_factory=list)
    answered: list[UUID] = field(default_factory=list)


class ResultFolder(Agent):
    """Takes results in, folds them in batches, and acknowledges those that are durable or refused for good.

    The slots that results leave free are filled in the same transaction. A result that is not acknowledged
    stays here until it could be folded, and its worker repeats it on its next stream: folding it twice
    changes nothing.
    """

    name = "result_folder"
    pause_seconds = 0.008  # a worker's slots are done with short stages one after the other

    def __init__(self, store: Store, pool: WorkerPool, signals: Signals, moments: Moments) -> None:
        self._store = store
        self._pool = pool
        self._signals = signals
        self._moments = moments
        self._waiting: dict[tuple[UUID, int], Reported] = {}

    def submit(self, reported: Reported) -> None:
        """Takes a result in. A repeated one takes the place of the first."""
        faults.point("execution.result.received")
        self._waiting[reported.assignment, reported.fence] = reported
        self._pool.vacate(reported.worker, reported.assignment, reported.fence)
        self.wake()

    async def run_once(self) -> bool:
        """Folds one batch; more may be waiting where it was full. What comes meanwhile wakes the folder."""
        batch = [self._waiting[key] for key in list(self._waiting)[:BATCH]]
        if batch:
            await self._fold(batch)
        return len(batch) == BATCH

    async def _fold(self, batch: Sequence[Reported]) -> None:
        try:
            await self._fold_together(batch)
        except HeadraceError:
            raise  # the store is away: all of them wait
        except Exception:  # noqa: BLE001 - one of them is at fault; it is told when it is folded alone
            _log.warning("a batch of results could not be folded; each is folded alone", results=len(batch))
            for reported in batch:
                await self._fold_alone(reported)
            return
        self._acknowledge(batch)

    async def _fold_alone(self, reported: Reported) -> None:
        try:
            await self._fold_together([reported])
        except HeadraceError:
            raise
        except Exception:  # noqa: BLE001 - it is told as the reason of the failure
            _log.exception(
                "a result could not be folded; its stage fails", assignment=str(reported.assignment)
            )
            message = "what its worker reported could not be recorded"
            failed = StageResult(
                Outcome.FAILED, error=Failure("RESULT_REFUSED", ErrorClass.INTERNAL, message)
            )
            await self._fold_together(
                [Reported(reported.worker, reported.assignment, reported.fence, failed)]
            )
        self._acknowledge([reported])

    async def _fold_together(self, batch: Sequence[Reported]) -> None:
        slots = self._pool.reserve(len(batch))
        done = _Fold()
        try:
            done = await self._store.run(lambda tx: self._apply(tx, batch, slots))
            faults.point("execution.fold.committed")
        finally:
            send(self._pool, done.handouts, slots)
        self._signals.committed(done.changes)
        if done.answered:
            self._signals.answered(done.answered)

    async def _apply(self, tx: Tx, batch: Sequence[Reported], slots: Sequence[Session]) -> _Fold:
        moment = self._moments.at(tx.now)
        before = await tx.runs.lock_of({reported.assignment for reported in batch})
        hand = Hand(before, dict(before))
        owner = {stage.id: run.id for run in before.values() for stage in run.stages}
        done = _Fold()
        for reported in batch:
            key = (reported.assignment, reported.worker, reported.fence)
            run_id = owner.get(reported.assignment)
            if run_id is not None:
                hand.after[run_id] = finish(hand.after[run_id], *key, reported.result, moment)
            elif await tx.probes.answer(
                reported.worker,
                reported.assignment,
                reported.fence,
                reported.answer or convert_workers.probe_failure(reported.result),
            ):
                done.answered.append(reported.assignment)
        await lease_stages(tx, hand, slots, moment)
        done.changes = await record(tx, hand.changes)
        done.handouts = await stage_handouts(tx, hand)
        faults.point("execution.fold.before_commit")
        return done

    def _acknowledge(self, batch: Sequence[Reported]) -> None:
        refs: dict[UUID, list[workers_pb2.AssignmentRef]] = defaultdict(list)
        for reported in batch:
            if self._waiting.get((reported.assignment, reported.fence)) is reported:
                del self._waiting[reported.assignment, reported.fence]
            refs[reported.worker].append(
                workers_pb2.AssignmentRef(assignment_id=str(reported.assignment), fence=reported.fence)
            )
        for worker, acknowledged in refs.items():
            session = self._pool.get(worker)
            if session is not None:
                ack = workers_pb2.ResultAck(refs=acknowledged)
                session.send(workers_pb2.ConnectResponse(result_ack=ack))
