"""Removes what the chassis' tables no longer need, in small pieces."""

from headrace_chassis import idempotency
from headrace_chassis.agents import Agent
from headrace_chassis.database import Database, driver

EVENTS_KEPT_SECONDS = 7 * 24 * 3600
"""How long events are kept: how long a consumer may be away without having to read its source anew."""

INBOX_KEPT_SECONDS = EVENTS_KEPT_SECONDS + 24 * 3600
"""Longer than events, so that an event that can still be read is still known to have been handled."""

# Looks at no more than it may remove: the first ones by position, up to one that is not old enough. An older
# one behind that, of a transaction that took long, goes when its turn comes.
_EVENTS = """
WITH oldest AS (
    SELECT position, created_at < clock_timestamp() - $1 * interval '1 second' AS is_old FROM outbox_event
    WHERE position > (SELECT pruned FROM outbox_head) ORDER BY position LIMIT $2
), gone AS (
    DELETE FROM outbox_event WHERE position IN (SELECT position FROM oldest)
        AND position < coalesce((SELECT min(position) FROM oldest WHERE NOT is_old), 'infinity'::numeric)
    RETURNING position
), moved AS (
    UPDATE outbox_head SET pruned = greatest(pruned, (SELECT max(position) FROM gone))
    WHERE EXISTS (SELECT FROM gone)
)
SELECT count(*) FROM gone
"""

_INBOX = """
DELETE FROM inbox WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM inbox WHERE handled_at < clock_timestamp() - $1 * interval '1 second'
    ORDER BY handled_at LIMIT $2
))
"""


class OutboxPruner(Agent):
    """Removes old events, old entries of the inbox, and old idempotency keys, a batch of each a round."""

    name = "outbox_pruner"
    interval_seconds = 60.0

    def __init__(
        self,
        db: Database,
        *,
        events_kept: float = EVENTS_KEPT_SECONDS,
        inbox_kept: float = INBOX_KEPT_SECONDS,
        batch: int = 1000,
    ) -> None:
        if inbox_kept < events_kept:
            raise ValueError("the inbox must be kept at least as long as events are")
        self._db = db
        self._events_kept = events_kept
        self._inbox_kept = inbox_kept
        self._batch = batch

    async def run_once(self) -> bool:
        """Removes a batch of each kind; returns whether more is waiting."""
        async with self._db.transaction() as conn:
            events: int = await driver(conn).fetchval(_EVENTS, self._events_kept, self._batch)
        async with self._db.transaction() as conn:
            status: str = await driver(conn).execute(_INBOX, self._inbox_kept, self._batch)
        keys = await idempotency.prune(self._db, batch=self._batch)
        return self._batch in (events, int(status.rpartition(" ")[2]), keys)
