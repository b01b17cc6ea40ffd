"""Schedules in SQL. The row of `progress` is the lock of a schedule: whoever changes anything of it holds
that first."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from headrace_chassis.database import driver
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_scheduler.domain.schedules import Progress, Schedule, Status
from headrace_scheduler.store import rows
from headrace_scheduler.store.scope import Conditions, Scope


def _numbered(first: int, columns: Sequence[object]) -> str:
    """Placeholders for columns, in their order."""
    return ", ".join(f"${first + n}" for n in range(len(columns)))


_PROGRESS_ARRAYS = ", ".join(f"${2 + n}::{kind}[]" for n, (_, kind) in enumerate(rows.PROGRESS_COLUMNS))

_ADD = f"""
INSERT INTO schedule (id, tenant, workspace_id, pipeline_id, managed_by, version, status, created_at,
                      updated_at, created_by, {", ".join(rows.TERMS_COLUMNS)})
VALUES ($1, $2, $3, $4, $5, 1, $6, $7, $7, $8, {_numbered(9, rows.TERMS_COLUMNS)})
"""

_ADD_PROGRESS = f"""
INSERT INTO progress (schedule_id, tenant, {", ".join(name for name, _ in rows.PROGRESS_COLUMNS)})
VALUES ($1, $2, {_numbered(3, rows.PROGRESS_COLUMNS)})
"""

_SAVE = f"""
UPDATE schedule SET version = version + 1, updated_at = $2, status = $3,
       {", ".join(f"{name} = ${4 + n}" for n, name in enumerate(rows.TERMS_COLUMNS))}
WHERE id = $1
"""

_SAVE_PROGRESS = f"""
UPDATE progress AS p SET {", ".join(f"{name} = n.{name}" for name, _ in rows.PROGRESS_COLUMNS)}
FROM unnest($1::uuid[], {_PROGRESS_ARRAYS})
     AS n(schedule_id, {", ".join(name for name, _ in rows.PROGRESS_COLUMNS)})
