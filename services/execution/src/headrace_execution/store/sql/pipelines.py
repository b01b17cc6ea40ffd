"""Pipelines in SQL: gates, limits, cursors and purges.

A gate and a limit are advisory locks of the transaction, named by a pipeline. Acceptance shares the gate,
closing takes it alone: what was accepted before is seen by the close, and nothing is accepted after.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from headrace_execution.domain.changes import CursorMove
from headrace_execution.domain.run import StandingCursor
from headrace_execution.store.port import Closing
from headrace_execution.store.sql.locking import keys_of

_GATE = 0x4741_5445
_LIMIT = 0x4C49_4D49
# Two keys of 32 bits: the kind, and a hash of the pipeline.
_ENTER = """
SELECT pg_advisory_xact_lock_shared($1, key) FROM unnest($2::int[]) AS t(key)
"""
_CLOSED = "SELECT pipeline FROM closed_pipelines WHERE pipeline = ANY ($1::uuid[])"
_TAKE = "SELECT pg_advisory_xact_lock($1, key) FROM unnest($2::int[]) AS t(key)"
_LIVE = """
SELECT id FROM runs WHERE pipeline = $1 AND state IN ('PENDING', 'RUNNING') ORDER BY created_at, id LIMIT $2
"""
_CLOSE = """
INSERT INTO closed_pipelines (pipeline, tenant, closed_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING
"""
_REFUSED = "SELECT attempt >= $2 FROM refused_closings WHERE pipeline = $1"
_REFUSE = """
INSERT INTO refused_closings AS r (pipeline, attempt) VALUES ($1, $2)
ON CONFLICT (pipeline) DO UPDATE SET attempt = greatest(r.attempt, excluded.attempt)
"""
_FORGET_REFUSED = "DELETE FROM refused_closings WHERE pipeline = $1"
_COUNTS = """
SELECT pipeline, count(*) AS live FROM runs
WHERE pipeline = ANY ($1::uuid[]) AND state IN ('PENDING', 'RUNNING') AND NOT held GROUP BY pipeline
"""
_HELD = """
SELECT id FROM runs AS r WHERE held AND pipeline = $1 AND (overlap IS NULL OR NOT EXISTS (
    SELECT FROM runs AS e WHERE e.pipeline = $1 AND e.trigger_id = r.trigger_id AND e.trigger_id IS NOT NULL
        AND e.state IN ('PENDING', 'RUNNING') AND (NOT e.held OR (e.created_at, e.id) < (r.created_at, r.id))
)) ORDER BY priority DESC, created_at, id LIMIT $2
FOR NO KEY UPDATE OF r SKIP LOCKED
"""
_WITH_HELD = "SELECT DISTINCT pipeline FROM runs WHERE held LIMIT $1"
_CURSORS = """
SELECT c.pipeline, c.sink, c.source, c.value, c.fence FROM unnest($1::uuid[], $2::text[]) AS u(pipeline, sink)
JOIN cursors AS c USING (pipeline, sink) ORDER BY c.pipeline, c.sink, c.source
"""
_MOVE = """
INSERT INTO cursors AS c (pipeline, sink, source, tenant, value, fence, moved_at)
SELECT pipeline, sink, source, tenant, value, fence, $7
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::bytea[], $6::bigint[])
     AS u(pipeline, sink, source, tenant, value, fence)
