"""Which connections the latest versions of pipelines refer to, in SQL."""

from collections.abc import Collection, Sequence
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_metadata.store.pipelines import ALIVE
from headrace_metadata.store.tables import connection, pipeline
from headrace_metadata.store.tables import connection_reference as reference


async def replace(
    conn: AsyncConnection, pipeline_id: UUID, workspace_id: UUID, words: Collection[str]
) -> None:
    """Makes `words` the names and ids by which a locked pipeline refers to connections."""
    await conn.execute(sa.delete(reference).where(reference.c.pipeline_id == pipeline_id))
    if words:
        await conn.execute(
            sa.insert(reference),
            [
                {"pipeline_id": pipeline_id, "workspace_id": workspace_id, "reference": word}
                for word in sorted(words)
            ],
        )


_MOST_TYPES = 10_000


async def connection_types(conn: AsyncConnection, workspace_id: UUID) -> dict[str, str]:
    """The types of a workspace's connections by name and by id; of the first ten thousand at the most."""
    rows = await conn.execute(
        sa.select(connection.c.id, connection.c.name, connection.c.type)
        .where(connection.c.workspace_id == workspace_id)
        .order_by(connection.c.name)
        .limit(_MOST_TYPES)
    )
    return {word: row.type for row in rows for word in (str(row.id), row.name)}


async def unknown(conn: AsyncConnection, workspace_id: UUID, words: Collection[str]) -> frozenset[str]:
    """Those words that are neither the name nor the id of a connection of the workspace."""
    if not words:
        return frozenset()
    wanted = sorted(words)
    rows = await conn.execute(
        sa.select(connection.c.name, connection.c.id).where(
            connection.c.workspace_id == workspace_id,
            sa.or_(connection.c.name.in_(wanted), connection.c.id.in_(ids_among(wanted))),
        )
    )
    known = {word for row in rows for word in (row.name, str(row.id))}
    return frozenset(wanted) - known


async def pipelines_using(
    conn: AsyncConnection, workspace_id: UUID, name: str, connection_id: UUID, limit: int
) -> Sequence[str]:
    """Names of live pipelines whose latest version refers to a connection, by name."""
    rows = await conn.scalars(
        sa.select(pipeline.c.name)
        .join(reference, reference.c.pipeline_id == pipeline.c.id)
        .where(
            reference.c.workspace_id == workspace_id,
            reference.c.reference.in_([name, str(connection_id)]),
            ALIVE,
        )
        .distinct()
        .order_by(pipeline.c.name)
        .limit(limit)
    )
    return rows.all()


def ids_among(words: Collection[str]) -> list[UUID]:
    """The words that are ids."""
    ids = []
    for word in words:
        try:
            ids.append(UUID(word))
        except ValueError:
            continue
    return ids
