"""The events of the scheduler: identities and times, never parameters."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import TypeAlias
from uuid import UUID

from headrace.scheduler.v1 import events_pb2
from headrace_chassis.messages import timestamp
from headrace_chassis.outbox import NewEvent

from headrace_scheduler.domain.schedules import Schedule

Missed: TypeAlias = Mapping[UUID, tuple[datetime, datetime]]
"""Of schedules, by id: the first and the last tick that they have missed."""


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
