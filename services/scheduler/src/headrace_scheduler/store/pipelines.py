"""What is known of metadata's pipelines and workspaces, in SQL."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from headrace_chassis.database import driver
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_scheduler.domain.schedules import Workspace
from headrace_scheduler.store import dependencies

_NOTE = """
INSERT INTO pipeline AS k (id, tenant, workspace_id, version, is_active) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (id) DO UPDATE SET version = excluded.version, is_active = excluded.is_active
WHERE k.version < excluded.version AND k.deleted_at IS NULL
"""

_DELETED = """
INSERT INTO pipeline AS k (id, tenant, workspace_id, version, is_active, deleted_at)
VALUES ($1, $2, $3, $4, false, $5)
ON CONFLICT (id) DO UPDATE SET is_active = false, deleted_at = coalesce(k.deleted_at, excluded.deleted_at)
"""

_WORKSPACE = """
INSERT INTO workspace AS k (id, tenant, timezone, country, subdivision, holidays, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (id) DO UPDATE SET timezone = excluded.timezone, country = excluded.country,
    subdivision = excluded.subdivision, holidays = excluded.holidays, updated_at = excluded.updated_at
WHERE k.updated_at < excluded.updated_at
"""


@dataclass(frozen=True)
class Pipeline:
    """What metadata told of a pipeline last."""

    id: UUID
    tenant: UUID
    workspace_id: UUID
    version: int
    is_active: bool
    is_deleted: bool = False


async def note(conn: AsyncConnection, pipeline: Pipeline) -> Pipeline:
    """Keeps what was told of a pipeline unless something newer is known, and returns what is, locked until
    the end of the transaction."""
    raw = driver(conn)
    await raw.execute(
        _NOTE, pipeline.id, pipeline.tenant, pipeline.workspace_id, pipeline.version, pipeline.is_active
    )
    row = await raw.fetchrow("SELECT * FROM pipeline WHERE id = $1 FOR UPDATE", pipeline.id)
    return Pipeline(
        row["id"],
        row["tenant"],
        row["workspace_id"],
        row["version"],
        row["is_active"],
        row["deleted_at"] is not None,
    )


async def note_deleted(conn: AsyncConnection, pipeline: Pipeline, at: datetime) -> None:
    """Keeps that a pipeline is gone, so that all of it is purged and nothing of it comes back."""
    await driver(conn).execute(
        _DELETED, pipeline.id, pipeline.tenant, pipeline.workspace_id, pipeline.version, at
    )


async def note_workspace(conn: AsyncConnection, workspace: Workspace, as_of: datetime) -> bool:
    """Keeps what was told of a workspace at an instant; False where something newer is known."""
    status: str = await driver(conn).execute(
        _WORKSPACE,
        workspace.id,
        workspace.tenant,
        workspace.timezone,
        workspace.country,
        workspace.subdivision,
        list(workspace.holidays),
        as_of,
    )
    return not status.endswith(" 0")


async def workspace(conn: AsyncConnection, tenant: UUID, workspace_id: UUID) -> Workspace:
    """What is known of a workspace; the plainest one where nothing is."""
    row = await driver(conn).fetchrow(
        "SELECT * FROM workspace WHERE id = $1 AND tenant = $2", workspace_id, tenant
    )
    if row is None:
        return Workspace(workspace_id, tenant)
    return Workspace(
        row["id"], row["tenant"], row["timezone"], row["country"], row["subdivision"], tuple(row["holidays"])
    )


async def workspaces_of(conn: AsyncConnection, ids: Collection[UUID]) -> Mapping[UUID, UUID]:
    """The workspaces of those of some pipelines that are known and not deleted."""
    rows = await driver(conn).fetch(
        "SELECT id, workspace_id FROM pipeline WHERE id = ANY ($1::uuid[]) AND deleted_at IS NULL", list(ids)
    )
    return {row["id"]: row["workspace_id"] for row in rows}


async def to_purge(conn: AsyncConnection, limit: int) -> Sequence[tuple[UUID, UUID]]:
    """Deleted pipelines of which something may be left, with their tenants."""
    found = await driver(conn).fetch(
        """
        SELECT id, tenant FROM pipeline WHERE deleted_at IS NOT NULL AND purged_at IS NULL
        ORDER BY deleted_at LIMIT $1
        """,
        limit,
    )
    return [(row["id"], row["tenant"]) for row in found]


async def purge(conn: AsyncConnection, pipeline_id: UUID, limit: int) -> bool:
    """Removes some of what is kept of a pipeline: dependencies, ticks, then schedules; True when nothing is
    left."""
    await dependencies.purge(conn, pipeline_id)
    raw = driver(conn)
    ticks: str = await raw.execute(
        """
        DELETE FROM tick WHERE ctid = ANY (ARRAY(
            SELECT t.ctid FROM tick AS t JOIN schedule AS s ON s.id = t.schedule_id
            WHERE s.pipeline_id = $1 LIMIT $2
        ))
        """,
        pipeline_id,
        limit,
    )
    if int(ticks.rpartition(" ")[2]) >= limit:
        return False
    schedules: str = await raw.execute(
        """
        DELETE FROM schedule WHERE id = ANY (ARRAY(
            SELECT id FROM schedule WHERE pipeline_id = $1 ORDER BY id LIMIT $2
        ))
        """,
        pipeline_id,
        limit,
    )
    return int(schedules.rpartition(" ")[2]) < limit


async def purged(conn: AsyncConnection, pipeline_id: UUID) -> None:
    """Notes that metadata knows that nothing is left of a pipeline."""
    await driver(conn).execute("UPDATE pipeline SET purged_at = now() WHERE id = $1", pipeline_id)


async def forget(conn: AsyncConnection, after: timedelta, limit: int) -> None:
    """Forgets pipelines that were purged a while ago, so that no late event can bring one back meanwhile."""
    await driver(conn).execute(
        """
        DELETE FROM pipeline WHERE id = ANY (ARRAY(
            SELECT id FROM pipeline WHERE purged_at < now() - $1::interval LIMIT $2
        ))
        """,
        after,
        limit,
    )
