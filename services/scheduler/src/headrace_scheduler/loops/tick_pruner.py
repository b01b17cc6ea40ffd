"""Forgets old ticks, and what upstreams started and how they ended."""

from datetime import timedelta

from headrace_chassis.agents import Agent
from headrace_chassis.database import Database
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_scheduler.application.schedules import Clock
from headrace_scheduler.store import dependencies
from headrace_scheduler.store import ticks as store

_BATCH = 2000


class TickPruner(Agent):
    """Removes decisions that are older than what is kept, a batch a transaction. How far a schedule is
    decided is kept apart from them, so that no forgotten tick is decided again."""

    name = "tick_pruner"
    interval_seconds = 600.0

    def __init__(self, db: Database, clock: Clock, kept: timedelta) -> None:
        self._db = db
        self._clock = clock
        self._kept = kept

    async def run_once(self) -> bool:
        """Removes one batch; True where there may be more."""
        return await self._db.run(self._prune) >= _BATCH

    async def _prune(self, conn: AsyncConnection) -> int:
        before = await self._clock(conn) - self._kept
        return await store.prune(conn, before, _BATCH) + await dependencies.prune(conn, before, _BATCH)
