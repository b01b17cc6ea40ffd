"""Ticks in SQL: decided once, started by whichever replica has leased them, kept for a while."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from headrace_chassis.database import driver
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_scheduler.domain.deciding import DecidedTick

_CLAIM_LOCK = 0x5449_434B
"""The advisory lock under which ticks are leased ("TICK" in ASCII): it keeps the ticks of a schedule in their
order, whoever starts them, and is held for one short statement."""

_MISSED = timedelta(minutes=5)

_ADD = """
INSERT INTO tick (schedule_id, at, through, interval_start, tenant, state, overlap, queue_limit, reason,
                  message, decided_at)
SELECT schedule_id, at, through, interval_start, tenant,
       CASE WHEN overlap IS NULL THEN 'SKIPPED'
            WHEN schedule_id = ANY ($11::uuid[]) THEN 'HELD' ELSE 'DUE' END,
       overlap, queue_limit, reason, message, $10
FROM unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[], $4::timestamptz[], $5::uuid[], $6::text[],
            $7::integer[], $8::text[], $9::text[])
     AS t(schedule_id, at, through, interval_start, tenant, overlap, queue_limit, reason, message)
ON CONFLICT (schedule_id, at) DO NOTHING
"""

# A tick waits for an earlier one of its schedule that somebody else is starting. That is asked by a subquery
# that is no join to PostgreSQL, so that it walks the index in its order and stops at the limit; as a join it
# looked at all that is due for each batch. A lease that ends later than any that is given out now was given
# before the clock went back: it is over.
_CLAIM = """
WITH chosen AS (
    SELECT t.schedule_id, t.at FROM tick AS t
    WHERE t.state = 'DUE'
      AND (t.leased_until IS NULL OR t.leased_until <= $1 OR t.leased_until > $1 + $2::interval)
      AND (
          SELECT true FROM tick AS e
          WHERE e.schedule_id = t.schedule_id AND e.state = 'DUE' AND e.at < t.at
            AND e.leased_until > $1 AND e.leased_until <= $1 + $2::interval
          LIMIT 1
      ) IS NULL
    ORDER BY t.decided_at, t.at LIMIT $3
)
UPDATE tick AS t SET leased_until = $1 + $2::interval, attempts = attempts + 1
FROM chosen AS c, schedule AS s
WHERE t.schedule_id = c.schedule_id AND t.at = c.at AND t.state = 'DUE' AND s.id = t.schedule_id
RETURNING t.schedule_id, t.at, t.interval_start, t.tenant, t.overlap, t.queue_limit, t.decided_at,
          s.workspace_id, s.pipeline_id, s.parameters, s.created_by
"""

_SETTLE = """
UPDATE tick AS t SET state = n.state, run_id = n.run_id, reason = n.reason, message = n.message,
       leased_until = NULL
FROM unnest($1::uuid[], $2::timestamptz[], $3::text[], $4::uuid[], $5::text[], $6::text[])
     AS n(schedule_id, at, state, run_id, reason, message)
WHERE t.schedule_id = n.schedule_id AND t.at = n.at AND t.state = 'DUE'
RETURNING t.schedule_id, t.at
"""

_STARTED = """
UPDATE progress AS p SET starting = false
WHERE p.schedule_id = ANY($1::uuid[]) AND p.starting
  AND NOT EXISTS (SELECT FROM tick AS t WHERE t.schedule_id = p.schedule_id AND t.state = 'DUE')
