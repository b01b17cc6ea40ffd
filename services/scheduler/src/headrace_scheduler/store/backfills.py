"""Backfills in SQL. The row of a backfill is the lock of its intervals: whoever changes the state of one
holds that first, and writes the counts in the same transaction."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from headrace_chassis.database import driver
from headrace_timetable import check_timezone
from headrace_timetable.intervals import Granularity, Interval
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_scheduler.domain.backfills import Backfill, BackfillStatus, Counts, Priority, Terms
from headrace_scheduler.store.scope import Conditions, Scope

_ADD = """
INSERT INTO backfill (id, tenant, workspace_id, pipeline_id, first_text, last_text, range_start, range_end,
                      granularity, timezone, concurrency, priority, parameters, status, pending, live,
                      completed, failed, cancelled, claimed_at, created_at, created_by)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, 'PENDING', $14, 0, 0, 0, 0, $15, $15, $16)
"""

_SAVE = """
UPDATE backfill SET status = $2, pending = $3, live = $4, completed = $5, failed = $6, cancelled = $7,
       started_at = $8, finished_at = $9, rests_until = $10
WHERE id = $1
"""

# Those whose turn it is: of one priority, the one that was longest without.
_WITH_ROOM = """
SELECT b.* FROM backfill AS b
WHERE b.status IN ('PENDING', 'RUNNING') AND b.pending > 0 AND b.live < b.concurrency
  AND (b.rests_until IS NULL OR b.rests_until <= $1)
