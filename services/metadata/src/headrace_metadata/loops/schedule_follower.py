"""Follows the schedules of the scheduler, so that each pipeline shows when it runs next."""

from collections.abc import Iterator, Sequence
from datetime import UTC
from uuid import UUID

from headrace.common.v1 import event_log_pb2
from headrace.scheduler.v1 import events_pb2
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_metadata.domain.schedule_status import ScheduleFact, latest_by_schedule
from headrace_metadata.store import schedule_status as store

_DELETED = "io.headrace.schedule.deleted.v1"
_TICKED = "io.headrace.schedule.ticked.v1"
SCHEDULE_EVENTS = (
    *(f"io.headrace.schedule.{what}.v1" for what in ("created", "updated", "paused", "resumed")),
    _DELETED,
    _TICKED,
)


async def follow_schedules(conn: AsyncConnection, events: Sequence[event_log_pb2.Event]) -> None:
    """Records what events of schedules say of their pipelines, in the consumer's transaction."""
    facts = latest_by_schedule(fact for event in events for fact in schedule_facts(event))
    await store.record(conn, facts)


def schedule_facts(event: event_log_pb2.Event) -> Iterator[ScheduleFact]:
    """What an event says of schedules."""
    if event.type == _TICKED:
        told = list(events_pb2.SchedulesTickedEvent.FromString(event.data).schedules)
    else:
        told = [events_pb2.ScheduleEvent.FromString(event.data)]
    for each in told:
        yield ScheduleFact(
            schedule_id=UUID(each.schedule_id),
            pipeline_id=UUID(each.pipeline_id),
            active=each.active,
            next_run_at=each.next_run_at.ToDatetime(tzinfo=UTC) if each.HasField("next_run_at") else None,
            is_deleted=event.type == _DELETED,
        )
