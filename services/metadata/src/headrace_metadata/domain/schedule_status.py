"""How the events of schedules decide when a pipeline shows its next run."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID


@dataclass(frozen=True)
class ScheduleFact:
    """What an event says of a schedule."""

    schedule_id: UUID
    pipeline_id: UUID
    active: bool
    next_run_at: datetime | None
    is_deleted: bool = False


def latest_by_schedule(facts: Iterable[ScheduleFact]) -> list[ScheduleFact]:
    """The last fact of each schedule: the scheduler tells of one schedule in the order of what happened."""
    return list({fact.schedule_id: fact for fact in facts}.values())