ON CONFLICT (pipeline, sink, source) DO UPDATE
SET value = excluded.value, fence = excluded.fence, moved_at = excluded.moved_at
WHERE c.fence < excluded.fence
"""
_ASK_PURGE = """
INSERT INTO closed_pipelines AS c (pipeline, tenant, closed_at, purge_asked_at)
SELECT pipeline, tenant, $3, $3 FROM unnest($1::uuid[], $2::uuid[]) AS u(pipeline, tenant)
ON CONFLICT (pipeline) DO UPDATE SET purge_asked_at = COALESCE(c.purge_asked_at, excluded.purge_asked_at)
"""
_TO_PURGE = """
SELECT pipeline, tenant FROM closed_pipelines
WHERE purge_asked_at IS NOT NULL AND purged_at IS NULL ORDER BY purge_asked_at LIMIT $1
"""
_PURGE_IDS = "SELECT id FROM runs WHERE pipeline = $1 ORDER BY created_at DESC, id DESC LIMIT $2 FOR UPDATE"
_PURGE_TASKS = "DELETE FROM tasks WHERE run = ANY ($1::uuid[])"
_PURGE_LOGS = "DELETE FROM log_chunks WHERE run = ANY ($1::uuid[])"
_PURGE_NOTES = "DELETE FROM run_notes WHERE run = ANY ($1::uuid[])"
_PURGE_OUTPUTS = "DELETE FROM outputs WHERE run = ANY ($1::uuid[])"
_PURGE_STAGES = "DELETE FROM stages WHERE run = ANY ($1::uuid[])"
_PURGE_RUNS = "DELETE FROM runs WHERE id = ANY ($1::uuid[])"
_PURGE_CURSORS = "DELETE FROM cursors WHERE pipeline = $1"
_PURGE_DAYS = "DELETE FROM pipeline_days WHERE pipeline = $1"
_PURGE_RECIPES = "DELETE FROM recipes WHERE pipeline = $1"
_PURGE_ALERTS = """
DELETE FROM alerts WHERE id = ANY (ARRAY(SELECT id FROM alerts WHERE pipeline = $1 LIMIT $2))
"""
_PURGE_DELIVERIES = """
DELETE FROM deliveries WHERE id = ANY (ARRAY(SELECT id FROM deliveries WHERE pipeline = $1 LIMIT $2))
"""
_PURGE_USUAL = "DELETE FROM usual_runs WHERE pipeline = $1"
_PURGED = "UPDATE closed_pipelines SET purged_at = $2 WHERE pipeline = $1 AND purged_at IS NULL"
_FORGET = """
DELETE FROM closed_pipelines WHERE pipeline = ANY (ARRAY(
    SELECT pipeline FROM closed_pipelines WHERE purged_at < $1 LIMIT $2
))
"""


class SqlPipelines:
    """What is kept of pipelines, in one transaction."""

    def __init__(self, conn: Any, now: datetime) -> None:
        self._conn = conn
        self._now = now

    async def enter(self, pipelines: Collection[UUID]) -> frozenset[UUID]:
        """See the port."""
        await self._conn.execute(_ENTER, _GATE, keys_of(pipelines))
        rows = await self._conn.fetch(_CLOSED, list(pipelines))
        return frozenset(row["pipeline"] for row in rows)

    async def close(
        self, pipeline: UUID, tenant: UUID, *, attempt: int, despite_live: bool, limit: int
    ) -> Closing:
        """See the port."""
        await self._conn.execute(_TAKE, _GATE, keys_of([pipeline]))
        live = [row["id"] for row in await self._conn.fetch(_LIVE, pipeline, limit)]
        if attempt and await self._conn.fetchval(_REFUSED, pipeline, attempt):
            return Closing(False, live)
        if live and not despite_live:
            if attempt:
                await self._conn.execute(_REFUSE, pipeline, attempt)
            return Closing(False, live)
        await self._conn.execute(_CLOSE, pipeline, tenant, self._now)
        return Closing(True, live)

    async def live_counts(self, pipelines: Collection[UUID]) -> dict[UUID, int]:
        """See the port."""
        if not pipelines:
            return {}
        await self._conn.execute(_TAKE, _LIMIT, keys_of(pipelines))
        rows = await self._conn.fetch(_COUNTS, list(pipelines))
        counts = {row["pipeline"]: row["live"] for row in rows}
        return {pipeline: counts.get(pipeline, 0) for pipeline in pipelines}

    async def held(self, pipeline: UUID, limit: int) -> list[UUID]:
        """See the port."""
        return [row["id"] for row in await self._conn.fetch(_HELD, pipeline, limit)]

    async def pipelines_with_held(self, limit: int) -> list[UUID]:
        """See the port."""
        return [row["pipeline"] for row in await self._conn.fetch(_WITH_HELD, limit)]

    async def cursors(
        self, loads: Collection[tuple[UUID, str]]
    ) -> dict[tuple[UUID, str], list[StandingCursor]]:
        """See the port."""
        found: dict[tuple[UUID, str], list[StandingCursor]] = {}
        if loads:
            rows = await self._conn.fetch(_CURSORS, [load[0] for load in loads], [load[1] for load in loads])
            for row in rows:
                cursor = StandingCursor(row["sink"], row["source"], row["value"], row["fence"])
                found.setdefault((row["pipeline"], row["sink"]), []).append(cursor)
        return found

    async def move_cursors(self, moves: Sequence[CursorMove]) -> None:
        """See the port."""
        # One row a cursor: a statement may not touch the same row twice. Sorted, so that nobody waits in a
        # circle.
        last = {
            (move.pipeline, move.cursor.sink, move.cursor.source): move
            for move in sorted(moves, key=lambda move: move.fence)
        }
        ordered = [last[key] for key in sorted(last, key=lambda key: (key[0].bytes, key[1], key[2]))]
        if ordered:
            await self._conn.execute(
                _MOVE,
                [move.pipeline for move in ordered],
                [move.cursor.sink for move in ordered],
                [move.cursor.source for move in ordered],
                [move.tenant for move in ordered],
                [move.cursor.value for move in ordered],
                [move.fence for move in ordered],
                self._now,
            )

    async def ask_purge(self, pipelines: Mapping[UUID, UUID]) -> None:
        """See the port."""
        if pipelines:
            await self._conn.execute(_ASK_PURGE, list(pipelines), list(pipelines.values()), self._now)

    async def to_purge(self, limit: int) -> list[tuple[UUID, UUID]]:
        """See the port."""
        return [(row["pipeline"], row["tenant"]) for row in await self._conn.fetch(_TO_PURGE, limit)]

    async def purge(self, pipeline: UUID, limit: int) -> bool:
        """See the port."""
        await self._conn.execute(_TAKE, _GATE, keys_of([pipeline]))
        ids = [row["id"] for row in await self._conn.fetch(_PURGE_IDS, pipeline, limit)]
        for statement in (
            _PURGE_LOGS,
            _PURGE_NOTES,
            _PURGE_OUTPUTS,
            _PURGE_TASKS,
            _PURGE_STAGES,
            _PURGE_RUNS,
        ):
            await self._conn.execute(statement, ids)
        removed = [len(ids)]
        for statement in (_PURGE_ALERTS, _PURGE_DELIVERIES):
            gone: str = await self._conn.execute(statement, pipeline, limit)
            removed.append(int(gone.rpartition(" ")[2]))
        if limit in removed:
            return False
        for statement in (_PURGE_CURSORS, _PURGE_DAYS, _PURGE_RECIPES, _PURGE_USUAL, _FORGET_REFUSED):
            await self._conn.execute(statement, pipeline)
        return True

    async def purged(self, pipeline: UUID) -> None:
        """See the port."""
        await self._conn.execute(_PURGED, pipeline, self._now)

    async def forget_purged(self, age: timedelta, limit: int) -> int:
        """See the port."""
        status: str = await self._conn.execute(_FORGET, self._now - age, limit)
        return int(status.rpartition(" ")[2])
