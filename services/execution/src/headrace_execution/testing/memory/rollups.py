"""Days of pipelines in memory."""

from collections.abc import Sequence
from datetime import date
from uuid import UUID

from headrace_execution.domain.rollups import Day, DayTotals, Totals, added
from headrace_execution.testing.memory.data import Link, Transaction
from headrace_execution.testing.memory.tables import DAYS


class MemoryRollups:
    """Days of pipelines, in one transaction."""

    def __init__(self, tx: Transaction, link: Link) -> None:
        self._tx = tx
        self._link = link

    async def add(self, days: Sequence[DayTotals]) -> None:
        """See the port."""
        if not days:
            return
        await self._link.statement(self._tx)
        known: dict[Day, Totals] = {}
        for day in days:
            found = await self._tx.lock(DAYS, day.key)
            if found is not None:
                known[day.key] = found.totals
        await self._link.statement(self._tx)
        for day in added(days, known):
            self._tx.put(DAYS, day.key, day)


def days_of(tx: Transaction, tenant: UUID, pipeline: UUID, first: date, last: date) -> list[DayTotals]:
    """What the runs of a pipeline come to, oldest day first."""
    mine = (day for day in tx.rows(DAYS) if day.pipeline == pipeline and day.tenant == tenant)
    return sorted((day for day in mine if first <= day.day <= last), key=lambda day: day.day)


async def purge_days(tx: Transaction, pipeline: UUID) -> None:
    """Removes the days of a pipeline."""
    for day in list(tx.rows(DAYS)):
        if day.pipeline == pipeline:
            await tx.lock(DAYS, day.key)
            tx.put(DAYS, day.key, None)
