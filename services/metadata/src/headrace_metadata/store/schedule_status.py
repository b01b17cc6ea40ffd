"""What pipelines show of their schedules, in SQL."""

from collections.abc import Sequence

from headrace_chassis.database import driver
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_metadata.domain.schedule_status import ScheduleFact

_LOCK = "SELECT FROM pipeline_status WHERE pipeline_id = ANY($1::uuid[]) ORDER BY pipeline_id FOR UPDATE"

_SAVE = """
INSERT INTO pipeline_schedule AS k (schedule_id, pipeline_id, active, next_run_at)
SELECT f.schedule_id, f.pipeline_id, f.active, f.next_run_at
FROM unnest($1::uuid[], $2::uuid[], $3::boolean[], $4::timestamptz[])
     AS f(schedule_id, pipeline_id, active, next_run_at)
JOIN pipeline_status AS s ON s.pipeline_id = f.pipeline_id
ON CONFLICT (schedule_id) DO UPDATE SET active = excluded.active, next_run_at = excluded.next_run_at
"""

# DRAFT and SCHEDULED are what a pipeline without runs shows; any run says more.
_SHOW = """
UPDATE pipeline_status AS s SET next_run_at = n.next_run_at,
       status = CASE WHEN s.run_id IS NOT NULL THEN s.status WHEN n.active THEN 'SCHEDULED' ELSE 'DRAFT' END
FROM (
    SELECT p.id, coalesce(bool_or(k.active), false) AS active,
           min(k.next_run_at) FILTER (WHERE k.active) AS next_run_at
    FROM unnest($1::uuid[]) AS p(id) LEFT JOIN pipeline_schedule AS k ON k.pipeline_id = p.id GROUP BY p.id
) AS n
WHERE s.pipeline_id = n.id
"""


async def record(conn: AsyncConnection, facts: Sequence[ScheduleFact]) -> None:
    """Writes facts, one a schedule, and what their pipelines show after them."""
    raw = driver(conn)
    pipelines = sorted({fact.pipeline_id for fact in facts})
    await raw.execute(_LOCK, pipelines)
    kept = [fact for fact in facts if not fact.is_deleted]
    await raw.execute(
        _SAVE,
        [fact.schedule_id for fact in kept],
        [fact.pipeline_id for fact in kept],
        [fact.active for fact in kept],
        [fact.next_run_at for fact in kept],
    )
    gone = [fact.schedule_id for fact in facts if fact.is_deleted]
    await raw.execute("DELETE FROM pipeline_schedule WHERE schedule_id = ANY($1::uuid[])", gone)
    await raw.execute(_SHOW, pipelines)
