"""Hands waiting work to free slots."""

from headrace_chassis import faults
from headrace_chassis.agents import Agent

from headrace_execution.clock import Moments
from headrace_execution.recording import Change, record
from headrace_execution.signals import Signals
from headrace_execution.store.port import Store, Tx
from headrace_execution.workers.handouts import (
    Hand,
    Handout,
    lease_stages,
    probe_handouts,
    send,
    stage_handouts,
)
from headrace_execution.workers.pool import Session, WorkerPool

BATCH = 200


class Dispatcher(Agent):
    """Leases probes, settlements and stages, in this order, to the slots that are free on this replica's
    workers.
    """

    name = "dispatcher"
    interval_seconds = 1.0

    def __init__(self, store: Store, pool: WorkerPool, signals: Signals, moments: Moments) -> None:
        self._store = store
        self._pool = pool
        self._signals = signals
        self._moments = moments
        signals.on_ready(self.wake)

    async def run_once(self) -> bool:
        """Hands out as much as fits; more is waiting when all slots of the batch were filled."""
        # Looked at first, so that slots are not withheld from acceptance for nothing.
        if not self._pool.has_free() or not await self._store.has_waiting():
            return False
        slots = self._pool.reserve(BATCH)
        if not slots:
            return False
        faults.point("execution.claim.before")
        handouts: list[Handout] = []
        try:
            handouts, changes = await self._store.run(lambda tx: self._claim(tx, slots))
            faults.point("execution.claim.committed")
        finally:
            send(self._pool, handouts, slots)
        self._signals.committed(changes)
        return len(handouts) == len(slots)

    async def _claim(self, tx: Tx, slots: list[Session]) -> tuple[list[Handout], list[Change]]:
        probes = await tx.probes.claim([session.worker.id for session in slots])
        handouts = probe_handouts(probes, slots)
        free = list(slots)
        for handout in handouts:
            free.remove(handout.session)
        hand = Hand()
        await lease_stages(tx, hand, free, self._moments.at(tx.now))
        changes = await record(tx, hand.changes)
        faults.point("execution.claim.before_commit")
        return [*handouts, *await stage_handouts(tx, hand)], changes