WHERE p.schedule_id = n.schedule_id
"""


@dataclass(frozen=True)
class Filters:
    """What a list of schedules is narrowed by; all that are given must hold."""

    pipeline_id: UUID | None = None
    status: Status | None = None


async def add(conn: AsyncConnection, new: Schedule) -> None:
    """Adds a schedule, at version 1."""
    raw = driver(conn)
    await raw.execute(
        _ADD,
        new.id,
        new.tenant,
        new.workspace_id,
        new.pipeline_id,
        new.managed_by.value,
        new.status.value,
        new.created_at,
        new.created_by,
        *rows.terms_values(new.terms),
    )
    await raw.execute(_ADD_PROGRESS, new.id, new.tenant, *rows.progress_values(new.progress))


async def get(conn: AsyncConnection, scope: Scope, schedule_id: UUID) -> Schedule | None:
    """A schedule in scope, with its last tick."""
    conditions = Conditions()
    conditions.within(scope)
    conditions.add("s.id = {}", schedule_id)
    row = await driver(conn).fetchrow(f"{rows.SELECT_WITH_LAST_TICK} WHERE {conditions}", *conditions.values)
    return None if row is None else rows.schedule(row)


async def lock(conn: AsyncConnection, scope: Scope, schedule_id: UUID) -> Schedule | None:
    """A schedule in scope, locked against ticks and other writers until the end of the transaction."""
    # A statement of its own: the one after it sees what the last holder of the lock has written.
    held = await driver(conn).fetchval(
        "SELECT schedule_id FROM progress WHERE schedule_id = $1 AND tenant = $2 FOR UPDATE",
        schedule_id,
        scope.tenant,
    )
    return None if held is None else await get(conn, scope, schedule_id)


async def lock_of_pipeline(conn: AsyncConnection, tenant: UUID, pipeline_id: UUID) -> Sequence[Schedule]:
    """All schedules of a pipeline, locked."""
    raw = driver(conn)
    locked = await raw.fetch(
        """
        SELECT p.schedule_id FROM progress AS p JOIN schedule AS s ON s.id = p.schedule_id
        WHERE s.pipeline_id = $1 AND s.tenant = $2 ORDER BY p.schedule_id FOR UPDATE OF p
        """,
        pipeline_id,
        tenant,
    )
    return await _by_ids(conn, [row["schedule_id"] for row in locked])


async def lock_due(conn: AsyncConnection, now: datetime, limit: int) -> Sequence[Schedule]:
    """Schedules of which something is due, the longest due first, locked; those that somebody has locked are
    left to them."""
    locked = await driver(conn).fetch(
        """
        SELECT schedule_id FROM progress
        WHERE next_due IS NOT NULL AND NOT starting AND next_due <= $1
        ORDER BY next_due LIMIT $2 FOR UPDATE SKIP LOCKED
        """,
        now,
        limit,
    )
    return await _by_ids(conn, [row["schedule_id"] for row in locked])


async def lock_with_holidays_of(conn: AsyncConnection, workspace_id: UUID) -> Sequence[Schedule]:
    """All schedules of a workspace that skip holidays, locked."""
    locked = await driver(conn).fetch(
        """
        SELECT p.schedule_id FROM progress AS p JOIN schedule AS s ON s.id = p.schedule_id
        WHERE s.workspace_id = $1 AND s.skip_holidays ORDER BY p.schedule_id FOR UPDATE OF p
        """,
        workspace_id,
    )
    return await _by_ids(conn, [row["schedule_id"] for row in locked])


async def of_pipeline(conn: AsyncConnection, pipeline_id: UUID) -> Sequence[Schedule]:
    """All schedules of a pipeline."""
    found = await driver(conn).fetch(f"{rows.SELECT} WHERE s.pipeline_id = $1 ORDER BY s.id", pipeline_id)
    return [rows.schedule(row) for row in found]


async def _by_ids(conn: AsyncConnection, ids: Sequence[UUID]) -> Sequence[Schedule]:
    if not ids:
        return []
    found = await driver(conn).fetch(f"{rows.SELECT} WHERE s.id = ANY($1::uuid[])", list(ids))
    by_id = {row["id"]: rows.schedule(row) for row in found}
    return [by_id[each] for each in ids if each in by_id]


async def next_due(conn: AsyncConnection) -> datetime | None:
    """When something is due next; in the past where it is due already."""
    found: datetime | None = await driver(conn).fetchval(
        "SELECT min(next_due) FROM progress WHERE next_due IS NOT NULL AND NOT starting"
    )
    return found


async def save(conn: AsyncConnection, schedule: Schedule, now: datetime) -> None:
    """Writes a locked schedule as its next version."""
    await driver(conn).execute(
        _SAVE, schedule.id, now, schedule.status.value, *rows.terms_values(schedule.terms)
    )
    await save_progress(conn, [(schedule.id, schedule.progress)])


async def save_progress(conn: AsyncConnection, moved: Sequence[tuple[UUID, Progress]]) -> None:
    """Writes the progress of locked schedules."""
    if not moved:
        return
    columns = zip(*(rows.progress_values(progress) for _, progress in moved), strict=True)
    await driver(conn).execute(
        _SAVE_PROGRESS, [schedule_id for schedule_id, _ in moved], *(list(column) for column in columns)
    )


async def delete(conn: AsyncConnection, schedule_id: UUID) -> None:
    """Deletes a locked schedule with its ticks."""
    await driver(conn).execute("DELETE FROM schedule WHERE id = $1", schedule_id)


async def page(
    conn: AsyncConnection, scope: Scope, filters: Filters, after: tuple[datetime, UUID] | None, limit: int
) -> Sequence[Schedule]:
    """Schedules in scope with their last ticks, newest first, from `after` on."""
    conditions = _conditions(scope, filters)
    if after is not None:
        conditions.add("(s.created_at, s.id) < ({}, {})", *after)
    order = f"ORDER BY s.created_at DESC, s.id DESC LIMIT {conditions.bind(limit)}"
    found = await driver(conn).fetch(
        f"{rows.SELECT_WITH_LAST_TICK} WHERE {conditions} {order}", *conditions.values
    )
    return [rows.schedule(row) for row in found]


async def count(conn: AsyncConnection, scope: Scope, filters: Filters) -> int:
    """How many schedules in scope the filters leave."""
    conditions = _conditions(scope, filters)
    found: int = await driver(conn).fetchval(
        f"SELECT count(*) FROM schedule AS s WHERE {conditions}", *conditions.values
    )
    return found


async def soonest(
    conn: AsyncConnection, scope: Scope, pipeline_id: UUID | None, schedule_id: UUID | None, limit: int
) -> Sequence[Schedule]:
    """The schedules in scope whose next runs start soonest, in the order of these."""
    conditions = Conditions()
    conditions.add("p.tenant = {}", scope.tenant)
    conditions.within(scope)
    conditions.add("p.next_run_at IS NOT NULL")
    if pipeline_id is not None:
        conditions.add("s.pipeline_id = {}", pipeline_id)
    if schedule_id is not None:
        conditions.add("s.id = {}", schedule_id)
    order = f"ORDER BY p.next_run_at, p.schedule_id LIMIT {conditions.bind(limit)}"
    found = await driver(conn).fetch(f"{rows.SELECT} WHERE {conditions} {order}", *conditions.values)
    return [rows.schedule(row) for row in found]


def _conditions(scope: Scope, filters: Filters) -> Conditions:
    conditions = Conditions()
    conditions.within(scope)
    if filters.pipeline_id is not None:
        conditions.add("s.pipeline_id = {}", filters.pipeline_id)
    if filters.status is not None:
        conditions.add("s.status = {}", filters.status.value)
    return conditions
