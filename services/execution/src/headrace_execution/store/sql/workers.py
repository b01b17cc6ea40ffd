"""Workers and probes in SQL."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from headrace_execution.store.port import Lease, Probe, ProbeKind, SecretHolder, WorkerRecord
from headrace_execution.store.sql.recipes import RecipeCache

_HELLO = """
INSERT INTO workers AS w (id, name, slots, version, engines, connected_at, lease_until)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (id) DO UPDATE SET name = excluded.name, slots = excluded.slots, version = excluded.version,
    engines = excluded.engines, connected_at = excluded.connected_at, lease_until = excluded.lease_until
WHERE w.name = excluded.name
"""
_RENEW = """
UPDATE workers SET lease_until = $2 WHERE id = ANY (ARRAY(
    SELECT id FROM workers WHERE id = ANY ($1::uuid[]) ORDER BY id FOR NO KEY UPDATE
)) RETURNING id
"""
_FORGET = """
DELETE FROM workers AS w WHERE w.id = ANY (ARRAY(
    SELECT id FROM workers WHERE lease_until < $1 ORDER BY lease_until LIMIT $2
)) AND NOT EXISTS (SELECT FROM stages AS s WHERE s.state = 'LEASED' AND s.worker = w.id)
"""
_SECRETS_OF_STAGE = """
SELECT r.tenant, r.workspace, r.pipeline, r.recipe, s.position, r.triggered_by
FROM stages AS s JOIN runs AS r ON r.id = s.run JOIN workers AS w ON w.id = s.worker
WHERE s.id = $1 AND s.state = 'LEASED' AND s.worker = $2 AND s.fence = $3 AND w.name = $4 AND w.lease_until
>= $5
"""
_CONNECTIONS = "coalesce(p.connections, ARRAY[p.connection::text]) AS connections"
_SECRETS_OF_PROBE = f"""
SELECT p.tenant, p.workspace, {_CONNECTIONS}, p.on_behalf_of
FROM probes AS p JOIN workers AS w ON w.id = p.worker
WHERE p.id = $1 AND p.state = 'LEASED' AND p.worker = $2 AND p.fence = $3 AND w.name = $4 AND
w.lease_until >= $5
"""
_INSERT_PROBE = """
INSERT INTO probes (id, tenant, workspace, kind, connections, payload, on_behalf_of, state, fence,
created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, 'READY', 0, $8, $9)
"""
_CLAIM_PROBES = f"""
UPDATE probes AS p SET state = 'LEASED', fence = nextval('fences'), worker = c.worker, leased_at = $2
FROM (
    SELECT q.id, w.worker FROM (
        SELECT id, row_number() OVER () AS n FROM (
            SELECT id FROM probes WHERE state = 'READY' AND expires_at > $2
            ORDER BY created_at LIMIT cardinality($1::uuid[]) FOR UPDATE SKIP LOCKED
        ) AS locked
    ) AS q JOIN unnest($1::uuid[]) WITH ORDINALITY AS w(worker, n) ON w.n = q.n
) AS c
WHERE p.id = c.id
RETURNING p.id, p.tenant, p.workspace, p.kind, {_CONNECTIONS}, p.payload, p.on_behalf_of, p.fence, p.worker
"""
_PROBE_LEASES = """
SELECT worker, id, fence, coalesce(leased_at, created_at) AS leased_at FROM probes
WHERE state = 'LEASED' AND worker = ANY ($1::uuid[])
"""
_EXPIRED_PROBES = """
SELECT p.worker, p.id, p.fence, coalesce(p.leased_at, p.created_at) AS leased_at
FROM probes AS p LEFT JOIN workers AS w ON w.id = p.worker
WHERE p.state = 'LEASED' AND (w.id IS NULL OR w.lease_until < $1) LIMIT $2
"""
_OFFER_PROBES = """
UPDATE probes AS p SET state = 'READY', worker = NULL
FROM unnest($1::uuid[], $2::bigint[]) AS u(id, fence)
WHERE p.id = u.id AND p.fence = u.fence AND p.state = 'LEASED'
"""
_ANSWER = """
UPDATE probes SET state = 'ANSWERED', worker = NULL, answer = $4
WHERE id = $1 AND state = 'LEASED' AND worker = $2 AND fence = $3
"""
_ANSWERS = "SELECT id, answer FROM probes WHERE id = ANY ($1::uuid[]) AND state = 'ANSWERED'"
_REMOVE_PROBE = "DELETE FROM probes WHERE id = $1 RETURNING state <> 'READY'"
_FORGET_PROBES = """
DELETE FROM probes WHERE id = ANY (ARRAY(
    SELECT id FROM probes WHERE expires_at < $1 ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED
))
"""


class SqlWorkers:
    """Workers, in one transaction."""

    def __init__(self, conn: Any, now: datetime, recipes: RecipeCache) -> None:
        self._conn = conn
        self._now = now
        self._recipes = recipes

    async def hello(self, worker: WorkerRecord, lease: timedelta) -> bool:
        """See the port."""
        status: str = await self._conn.execute(
            _HELLO,
            worker.id,
            worker.name,
            worker.slots,
            worker.version,
            list(worker.engines),
            self._now,
            self._now + lease,
        )
        return _count(status) == 1

    async def renew(self, workers: Collection[UUID], lease: timedelta) -> frozenset[UUID]:
        """See the port."""
        rows = await self._conn.fetch(_RENEW, list(workers), self._now + lease)
        return frozenset(row["id"] for row in rows)

    async def forget(self, age: timedelta, limit: int) -> int:
        """See the port."""
        return _count(await self._conn.execute(_FORGET, self._now - age, limit))

    async def secrets_of(self, worker: UUID, name: str, assignment: UUID, fence: int) -> SecretHolder | None:
        """See the port."""
        asked = (assignment, worker, fence, name, self._now)
        row = await self._conn.fetchrow(_SECRETS_OF_STAGE, *asked)
        if row is not None:
            key = (row["pipeline"], row["recipe"])
            recipe = (await self._recipes.load(self._conn, [key]))[key]
            connections = recipe.stages[row["position"]].connections
            return SecretHolder(row["tenant"], row["workspace"], connections, row["triggered_by"])
        row = await self._conn.fetchrow(_SECRETS_OF_PROBE, *asked)
        if row is None:
            return None
        connections = tuple(row["connections"])
        return SecretHolder(row["tenant"], row["workspace"], connections, row["on_behalf_of"])


class SqlProbes:
    """Probes, in one transaction."""

    def __init__(self, conn: Any, now: datetime) -> None:
        self._conn = conn
        self._now = now

    async def insert(self, probe: Probe, life: timedelta) -> None:
        """See the port."""
        await self._conn.execute(
            _INSERT_PROBE,
            probe.id,
            probe.tenant,
            probe.workspace,
            probe.kind,
            list(probe.connections),
            probe.payload.decode(),
            probe.on_behalf_of,
            self._now,
            self._now + life,
        )

    async def claim(self, workers: Sequence[UUID]) -> list[tuple[Probe, Lease]]:
        """See the port."""
        if not workers:
            return []
        rows = await self._conn.fetch(_CLAIM_PROBES, list(workers), self._now)
        return [(_probe(row), Lease(row["worker"], row["id"], None, row["fence"], self._now)) for row in rows]

    async def leases(self, workers: Collection[UUID]) -> list[Lease]:
        """See the port."""
        return [_lease(row) for row in await self._conn.fetch(_PROBE_LEASES, list(workers))]

    async def expired(self, limit: int) -> list[Lease]:
        """See the port."""
        return [_lease(row) for row in await self._conn.fetch(_EXPIRED_PROBES, self._now, limit)]

    async def offer_again(self, leases: Sequence[Lease]) -> None:
        """See the port."""
        if leases:
            ids = [lease.assignment for lease in leases]
            await self._conn.execute(_OFFER_PROBES, ids, [lease.fence for lease in leases])

    async def answer(self, worker: UUID, probe: UUID, fence: int, answer: bytes) -> bool:
        """See the port."""
        return _count(await self._conn.execute(_ANSWER, probe, worker, fence, answer)) == 1

    async def answers(self, probes: Collection[UUID]) -> dict[UUID, bytes]:
        """See the port."""
        return {row["id"]: row["answer"] for row in await self._conn.fetch(_ANSWERS, list(probes))}

    async def remove(self, probe: UUID) -> bool:
        """See the port."""
        return bool(await self._conn.fetchval(_REMOVE_PROBE, probe))

    async def forget(self, limit: int) -> int:
        """See the port."""
        return _count(await self._conn.execute(_FORGET_PROBES, self._now, limit))


def _probe(row: Any) -> Probe:
    return Probe(
        id=row["id"],
        tenant=row["tenant"],
        workspace=row["workspace"],
        kind=ProbeKind(row["kind"]),
        connections=tuple(row["connections"]),
        payload=row["payload"].encode(),
        on_behalf_of=row["on_behalf_of"],
    )


def _lease(row: Any) -> Lease:
    return Lease(row["worker"], row["id"], None, row["fence"], row["leased_at"])


def _count(status: str) -> int:
    return int(status.rpartition(" ")[2])
