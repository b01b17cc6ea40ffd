"""Accepts runs: all that wait at once, in one transaction, and where a slot is free already handed out."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from headrace.execution.v1 import runs_pb2
from headrace_chassis import faults
from headrace_chassis.errors import HeadraceError
from headrace_chassis.idempotency import IdempotencyKey, Lookup

from headrace_execution import convert
from headrace_execution.acceptance.estimates import Estimates
from headrace_execution.acceptance.placing import place
from headrace_execution.batching import Batcher
from headrace_execution.clock import Moments
from headrace_execution.domain.holding import ConcurrencyLimit, must_wait
from headrace_execution.domain.lifecycle import Order, accept
from headrace_execution.domain.run import Run
from headrace_execution.errors import AtConcurrencyLimit, NotRetryable, PipelineClosed
from headrace_execution.recording import Change
from headrace_execution.signals import Signals
from headrace_execution.store.port import Store, Tx
from headrace_execution.workers.handouts import Handout, send
from headrace_execution.workers.pool import Session, WorkerPool

LARGEST = 200


@dataclass(frozen=True, slots=True)
class Asked:
    """An order, and the idempotency key that it came with."""

    order: Order
    key: IdempotencyKey | None


@dataclass(slots=True)
class _Batch:
    """What one transaction did."""

    outcomes: list[runs_pb2.RunResponse | Exception] = field(default_factory=list)
    handouts: list[Handout] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    """Of older runs that waited for these slots."""
    any_ready: bool = False


class Acceptor:
    """Writes accepted runs, their events and the answers under their idempotency keys in one transaction a
    batch.

    Where this replica has free slots and nothing waits, stages are leased as they are inserted: a run then
    needs one transaction to start. If this process dies before it could send them, the worker's next hello
    or heartbeat shows that it does not have them, and they are offered again.
    """

    def __init__(self, store: Store, pool: WorkerPool, signals: Signals, moments: Moments) -> None:
        self._store = store
        self._pool = pool
        self._signals = signals
        self._moments = moments
        self._estimates = Estimates()
        self._batcher: Batcher[Asked, runs_pb2.RunResponse] = Batcher(self._accept, largest=LARGEST)

    async def accept(self, asked: Asked) -> runs_pb2.RunResponse:
        """The answer, once the run is durable.

        Raises:
            PipelineClosed, AtConcurrencyLimit, NotRetryable, IdempotencyKeyReused, IdempotencyInFlight,
            Unavailable.
        """
        return await self._batcher.submit(asked)

    async def drain(self) -> None:
        """Waits until all that was asked is answered."""
        await self._batcher.drain()

    async def _accept(self, batch: Sequence[Asked]) -> list[runs_pb2.RunResponse | Exception]:
        faults.point("execution.accept.before")
        slots = self._pool.reserve(2 * len(batch))  # as many again for older ones, which go first
        done = _Batch()
        try:
            done = await self._store.run(lambda tx: self._write(tx, batch, slots))
            faults.point("execution.accept.committed")
        finally:
            send(self._pool, done.handouts, slots)
        self._signals.told()
        self._signals.committed(done.changes)
        if done.any_ready:
            self._signals.ready()
        return done.outcomes

    async def _write(self, tx: Tx, batch: Sequence[Asked], slots: Sequence[Session]) -> _Batch:
        closed = await tx.pipelines.enter({asked.order.pipeline for asked in batch})
        keys = [asked.key for asked in batch if asked.key is not None]
        # One for each that has a key, in their order: of two equal keys in a batch only the first is new.
        lookups = iter(await tx.answers.lookup(keys) if keys else ())
        roots = {asked.order.root for asked in batch if asked.order.root is not None}
        await tx.runs.lock(roots)  # so that of retries of one run only one is live
        retried = await tx.runs.live_of_roots(roots)
        limited = {asked.order.pipeline for asked in batch if _limit(asked.order) is not None}
        live = await tx.pipelines.live_counts(limited)
        outcomes: list[Run | runs_pb2.RunResponse | Exception] = [
            _decide(tx, asked, next(lookups) if asked.key is not None else None, closed, live, retried)
            for asked in batch
        ]
        runs = {run.id: run for run in outcomes if isinstance(run, Run)}
        placed = await place(tx, runs, slots, self._moments.at(tx.now))
        await self._estimates.refresh(tx, {run.pipeline for run in runs.values() if _is_estimated(run)})
        answers = [
            self._answer(placed.runs[outcome.id]) if isinstance(outcome, Run) else outcome
            for outcome in outcomes
        ]
        await tx.answers.store(
            [
                (asked.key, answer.SerializeToString())
                for asked, outcome, answer in zip(batch, outcomes, answers, strict=True)
                if asked.key is not None and isinstance(outcome, Run) and not isinstance(answer, Exception)
            ]
        )
        faults.point("execution.accept.outbox_written")
        return _Batch(answers, placed.handouts, placed.changes, placed.any_ready)

    def _answer(self, run: Run) -> runs_pb2.RunResponse:
        return convert.accepted(run, self._estimates.of(run.pipeline) if _is_estimated(run) else None)


def _is_estimated(run: Run) -> bool:
    """Whether it can be compared with the runs before it: it does all of the work, and no more."""
    return run.retry_of is None and not run.full_refresh


def _decide(
    tx: Tx,
    asked: Asked,
    lookup: Lookup | None,
    closed: frozenset[UUID],
    live: dict[UUID, int],
    retried: dict[UUID, UUID],
) -> Run | runs_pb2.RunResponse | Exception:
    """The new run, the answer that was given before, or why there is neither."""
    order = asked.order
    earlier = _earlier(lookup) if lookup is not None else None
    if earlier is not None:
        return earlier
    if order.pipeline in closed:
        return PipelineClosed(order.pipeline)
    if order.root is not None and order.root in retried:
        return NotRetryable.while_live(order.retry_of or order.root, retried[order.root])
    try:
        held = must_wait(order.recipe.policy, live.get(order.pipeline, 0))
    except ConcurrencyLimit as error:
        return AtConcurrencyLimit(error.limit)
    if not held and order.pipeline in live:
        live[order.pipeline] += 1
    if order.root is not None:
        retried[order.root] = order.run_id
    return accept(order, tx.now, held=held)


def _earlier(lookup: Lookup) -> runs_pb2.RunResponse | HeadraceError | None:
    try:
        return lookup.answered(runs_pb2.RunResponse)
    except HeadraceError as error:
        return error  # of this one request: the others of the batch go on


def _limit(order: Order) -> int | None:
    return order.recipe.policy.max_concurrent_runs
