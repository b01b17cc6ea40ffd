"""Dependencies in SQL: the edges, how pipelines ended, and what upstreams start."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from headrace_chassis.database import driver
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_scheduler.domain.dependencies import (
    Dependency,
    DependencyType,
    DependentStart,
    Downstream,
    Ended,
    Interval,
)
from headrace_scheduler.store.scope import Conditions, Scope

_EDGE_LOCK = 0x4445_5045
"""The first half of the advisory lock under which edges of a workspace are added ("DEPE" in ASCII); the other
half is of the workspace. Two that are added at once could close a circle that neither sees."""

_COLUMNS = "d.id, d.tenant, d.workspace_id, d.upstream, d.downstream, d.type, d.created_at, d.created_by"

_DOWNSTREAMS = f"""
SELECT {_COLUMNS},
       (SELECT count(*) FROM dependency AS u WHERE u.downstream = d.downstream) AS upstreams,
       ARRAY(SELECT u.upstream FROM dependency AS u
             WHERE u.downstream = d.downstream AND u.type = 'STRONG') AS strong
FROM dependency AS d JOIN pipeline AS p ON p.id = d.downstream
WHERE d.upstream = ANY ($1::uuid[]) AND p.is_active AND p.deleted_at IS NULL
  AND NOT EXISTS (SELECT FROM schedule AS s WHERE s.pipeline_id = d.downstream)
ORDER BY d.id
"""

_NOTE = """
INSERT INTO interval_outcome AS o (pipeline_id, interval_start, interval_end, state, run_id)
SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[], $4::text[], $5::uuid[])
ON CONFLICT (pipeline_id, interval_end, interval_start)
DO UPDATE SET state = excluded.state, run_id = excluded.run_id, told_at = now()
WHERE o.state <> 'COMPLETED'
"""

_ADD_STARTS = """
INSERT INTO dependent_start (key, tenant, pipeline_id, upstream_run, triggered_by, interval_start,
                             interval_end)
