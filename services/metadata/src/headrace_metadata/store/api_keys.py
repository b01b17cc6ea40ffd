"""API keys in SQL. Digests leave this module only towards whoever compares one."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_metadata.domain.api_keys import ApiKey, KeyRole
from headrace_metadata.store.scope import Scope
from headrace_metadata.store.tables import AnyRow
from headrace_metadata.store.tables import api_key as table

_LIVE = table.c.revoked_at.is_(None)


@dataclass(frozen=True)
class StoredKey:
    """A key with the digest that is stored of it, and the database's clock when it was read."""

    key: ApiKey
    digest: bytes = field(repr=False)
    now: datetime


async def add(conn: AsyncConnection, key: ApiKey, digest: bytes) -> ApiKey:
    """Adds a key."""
    statement = (
        sa.insert(table)
        .values(
            id=key.id,
            tenant=key.tenant,
            name=key.name,
            role=key.role,
            workspaces=None if key.workspaces is None else list(key.workspaces),
            digest=digest,
            expires_at=key.expires_at,
            created_at=key.created_at,
            created_by=key.created_by,
        )
        .returning(table)
    )
    return _key((await conn.execute(statement)).one())


async def count_valid(conn: AsyncConnection, tenant: UUID) -> int:
    """How many keys of a tenant open anything. Until the end of the transaction no other one counts or adds,
    so that a limit holds."""
    await conn.execute(
        sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(f"api_key {tenant}", 0)))
    )
    valid = sa.or_(table.c.expires_at.is_(None), table.c.expires_at > sa.func.now())
    counted = sa.select(sa.func.count()).select_from(table).where(table.c.tenant == tenant, _LIVE, valid)
    return int(await conn.scalar(counted) or 0)


async def find(conn: AsyncConnection, identity: UUID) -> StoredKey | None:
    """A key of any tenant, revoked or not: its holder has nothing but the key to say whose it is."""
    row = (
        await conn.execute(
            sa.select(table, sa.func.clock_timestamp().label("read_at")).where(table.c.id == identity)
        )
    ).one_or_none()
    return None if row is None else StoredKey(_key(row), row.digest, row.read_at)


async def touch(conn: AsyncConnection, identity: UUID, coarseness: timedelta) -> None:
    """Notes that a key is used now, unless that was noted a short while ago."""
    now = sa.func.clock_timestamp()
    is_old = sa.or_(table.c.last_used_at.is_(None), table.c.last_used_at < now - coarseness)
    await conn.execute(sa.update(table).where(table.c.id == identity, is_old).values(last_used_at=now))


async def revoke(conn: AsyncConnection, scope: Scope, identity: UUID, by: str) -> ApiKey | None:
    """Revokes a key; None where there is none in scope, or it is revoked already."""
    statement = (
        sa.update(table)
        .where(table.c.id == identity, _held_by(scope), _LIVE)
        .values(revoked_at=sa.func.clock_timestamp(), revoked_by=by)
        .returning(table)
    )
    row = (await conn.execute(statement)).one_or_none()
    return None if row is None else _key(row)


async def page(
    conn: AsyncConnection, scope: Scope, after: tuple[datetime, UUID] | None, limit: int
) -> Sequence[ApiKey]:
    """Keys in scope that are not revoked, newest first."""
    statement = (
        sa.select(table)
        .where(_held_by(scope), _LIVE)
        .order_by(table.c.created_at.desc(), table.c.id.desc())
        .limit(limit)
    )
    if after is not None:
        statement = statement.where(sa.tuple_(table.c.created_at, table.c.id) < sa.tuple_(*after))
    return [_key(row) for row in await conn.execute(statement)]


async def count(conn: AsyncConnection, scope: Scope) -> int:
    """How many keys in scope are not revoked."""
    counted = sa.select(sa.func.count()).select_from(table).where(_held_by(scope), _LIVE)
    return int(await conn.scalar(counted) or 0)


def _held_by(scope: Scope) -> sa.ColumnElement[bool]:
    """The keys all of whose workspaces are in scope: one for all workspaces only where all are."""
    if scope.workspaces is None:
        return table.c.tenant == scope.tenant
    mine = sa.cast(sorted(scope.workspaces), ARRAY(sa.Uuid))
    return sa.and_(table.c.tenant == scope.tenant, table.c.workspaces.contained_by(mine))


def _key(row: AnyRow) -> ApiKey:
    return ApiKey(
        id=row.id,
        tenant=row.tenant,
        name=row.name,
        role=KeyRole(row.role),
        workspaces=None if row.workspaces is None else tuple(row.workspaces),
        expires_at=row.expires_at,
        created_by=row.created_by,
        created_at=row.created_at,
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
    )
