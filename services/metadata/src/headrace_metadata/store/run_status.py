"""What pipelines show of their latest runs, in SQL."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_metadata.domain.run_status import RunFact
from headrace_metadata.store.tables import pipeline_status as table


async def record(conn: AsyncConnection, tenant_facts: Sequence[RunFact]) -> int:
    """Writes the facts, one a pipeline, that are later than what is known; says how many were."""
    if not tenant_facts:
        return 0
    columns: dict[str, tuple[sa.types.TypeEngine[Any], list[Any]]] = {
        "pipeline_id": (sa.Uuid(), [fact.pipeline_id for fact in tenant_facts]),
        "status": (sa.Text(), [fact.status for fact in tenant_facts]),
        "run_id": (sa.Uuid(), [fact.run_id for fact in tenant_facts]),
        "phase": (sa.SmallInteger(), [int(fact.phase) for fact in tenant_facts]),
        "accepted_at": (sa.DateTime(timezone=True), [fact.accepted_at for fact in tenant_facts]),
        "finished_at": (sa.DateTime(timezone=True), [fact.finished_at for fact in tenant_facts]),
    }
    fact = (
        sa.func.unnest(*(sa.cast(values, ARRAY(kind)) for kind, values in columns.values()))
        .table_valued(*(sa.column(name, kind) for name, (kind, _) in columns.items()))
        .render_derived()
        .alias("fact")
    )
    # The order of domain.run_status.RunFact.order, as a guard: facts may come late, twice and in any order.
    is_later = sa.or_(
        table.c.run_id.is_(None),
        sa.tuple_(table.c.run_accepted_at, table.c.run_id, table.c.run_phase)
        < sa.tuple_(fact.c.accepted_at, fact.c.run_id, fact.c.phase),
    )
    moved = await conn.execute(
        sa.update(table)
        .where(table.c.pipeline_id == fact.c.pipeline_id, is_later)
        .values(
            status=fact.c.status,
            run_id=fact.c.run_id,
            run_phase=fact.c.phase,
            run_accepted_at=fact.c.accepted_at,
            run_finished_at=fact.c.finished_at,
        )
    )
    return moved.rowcount
