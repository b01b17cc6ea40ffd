"""Workspaces in SQL."""

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_metadata.domain.workspaces import Workspace
from headrace_metadata.store.scope import Scope
from headrace_metadata.store.tables import AnyRow
from headrace_metadata.store.tables import workspace as table


async def add(conn: AsyncConnection, workspace: Workspace) -> Workspace | None:
    """Adds a workspace; None where its slug is taken, also by a transaction that commits right now."""
    statement = (
        insert(table)
        .values(
            id=workspace.id,
            tenant=workspace.tenant,
            slug=workspace.slug,
            name=workspace.name,
            country=workspace.country,
            subdivision=workspace.subdivision,
            holidays=list(workspace.holidays),
            timezone=workspace.timezone,
            deploy_on_push=workspace.deploy_on_push,
            allowed_variables=list(workspace.allowed_variables),
        )
        .on_conflict_do_nothing(index_elements=["tenant", "slug"])
        .returning(table)
    )
    return _one(await conn.execute(statement))


async def get(conn: AsyncConnection, scope: Scope, workspace_id: UUID) -> Workspace | None:
    """The workspace, where it exists and is in scope."""
    condition = scope.holds(table.c.tenant, table.c.id)
    return _one(await conn.execute(sa.select(table).where(table.c.id == workspace_id, condition)))


async def among(conn: AsyncConnection, tenant: UUID, ids: Collection[UUID]) -> Sequence[Workspace]:
    """Those of these workspaces that the tenant has."""
    listed = sa.cast(list(ids), ARRAY(sa.Uuid))
    statement = sa.select(table).where(table.c.tenant == tenant, table.c.id == sa.any_(listed))
    return [_workspace(row) for row in await conn.execute(statement)]


async def by_slug(conn: AsyncConnection, tenant: UUID, slug: str) -> Workspace | None:
    """The workspace of a tenant with this slug."""
    return _one(await conn.execute(sa.select(table).where(table.c.tenant == tenant, table.c.slug == slug)))


async def first_of(conn: AsyncConnection, tenant: UUID, ids: Sequence[UUID]) -> Workspace | None:
    """The first of these, in their order, that the tenant has."""
    listed = sa.cast(list(ids), ARRAY(sa.Uuid))
    statement = (
        sa.select(table)
        .where(table.c.tenant == tenant, table.c.id == sa.any_(listed))
        .order_by(sa.func.array_position(listed, table.c.id))
        .limit(1)
    )
    return _one(await conn.execute(statement))


async def lock(conn: AsyncConnection, scope: Scope, workspace_id: UUID) -> Workspace | None:
    """The workspace, locked against other writers until the end of the transaction."""
    condition = scope.holds(table.c.tenant, table.c.id)
    return _one(
        await conn.execute(sa.select(table).where(table.c.id == workspace_id, condition).with_for_update())
    )


async def save(conn: AsyncConnection, workspace: Workspace) -> Workspace:
    """Writes the changed fields of a locked workspace."""
    statement = (
        sa.update(table)
        .where(table.c.id == workspace.id, table.c.tenant == workspace.tenant)
        .values(
            name=workspace.name,
            country=workspace.country,
            subdivision=workspace.subdivision,
            holidays=list(workspace.holidays),
            timezone=workspace.timezone,
            deploy_on_push=workspace.deploy_on_push,
            allowed_variables=list(workspace.allowed_variables),
            updated_at=sa.func.now(),
        )
        .returning(table)
    )
    return _workspace((await conn.execute(statement)).one())


async def page(conn: AsyncConnection, scope: Scope, after: str | None, limit: int) -> Sequence[Workspace]:
    """The workspaces in scope whose slug comes after `after`, by slug."""
    statement = sa.select(table).where(scope.holds(table.c.tenant, table.c.id)).order_by(table.c.slug)
    if after is not None:
        statement = statement.where(table.c.slug > after)
    return [_workspace(row) for row in await conn.execute(statement.limit(limit))]


async def count(conn: AsyncConnection, scope: Scope) -> int:
    """How many workspaces are in scope."""
    condition = scope.holds(table.c.tenant, table.c.id)
    return int(await conn.scalar(sa.select(sa.func.count()).select_from(table).where(condition)) or 0)


def _one(result: sa.CursorResult[*tuple[Any, ...]]) -> Workspace | None:
    row = result.one_or_none()
    return None if row is None else _workspace(row)


def _workspace(row: AnyRow) -> Workspace:
    return Workspace(
        id=row.id,
        tenant=row.tenant,
        slug=row.slug,
        name=row.name,
        country=row.country,
        subdivision=row.subdivision,
        holidays=tuple(row.holidays),
        timezone=row.timezone,
        deploy_on_push=row.deploy_on_push,
        allowed_variables=tuple(row.allowed_variables),
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
