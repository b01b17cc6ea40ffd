"""Connections in SQL. Their secrets are only ever handled sealed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_metadata.domain.connections import Connection, ConnectionType, Endpoint
from headrace_metadata.keyring import Sealed
from headrace_metadata.store.references import ids_among
from headrace_metadata.store.scope import Scope, newest_of_scope
from headrace_metadata.store.searching import like_pattern
from headrace_metadata.store.tables import AnyRow
from headrace_metadata.store.tables import connection as table

_COLUMNS: Final = tuple(
    column for column in table.c if column.name not in ("secret_nonce", "secret_ciphertext")
)


@dataclass(frozen=True)
class Filters:
    """What a list of connections is narrowed by; all that are given must hold."""

    search: str = ""
    type: ConnectionType | None = None


@dataclass(frozen=True)
class Place:
    """A place in the list, by name: the connection right before the next page."""

    name: str
    id: UUID


@dataclass(frozen=True)
class SealedConnection:
    """A connection with its sealed secret, if it has one."""

    connection: Connection
    sealed: Sealed | None


async def add(conn: AsyncConnection, connection: Connection, sealed: Sealed | None) -> Connection | None:
    """Adds a connection; None where its name is taken, also by a transaction that commits right now."""
    statement = (
        insert(table)
        .values(
            id=connection.id,
            tenant=connection.tenant,
            workspace_id=connection.workspace_id,
            created_by=connection.created_by,
            **_written(connection),
            **_seal(sealed),
        )
        .on_conflict_do_nothing(constraint="connection_name_key")
        .returning(*_COLUMNS)
    )
    row = (await conn.execute(statement)).one_or_none()
    return None if row is None else _connection(row)


async def get(conn: AsyncConnection, scope: Scope, connection_id: UUID) -> Connection | None:
    """The connection, where it exists and is in scope."""
    row = (await conn.execute(_by_id(scope, connection_id))).one_or_none()
    return None if row is None else _connection(row)


async def lock(conn: AsyncConnection, scope: Scope, connection_id: UUID) -> Connection | None:
    """The connection, locked against other writers until the end of the transaction."""
    row = (await conn.execute(_by_id(scope, connection_id).with_for_update())).one_or_none()
    return None if row is None else _connection(row)


async def save(
    conn: AsyncConnection, connection: Connection, sealed: Sealed | None, *, secret_changed: bool
) -> Connection:
    """Writes a locked connection, and its secret where that changed.

    Raises:
        sqlalchemy.exc.IntegrityError: on connection_name_key, where the name is taken.
    """
    statement = (
        sa.update(table)
        .where(table.c.id == connection.id, table.c.tenant == connection.tenant)
        .values(updated_at=sa.func.now(), **_written(connection), **(_seal(sealed) if secret_changed else {}))
        .returning(*_COLUMNS)
    )
    return _connection((await conn.execute(statement)).one())


async def name_is_taken(conn: AsyncConnection, workspace_id: UUID, name: str) -> bool:
    """Whether a connection of the workspace has this name."""
    found = sa.select(sa.literal(True)).where(table.c.workspace_id == workspace_id, table.c.name == name)
    return (await conn.scalar(found)) is not None


async def remove(conn: AsyncConnection, connection: Connection) -> None:
    """Removes a locked connection with its secret."""
    await conn.execute(
        sa.delete(table).where(table.c.id == connection.id, table.c.tenant == connection.tenant)
    )


async def page(
    conn: AsyncConnection, scope: Scope, filters: Filters, after: Place | None, offset: int, limit: int
) -> Sequence[Connection]:
    """Connections in scope, by name, from `after` or `offset` on."""
    conditions = _conditions(filters)
    if after is not None:
        conditions.append(sa.tuple_(table.c.name, table.c.id) > sa.tuple_(after.name, after.id))
    rows = newest_of_scope(
        scope,
        columns=_COLUMNS,
        tenant=table.c.tenant,
        workspace=table.c.workspace_id,
        order=(table.c.name, table.c.id),
        conditions=conditions,
        source=table,
        reach=offset + limit,
    )
    statement = sa.select(rows).order_by(rows.c.name, rows.c.id).offset(offset).limit(limit)
    return [_connection(row) for row in await conn.execute(statement)]


async def count(conn: AsyncConnection, scope: Scope, filters: Filters) -> int:
    """How many connections in scope the filters leave."""
    counted = (
        sa.select(sa.func.count())
        .select_from(table)
        .where(scope.holds(table.c.tenant, table.c.workspace_id), *_conditions(filters))
    )
    return int(await conn.scalar(counted) or 0)


async def by_words(
    conn: AsyncConnection, tenant: UUID, workspace_id: UUID, words: Iterable[str]
) -> Sequence[Connection]:
    """The connections of a workspace that go by these names or ids."""
    statement = sa.select(*_COLUMNS).where(_go_by(tenant, workspace_id, words))
    return [_connection(row) for row in await conn.execute(statement)]


async def sealed_by_words(
    conn: AsyncConnection, tenant: UUID, workspace_id: UUID, words: Iterable[str]
) -> Sequence[SealedConnection]:
    """The connections of a workspace that go by these names or ids, with their sealed secrets."""
    statement = sa.select(table).where(_go_by(tenant, workspace_id, words))
    return [SealedConnection(_connection(row), _sealed(row)) for row in await conn.execute(statement)]


async def key_ids(conn: AsyncConnection) -> Sequence[str]:
    """The ids of all keys that sealed secrets need."""
    rows = await conn.scalars(
        sa.select(table.c.secret_key_id).where(table.c.secret_key_id.is_not(None)).distinct()
    )
    return [str(key_id) for key_id in rows]


async def lock_sealed_otherwise(conn: AsyncConnection, active: str, limit: int) -> Sequence[SealedConnection]:
    """Some connections whose secret is sealed under another key, locked; those locked by others are left
    out."""
    statement = (
        sa.select(table)
        .where(table.c.secret_key_id.is_not(None), table.c.secret_key_id != active)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return [SealedConnection(_connection(row), _sealed(row)) for row in await conn.execute(statement)]


async def reseal(conn: AsyncConnection, connection: Connection, sealed: Sealed) -> None:
    """Replaces the seal of a locked connection; nothing that a user sees changes."""
    await conn.execute(sa.update(table).where(table.c.id == connection.id).values(**_seal(sealed)))


def _by_id(scope: Scope, connection_id: UUID) -> sa.Select[*tuple[Any, ...]]:
    return sa.select(*_COLUMNS).where(
        table.c.id == connection_id, scope.holds(table.c.tenant, table.c.workspace_id)
    )


def _go_by(tenant: UUID, workspace_id: UUID, words: Iterable[str]) -> sa.ColumnElement[bool]:
    wanted = sorted(set(words))
    return sa.and_(
        table.c.tenant == tenant,
        table.c.workspace_id == workspace_id,
        sa.or_(table.c.name.in_(wanted), table.c.id.in_(ids_among(wanted))),
    )


def _conditions(filters: Filters) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    if filters.search:
        pattern = sa.func.lower(sa.literal(like_pattern(filters.search)))
        conditions.append(sa.func.lower(table.c.name).like(pattern, escape="\\"))
    if filters.type is not None:
        conditions.append(table.c.type == filters.type)
    return conditions


def _written(connection: Connection) -> dict[str, Any]:
    endpoint = connection.endpoint
    return {
        "name": connection.name,
        "description": connection.description,
        "type": endpoint.type,
        "host": endpoint.host,
        "port": endpoint.port,
        "database": endpoint.database,
        "username": endpoint.username,
        "path": endpoint.path,
        "options": dict(endpoint.options),
        "secret_ref": connection.secret_ref,
        "max_concurrent_stages": connection.max_concurrent_stages,
    }


def _seal(sealed: Sealed | None) -> dict[str, Any]:
    return {
        "secret_key_id": sealed.key_id if sealed else None,
        "secret_nonce": sealed.nonce if sealed else None,
        "secret_ciphertext": sealed.ciphertext if sealed else None,
    }


def _sealed(row: AnyRow) -> Sealed | None:
    if row.secret_key_id is None:
        return None
    return Sealed(row.secret_key_id, row.secret_nonce, row.secret_ciphertext)


def _connection(row: AnyRow) -> Connection:
    return Connection(
        id=row.id,
        tenant=row.tenant,
        workspace_id=row.workspace_id,
        name=row.name,
        description=row.description,
        endpoint=Endpoint(
            type=ConnectionType(row.type),
            host=row.host,
            port=row.port,
            database=row.database,
            username=row.username,
            path=row.path,
            options=row.options,
        ),
        secret_ref=row.secret_ref,
        has_secret=row.secret_key_id is not None,
        created_by=row.created_by,
        created_at=row.created_at,
        updated_at=row.updated_at,
        max_concurrent_stages=row.max_concurrent_stages,
    )
