"""Takes work back from workers that are gone."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import structlog
from headrace_chassis.agents import Agent
from prometheus_client import Counter

from headrace_execution.clock import Moments
from headrace_execution.domain.assignments import lose_worker
from headrace_execution.domain.run import Run
from headrace_execution.recording import Change, record
from headrace_execution.signals import Signals
from headrace_execution.store.port import Lease, Store, Tx

_log = structlog.get_logger(__name__)

LOST = Counter("hr_lease_expired_total", "Leases of stages and probes that ran out.")

BATCH = 200
FORGET_AFTER = timedelta(hours=1)


class LeaseReaper(Agent):
    """Finds leases whose workers have not renewed them, by the database's clock, and offers their work again.

    A lease is taken back once: under the lock of its run it is looked at again. What the worker does
    afterwards is refused by its fence.
    """

    name = "lease_reaper"
    interval_seconds = 1.0

    def __init__(self, store: Store, signals: Signals, moments: Moments) -> None:
        self._store = store
        self._signals = signals
        self._moments = moments

    async def run_once(self) -> bool:
        """Takes back one batch; more is waiting when it was full."""
        leases, changes, probes = await self._store.run(self._reap)
        if leases:
            LOST.inc(len(leases))
            _log.warning(
                "leases ran out", leases=len(leases), workers=[str(worker) for worker in _workers(leases)]
            )
        self._signals.committed(changes)
        if probes:
            self._signals.ready()
        return len(leases) >= BATCH

    async def _reap(self, tx: Tx) -> tuple[list[Lease], list[Change], list[Lease]]:
        expired = await tx.runs.expired(BATCH)
        changes = await self._lose(tx, expired)
        probes = await tx.probes.expired(BATCH)
        await tx.probes.offer_again(probes)
        if not expired:
            await tx.workers.forget(FORGET_AFTER, BATCH)
        return [*expired, *probes], changes, probes

    async def _lose(self, tx: Tx, expired: Sequence[Lease]) -> list[Change]:
        moment = self._moments.at(tx.now)
        before = await tx.runs.lock_idle({lease.run for lease in expired if lease.run is not None})
        after: dict[UUID, Run] = dict(before)
        for lease in expired:
            if lease.run in after:
                run = after[lease.run]
                after[lease.run] = lose_worker(run, lease.assignment, lease.worker, lease.fence, moment)
        return await record(tx, [(before[run_id], after[run_id]) for run_id in before])


def _workers(leases: Sequence[Lease]) -> list[UUID]:
    return sorted({lease.worker for lease in leases})
