"""Ticks that wait for upstreams, in SQL."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from headrace_chassis.database import driver
from sqlalchemy.ext.asyncio import AsyncConnection

# New ones have not been looked at; for others either what they wait for has come, or the upstream has ended
# otherwise since, which their message is to tell, or it is time.
_LOCK = """
SELECT t.schedule_id, t.at, s.pipeline_id
FROM tick AS t JOIN schedule AS s ON s.id = t.schedule_id JOIN progress AS p ON p.schedule_id = t.schedule_id
WHERE t.state = 'HELD' AND (t.looked_at IS NULL OR t.looked_at <= $1 OR EXISTS (
    SELECT FROM interval_outcome AS o
    WHERE o.pipeline_id = t.waits_for AND o.interval_end = t.waits_until
      AND (o.state = 'COMPLETED' OR o.told_at > t.looked_at)
))
ORDER BY t.at, t.schedule_id LIMIT $2 FOR UPDATE OF p SKIP LOCKED
"""

_LET_GO = """
UPDATE tick AS t SET state = 'DUE', reason = NULL, message = NULL, waits_for = NULL, waits_until = NULL
FROM unnest($1::uuid[], $2::timestamptz[]) AS n(schedule_id, at)
WHERE t.schedule_id = n.schedule_id AND t.at = n.at AND t.state = 'HELD'
"""

_HOLD = """
UPDATE tick AS t SET reason = 'UPSTREAM_NOT_COMPLETED', message = n.message, waits_for = n.waits_for,
       waits_until = n.waits_until, looked_at = $6
FROM unnest($1::uuid[], $2::timestamptz[], $3::uuid[], $4::timestamptz[], $5::text[])
     AS n(schedule_id, at, waits_for, waits_until, message)
WHERE t.schedule_id = n.schedule_id AND t.at = n.at AND t.state = 'HELD'
"""

_SKIP = """
UPDATE tick AS t SET state = 'SKIPPED', reason = 'TOO_MANY_HELD', message = $3
FROM (
    SELECT schedule_id, at, row_number() OVER (PARTITION BY schedule_id ORDER BY at DESC) AS place
    FROM tick WHERE state = 'HELD' AND schedule_id = ANY ($1::uuid[])
) AS h
WHERE t.schedule_id = h.schedule_id AND t.at = h.at AND h.place > $2
"""


@dataclass(frozen=True)
class HeldTick:
    """A tick that waits; its schedule is locked."""

    schedule_id: UUID
    at: datetime
    pipeline_id: UUID


@dataclass(frozen=True)
class Hold:
    """What a tick waits for: the interval of an upstream, by its end."""

    tick: HeldTick
    upstream: UUID
    until: datetime
    message: str


@dataclass(frozen=True)
class Waiting:
    """A held tick as users see it."""

    schedule_id: UUID
    pipeline_id: UUID
    at: datetime
    waits_for: UUID | None
    message: str


async def lock(conn: AsyncConnection, looked_before: datetime, limit: int) -> Sequence[HeldTick]:
    """Held ticks to look at, oldest first, with their schedules locked: new ones, those whose upstream
    has ended, and those that were last looked at before an instant."""
    rows = await driver(conn).fetch(_LOCK, looked_before, limit)
    return [HeldTick(row["schedule_id"], row["at"], row["pipeline_id"]) for row in rows]


async def let_go(conn: AsyncConnection, ticks: Sequence[HeldTick]) -> None:
    """Makes held ticks due."""
    if ticks:
        await driver(conn).execute(_LET_GO, [tick.schedule_id for tick in ticks], [tick.at for tick in ticks])


async def hold(conn: AsyncConnection, holds: Sequence[Hold], now: datetime) -> None:
    """Notes what ticks wait for."""
    if holds:
        await driver(conn).execute(
            _HOLD,
            [each.tick.schedule_id for each in holds],
            [each.tick.at for each in holds],
            [each.upstream for each in holds],
            [each.until for each in holds],
            [each.message for each in holds],
            now,
        )


async def skip_beyond(conn: AsyncConnection, schedules: Collection[UUID], most: int) -> None:
    """Skips the oldest held ticks of locked schedules, where there are more than so many."""
    if schedules:
        message = f"more than {most} ticks of the schedule were waiting for upstreams"
        await driver(conn).execute(_SKIP, list(schedules), most, message)


async def look_again(conn: AsyncConnection, pipelines: Collection[UUID]) -> None:
    """Has held ticks of pipelines looked at at once: what they depend on has changed."""
    await driver(conn).execute(
        "UPDATE tick AS t SET looked_at = NULL FROM schedule AS s"
        " WHERE s.id = t.schedule_id AND s.pipeline_id = ANY ($1::uuid[]) AND t.state = 'HELD'",
        list(pipelines),
    )


async def latest_started(conn: AsyncConnection, schedule_id: UUID, at: datetime) -> datetime | None:
    """The latest decided tick of a schedule until an instant that ran or is going to."""
    found: datetime | None = await driver(conn).fetchval(
        "SELECT max(at) FROM tick WHERE schedule_id = $1 AND at <= $2 AND state <> 'SKIPPED'", schedule_id, at
    )
    return found


async def waiting(conn: AsyncConnection, pipelines: Collection[UUID], most: int) -> Sequence[Waiting]:
    """Held ticks of pipelines, oldest first; at most so many of each."""
    rows = await driver(conn).fetch(
        """
        SELECT h.* FROM unnest($1::uuid[]) AS w(pipeline), LATERAL (
            SELECT t.schedule_id, s.pipeline_id, t.at, t.waits_for, t.message
            FROM schedule AS s JOIN tick AS t ON t.schedule_id = s.id AND t.state = 'HELD'
            WHERE s.pipeline_id = w.pipeline ORDER BY t.at LIMIT $2
        ) AS h
        """,
        list(pipelines),
        most,
    )
    return [
        Waiting(
            row["schedule_id"],
            row["pipeline_id"],
            row["at"],
            row["waits_for"],
            row["message"] or "is about to be looked at",
        )
        for row in rows
    ]
