"""Runs in SQL."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import fields
from functools import partial
from operator import attrgetter
from typing import Any
from uuid import UUID

from headrace_execution.domain.recipe import Recipe
from headrace_execution.domain.run import Purpose, Run, Stage, StopReason
from headrace_execution.domain.triggers import Peer
from headrace_execution.domain.values import replace
from headrace_execution.store.port import Claim, ConcurrentChange, Lease, TriggerKey
from headrace_execution.store.sql import writing
from headrace_execution.store.sql.limited import FREE, LIMITED, claim_limited
from headrace_execution.store.sql.recipes import Key, RecipeCache
from headrace_execution.store.sql.rows import (
    RUN_COLUMNS,
    STAGE_COLUMNS,
    TASK_COLUMNS,
    StageRow,
    TaskRow,
    gathered_sql,
    names,
    scattered,
    to_run,
    to_stage,
    to_task,
)
from headrace_execution.store.sql.run_cache import RunCache
from headrace_execution.store.sql.writing import RUNS, STAGES, TASKS, Pair

_RUNS = f"SELECT {names(RUN_COLUMNS)} FROM runs WHERE id = ANY ($1::uuid[])"
_LOCK_RUNS = "SELECT id, revision FROM runs WHERE id = ANY ($1::uuid[]) ORDER BY id FOR NO KEY UPDATE"
_LOCK_IDLE_RUNS = f"{_LOCK_RUNS} SKIP LOCKED"
_LOCK_RUNS_OF = """
SELECT id, revision FROM runs WHERE id = ANY (ARRAY(
    SELECT run FROM stages WHERE id = ANY ($1::uuid[])
)) ORDER BY id FOR NO KEY UPDATE
"""
_LOCK_IDLE_RUNS_OF = f"{_LOCK_RUNS_OF} SKIP LOCKED"
_STAGES = f"CROSS JOIN LATERAL {gathered_sql('stages', STAGE_COLUMNS, 's_', 'r.id')} AS s"
_TASKS = f"CROSS JOIN LATERAL {gathered_sql('tasks', TASK_COLUMNS, 't_', 'r.id')} AS t"
_PARTS = f"SELECT r.id, s.*, t.* FROM unnest($1::uuid[]) AS r(id) {_STAGES} {_TASKS}"
_ONE = f"SELECT r.*, s.*, t.* FROM runs AS r {_STAGES} {_TASKS} WHERE r.id = $1 AND r.tenant = $2"

# The run's lock is the aggregate's: whoever has it may change its stages. They are read again under that
# lock, for this statement may have seen one as it was before another transaction let go of the run.
_CLAIM = f"""
SELECT w.limited_wait, c.*, CASE WHEN c.id IS NOT NULL THEN nextval('fences') END AS claimed_fence
FROM (SELECT EXISTS (SELECT FROM stages AS s WHERE {LIMITED}) AS limited_wait) AS w LEFT JOIN (
    SELECT s.id AS claimed_stage, s.purpose, s.priority, s.ready_at, r.id, r.revision
    FROM stages AS s JOIN runs AS r ON r.id = s.run
    WHERE {FREE} ORDER BY s.purpose DESC, s.priority DESC, s.ready_at, s.id
    LIMIT $1 FOR NO KEY UPDATE OF r SKIP LOCKED
) AS c ON true
"""
_FENCES = "SELECT nextval('fences') FROM generate_series(1, $1)"
_FENCES_UNLESS_READY = f"{_FENCES} WHERE NOT EXISTS (SELECT FROM stages AS s WHERE {FREE})"
_DUE = """
(SELECT id, due_at AS due FROM runs WHERE due_at <= $1 ORDER BY due_at LIMIT $2)
UNION ALL
(SELECT run, LEAST(timer, settle_by) FROM stages WHERE LEAST(timer, settle_by) <= $1
 ORDER BY LEAST(timer, settle_by) LIMIT $2)
