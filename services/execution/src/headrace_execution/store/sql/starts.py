"""Decisions on starts in SQL."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from headrace_execution.domain.starts import Decision, Standing, StartOutcome
from headrace_execution.domain.states import RunState

# A row without an outcome is a key that a transaction under way has taken: nobody else ever sees one. Sorted,
# so that transactions that take the same keys wait in the same order.
_TAKE = """
INSERT INTO starts (tenant, key, decided_at) SELECT $1, key, $3 FROM unnest($2::text[]) AS u(key)
ORDER BY key ON CONFLICT DO NOTHING RETURNING key
"""
_COLUMNS = "key, outcome, run, reason, message, running, decided_at"
_READ = f"SELECT {_COLUMNS} FROM starts WHERE tenant = $1 AND key = ANY ($2::text[]) AND outcome IS NOT NULL"
# The runs of a decision are one text of ids: PostgreSQL has no lists of lists of different lengths.
_DECIDE = """
UPDATE starts AS s SET outcome = u.outcome, run = u.run, reason = u.reason, message = u.message,
    running = u.running, decided_at = u.decided_at
FROM unnest($2::text[], $3::text[], $4::uuid[], $5::text[], $6::text[], $7::text[], $8::timestamptz[])
     AS u(key, outcome, run, reason, message, running, decided_at)
WHERE s.tenant = $1 AND s.key = u.key AND s.outcome IS NULL
"""
_FORGET = """
DELETE FROM starts WHERE (tenant, key) IN (
    SELECT tenant, key FROM starts WHERE decided_at < $1 ORDER BY decided_at LIMIT $2 FOR UPDATE SKIP LOCKED
)
"""
_STANDINGS = """
SELECT id, state, finished_at, warning_count,
    cancel_requested_at IS NOT NULL AND finished_at IS NULL AS cancel_requested
FROM runs WHERE tenant = $1 AND id = ANY ($2::uuid[])
"""


class SqlStarts:
    """Decisions on starts, in one transaction."""

    def __init__(self, conn: Any, now: datetime) -> None:
        self._conn = conn
        self._now = now

    async def take(self, tenant: UUID, keys: Collection[str]) -> dict[str, Decision]:
        """See the port."""
        asked = sorted(set(keys))
        taken = {row["key"] for row in await self._conn.fetch(_TAKE, tenant, asked, self._now)}
        # A statement of its own: it sees what those have decided that the one before has waited for.
        left = [key for key in asked if key not in taken]
        return {decision.key: decision for decision in await read_decisions(self._conn, tenant, left)}

    async def decide(self, tenant: UUID, decisions: Sequence[Decision]) -> None:
        """See the port."""
        if not decisions:
            return
        status: str = await self._conn.execute(
            _DECIDE,
            tenant,
            [decision.key for decision in decisions],
            [decision.outcome for decision in decisions],
            [decision.run for decision in decisions],
            [decision.reason for decision in decisions],
            [decision.message for decision in decisions],
            [" ".join(str(run) for run in decision.running) for decision in decisions],
            [decision.decided_at for decision in decisions],
        )
        if _count(status) != len(decisions):
            raise ValueError("a start was decided under a key that this transaction has not taken")

    async def forget(self, age: timedelta, limit: int) -> int:
        """See the port."""
        return _count(await self._conn.execute(_FORGET, self._now - age, limit))


async def read_decisions(conn: Any, tenant: UUID, keys: Collection[str]) -> list[Decision]:
    """What was decided under these keys, as far as anything was."""
    if not keys:
        return []
    return [_decision(row) for row in await conn.fetch(_READ, tenant, list(keys))]


async def read_standings(conn: Any, tenant: UUID, run_ids: Collection[UUID]) -> dict[UUID, Standing]:
    """How those of these runs stand that the tenant has."""
    if not run_ids:
        return {}
    rows = await conn.fetch(_STANDINGS, tenant, list(run_ids))
    return {
        row["id"]: Standing(
            row["id"],
            RunState(row["state"]),
            row["finished_at"],
            row["warning_count"],
            row["cancel_requested"],
        )
        for row in rows
    }


def _decision(row: Any) -> Decision:
    return Decision(
        key=row["key"],
        outcome=StartOutcome(row["outcome"]),
        decided_at=row["decided_at"],
        run=row["run"],
        reason=row["reason"],
        message=row["message"],
        running=tuple(UUID(run) for run in row["running"].split()),
    )


def _count(status: str) -> int:
    return int(status.rpartition(" ")[2])
