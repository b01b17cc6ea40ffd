"""Intervals of backfills in SQL. States change only while the backfill is locked; `due_at` may change
without."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from headrace_chassis.database import driver
from headrace_timetable.intervals import Interval
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_scheduler.domain.backfills import Backfill, BackfillInterval, IntervalState, Move

_CLAIM = """
WITH chosen AS (
    SELECT number FROM backfill_interval WHERE backfill_id = $1 AND state = 'PENDING' ORDER BY number LIMIT $2
)
UPDATE backfill_interval AS i
SET state = 'STARTING', attempt = i.attempt + 1, run_id = NULL, reason = NULL, message = NULL,
    finished_at = NULL, due_at = $3
FROM chosen AS c WHERE i.backfill_id = $1 AND i.number = c.number
RETURNING i.*
"""

# What has moved on meanwhile (another attempt, an end that was heard of) stays as it is.
_MOVE = """
UPDATE backfill_interval AS i
SET state = n.state, run_id = coalesce(n.run_id, i.run_id), reason = n.reason, message = n.message,
    finished_at = CASE WHEN n.state IN ('COMPLETED', 'FAILED', 'CANCELLED') THEN $7::timestamptz END,
    due_at = CASE WHEN n.state IN ('STARTING', 'RUNNING') THEN $8::timestamptz END
FROM unnest($2::integer[], $3::integer[], $4::text[], $5::uuid[], $6::text[], $9::text[])
         AS n(number, attempt, state, run_id, reason, message),
     backfill_interval AS before
WHERE i.backfill_id = $1 AND i.number = n.number AND i.attempt = n.attempt
  AND i.state IN ('STARTING', 'RUNNING')
  AND before.backfill_id = i.backfill_id AND before.number = i.number
