"""Workers and probes in memory."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from headrace_execution.domain.states import StageState
from headrace_execution.store.port import Lease, Probe, SecretHolder, WorkerRecord
from headrace_execution.testing.memory.data import Link, Transaction
from headrace_execution.testing.memory.tables import (
    PROBES,
    RUN_OF_STAGE,
    RUNS,
    WORKERS,
    ProbeRow,
    WorkerRow,
)


class MemoryWorkers:
    """Workers, in one transaction."""

    def __init__(self, tx: Transaction, link: Link) -> None:
        self._tx = tx
        self._link = link

    async def hello(self, worker: WorkerRecord, lease: timedelta) -> bool:
        """See the port."""
        await self._link.statement(self._tx)
        found = await self._tx.lock(WORKERS, worker.id)
        if found is not None and found.record.name != worker.name:
            return False
        self._tx.put(WORKERS, worker.id, WorkerRow(worker, self._tx.now + lease))
        return True

    async def renew(self, workers: Collection[UUID], lease: timedelta) -> frozenset[UUID]:
        """See the port."""
        await self._link.statement(self._tx)
        renewed = set()
        for worker in sorted(workers):
            if self._tx.get(WORKERS, worker) is None:
                continue
            row = await self._tx.lock(WORKERS, worker)
            if row is not None:
                self._tx.put(WORKERS, worker, replace(row, lease_until=self._tx.now + lease))
                renewed.add(worker)
        return frozenset(renewed)

    async def forget(self, age: timedelta, limit: int) -> int:
        """See the port."""
        await self._link.statement(self._tx)
        gone = [row for row in self._tx.rows(WORKERS) if row.lease_until < self._tx.now - age]
        holding = {
            stage.worker
            for run in self._tx.rows(RUNS)
            for stage in run.stages
            if stage.state is StageState.LEASED
        }
        oldest = sorted(gone, key=lambda row: (row.lease_until, row.record.id))[:limit]
        removed = [row.record.id for row in oldest if row.record.id not in holding]
        for worker in removed:
            await self._tx.lock(WORKERS, worker)
            self._tx.put(WORKERS, worker, None)
        return len(removed)

    async def secrets_of(self, worker: UUID, name: str, assignment: UUID, fence: int) -> SecretHolder | None:
        """See the port."""
        await self._link.statement(self._tx)
        row = self._tx.get(WORKERS, worker)
        if row is None or row.record.name != name or row.lease_until < self._tx.now:
            return None
        probe = self._tx.get(PROBES, assignment)
        if probe is not None:
            if (probe.state, probe.worker, probe.fence) != ("LEASED", worker, fence):
                return None
            asked = probe.probe
            return SecretHolder(asked.tenant, asked.workspace, asked.connections, asked.on_behalf_of)
        run_id = self._tx.get(RUN_OF_STAGE, assignment)
        run = self._tx.get(RUNS, run_id) if run_id is not None else None
        stage = run.stage(assignment) if run is not None else None
        if run is None or stage is None or stage.state is not StageState.LEASED:
            return None
        if (stage.worker, stage.fence) != (worker, fence):
            return None
        return SecretHolder(run.tenant, run.workspace, run.spec(stage).connections, run.triggered_by)


class MemoryProbes:
    """Probes, in one transaction."""

    def __init__(self, tx: Transaction, link: Link) -> None:
        self._tx = tx
        self._link = link

    async def insert(self, probe: Probe, life: timedelta) -> None:
        """See the port."""
        await self._link.statement(self._tx)
        await self._tx.lock(PROBES, probe.id)
        self._tx.put(PROBES, probe.id, ProbeRow(probe, self._tx.now, self._tx.now + life))

    async def claim(self, workers: Sequence[UUID]) -> list[tuple[Probe, Lease]]:
        """See the port."""
        if not workers:
            return []
        await self._link.statement(self._tx)
        ready = sorted(
            (row.created_at, row.probe.id)
            for row in self._tx.rows(PROBES)
            if row.state == "READY" and row.expires_at > self._tx.now
        )
        free = [probe_id for _, probe_id in ready if self._tx.try_lock(PROBES, probe_id)]
        claimed = []
        for worker, probe_id in zip(workers, free, strict=False):
            row = self._tx.get(PROBES, probe_id)
            if row is None or row.state != "READY":
                continue
            fence = self._tx.data.next("fences")
            self._tx.put(
                PROBES,
                probe_id,
                replace(row, state="LEASED", fence=fence, worker=worker, leased_at=self._tx.now),
            )
            claimed.append((row.probe, Lease(worker, probe_id, None, fence, self._tx.now)))
        return claimed

    async def leases(self, workers: Collection[UUID]) -> list[Lease]:
        """See the port."""
        await self._link.statement(self._tx)
        return [lease for lease in self._leased() if lease.worker in workers]

    async def expired(self, limit: int) -> list[Lease]:
        """See the port."""
        await self._link.statement(self._tx)
        return [lease for lease in self._leased() if self._is_expired(lease.worker)][:limit]

    def _leased(self) -> list[Lease]:
        return [
            Lease(row.worker, row.probe.id, None, row.fence, row.leased_at)
            for row in self._tx.rows(PROBES)
            if row.state == "LEASED" and row.worker is not None and row.leased_at is not None
        ]

    def _is_expired(self, worker: UUID) -> bool:
        row = self._tx.get(WORKERS, worker)
        return row is None or row.lease_until < self._tx.now

    async def offer_again(self, leases: Sequence[Lease]) -> None:
        """See the port."""
        if not leases:
            return
        await self._link.statement(self._tx)
        for lease in leases:
            row = self._tx.get(PROBES, lease.assignment)
            if row is None or (row.state, row.fence) != ("LEASED", lease.fence):
                continue
            row = await self._tx.lock(PROBES, lease.assignment)
            if row is not None and (row.state, row.fence) == ("LEASED", lease.fence):
                self._tx.put(PROBES, lease.assignment, replace(row, state="READY", worker=None))

    async def answer(self, worker: UUID, probe: UUID, fence: int, answer: bytes) -> bool:
        """See the port."""
        await self._link.statement(self._tx)
        if self._tx.get(PROBES, probe) is None:
            return False
        row = await self._tx.lock(PROBES, probe)
        if row is None or (row.state, row.worker, row.fence) != ("LEASED", worker, fence):
            return False
        self._tx.put(PROBES, probe, replace(row, state="ANSWERED", worker=None, answer=answer))
        return True

    async def answers(self, probes: Collection[UUID]) -> dict[UUID, bytes]:
        """See the port."""
        await self._link.statement(self._tx)
        found = (self._tx.get(PROBES, probe) for probe in probes)
        return {row.probe.id: row.answer for row in found if row is not None and row.answer is not None}

    async def remove(self, probe: UUID) -> bool:
        """See the port."""
        await self._link.statement(self._tx)
        row = await self._tx.lock(PROBES, probe)
        self._tx.put(PROBES, probe, None)
        return row is not None and row.state != "READY"

    async def forget(self, limit: int) -> int:
        """See the port."""
        await self._link.statement(self._tx)
        old = sorted(
            (row.expires_at, row.probe.id) for row in self._tx.rows(PROBES) if row.expires_at < self._tx.now
        )
        free = [probe_id for _, probe_id in old[:limit] if self._tx.try_lock(PROBES, probe_id)]
        for probe_id in free:
            self._tx.put(PROBES, probe_id, None)
        return len(free)
