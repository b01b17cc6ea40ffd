"""The audit trail in SQL. Rows are only ever added; a trigger refuses anything else."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from headrace_chassis.database import driver
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_metadata.domain.audit import AuditEvent, Deed, chained
from headrace_metadata.store.scope import Scope
from headrace_metadata.store.tables import AnyRow
from headrace_metadata.store.tables import audit_event as table

# The row of a tenant's chain is locked from here to the end of the transaction, so that numbers have no gaps
# and each event knows the hash before it. Whoever takes this lock takes no other afterwards.
_EXTEND = """
INSERT INTO audit_chain AS chain (tenant) VALUES ($1)
ON CONFLICT (tenant) DO UPDATE SET sequence = chain.sequence + 1
RETURNING sequence, hash, clock_timestamp() AS at
"""

_APPEND = """
WITH chain AS (UPDATE audit_chain SET hash = $13 WHERE tenant = $1)
INSERT INTO audit_event (
    tenant, sequence, at, actor, via, action, object_type, object_id, object_name, workspace_id, request_id,
    fields, hash, previous_hash
) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
"""


@dataclass(frozen=True)
class Filters:
    """What a list of events is narrowed by; all that are given must hold."""

    actor: str = ""
    action: str = ""
    object_type: str = ""
    object_id: UUID | None = None
    since: datetime | None = None
    until: datetime | None = None


async def append(conn: AsyncConnection, deed: Deed) -> AuditEvent:
    """Records a deed in the transaction of its effect, after everything else that takes locks there."""
    raw = driver(conn)
    place = await raw.fetchrow(_EXTEND, deed.tenant)
    if place is None:
        raise RuntimeError(f"the audit chain of tenant {deed.tenant} gave no place")
    event = chained(deed, place["sequence"], place["at"], place["hash"])
    await raw.execute(
        _APPEND,
        deed.tenant,
        event.sequence,
        event.at,
        deed.actor,
        deed.via,
        deed.action,
        deed.object_type,
        deed.object_id,
        deed.object_name,
        deed.workspace_id,
        deed.request_id,
        list(deed.fields),
        event.hash,
        event.previous_hash,
    )
    return event


async def page(
    conn: AsyncConnection, scope: Scope, filters: Filters, before: int | None, limit: int
) -> Sequence[AuditEvent]:
    """Events in scope, the latest first, below the number `before`."""
    statement = (
        sa.select(table).where(*_conditions(scope, filters)).order_by(table.c.sequence.desc()).limit(limit)
    )
    if before is not None:
        statement = statement.where(table.c.sequence < before)
    return [_event(row) for row in await conn.execute(statement)]


async def count(conn: AsyncConnection, scope: Scope, filters: Filters) -> int:
    """How many events in scope the filters leave."""
    counted = sa.select(sa.func.count()).select_from(table).where(*_conditions(scope, filters))
    return int(await conn.scalar(counted) or 0)


async def chain(conn: AsyncConnection, tenant: UUID, batch: int = 1000) -> AsyncIterator[AuditEvent]:
    """All events of a tenant from the first on, some at a time."""
    last = 0
    while True:
        statement = (
            sa.select(table)
            .where(table.c.tenant == tenant, table.c.sequence > last)
            .order_by(table.c.sequence)
            .limit(batch)
        )
        events = [_event(row) for row in await conn.execute(statement)]
        for event in events:
            yield event
        if len(events) < batch:
            return
        last = events[-1].sequence


async def end_of_chain(conn: AsyncConnection, tenant: UUID) -> tuple[int, bytes]:
    """The number and the hash of a tenant's last event, as the chain itself has them; 0 for none."""
    row = await driver(conn).fetchrow("SELECT sequence, hash FROM audit_chain WHERE tenant = $1", tenant)
    return (0, b"") if row is None else (row["sequence"], row["hash"])


def _conditions(scope: Scope, filters: Filters) -> list[sa.ColumnElement[bool]]:
    conditions = [scope.holds(table.c.tenant, table.c.workspace_id)]
    for column, wanted in (
        (table.c.actor, filters.actor),
        (table.c.action, filters.action),
        (table.c.object_type, filters.object_type),
        (table.c.object_id, filters.object_id),
    ):
        if wanted:
            conditions.append(column == wanted)
    if filters.since is not None:
        conditions.append(table.c.at >= filters.since)
    if filters.until is not None:
        conditions.append(table.c.at < filters.until)
    return conditions


def _event(row: AnyRow) -> AuditEvent:
    deed = Deed(
        tenant=row.tenant,
        actor=row.actor,
        action=row.action,
        object_type=row.object_type,
        object_id=row.object_id,
        object_name=row.object_name,
        workspace_id=row.workspace_id,
        request_id=row.request_id,
        fields=tuple(row.fields),
        via=row.via,
    )
    return AuditEvent(row.sequence, row.at, deed, row.hash, row.previous_hash)