RETURNING before.state AS old, n.state AS new
"""

_LEASE = """
WITH chosen AS (
    SELECT backfill_id, number FROM backfill_interval
    WHERE due_at <= $1 ORDER BY due_at LIMIT $3 FOR UPDATE SKIP LOCKED
)
UPDATE backfill_interval AS i SET due_at = $1 + $2::interval
FROM chosen AS c, backfill AS b
WHERE i.backfill_id = c.backfill_id AND i.number = c.number AND b.id = i.backfill_id
RETURNING i.*, b.tenant, b.pipeline_id, b.parameters, b.priority, b.created_by, b.status AS backfill_status
"""


@dataclass(frozen=True)
class Leased:
    """A live interval that this process looks after for a while, and what is needed for that."""

    interval: BackfillInterval
    tenant: UUID
    pipeline_id: UUID
    parameters: str
    priority: str
    triggered_by: str
    cancelled: bool
    """Whether its backfill was cancelled."""


def leased_of(backfill: Backfill, interval: BackfillInterval) -> Leased:
    """An interval of a backfill, as this process has just claimed it."""
    return Leased(
        interval=interval,
        tenant=backfill.tenant,
        pipeline_id=backfill.pipeline_id,
        parameters=backfill.terms.parameters,
        priority=backfill.terms.priority.value,
        triggered_by=backfill.created_by,
        cancelled=False,
    )


async def claim(
    conn: AsyncConnection, backfill_id: UUID, limit: int, due_at: datetime
) -> Sequence[BackfillInterval]:
    """Takes the first intervals of a locked backfill that have not started, each for its next attempt."""
    found = await driver(conn).fetch(_CLAIM, backfill_id, limit, due_at)
    return sorted((_interval(row) for row in found), key=lambda interval: interval.number)


async def move(
    conn: AsyncConnection, backfill_id: UUID, moves: Sequence[Move], now: datetime, due_at: datetime
) -> Counter[tuple[IntervalState, IntervalState]]:
    """Writes what becomes of attempts that are live yet, in a locked backfill; returns how many went from
    which state to which. Live ones are looked after at `due_at`."""
    found = await driver(conn).fetch(
        _MOVE,
        backfill_id,
        [each.number for each in moves],
        [each.attempt for each in moves],
        [each.to.value for each in moves],
        [each.run_id for each in moves],
        [each.reason for each in moves],
        now,
        due_at,
        [each.message for each in moves],
    )
    return Counter((IntervalState(row["old"]), IntervalState(row["new"])) for row in found)


async def lease_due(conn: AsyncConnection, now: datetime, lease: timedelta, limit: int) -> Sequence[Leased]:
    """Takes live intervals that somebody has to look after; others look after others."""
    found = await driver(conn).fetch(_LEASE, now, lease, limit)
    return [
        Leased(
            interval=_interval(row),
            tenant=row["tenant"],
            pipeline_id=row["pipeline_id"],
            parameters=row["parameters"],
            priority=row["priority"],
            triggered_by=row["created_by"],
            cancelled=row["backfill_status"] == "CANCELLED",
        )
        for row in found
    ]


async def look_again(conn: AsyncConnection, intervals: Sequence[BackfillInterval], due_at: datetime) -> None:
    """Has somebody look after live intervals at an instant."""
    await driver(conn).execute(
        """
        UPDATE backfill_interval AS i SET due_at = $4
        FROM unnest($1::uuid[], $2::integer[], $3::integer[]) AS n(backfill_id, number, attempt)
        WHERE i.backfill_id = n.backfill_id AND i.number = n.number AND i.attempt = n.attempt
          AND i.due_at IS NOT NULL
        """,
        [interval.backfill_id for interval in intervals],
        [interval.number for interval in intervals],
        [interval.attempt for interval in intervals],
        due_at,
    )


async def hurry(conn: AsyncConnection, backfill_id: UUID, now: datetime) -> None:
    """Has somebody look after all live intervals of a backfill at once."""
    await driver(conn).execute(
        """
        UPDATE backfill_interval SET due_at = $2
        WHERE backfill_id = $1 AND state IN ('STARTING', 'RUNNING')
        """,
        backfill_id,
        now,
    )


async def try_again(conn: AsyncConnection, backfill_id: UUID) -> None:
    """Puts back all intervals of a locked backfill that failed or were cancelled."""
    await driver(conn).execute(
        """
        UPDATE backfill_interval SET state = 'PENDING', reason = NULL, message = NULL, finished_at = NULL
        WHERE backfill_id = $1 AND state IN ('FAILED', 'CANCELLED')
        """,
        backfill_id,
    )


async def page(
    conn: AsyncConnection,
    backfill_id: UUID,
    states: Sequence[IntervalState],
    after: int,
    limit: int,
) -> Sequence[BackfillInterval]:
    """Intervals of a backfill in some states, in their order, later than a number."""
    found = await driver(conn).fetch(
        """
        SELECT i.* FROM unnest($2::text[]) AS wanted(state)
        CROSS JOIN LATERAL (
            SELECT * FROM backfill_interval
            WHERE backfill_id = $1 AND backfill_interval.state = wanted.state AND number > $3
            ORDER BY number LIMIT $4
        ) AS i
        ORDER BY i.number LIMIT $4
        """,
        backfill_id,
        [state.value for state in states],
        after,
        limit,
    )
    return [_interval(row) for row in found]


async def tally(conn: AsyncConnection, backfill_id: UUID) -> Counter[IntervalState]:
    """How many intervals stand how, counted: what the counts of the backfill must agree with."""
    found = await driver(conn).fetch(
        "SELECT state, count(*) AS number FROM backfill_interval WHERE backfill_id = $1 GROUP BY state",
        backfill_id,
    )
    return Counter({IntervalState(row["state"]): row["number"] for row in found})


def _interval(row: Mapping[str, Any]) -> BackfillInterval:
    return BackfillInterval(
        backfill_id=row["backfill_id"],
        number=row["number"],
        interval=Interval(row["starts_at"], row["ends_at"]),
        state=IntervalState(row["state"]),
        attempt=row["attempt"],
        run_id=row["run_id"],
        reason=row["reason"],
        message=row["message"],
        finished_at=row["finished_at"],
    )