ORDER BY due LIMIT $2
"""
_LEASE = "SELECT s.worker, s.id, s.run, s.fence, s.leased_at, s.stop FROM stages AS s"
_LEASES = f"{_LEASE} WHERE s.state = 'LEASED' AND s.worker = ANY ($1::uuid[])"
_STOPS = f"{_LEASES} AND s.stop IS NOT NULL"
_EXPIRED = f"""
{_LEASE} LEFT JOIN workers AS w ON w.id = s.worker
WHERE s.state = 'LEASED' AND (w.id IS NULL OR w.lease_until < $1) LIMIT $2
"""
_LIVE = """
SELECT id FROM runs WHERE pipeline = $1 AND state IN ('PENDING', 'RUNNING') ORDER BY created_at, id LIMIT $2
"""
# One after the other by the index that has them in order: as a plain join it went, by statistics of a moment
# when few were live, through all live runs of the pipeline for each batch.
_LIVE_OF = """
SELECT u.pipeline, u.trigger_id, r.id, r.held FROM unnest($1::uuid[], $2::text[]) AS u(pipeline, trigger_id)
CROSS JOIN LATERAL (
    SELECT id, held, created_at FROM runs
    WHERE pipeline = u.pipeline AND trigger_id = u.trigger_id AND trigger_id IS NOT NULL
        AND state IN ('PENDING', 'RUNNING')
    ORDER BY created_at, id OFFSET 0
) AS r ORDER BY r.created_at, r.id
"""
_LIVE_OF_ROOTS = """
SELECT root, id FROM runs
WHERE root = ANY ($1::uuid[]) AND root IS NOT NULL AND state IN ('PENDING', 'RUNNING')
"""


class SqlRuns:
    """Runs, stages and tasks of one transaction."""

    def __init__(
        self,
        conn: Any,
        now: Any,
        recipes: RecipeCache,
        live: RunCache,
        after_commit: list[Callable[[], None]],
    ) -> None:
        self._conn = conn
        self._now = now
        self._recipes = recipes
        self._live = live
        self._after_commit = after_commit

    async def insert(self, runs: Sequence[Run]) -> None:
        """See the port."""
        if not runs:
            return
        stored = await self._recipes.store(self._conn, [(run.pipeline, run.recipe) for run in runs])
        self._after_commit.extend(_remembering(self._recipes, key, recipe) for key, recipe in stored)
        stages = [StageRow(run, stage) for run in runs for stage in run.stages]
        tasks = [TaskRow(run.id, task) for run in runs for stage in run.stages for task in stage.tasks]
        statement, values = writing.insert((RUNS, runs), (STAGES, stages), (TASKS, tasks))
        await self._conn.execute(statement, *values)
        self._after_commit.append(partial(self._live.committed, runs))

    async def lock(self, run_ids: Collection[UUID]) -> dict[UUID, Run]:
        """See the port."""
        return await self._load(_LOCK_RUNS, run_ids)

    async def lock_idle(self, run_ids: Collection[UUID]) -> dict[UUID, Run]:
        """See the port."""
        return await self._load(_LOCK_IDLE_RUNS, run_ids)

    async def lock_idle_of(self, stage_ids: Collection[UUID]) -> dict[UUID, Run]:
        """See the port."""
        return await self._load(_LOCK_IDLE_RUNS_OF, stage_ids)

    async def lock_of(self, stage_ids: Collection[UUID]) -> dict[UUID, Run]:
        """See the port."""
        return await self._load(_LOCK_RUNS_OF, stage_ids)

    async def _load(self, statement: str, ids: Collection[UUID]) -> dict[UUID, Run]:
        if not ids:
            return {}
        return await self._read(await self._conn.fetch(statement, list(ids)))

    async def _read(self, locked: Sequence[Any]) -> dict[UUID, Run]:
        """The runs of locked rows, in their order: those that are at hand as they stand, and the others from
        the database.

        Statements of their own: they see what was committed before the rows were locked.
        """
        at_hand = {row["id"]: self._live.get(row["id"], row["revision"]) for row in locked}
        missing = [run_id for run_id, run in at_hand.items() if run is None]
        rows = await self._conn.fetch(_RUNS, missing) if missing else []
        read = {run.id: run for run in await assemble(self._conn, rows, self._recipes)}
        return {run_id: run or read[run_id] for run_id, run in at_hand.items()}

    async def claim(self, limit: int) -> tuple[list[Claim], dict[UUID, Run]]:
        """See the port."""
        if limit <= 0:
            return [], {}
        found = await self._conn.fetch(_CLAIM, limit)
        rows = [row for row in found if row["id"] is not None]
        if found[0]["limited_wait"]:
            rows += await claim_limited(self._conn, limit)
            rows = sorted(rows, key=_urgency)[:limit]
        claims = [Claim(row["id"], row["claimed_stage"], row["claimed_fence"]) for row in rows]
        return claims, await self._read(rows)

    async def fences(self, count: int, *, unless_ready: bool = False) -> list[int]:
        """See the port."""
        if not count:
            return []
        rows = await self._conn.fetch(_FENCES_UNLESS_READY if unless_ready else _FENCES, count)
        return [row[0] for row in rows]

    async def save(self, changes: Sequence[tuple[Run, Run]]) -> None:
        """See the port."""
        changed = [(before, after) for before, after in changes if before != after]
        if not changed:
            return
        # The row of a run is updated with anything of it: its revision stands for all that belongs to it.
        runs = [(before, replace(after, revision=before.revision + 1)) for before, after in changed]
        stages, tasks = _changed_stages(changed), _changed_tasks(changed)
        statement, values = writing.update((RUNS, runs), (STAGES, stages), (TASKS, tasks))
        saved = tuple(await self._conn.fetchrow(statement, *values))
        expected = tuple(len(rows) for rows in (runs, stages, tasks) if rows)
        if saved != expected:
            raise ConcurrentChange(f"{saved} where {expected} rows were to change")
        self._after_commit.append(partial(self._live.committed, [after for _, after in runs]))

    async def due(self, limit: int) -> list[UUID]:
        """See the port."""
        rows = await self._conn.fetch(_DUE, self._now, limit)
        return list(dict.fromkeys(row["id"] for row in rows))

    async def leases(self, workers: Collection[UUID]) -> list[Lease]:
        """See the port."""
        return [_lease(row) for row in await self._conn.fetch(_LEASES, list(workers))]

    async def stops(self, workers: Collection[UUID]) -> list[Lease]:
        """See the port."""
        return [_lease(row) for row in await self._conn.fetch(_STOPS, list(workers))]

    async def expired(self, limit: int) -> list[Lease]:
        """See the port."""
        return [_lease(row) for row in await self._conn.fetch(_EXPIRED, self._now, limit)]

    async def ids_of(self, pipeline: UUID, limit: int) -> list[UUID]:
        """See the port."""
        return [row["id"] for row in await self._conn.fetch(_LIVE, pipeline, limit)]

    async def live_of(self, triggers: Collection[TriggerKey]) -> dict[TriggerKey, list[Peer]]:
        """See the port."""
        found: dict[TriggerKey, list[Peer]] = {}
        if triggers:
            pairs = sorted(set(triggers), key=lambda pair: (pair[0].bytes, pair[1]))
            rows = await self._conn.fetch(_LIVE_OF, [pair[0] for pair in pairs], [pair[1] for pair in pairs])
            for row in rows:
                peers = found.setdefault((row["pipeline"], row["trigger_id"]), [])
                peers.append(Peer(row["id"], row["held"]))
        return found

    async def live_of_roots(self, roots: Collection[UUID]) -> dict[UUID, UUID]:
        """See the port."""
        if not roots:
            return {}
        return {row["root"]: row["id"] for row in await self._conn.fetch(_LIVE_OF_ROOTS, list(roots))}


def _urgency(row: Any) -> tuple[bool, int, Any, UUID]:
    return row["purpose"] != Purpose.SETTLE, -row["priority"], row["ready_at"], row["claimed_stage"]


async def read_one(conn: Any, run_id: UUID, tenant: UUID, recipes: RecipeCache) -> Run | None:
    """A run of a tenant, its stages and tasks of the same moment: one statement sees one."""
    row = await conn.fetchrow(_ONE, run_id, tenant)
    if row is None:
        return None
    key = (row["pipeline"], row["recipe"])
    return _run(row, row, (await recipes.load(conn, [key]))[key])


async def read_many(conn: Any, run_ids: Collection[UUID], recipes: RecipeCache) -> dict[UUID, Run]:
    """The runs that exist, without locking them."""
    rows = await conn.fetch(_RUNS, list(run_ids)) if run_ids else []
    return {run.id: run for run in await assemble(conn, rows, recipes)}


async def assemble(conn: Any, rows: Sequence[Any], recipes: RecipeCache) -> list[Run]:
    """Runs from their rows: reads their stages and tasks, and the recipes that are not at hand.

    A statement of its own: it sees what was committed before the rows were locked.
    """
    if not rows:
        return []
    parts = {row["id"]: row for row in await conn.fetch(_PARTS, [row["id"] for row in rows])}
    known = await recipes.load(conn, [(row["pipeline"], row["recipe"]) for row in rows])
    return [_run(row, parts[row["id"]], known[row["pipeline"], row["recipe"]]) for row in rows]


def _run(row: Any, parts: Any, recipe: Recipe) -> Run:
    tasks = [to_task(task) for task in scattered(parts, TASK_COLUMNS, "t_")]
    stages = tuple(
        to_stage(stage, tuple(tasks[position] for position in recipe.stages[stage["position"]].tasks))
        for stage in scattered(parts, STAGE_COLUMNS, "s_")
    )
    return to_run(row, recipe, stages)


def _changed_stages(changed: Sequence[tuple[Run, Run]]) -> list[Pair[StageRow]]:
    return [
        (StageRow(before, old), StageRow(after, new))
        for before, after in changed
        for old, new in zip(before.stages, after.stages, strict=True)
        if old is not new and _OWN(old) != _OWN(new)
    ]


def _changed_tasks(changed: Sequence[tuple[Run, Run]]) -> list[Pair[TaskRow]]:
    return [
        (TaskRow(before.id, old), TaskRow(after.id, new))
        for before, after in changed
        for old_stage, new_stage in zip(before.stages, after.stages, strict=True)
        if old_stage is not new_stage
        for old, new in zip(old_stage.tasks, new_stage.tasks, strict=True)
        if old != new
    ]


_OWN = attrgetter(*(field.name for field in fields(Stage) if field.name != "tasks"))
"""What a stage's own row holds."""


def _lease(row: Any) -> Lease:
    stop = StopReason(row["stop"]) if row["stop"] else None
    return Lease(row["worker"], row["id"], row["run"], row["fence"], row["leased_at"], stop)


def _remembering(recipes: RecipeCache, key: Key, recipe: Recipe) -> Callable[[], None]:
    return lambda: recipes.remember(key, recipe)
