"""Removes what is kept of deleted pipelines, and tells metadata when all of it is gone."""

from datetime import timedelta
from uuid import UUID

from headrace_chassis.agents import Agent
from headrace_chassis.database import Database
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_scheduler.application.metadata import Metadata
from headrace_scheduler.store import backfills
from headrace_scheduler.store import pipelines as store

BATCH = 2000
PIPELINES = 50
FORGET_AFTER = timedelta(days=1)


class Purger(Agent):
    """Deletes backfills, ticks and schedules in bounded pieces; a pipeline is acknowledged when nothing of it
    is left.

    Acknowledging again is harmless, so a crash between any two steps only repeats one.
    """

    name = "purger"
    interval_seconds = 5.0

    def __init__(self, db: Database, metadata: Metadata) -> None:
        self._db = db
        self._metadata = metadata

    async def run_once(self) -> bool:
        """Does one piece for each of some pipelines; True while one of them is not empty yet."""
        async with self._db.read() as conn:
            waiting = await store.to_purge(conn, PIPELINES)
        more = False
        for pipeline_id, tenant in waiting:
            if await self._db.run(lambda conn, each=pipeline_id: _purge(conn, each)):  # type: ignore[misc]
                await self._metadata.acknowledge_purge(tenant, pipeline_id)
                await self._db.run(lambda conn, each=pipeline_id: store.purged(conn, each))  # type: ignore[misc]
            else:
                more = True
        if not waiting:
            await self._db.run(lambda conn: store.forget(conn, FORGET_AFTER, BATCH))
        return more


async def _purge(conn: AsyncConnection, pipeline_id: UUID) -> bool:
    """Removes some of what is kept of a pipeline; True when nothing is left."""
    return await backfills.purge(conn, pipeline_id, BATCH) and await store.purge(conn, pipeline_id, BATCH)
