"""Claims of stages that use connections with limits, in SQL.

Those that run are counted under one lock, which is only tried for: who does not get it leaves these stages to
the one who has it, and to later rounds. It is the last lock that a claim takes, and held to the end of the
transaction, so that the next one counts what this one has leased.
"""

from typing import Any

from headrace_execution.domain.connection_limits import Usage, from_words

FREE = "s.state = 'READY' AND (s.limited IS NULL OR s.purpose = 'SETTLE')"
"""A ready stage that waits for a slot and for nothing else."""
LIMITED = "s.state = 'READY' AND s.limited IS NOT NULL AND s.purpose = 'RUN'"
"""A ready stage for which there must be room in the limits of connections."""

_LOCK = 0x5348_4152
_TRY_LOCK = "SELECT pg_try_advisory_xact_lock($1, 0)"
# From each distinct text of limits to the next by the index: how many stages wait does not matter.
_USAGE = f"""
WITH RECURSIVE kinds (limited) AS (
    (SELECT s.limited FROM stages AS s WHERE {LIMITED} ORDER BY s.limited LIMIT 1)
    UNION ALL
    SELECT (SELECT s.limited FROM stages AS s WHERE {LIMITED} AND s.limited > k.limited
            ORDER BY s.limited LIMIT 1)
    FROM kinds AS k WHERE k.limited IS NOT NULL
)
SELECT ARRAY(SELECT limited FROM kinds WHERE limited IS NOT NULL) AS waiting, ARRAY(
    SELECT s.limited FROM stages AS s
    WHERE s.state = 'LEASED' AND s.limited IS NOT NULL AND s.purpose = 'RUN'
) AS running
"""
_CLAIM = f"""
SELECT c.*, nextval('fences') AS claimed_fence FROM (
    SELECT s.id AS claimed_stage, s.purpose, s.priority, s.ready_at, s.limited, r.id, r.revision
    FROM unnest($1::text[], $2::int[]) AS k(kind, room) CROSS JOIN LATERAL (
        SELECT s.* FROM stages AS s WHERE {LIMITED} AND s.limited = k.kind
        ORDER BY s.priority DESC, s.ready_at, s.id LIMIT k.room
    ) AS s JOIN runs AS r ON r.id = s.run
    ORDER BY s.priority DESC, s.ready_at, s.id LIMIT $3 FOR NO KEY UPDATE OF r SKIP LOCKED
) AS c ORDER BY c.priority DESC, c.ready_at, c.claimed_stage
"""


async def claim_limited(conn: Any, limit: int) -> list[Any]:
    """Rows of up to so many stages that may run beside those that are leased, their runs locked."""
    if not await conn.fetchval(_TRY_LOCK, _LOCK):
        return []
    # A statement of its own: it sees what was committed before the lock was taken.
    found = await conn.fetchrow(_USAGE)
    usage = Usage(from_words(text) for text in found["running"])
    rooms = {text: min(usage.room(from_words(text)), limit) for text in found["waiting"]}
    open_kinds = {text: room for text, room in rooms.items() if room}
    if not open_kinds:
        return []
    rows = await conn.fetch(_CLAIM, list(open_kinds), list(open_kinds.values()), limit)
    return [row for row in rows if usage.take(from_words(row["limited"]))]