SELECT * FROM unnest($1::text[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::timestamptz[],
                     $7::timestamptz[])
ON CONFLICT (key) DO NOTHING
"""

_CLAIM = """
WITH chosen AS (
    SELECT key FROM dependent_start
    WHERE state = 'DUE' AND (leased_until IS NULL OR leased_until <= $1 OR leased_until > $1 + $2::interval)
    ORDER BY added_at LIMIT $3 FOR UPDATE SKIP LOCKED
)
UPDATE dependent_start AS s SET leased_until = $1 + $2::interval FROM chosen AS c WHERE s.key = c.key
RETURNING s.key, s.tenant, s.pipeline_id, s.upstream_run, s.triggered_by, s.interval_start, s.interval_end
"""

_SETTLE = """
UPDATE dependent_start AS s
SET state = n.state, run_id = n.run_id, reason = n.reason, message = n.message, leased_until = NULL
FROM unnest($1::text[], $2::text[], $3::uuid[], $4::text[], $5::text[])
     AS n(key, state, run_id, reason, message)
WHERE s.key = n.key AND s.state = 'DUE' RETURNING s.key
"""


@dataclass(frozen=True)
class Settled:
    """What came of a start: STARTED with its run, or REFUSED with the reason."""

    key: str
    state: str
    run_id: UUID | None
    reason: str | None
    message: str | None


@dataclass(frozen=True)
class Edge:
    """A dependency so many steps away from a pipeline."""

    dependency: Dependency
    depth: int


async def lock_workspace(conn: AsyncConnection, workspace_id: UUID) -> None:
    """Lets nobody else add edges in a workspace until the transaction ends."""
    await driver(conn).execute(
        "SELECT pg_advisory_xact_lock($1, hashtext($2))", _EDGE_LOCK, str(workspace_id)
    )


async def path(conn: AsyncConnection, start: UUID, end: UUID) -> list[UUID] | None:
    """A shortest way from a pipeline along those that depend on it to another; None where there is none."""
    before: dict[UUID, UUID | None] = {start: None}
    frontier = [start]
    while frontier and end not in before:
        rows = await driver(conn).fetch(
            "SELECT upstream, downstream FROM dependency WHERE upstream = ANY ($1::uuid[]) ORDER BY id",
            frontier,
        )
        frontier = []
        for row in rows:
            if row["downstream"] not in before:
                before[row["downstream"]] = row["upstream"]
                frontier.append(row["downstream"])
    if end not in before:
        return None
    way: list[UUID] = []
    at: UUID | None = end
    while at is not None:
        way.append(at)
        at = before[at]
    return way[::-1]


async def counts(conn: AsyncConnection, upstream: UUID, downstream: UUID) -> tuple[int, int]:
    """How many pipelines depend on the one, and on how many the other depends."""
    row = await driver(conn).fetchrow(
        "SELECT (SELECT count(*) FROM dependency WHERE upstream = $1) AS downstreams,"
        " (SELECT count(*) FROM dependency WHERE downstream = $2) AS upstreams",
        upstream,
        downstream,
    )
    return row["downstreams"], row["upstreams"]


async def add(conn: AsyncConnection, new: Dependency) -> bool:
    """Adds an edge; False where there is one already."""
    status: str = await driver(conn).execute(
        "INSERT INTO dependency"
        " (id, tenant, workspace_id, upstream, downstream, type, created_at, created_by)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (upstream, downstream) DO NOTHING",
        new.id,
        new.tenant,
        new.workspace_id,
        new.upstream,
        new.downstream,
        new.type.value,
        new.created_at,
        new.created_by,
    )
    return not status.endswith(" 0")


async def remove(conn: AsyncConnection, scope: Scope, dependency_id: UUID) -> Dependency | None:
    """Removes an edge in scope and returns it; None where there is none."""
    conditions = Conditions()
    conditions.add("d.id = {}", dependency_id)
    conditions.add("d.tenant = {}", scope.tenant)
    if scope.workspaces is not None:
        conditions.add("d.workspace_id = ANY({})", list(scope.workspaces))
    row = await driver(conn).fetchrow(
        f"DELETE FROM dependency AS d WHERE {conditions} RETURNING {_COLUMNS}", *conditions.values
    )
    return None if row is None else _dependency(row)


async def remove_all_of(conn: AsyncConnection, pipeline_id: UUID) -> list[Dependency]:
    """Removes all edges of a pipeline, and returns them."""
    rows = await driver(conn).fetch(
        f"DELETE FROM dependency AS d WHERE d.upstream = $1 OR d.downstream = $1 RETURNING {_COLUMNS}",
        pipeline_id,
    )
    return [_dependency(row) for row in rows]


async def graph(conn: AsyncConnection, pipeline_id: UUID, depth: int, limit: int, *, up: bool) -> list[Edge]:
    """Edges up or down from a pipeline, the nearest first, each once; at most so many."""
    near, far = ("downstream", "upstream") if up else ("upstream", "downstream")
    # A step takes each edge once: ways through many pipelines would be without number.
    found: dict[UUID, Edge] = {}
    reached = {pipeline_id}
    frontier = [pipeline_id]
    for step in range(1, depth + 1):
        rows = await driver(conn).fetch(
            f"SELECT {_COLUMNS} FROM dependency AS d WHERE d.{near} = ANY ($1::uuid[])"
            " ORDER BY d.created_at, d.id LIMIT $2",
            frontier,
            limit,
        )
        for row in rows:
            found.setdefault(row["id"], Edge(_dependency(row), step))
        frontier = [row[far] for row in rows if row[far] not in reached]
        reached.update(frontier)
        if not frontier or len(found) >= limit:
            break
    return list(found.values())[:limit]


async def waiting_pipelines(conn: AsyncConnection, pipelines: Collection[UUID]) -> frozenset[UUID]:
    """Those of some pipelines that have STRONG upstreams."""
    rows = await driver(conn).fetch(
        "SELECT DISTINCT downstream FROM dependency WHERE downstream = ANY ($1::uuid[]) AND type = 'STRONG'",
        list(pipelines),
    )
    return frozenset(row["downstream"] for row in rows)


async def upstreams(
    conn: AsyncConnection, pipeline_id: UUID, only: DependencyType | None = None
) -> list[UUID]:
    """The pipelines that one depends on directly."""
    rows = await driver(conn).fetch(
        "SELECT upstream FROM dependency WHERE downstream = $1 AND ($2::text IS NULL OR type = $2)"
        " ORDER BY upstream",
        pipeline_id,
        only,
    )
    return [row["upstream"] for row in rows]


async def downstreams_to_start(
    conn: AsyncConnection, pipelines: Collection[UUID]
) -> Mapping[UUID, Sequence[Downstream]]:
    """By upstream, the dependencies on these pipelines of those that have no schedule and are active."""
    rows = await driver(conn).fetch(_DOWNSTREAMS, list(pipelines))
    found: dict[UUID, list[Downstream]] = {}
    for row in rows:
        each = Downstream(_dependency(row), row["upstreams"], frozenset(row["strong"]))
        found.setdefault(row["upstream"], []).append(each)
    return found


async def note_outcomes(conn: AsyncConnection, ended: Collection[Ended]) -> None:
    """Keeps how pipelines ended for intervals; what has completed stays so."""
    kept = [(each, each.interval) for each in ended if each.interval is not None]
    if kept:
        await driver(conn).execute(
            _NOTE,
            [each.pipeline_id for each, _ in kept],
            [interval.start for _, interval in kept],
            [interval.end for _, interval in kept],
            [each.state for each, _ in kept],
            [each.run_id for each, _ in kept],
        )


async def completed(
    conn: AsyncConnection, wanted: Collection[tuple[UUID, Interval]]
) -> frozenset[tuple[UUID, Interval]]:
    """Which of some pipelines have completed for which of some intervals."""
    rows = await driver(conn).fetch(
        "SELECT o.pipeline_id, o.interval_start, o.interval_end FROM interval_outcome AS o"
        " JOIN unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[]) AS w(pipeline, first, past)"
        " ON o.pipeline_id = w.pipeline AND o.interval_start = w.first AND o.interval_end = w.past"
        " WHERE o.state = 'COMPLETED'",
        [pipeline for pipeline, _ in wanted],
        [interval.start for _, interval in wanted],
        [interval.end for _, interval in wanted],
    )
    return frozenset(
        (row["pipeline_id"], Interval(row["interval_start"], row["interval_end"])) for row in rows
    )


async def state_at(conn: AsyncConnection, pipeline_id: UUID, end: datetime) -> str | None:
    """The best that is known of a pipeline's runs for an interval that ends at an instant."""
    found: str | None = await driver(conn).fetchval(
        "SELECT state FROM interval_outcome WHERE pipeline_id = $1 AND interval_end = $2"
        " ORDER BY state = 'COMPLETED' DESC, told_at DESC LIMIT 1",
        pipeline_id,
        end,
    )
    return found


async def add_starts(conn: AsyncConnection, starts: Collection[DependentStart]) -> None:
    """Adds what is to be started; a key that is there stays as it is."""
    if starts:
        await driver(conn).execute(
            _ADD_STARTS,
            [start.key for start in starts],
            [start.tenant for start in starts],
            [start.pipeline_id for start in starts],
            [start.upstream_run for start in starts],
            [start.triggered_by for start in starts],
            [start.interval and start.interval.start for start in starts],
            [start.interval and start.interval.end for start in starts],
        )


async def claim_starts(
    conn: AsyncConnection, now: datetime, lease: timedelta, limit: int
) -> list[DependentStart]:
    """Leases starts that are due; another replica leases others."""
    rows = await driver(conn).fetch(_CLAIM, now, lease, limit)
    return [
        DependentStart(
            key=row["key"],
            tenant=row["tenant"],
            pipeline_id=row["pipeline_id"],
            upstream_run=row["upstream_run"],
            triggered_by=row["triggered_by"],
            interval=Interval(row["interval_start"], row["interval_end"]) if row["interval_end"] else None,
        )
        for row in rows
    ]


async def settle_starts(conn: AsyncConnection, settled: Collection[Settled]) -> Collection[str]:
    """Writes what came of starts; returns the keys of those of which nobody else has written it."""
    written = await driver(conn).fetch(
        _SETTLE,
        [each.key for each in settled],
        [each.state for each in settled],
        [each.run_id for each in settled],
        [each.reason for each in settled],
        [each.message for each in settled],
    )
    return {row["key"] for row in written}


async def release_starts(conn: AsyncConnection, keys: Collection[str], until: datetime) -> None:
    """Ends leases at an instant: the starts failed, and are to be tried again then."""
    await driver(conn).execute(
        "UPDATE dependent_start SET leased_until = $2 WHERE key = ANY ($1::text[]) AND state = 'DUE'",
        list(keys),
        until,
    )


async def prune(conn: AsyncConnection, before: datetime, limit: int) -> int:
    """Forgets some starts and outcomes that are older than an instant; of each pipeline the latest interval
    stays. Returns how many."""
    raw = driver(conn)
    starts: str = await raw.execute(
        "DELETE FROM dependent_start WHERE key = ANY (ARRAY(SELECT key FROM dependent_start"
        " WHERE state <> 'DUE' AND added_at < $1 ORDER BY added_at LIMIT $2))",
        before,
        limit,
    )
    ends: str = await raw.execute(
        "DELETE FROM interval_outcome WHERE ctid = ANY (ARRAY(SELECT o.ctid FROM interval_outcome AS o"
        " WHERE o.told_at < $1 AND EXISTS (SELECT FROM interval_outcome AS n"
        " WHERE n.pipeline_id = o.pipeline_id AND n.interval_end > o.interval_end)"
        " ORDER BY o.told_at LIMIT $2))",
        before,
        limit,
    )
    return int(starts.rpartition(" ")[2]) + int(ends.rpartition(" ")[2])


async def purge(conn: AsyncConnection, pipeline_id: UUID) -> None:
    """Removes all that is kept of a pipeline."""
    raw = driver(conn)
    await remove_all_of(conn, pipeline_id)
    await raw.execute("DELETE FROM interval_outcome WHERE pipeline_id = $1", pipeline_id)
    await raw.execute("DELETE FROM dependent_start WHERE pipeline_id = $1", pipeline_id)


def _dependency(row: Any) -> Dependency:
    return Dependency(
        id=row["id"],
        tenant=row["tenant"],
        workspace_id=row["workspace_id"],
        upstream=row["upstream"],
        downstream=row["downstream"],
        type=DependencyType(row["type"]),
        created_at=row["created_at"],
        created_by=row["created_by"],
    )
