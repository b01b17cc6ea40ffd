"""The deletion of pipelines in SQL: guarded moves of the states in domain/deletion.py."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_metadata.domain.deletion import Deletion, purged_everywhere
from headrace_metadata.store.tables import (
    AnyRow,
    connection_reference,
    pipeline_status,
    pipeline_version,
)
from headrace_metadata.store.tables import pipeline as head
from headrace_metadata.store.tables import purge_acknowledgement as acknowledgement


@dataclass(frozen=True)
class Attempt:
    """One attempt to delete a pipeline. A later attempt at the same pipeline has a greater number."""

    pipeline_id: UUID
    tenant: UUID
    number: int
    force: bool
    on_behalf_of: str


async def begin(conn: AsyncConnection, tenant: UUID, pipeline_id: UUID, force: bool, by: str) -> Attempt:
    """Marks a locked pipeline as closing. Force, once given, stays: an earlier attempt may still be carrying
    it out."""
    moved = (
        sa.update(head)
        .where(head.c.id == pipeline_id, head.c.tenant == tenant, head.c.deletion != Deletion.DELETED)
        .values(
            deletion=Deletion.CLOSING,
            deletion_force=sa.or_(
                sa.and_(head.c.deletion == Deletion.CLOSING, head.c.deletion_force), sa.literal(force)
            ),
            deletion_attempt=head.c.deletion_attempt + 1,
            deletion_tried_at=sa.func.now(),
            deletion_by=by,
        )
        .returning(*_ATTEMPT)
    )
    return _attempt((await conn.execute(moved)).one())


async def take_abandoned(conn: AsyncConnection, quiet: timedelta, limit: int) -> Sequence[Attempt]:
    """Takes over deletions that nobody has worked at for a while; another replica takes others."""
    stale = (
        sa.select(head.c.id)
        .where(_IS_CLOSING, head.c.deletion_tried_at < sa.func.now() - quiet)
        .order_by(head.c.deletion_tried_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    moved = (
        sa.update(head)
        .where(head.c.id.in_(stale.scalar_subquery()))
        .values(deletion_attempt=head.c.deletion_attempt + 1, deletion_tried_at=sa.func.now())
        .returning(*_ATTEMPT)
    )
    return [_attempt(row) for row in await conn.execute(moved)]


async def give_up(conn: AsyncConnection, attempt: Attempt) -> bool:
    """Puts a pipeline back to normal, unless a later attempt has taken over."""
    moved = await conn.execute(
        sa.update(head)
        .where(
            head.c.id == attempt.pipeline_id,
            head.c.deletion == Deletion.CLOSING,
            head.c.deletion_attempt == attempt.number,
        )
        .values(deletion=Deletion.NONE, deletion_force=False, deletion_tried_at=None, deletion_by=None)
    )
    return moved.rowcount == 1


async def finish(conn: AsyncConnection, attempt: Attempt) -> bool:
    """Makes a closing pipeline gone for every reader; False where another attempt has done so."""
    moved = await conn.execute(
        sa.update(head)
        .where(head.c.id == attempt.pipeline_id, head.c.deletion == Deletion.CLOSING)
        .values(deletion=Deletion.DELETED)
    )
    if moved.rowcount != 1:
        return False
    for table in (pipeline_status, connection_reference):
        await conn.execute(sa.delete(table).where(table.c.pipeline_id == attempt.pipeline_id))
    return True


async def standing(conn: AsyncConnection, tenant: UUID, pipeline_id: UUID) -> Deletion | None:
    """Where the deletion of a pipeline stands, locked until the end of the transaction; None where there is
    none."""
    found = await conn.scalar(
        sa.select(head.c.deletion).where(head.c.id == pipeline_id, head.c.tenant == tenant).with_for_update()
    )
    return None if found is None else Deletion(found)


async def acknowledge(conn: AsyncConnection, pipeline_id: UUID, owner: str) -> None:
    """Notes that an owner has purged a locked, deleted pipeline, and forgets it when all have."""
    await conn.execute(
        insert(acknowledgement).values(pipeline_id=pipeline_id, owner=owner).on_conflict_do_nothing()
    )
    owners = await conn.scalars(
        sa.select(acknowledgement.c.owner).where(acknowledgement.c.pipeline_id == pipeline_id)
    )
    if purged_everywhere(owners.all()):
        await conn.execute(sa.delete(pipeline_version).where(pipeline_version.c.pipeline_id == pipeline_id))
        await conn.execute(sa.delete(head).where(head.c.id == pipeline_id))


# A literal and no parameter: only so does PostgreSQL know that the partial index applies.
_IS_CLOSING = head.c.deletion == sa.literal_column(f"'{Deletion.CLOSING}'")
_ATTEMPT = (head.c.id, head.c.tenant, head.c.deletion_attempt, head.c.deletion_force, head.c.deletion_by)


def _attempt(row: AnyRow) -> Attempt:
    return Attempt(row.id, row.tenant, row.deletion_attempt, row.deletion_force, row.deletion_by)
