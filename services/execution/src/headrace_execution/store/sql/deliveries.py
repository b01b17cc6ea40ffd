"""Deliveries in SQL: `due_at` is when the next try is due, the end of a lease, or null where it was given
up.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from headrace_execution.domain.deliveries import Delivery
from headrace_execution.domain.recipe import Channel, Notices
from headrace_execution.store.deliveries_port import MOST_WAITING
from headrace_execution.store.sql.recipes import RecipeCache

# Those that wait are counted up to the limit only; two writers at once may pass it by what each has.
_WAITING = """
SELECT u.pipeline, w.waiting FROM unnest($1::uuid[]) AS u(pipeline) CROSS JOIN LATERAL (
    SELECT count(*) AS waiting FROM (
        SELECT FROM deliveries AS d WHERE d.pipeline = u.pipeline AND d.due_at IS NOT NULL LIMIT $2
    ) AS few
) AS w
"""
_ADD = """
INSERT INTO deliveries (id, tenant, workspace, pipeline, channel, target, signing_secret, body, due_at)
SELECT *, $9::timestamptz FROM unnest(
    $1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::text[], $7::text[], $8::text[]
)
"""
_CLAIM = """
UPDATE deliveries AS d SET attempts = d.attempts + 1, due_at = $1::timestamptz + $2::interval
FROM (
    SELECT id FROM deliveries WHERE due_at <= $1 AND {which} ORDER BY due_at LIMIT $3 FOR UPDATE SKIP LOCKED
) AS c
WHERE d.id = c.id
RETURNING d.id, d.tenant, d.workspace, d.pipeline, d.channel, d.target, d.signing_secret, d.body, d.attempts
"""
_CLAIM_NEW = _CLAIM.format(which="attempts = 0")
_CLAIM_AGAIN = _CLAIM.format(which="attempts > 0")
_DELIVERED = "DELETE FROM deliveries WHERE id = $1"
_PUT_OFF = "UPDATE deliveries SET due_at = $3, last_error = $4 WHERE id = $1 AND attempts = $2"
_PARK = """
UPDATE deliveries SET due_at = NULL, parked_at = $3, last_error = $4 WHERE id = $1 AND attempts = $2
"""
_NOTICES = """
SELECT u.pipeline, r.recipe FROM unnest($1::uuid[]) AS u(pipeline) CROSS JOIN LATERAL (
    SELECT recipe FROM runs WHERE pipeline = u.pipeline ORDER BY created_at DESC, id DESC LIMIT 1
) AS r
"""
_FORGET = """
DELETE FROM deliveries WHERE id = ANY (ARRAY(
    SELECT id FROM deliveries WHERE parked_at < $1 ORDER BY parked_at LIMIT $2
))
"""


class SqlDeliveries:
    """Deliveries of one transaction."""

    def __init__(self, conn: Any, now: datetime, recipes: RecipeCache) -> None:
        self._conn = conn
        self._now = now
        self._recipes = recipes

    async def add(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """See the port."""
        if not deliveries:
            return []
        pipelines = list({each.pipeline for each in deliveries})
        rows = await self._conn.fetch(_WAITING, pipelines, MOST_WAITING)
        waiting = {row["pipeline"]: row["waiting"] for row in rows}
        taken: list[Delivery] = []
        refused: list[Delivery] = []
        for each in deliveries:
            waiting[each.pipeline] += 1
            (taken if waiting[each.pipeline] <= MOST_WAITING else refused).append(each)
        columns = zip(*(_values(each) for each in taken), strict=True) if taken else ([] for _ in range(8))
        await self._conn.execute(_ADD, *map(list, columns), self._now)
        return refused

    async def claim(self, limit: int, lease: timedelta, *, again: bool) -> list[Delivery]:
        """See the port."""
        statement = _CLAIM_AGAIN if again else _CLAIM_NEW
        return [_delivery(row) for row in await self._conn.fetch(statement, self._now, lease, limit)]

    async def delivered(self, delivery: Delivery) -> None:
        """See the port."""
        await self._conn.execute(_DELIVERED, delivery.id)

    async def put_off(self, delivery: Delivery, wait: timedelta, reason: str) -> None:
        """See the port."""
        await self._conn.execute(_PUT_OFF, delivery.id, delivery.attempts, self._now + wait, reason)

    async def park(self, delivery: Delivery, reason: str) -> None:
        """See the port."""
        await self._conn.execute(_PARK, delivery.id, delivery.attempts, self._now, reason)

    async def notices(self, pipelines: Collection[UUID]) -> dict[UUID, Notices]:
        """See the port."""
        if not pipelines:
            return {}
        keys = [(row["pipeline"], row["recipe"]) for row in await self._conn.fetch(_NOTICES, list(pipelines))]
        recipes = await self._recipes.load(self._conn, keys)
        return {key[0]: recipe.notices for key, recipe in recipes.items() if recipe.notices is not None}

    async def forget_parked(self, age: timedelta, limit: int) -> int:
        """See the port."""
        status: str = await self._conn.execute(_FORGET, self._now - age, limit)
        return int(status.rpartition(" ")[2])


def _values(delivery: Delivery) -> tuple[Any, ...]:
    return (
        delivery.id,
        delivery.tenant,
        delivery.workspace,
        delivery.pipeline,
        delivery.channel,
        delivery.target,
        delivery.signing_secret,
        delivery.body,
    )


def _delivery(row: Any) -> Delivery:
    return Delivery(
        id=row["id"],
        tenant=row["tenant"],
        workspace=row["workspace"],
        pipeline=row["pipeline"],
        channel=Channel(row["channel"]),
        target=row["target"],
        signing_secret=row["signing_secret"],
        body=row["body"],
        attempts=row["attempts"],
    )