ORDER BY array_position('{HIGH,MEDIUM,LOW}'::text[], b.priority), b.claimed_at
LIMIT $2 FOR UPDATE SKIP LOCKED
"""

_PURGE_INTERVALS = """
DELETE FROM backfill_interval WHERE ctid = ANY (ARRAY(
    SELECT i.ctid FROM backfill_interval AS i JOIN backfill AS b ON b.id = i.backfill_id
    WHERE b.pipeline_id = $1 LIMIT $2
))
"""

_COPIED = ("backfill_id", "number", "starts_at", "ends_at", "state", "attempt")


@dataclass(frozen=True)
class BackfillFilters:
    """What a list of backfills is narrowed by; all that are given must hold."""

    pipeline_id: UUID | None = None
    status: BackfillStatus | None = None


async def add(conn: AsyncConnection, new: Backfill, intervals: AsyncIterator[tuple[int, Interval]]) -> None:
    """Adds a backfill with its intervals, which are sent as they come."""
    terms = new.terms
    raw = driver(conn)
    await raw.execute(
        _ADD,
        new.id,
        new.tenant,
        new.workspace_id,
        new.pipeline_id,
        terms.first,
        terms.last,
        terms.span.start,
        terms.span.end,
        terms.granularity.value,
        terms.zone.key,
        terms.concurrency,
        terms.priority.value,
        terms.parameters,
        new.counts.pending,
        new.created_at,
        new.created_by,
    )
    rows = (
        (new.id, number, interval.start, interval.end, "PENDING", 0) async for number, interval in intervals
    )
    await raw.copy_records_to_table("backfill_interval", records=rows, columns=_COPIED)


async def get(conn: AsyncConnection, scope: Scope, backfill_id: UUID) -> Backfill | None:
    """A backfill in scope."""
    return await _one(conn, scope, backfill_id, "")


async def lock(conn: AsyncConnection, scope: Scope, backfill_id: UUID) -> Backfill | None:
    """A backfill in scope, locked with its intervals until the end of the transaction."""
    return await _one(conn, scope, backfill_id, "FOR UPDATE")


async def lock_all(conn: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, Backfill]:
    """Those of some backfills that there are, locked, in one order whoever asks."""
    found = await driver(conn).fetch(
        "SELECT * FROM backfill WHERE id = ANY($1::uuid[]) ORDER BY id FOR UPDATE", sorted(set(ids))
    )
    return {row["id"]: _backfill(row) for row in found}


async def lock_with_room(conn: AsyncConnection, now: datetime, limit: int) -> Sequence[Backfill]:
    """Backfills that may start intervals now, the highest priority first, locked; those that somebody has
    locked are left to them."""
    return [_backfill(row) for row in await driver(conn).fetch(_WITH_ROOM, now, limit)]


async def note_claimed(conn: AsyncConnection, backfill_id: UUID, now: datetime) -> None:
    """Notes that a backfill had its turn."""
    await driver(conn).execute("UPDATE backfill SET claimed_at = $2 WHERE id = $1", backfill_id, now)


async def save(conn: AsyncConnection, backfill: Backfill) -> None:
    """Writes how a locked backfill stands."""
    counts = backfill.counts
    await driver(conn).execute(
        _SAVE,
        backfill.id,
        backfill.status.value,
        counts.pending,
        counts.live,
        counts.completed,
        counts.failed,
        counts.cancelled,
        backfill.started_at,
        backfill.finished_at,
        backfill.rests_until,
    )


async def page(
    conn: AsyncConnection,
    scope: Scope,
    filters: BackfillFilters,
    after: tuple[datetime, UUID] | None,
    limit: int,
) -> Sequence[Backfill]:
    """Backfills in scope, newest first, from `after` on."""
    conditions = _conditions(scope, filters)
    if after is not None:
        conditions.add("(b.created_at, b.id) < ({}, {})", *after)
    order = f"ORDER BY b.created_at DESC, b.id DESC LIMIT {conditions.bind(limit)}"
    found = await driver(conn).fetch(
        f"SELECT b.* FROM backfill AS b WHERE {conditions} {order}", *conditions.values
    )
    return [_backfill(row) for row in found]


async def count(conn: AsyncConnection, scope: Scope, filters: BackfillFilters) -> int:
    """How many backfills in scope the filters leave."""
    conditions = _conditions(scope, filters)
    found: int = await driver(conn).fetchval(
        f"SELECT count(*) FROM backfill AS b WHERE {conditions}", *conditions.values
    )
    return found


async def only_zone_of_schedules(conn: AsyncConnection, tenant: UUID, pipeline_id: UUID) -> str | None:
    """The zone of the schedule of a pipeline; None where it has none, or several."""
    found = await driver(conn).fetch(
        "SELECT timezone FROM schedule WHERE pipeline_id = $1 AND tenant = $2 LIMIT 2", pipeline_id, tenant
    )
    zone: str | None = found[0]["timezone"] if len(found) == 1 else None
    return zone


async def purge(conn: AsyncConnection, pipeline_id: UUID, limit: int) -> bool:
    """Removes some of the backfills of a deleted pipeline; True when none is left."""
    raw = driver(conn)
    # Nothing of them starts while they go, however many pieces that takes.
    await raw.execute(
        "UPDATE backfill SET status = 'CANCELLED' WHERE pipeline_id = $1 AND status <> 'CANCELLED'",
        pipeline_id,
    )
    status: str = await raw.execute(_PURGE_INTERVALS, pipeline_id, limit)
    if int(status.rpartition(" ")[2]) >= limit:
        return False
    await raw.execute("DELETE FROM backfill WHERE pipeline_id = $1", pipeline_id)
    return True


async def _one(conn: AsyncConnection, scope: Scope, backfill_id: UUID, locking: str) -> Backfill | None:
    conditions = Conditions()
    conditions.within(scope, "b")
    conditions.add("b.id = {}", backfill_id)
    row = await driver(conn).fetchrow(
        f"SELECT b.* FROM backfill AS b WHERE {conditions} {locking}", *conditions.values
    )
    return None if row is None else _backfill(row)


def _conditions(scope: Scope, filters: BackfillFilters) -> Conditions:
    conditions = Conditions()
    conditions.within(scope, "b")
    if filters.pipeline_id is not None:
        conditions.add("b.pipeline_id = {}", filters.pipeline_id)
    if filters.status is not None:
        conditions.add("b.status = {}", filters.status.value)
    return conditions


def _backfill(row: Mapping[str, Any]) -> Backfill:
    return Backfill(
        id=row["id"],
        tenant=row["tenant"],
        workspace_id=row["workspace_id"],
        pipeline_id=row["pipeline_id"],
        terms=Terms(
            first=row["first_text"],
            last=row["last_text"],
            span=Interval(row["range_start"], row["range_end"]),
            granularity=Granularity(row["granularity"]),
            zone=check_timezone(row["timezone"]),
            concurrency=row["concurrency"],
            priority=Priority(row["priority"]),
            parameters=row["parameters"],
        ),
        status=BackfillStatus(row["status"]),
        counts=Counts(row["pending"], row["live"], row["completed"], row["failed"], row["cancelled"]),
        created_at=row["created_at"],
        created_by=row["created_by"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        rests_until=row["rests_until"],
    )
