"""The events of the scheduler: identities and times, never parameters."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias
from uuid import UUID

from headrace.scheduler.v1 import events_pb2
from headrace_chassis.messages import timestamp
from headrace_chassis.outbox import NewEvent

from headrace_scheduler.domain.schedules import Schedule

Missed: TypeAlias = Mapping[UUID, tuple[datetime, datetime]]
"""Of schedules, by id: the first and the last tick that they have missed."""


@dataclass(frozen=True)
class RefusedStart:
    """A run that was to start by itself and cannot, until somebody mends something."""

    tenant: UUID
    workspace_id: UUID
    pipeline_id: UUID
    schedule_id: UUID | None
    """Whose tick it was; None where upstreams were to start it."""
    logical_date: datetime | None
    reason: str | None
    message: str | None


def schedule_event(what: str, schedule: Schedule) -> NewEvent:
    """The event that a schedule was created, updated, paused, resumed or deleted."""
    payload = _payload(schedule)
    if what == "deleted":
        payload.active = False
        payload.ClearField("next_run_at")
    return NewEvent(
        type=f"io.headrace.schedule.{what}.v1",
        tenant=schedule.tenant,
        subject=str(schedule.id),
        data=payload.SerializeToString(),
    )


def ticked_events(schedules: Iterable[Schedule], missed: Missed) -> Iterator[NewEvent]:
    """The events that ticks of schedules were decided: one for each tenant."""
    by_tenant: defaultdict[UUID, list[Schedule]] = defaultdict(list)
    for schedule in schedules:
        by_tenant[schedule.tenant].append(schedule)
    for tenant, ticked in by_tenant.items():
        payload = events_pb2.SchedulesTickedEvent(schedules=[_ticked(each, missed) for each in ticked])
        yield NewEvent(
            type="io.headrace.schedule.ticked.v1",
            tenant=tenant,
            subject=str(ticked[0].id),
            data=payload.SerializeToString(),
        )


def refused_events(of: str, refused: Iterable[RefusedStart]) -> Iterator[NewEvent]:
    """The events that starts of schedules or dependencies (`of`) were refused: one for each tenant."""
    by_tenant: defaultdict[UUID, list[RefusedStart]] = defaultdict(list)
    for each in refused:
        by_tenant[each.tenant].append(each)
    for tenant, starts in by_tenant.items():
        payload = events_pb2.StartsRefusedEvent(starts=map(_refused, starts))
        yield NewEvent(
            type=f"io.headrace.{of}.refused.v1",
            tenant=tenant,
            subject=str(starts[0].pipeline_id),
            data=payload.SerializeToString(),
        )


def _refused(start: RefusedStart) -> events_pb2.RefusedStart:
    return events_pb2.RefusedStart(
        pipeline_id=str(start.pipeline_id),
        workspace_id=str(start.workspace_id),
        schedule_id=None if start.schedule_id is None else str(start.schedule_id),
        logical_date=timestamp(start.logical_date),
        reason=start.reason or "",
        message=start.message or "",
    )


def _ticked(schedule: Schedule, missed: Missed) -> events_pb2.ScheduleEvent:
    payload = _payload(schedule)
    if schedule.id in missed:
        first, last = missed[schedule.id]
        payload.missed_since.FromDatetime(first)
        payload.missed_until.FromDatetime(last)
    return payload


def _payload(schedule: Schedule) -> events_pb2.ScheduleEvent:
    return events_pb2.ScheduleEvent(
        schedule_id=str(schedule.id),
        pipeline_id=str(schedule.pipeline_id),
        workspace_id=str(schedule.workspace_id),
        active=schedule.is_on,
        next_run_at=timestamp(schedule.progress.next_run_at),
    )
