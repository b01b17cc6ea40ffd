"""Decisions on starts in memory."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from headrace_execution.domain.starts import Decision
from headrace_execution.testing.memory.data import Link, Transaction
from headrace_execution.testing.memory.tables import STARTS, StartRow


class MemoryStarts:
    """Decisions on starts, in one transaction."""

    def __init__(self, tx: Transaction, link: Link) -> None:
        self._tx = tx
        self._link = link

    async def take(self, tenant: UUID, keys: Collection[str]) -> dict[str, Decision]:
        """See the port."""
        await self._link.statement(self._tx)
        found: dict[str, Decision] = {}
        for key in sorted(set(keys)):
            row = await self._tx.lock(STARTS, (tenant, key))
            if row is None:
                self._tx.put(STARTS, (tenant, key), StartRow(tenant, key))
            elif row.decision is not None:
                found[key] = row.decision
        await self._link.statement(self._tx)
        return found

    async def decide(self, tenant: UUID, decisions: Sequence[Decision]) -> None:
        """See the port."""
        if not decisions:
            return
        await self._link.statement(self._tx)
        for decision in decisions:
            row = self._tx.get(STARTS, (tenant, decision.key))
            if row is None or row.decision is not None:
                raise ValueError("a start was decided under a key that this transaction has not taken")
            self._tx.put(STARTS, (tenant, decision.key), replace(row, decision=decision))

    async def forget(self, age: timedelta, limit: int) -> int:
        """See the port."""
        await self._link.statement(self._tx)
        old = sorted(
            (row.decision.decided_at, row.key, row.tenant)
            for row in self._tx.rows(STARTS)
            if row.decision is not None and row.decision.decided_at < self._tx.now - age
        )
        free = [(tenant, key) for _, key, tenant in old[:limit] if self._tx.try_lock(STARTS, (tenant, key))]
        for scope in free:
            self._tx.put(STARTS, scope, None)
        return len(free)
