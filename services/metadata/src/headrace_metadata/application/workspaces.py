"""Which workspaces a caller may use, and which one a request means."""

from uuid import UUID

from headrace_chassis.errors import NotFound, WorkspaceForbidden
from headrace_chassis.identity import Principal
from headrace_chassis.ids import uuid7
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_metadata.domain.workspaces import DEFAULT_SLUG, Workspace, default_workspace
from headrace_metadata.store import workspaces as store
from headrace_metadata.store.scope import Scope


def scope_of(principal: Principal) -> Scope:
    """All that the caller may see."""
    return Scope(principal.tenant, principal.workspaces)


async def ensure_default(conn: AsyncConnection, tenant: UUID) -> Workspace:
    """The workspace `default` of a tenant, made at first use. Several may ask at once; one is made."""
    found = await store.by_slug(conn, tenant, DEFAULT_SLUG)
    if found is None:
        found = await store.add(conn, default_workspace(uuid7(), tenant))
    if found is None:
        found = await store.by_slug(conn, tenant, DEFAULT_SLUG)
    if found is None:
        raise RuntimeError(f"the default workspace of tenant {tenant} vanished")
    return found


async def named(conn: AsyncConnection, principal: Principal, workspace_id: UUID) -> Workspace:
    """The workspace that a request names.

    Raises:
        NotFound: the tenant has no such workspace.
        WorkspaceForbidden: the caller may not use it.
    """
    found = await store.get(conn, Scope(principal.tenant), workspace_id)
    if found is None:
        raise NotFound("workspace", workspace_id)
    if not principal.may_use(found.id):
        raise WorkspaceForbidden(workspace_id)
    return found


async def implied(conn: AsyncConnection, principal: Principal) -> Workspace:
    """The workspace that a request without one means: `default`, else the first in the token that exists.

    Raises:
        WorkspaceForbidden: the token allows none that exists.
    """
    default = await ensure_default(conn, principal.tenant)
    if principal.may_use(default.id):
        return default
    first = await store.first_of(conn, principal.tenant, principal.workspace_order)
    if first is None:
        raise WorkspaceForbidden(default.id)
    return first


async def chosen(conn: AsyncConnection, principal: Principal, workspace_id: UUID | None) -> Workspace:
    """The workspace that a request names, or means without naming one."""
    if workspace_id is None:
        return await implied(conn, principal)
    return await named(conn, principal, workspace_id)


async def listed(conn: AsyncConnection, principal: Principal, workspace_id: UUID | None) -> Scope:
    """What a list shows: the workspace it names, or all that the caller may use."""
    if workspace_id is None:
        return scope_of(principal)
    workspace = await named(conn, principal, workspace_id)
    return Scope(principal.tenant, frozenset({workspace.id}))
