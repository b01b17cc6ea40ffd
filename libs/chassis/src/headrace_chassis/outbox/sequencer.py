"""Gives committed events their positions; see docs/decisions/0002-outbox-positions.md."""

from collections.abc import Callable

import asyncpg
from prometheus_client import Gauge

from headrace_chassis import faults
from headrace_chassis.agents import Agent
from headrace_chassis.database import Database, driver

LOCK = 0x4845_4144_4F55_5442
"""The advisory lock of whoever assigns positions in a database ("HEADOUTB" in ASCII)."""

OLDEST = Gauge("hr_outbox_oldest_seconds", "The age of the oldest event that has no position yet.")

_WAITING = """
SELECT coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), -1)::float8
FROM (SELECT created_at FROM outbox_event WHERE position IS NULL ORDER BY id LIMIT 1) AS oldest
"""

_TAKE_TURN = "SELECT pg_try_advisory_xact_lock($1)"
_WAIT_A_LITTLE = "SELECT set_config('lock_timeout', '200ms', true)"
_WAIT_FOR_TURN = "SELECT pg_advisory_xact_lock($1)"

# A statement of its own, after the lock: it sees all that earlier turns committed. Positions have no gaps,
# since the head moves in the same transaction.
_ASSIGN = """
WITH fresh AS (
    SELECT id, row_number() OVER (ORDER BY id) AS n FROM outbox_event
    WHERE position IS NULL ORDER BY id LIMIT $1
), head AS (
    UPDATE outbox_head SET position = position + (SELECT count(*) FROM fresh)
    RETURNING position - (SELECT count(*) FROM fresh) AS base
)
UPDATE outbox_event AS e SET position = head.base + fresh.n
FROM fresh, head WHERE e.id = fresh.id
"""


class OutboxSequencer(Agent):
    """Assigns positions, in the order of ids among what is committed when it looks.

    Any replica may do so, one at a time: the turn is an advisory lock of the transaction, taken without
    waiting. So a replica that dies or is stopped holds nobody up, and a reader that has seen a position has
    seen, or can see, all smaller ones. `assigned` is called when there are new positions.
    """

    name = "outbox_sequencer"
    interval_seconds = 1.0
    # Each round is a transaction, and under load there is a commit every few milliseconds.
    gather_seconds = 0.02
    pause_seconds = 0.05

    def __init__(self, db: Database, *, assigned: Callable[[], None], batch: int = 1000) -> None:
        self._db = db
        self._assigned = assigned
        self._batch = batch

    async def run_once(self) -> bool:
        """Assigns positions to a batch; returns whether more may be waiting."""
        async with self._db.read() as conn:
            age: float = await driver(conn).fetchval(_WAITING)
        OLDEST.set(max(age, 0.0))
        if age < 0:
            return False
        count = await self._assign()
        if count:
            self._assigned()
        return count == self._batch

    async def _assign(self) -> int:
        try:
            async with self._db.transaction() as conn:
                raw = driver(conn)
                if not await raw.fetchval(_TAKE_TURN, LOCK):
                    # Whoever has the turn may have looked before our events were committed: wait for the next
                    # one.
                    await raw.execute(_WAIT_A_LITTLE)
                    await raw.execute(_WAIT_FOR_TURN, LOCK)
                status: str = await raw.execute(_ASSIGN, self._batch)
                faults.point("outbox.sequence.before_commit")
        except asyncpg.LockNotAvailableError:
            return 0
        return int(status.rpartition(" ")[2])
