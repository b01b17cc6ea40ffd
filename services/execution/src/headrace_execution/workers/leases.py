"""Hellos and heartbeats: what a worker says it has, against what the store says it owns."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from headrace_execution.batching import Batcher
from headrace_execution.clock import Moments
from headrace_execution.domain.assignments import give_back
from headrace_execution.domain.run import Run
from headrace_execution.errors import LeaseLost
from headrace_execution.recording import Change, record
from headrace_execution.signals import Signals
from headrace_execution.store.port import Lease, Store, Tx
from headrace_execution.workers.pool import Session, WorkerPool

LARGEST = 200

Ref = tuple[UUID, int]
"""An assignment and its fence."""


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """How long leases last, and how often they are renewed."""

    lease: timedelta = timedelta(seconds=15)
    heartbeat: timedelta = timedelta(seconds=3)

    @property
    def grace(self) -> timedelta:
        """A worker may not know yet of what was handed out so recently."""
        return self.heartbeat * 2


@dataclass(frozen=True, slots=True)
class _Beat:
    """One worker's heartbeat or hello."""

    session: Session
    held: frozenset[Ref]
    known: frozenset[Ref]
    """What this replica believed to be in its hands when the message came."""
    is_hello: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """What came of it."""

    lost: tuple[Ref, ...]
    """What the worker holds and no longer owns."""


class LeaseBook:
    """Renews the leases of all workers that speak at the same time in one transaction.

    A lease on something that its worker does not have is taken back: at a hello at once, for the worker
    has just said all it has; at a heartbeat when it was handed out longer ago than a message may travel.
    This is how work comes back that was leased by a replica which died before it could send it.
    """

    def __init__(
        self, store: Store, pool: WorkerPool, signals: Signals, moments: Moments, terms: LeaseTerms
    ) -> None:
        self._store = store
        self._pool = pool
        self._signals = signals
        self._moments = moments
        self.terms = terms
        self._batcher: Batcher[_Beat, Standing] = Batcher(self._renew, largest=LARGEST)

    async def hello(self, session: Session, held: frozenset[Ref]) -> Standing:
        """Registers a worker with what it still has from streams before."""
        return await self._batcher.submit(_Beat(session, held, held, is_hello=True))

    async def heartbeat(self, session: Session, held: frozenset[Ref]) -> Standing:
        """Renews the leases of a worker."""
        known = frozenset(session.busy.items())
        return await self._batcher.submit(_Beat(session, held, known, is_hello=False))

    async def release(self, worker: UUID, refs: Sequence[Ref]) -> None:
        """Offers again what a worker has not started and gives back."""

        async def apply(tx: Tx) -> list[Change]:
            stages = [Lease(worker, ref[0], None, ref[1], tx.now) for ref in refs]
            await tx.probes.offer_again(stages)
            return await self._give_back(tx, stages, certain=True)

        self._signals.committed(await self._store.run(apply))
        self._signals.ready()
        for assignment, fence in refs:
            self._pool.vacate(worker, assignment, fence, worked=False)

    async def _renew(self, beats: Sequence[_Beat]) -> list[Standing | Exception]:
        leases, changes, offered = await self._store.run(lambda tx: self._apply(tx, beats))
        standings: list[Standing | Exception] = []
        for beat in beats:
            owned = {(lease.assignment, lease.fence) for lease in leases.get(beat.session.worker.id, ())}
            beat.session.heard()
            self._reconcile(beat, owned)
            standings.append(Standing(tuple(sorted(beat.held - owned))))
        self._signals.committed(changes)
        if offered:
            self._signals.ready()
        return standings

    async def _apply(
        self, tx: Tx, beats: Sequence[_Beat]
    ) -> tuple[dict[UUID, list[Lease]], list[Change], list[Lease]]:
        latest = {beat.session.worker.id: beat for beat in beats}
        renewed = await tx.workers.renew(
            [worker for worker, beat in latest.items() if not beat.is_hello], self.terms.lease
        )
        for worker, beat in sorted(latest.items()):
            # A hello; or a worker that was away for so long that it was forgotten.
            if worker not in renewed and not await tx.workers.hello(beat.session.worker, self.terms.lease):
                raise LeaseLost
        stages = await tx.runs.leases(latest)
        probes = await tx.probes.leases(latest)
        missing = {
            (lease.assignment, lease.fence)
            for lease in [*stages, *probes]
            if self._is_missing(latest[lease.worker], lease, tx)
        }
        changes = await self._give_back(
            tx, [lease for lease in stages if _ref(lease) in missing], certain=False
        )
        offered = [lease for lease in probes if _ref(lease) in missing]
        await tx.probes.offer_again(offered)
        owned: dict[UUID, list[Lease]] = {}
        for lease in [*stages, *probes]:
            if _ref(lease) not in missing:
                owned.setdefault(lease.worker, []).append(lease)
        return owned, changes, offered

    def _is_missing(self, beat: _Beat, lease: Lease, tx: Tx) -> bool:
        if _ref(lease) in beat.held:
            return False
        return beat.is_hello or lease.leased_at < tx.now - self.terms.grace

    async def _give_back(self, tx: Tx, leases: Sequence[Lease], *, certain: bool) -> list[Change]:
        moment = self._moments.at(tx.now)
        before = await tx.runs.lock_of({lease.assignment for lease in leases})
        owner = {stage.id: run.id for run in before.values() for stage in run.stages}
        after: dict[UUID, Run] = dict(before)
        for lease in leases:
            run_id = owner.get(lease.assignment)
            if run_id is not None:
                run = after[run_id]
                after[run_id] = give_back(
                    run, lease.assignment, lease.worker, lease.fence, moment, certain=certain
                )
        return await record(tx, [(before[run_id], after[run_id]) for run_id in before])

    @staticmethod
    def _reconcile(beat: _Beat, owned: set[Ref]) -> None:
        # What was handed out since the message came is not known to the store's answer: it stays. What the
        # worker still has takes up a slot until it has stopped it.
        for assignment, fence in beat.known - owned - beat.held:
            beat.session.vacate(assignment, fence, worked=False)


def _ref(lease: Lease) -> Ref:
    return lease.assignment, lease.fence
