"""Deliveries in memory."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from headrace_execution.domain.deliveries import Delivery
from headrace_execution.domain.recipe import Notices
from headrace_execution.store.deliveries_port import MOST_WAITING
from headrace_execution.testing.memory.data import Link, Transaction
from headrace_execution.testing.memory.tables import DELIVERIES, RUNS, DeliveryRow


class MemoryDeliveries:
    """Deliveries of one transaction."""

    def __init__(self, tx: Transaction, link: Link) -> None:
        self._tx = tx
        self._link = link

    async def add(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """See the port."""
        if not deliveries:
            return []
        await self._link.statement(self._tx)
        waiting = Counter(
            row.delivery.pipeline for row in self._tx.rows(DELIVERIES) if row.due_at is not None
        )
        refused: list[Delivery] = []
        for each in deliveries:
            waiting[each.pipeline] += 1
            if waiting[each.pipeline] > MOST_WAITING:
                refused.append(each)
            else:
                self._tx.put(DELIVERIES, each.id, DeliveryRow(each, self._tx.now))
        return refused

    async def claim(self, limit: int, lease: timedelta, *, again: bool) -> list[Delivery]:
        """See the port."""
        await self._link.statement(self._tx)
        due = sorted(
            (row.due_at, row.delivery.id)
            for row in self._tx.rows(DELIVERIES)
            if row.due_at is not None and row.due_at <= self._tx.now and bool(row.delivery.attempts) is again
        )
        claimed: list[Delivery] = []
        for _, identity in due:
            row = self._tx.get(DELIVERIES, identity)
            if len(claimed) < limit and row is not None and self._tx.try_lock(DELIVERIES, identity):
                delivery = replace(row.delivery, attempts=row.delivery.attempts + 1)
                self._tx.put(DELIVERIES, identity, DeliveryRow(delivery, self._tx.now + lease))
                claimed.append(delivery)
        return claimed

    async def delivered(self, delivery: Delivery) -> None:
        """See the port."""
        await self._link.statement(self._tx)
        await self._tx.lock(DELIVERIES, delivery.id)
        self._tx.put(DELIVERIES, delivery.id, None)

    async def put_off(self, delivery: Delivery, wait: timedelta, reason: str) -> None:
        """See the port."""
        await self._settle(delivery, DeliveryRow(delivery, self._tx.now + wait, None, reason))

    async def park(self, delivery: Delivery, reason: str) -> None:
        """See the port."""
        await self._settle(delivery, DeliveryRow(delivery, None, self._tx.now, reason))

    async def _settle(self, delivery: Delivery, after: DeliveryRow) -> None:
        await self._link.statement(self._tx)
        row = await self._tx.lock(DELIVERIES, delivery.id)
        if row is not None and row.delivery.attempts == delivery.attempts:
            self._tx.put(DELIVERIES, delivery.id, after)

    async def notices(self, pipelines: Collection[UUID]) -> dict[UUID, Notices]:
        """See the port."""
        if not pipelines:
            return {}
        await self._link.statement(self._tx)
        found: dict[UUID, Notices] = {}
        for run in sorted(self._tx.rows(RUNS), key=lambda run: (run.created_at, run.id)):
            if run.pipeline in pipelines:
                found.pop(run.pipeline, None)
                if run.recipe.notices is not None:
                    found[run.pipeline] = run.recipe.notices
        return found

    async def forget_parked(self, age: timedelta, limit: int) -> int:
        """See the port."""
        await self._link.statement(self._tx)
        old = [
            row.delivery.id
            for row in self._tx.rows(DELIVERIES)
            if row.parked_at is not None and row.parked_at < self._tx.now - age
        ]
        for identity in old[:limit]:
            await self._tx.lock(DELIVERIES, identity)
            self._tx.put(DELIVERIES, identity, None)
        return len(old[:limit])


async def purge_deliveries(tx: Transaction, pipeline: UUID) -> None:
    """Removes what is kept of a pipeline."""
    for row in [row for row in tx.rows(DELIVERIES) if row.delivery.pipeline == pipeline]:
        await tx.lock(DELIVERIES, row.delivery.id)
        tx.put(DELIVERIES, row.delivery.id, None)
