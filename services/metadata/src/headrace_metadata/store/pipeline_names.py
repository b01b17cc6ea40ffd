"""How pipelines are called, in SQL. Unlike other reads this one shows deleted pipelines, too, until they are
forgotten: their last runs are told of."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_metadata.store.tables import pipeline as head
from headrace_metadata.store.tables import workspace


@dataclass(frozen=True)
class PipelineNames:
    """How a pipeline is called, and where it is."""

    id: UUID
    workspace_id: UUID
    slug: str
    name: str
    workspace_slug: str


async def among(conn: AsyncConnection, tenant: UUID, ids: Iterable[UUID]) -> Sequence[PipelineNames]:
    """Those of these pipelines that the tenant has or had."""
    statement = (
        sa.select(head.c.id, head.c.workspace_id, head.c.slug, head.c.name, workspace.c.slug.label("within"))
        .join(workspace, workspace.c.id == head.c.workspace_id)
        .where(head.c.tenant == tenant, head.c.id.in_(list(ids)))
    )
    return [
        PipelineNames(row.id, row.workspace_id, row.slug, row.name, row.within)
        for row in await conn.execute(statement)
    ]