"""

_PRUNE = """
DELETE FROM tick WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM tick WHERE state <> 'DUE' AND state <> 'HELD' AND decided_at < $1
    ORDER BY decided_at LIMIT $2
))
"""


@dataclass(frozen=True)
class DueTick:
    """A tick that this process has leased to start its run."""

    schedule_id: UUID
    at: datetime
    interval_start: datetime
    tenant: UUID
    overlap: str
    queue_limit: int
    decided_at: datetime
    workspace_id: UUID
    pipeline_id: UUID
    parameters: str
    created_by: str

    @property
    def is_caught_up(self) -> bool:
        """Whether it was missed when it was due, so that its lateness is no delay of ours."""
        return self.decided_at - self.at > _MISSED

    @property
    def key(self) -> str:
        """The key under which execution decides the start, once and for all."""
        return f"tick:{self.schedule_id}:{self.at.isoformat()}"


@dataclass(frozen=True)
class Settled:
    """What came of a tick that was due: FIRED with its run, or SKIPPED with the reason."""

    schedule_id: UUID
    at: datetime
    state: str
    run_id: UUID | None
    reason: str | None
    message: str | None


async def add(
    conn: AsyncConnection,
    decided: Sequence[tuple[UUID, UUID, DecidedTick]],
    now: datetime,
    held: Collection[UUID] = (),
) -> None:
    """Adds decided ticks: schedule, tenant and tick. Those of schedules in `held` wait for upstreams before
    they start runs."""
    if not decided:
        return
    await driver(conn).execute(
        _ADD,
        [schedule_id for schedule_id, _, _ in decided],
        [tick.at for _, _, tick in decided],
        [tick.through for _, _, tick in decided],
        [tick.interval_start for _, _, tick in decided],
        [tenant for _, tenant, _ in decided],
        [tick.overlap.value if tick.overlap else None for _, _, tick in decided],
        [tick.queue_limit for _, _, tick in decided],
        [tick.reason for _, _, tick in decided],
        [tick.message for _, _, tick in decided],
        now,
        list(held),
    )


async def claim(conn: AsyncConnection, now: datetime, lease: timedelta, limit: int) -> Sequence[DueTick]:
    """Leases ticks that are due, the ones decided first first; another replica leases others."""
    raw = driver(conn)
    await raw.execute("SELECT pg_advisory_xact_lock($1)", _CLAIM_LOCK)
    found = await raw.fetch(_CLAIM, now, lease, limit)
    due = [DueTick(**dict(row)) for row in found]
    return sorted(due, key=lambda tick: (tick.decided_at, tick.schedule_id, tick.at))


async def next_lease_end(conn: AsyncConnection) -> datetime | None:
    """When the lease of a tick that is being started ends; None where none is."""
    found: datetime | None = await driver(conn).fetchval(
        "SELECT min(leased_until) FROM tick WHERE state = 'DUE'"
    )
    return found


async def settle(conn: AsyncConnection, settled: Sequence[Settled]) -> Collection[tuple[UUID, datetime]]:
    """Writes what came of ticks, and lets their schedules go on once none of theirs is due any more. Returns
    the ticks (schedule and time) of which nobody else has written it."""
    raw = driver(conn)
    schedules = sorted({each.schedule_id for each in settled})
    # The locks first: of two that settle ticks of one schedule, the second sees what the first has done.
    await raw.execute(
        "SELECT FROM progress WHERE schedule_id = ANY($1::uuid[]) ORDER BY schedule_id FOR UPDATE", schedules
    )
    written = await raw.fetch(
        _SETTLE,
        [each.schedule_id for each in settled],
        [each.at for each in settled],
        [each.state for each in settled],
        [each.run_id for each in settled],
        [each.reason for each in settled],
        [each.message for each in settled],
    )
    await raw.execute(_STARTED, schedules)
    return {(row["schedule_id"], row["at"]) for row in written}


async def release(conn: AsyncConnection, ticks: Sequence[DueTick], until: datetime) -> None:
    """Ends leases at an instant: the starts failed, and are to be tried again then."""
    await driver(conn).execute(
        """
        UPDATE tick AS t SET leased_until = $3
        FROM unnest($1::uuid[], $2::timestamptz[]) AS n(schedule_id, at)
        WHERE t.schedule_id = n.schedule_id AND t.at = n.at AND t.state = 'DUE'
        """,
        [tick.schedule_id for tick in ticks],
        [tick.at for tick in ticks],
        until,
    )


async def skip_unasked(conn: AsyncConnection, schedule_id: UUID, reason: str, message: str) -> None:
    """Skips the due and held ticks of a locked schedule for which execution was never asked; what was asked
    may have started."""
    raw = driver(conn)
    await raw.execute(
        """
        UPDATE tick SET state = 'SKIPPED', reason = $2, message = $3
        WHERE schedule_id = $1 AND state IN ('DUE', 'HELD') AND attempts = 0
        """,
        schedule_id,
        reason,
        message,
    )
    await raw.execute(_STARTED, [schedule_id])


async def prune(conn: AsyncConnection, before: datetime, limit: int) -> int:
    """Forgets some of the ticks that were decided before an instant; returns how many."""
    status: str = await driver(conn).execute(_PRUNE, before, limit)
    return int(status.rpartition(" ")[2])
