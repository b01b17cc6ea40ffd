"""Follows the scheduler's events, where there is one: what it could not do is told of the pipelines."""

from collections.abc import Iterator, Sequence
from datetime import UTC
from typing import Final
from uuid import UUID

from headrace.common.v1 import event_log_pb2
from headrace.scheduler.v1 import dependency_events_pb2, events_pb2
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_execution.alerting.recording import Verdict, record
from headrace_execution.alerting.telling import tell_of_alerts
from headrace_execution.domain.alerts import Finding, Rule, Severity
from headrace_execution.store.sql import SqlStore

TICKED: Final = "io.headrace.schedule.ticked.v1"
RELEASED: Final = "io.headrace.dependency.released.v1"
REFUSED: Final = ("io.headrace.schedule.refused.v1", "io.headrace.dependency.refused.v1")
SCHEDULER_EVENTS: Final = (TICKED, RELEASED, *REFUSED)


class ScheduleFollower:
    """Makes alerts in the transaction of the consumer's position."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store

    async def handle(self, conn: AsyncConnection, events: Sequence[event_log_pb2.Event]) -> None:
        """Has the effects of events. What is deleted is passed over."""
        found = [finding for event in events for finding in _findings(event)]
        if not found:
            return
        tx = await self._store.join(conn)
        gone = await tx.pipelines.enter({finding.pipeline for finding in found})
        found = [finding for finding in found if finding.pipeline not in gone]
        await tell_of_alerts(tx, await record(tx, [Verdict(found)]))


def _findings(event: event_log_pb2.Event) -> Iterator[Finding]:
    if event.type == RELEASED:
        yield _released(event, dependency_events_pb2.DependencyEvent.FromString(event.data))
    elif event.type in REFUSED:
        for start in events_pb2.StartsRefusedEvent.FromString(event.data).starts:
            yield _refused(event, start)
    elif event.type == TICKED:
        for schedule in events_pb2.SchedulesTickedEvent.FromString(event.data).schedules:
            if schedule.HasField("missed_since"):
                yield _missed(event, schedule)


def _missed(event: event_log_pb2.Event, schedule: events_pb2.ScheduleEvent) -> Finding:
    first, last = (stamp.ToJsonString() for stamp in (schedule.missed_since, schedule.missed_until))
    ticks = f"ticks from {first} to {last}" if first != last else f"the tick of {first}"
    return Finding(
        rule=Rule.SCHEDULE_MISSED,
        severity=Severity.WARNING,
        tenant=UUID(event.tenant),
        workspace=UUID(schedule.workspace_id),
        pipeline=UUID(schedule.pipeline_id),
        message=f"{ticks} passed without a run: nothing decided on it in time",
        at=event.time.ToDatetime(UTC),
        as_of=schedule.missed_until.ToDatetime(UTC),
        details={"scheduleId": schedule.schedule_id, "missedSince": first, "missedUntil": last},
    )


def _refused(event: event_log_pb2.Event, start: events_pb2.RefusedStart) -> Finding:
    details = {"reason": start.reason}
    if start.HasField("schedule_id"):
        details["scheduleId"] = start.schedule_id
    if start.HasField("logical_date"):
        details["logicalDate"] = start.logical_date.ToJsonString()
    at = event.time.ToDatetime(UTC)
    by = "its schedule" if start.HasField("schedule_id") else "its upstreams"
    return Finding(
        rule=Rule.START_REFUSED,
        severity=Severity.CRITICAL,
        tenant=UUID(event.tenant),
        workspace=UUID(start.workspace_id),
        pipeline=UUID(start.pipeline_id),
        message=f"the run that {by} was to start was refused: {start.message}",
        at=at,
        as_of=at,
        details=details,
    )


def _released(event: event_log_pb2.Event, dependency: dependency_events_pb2.DependencyEvent) -> Finding:
    upstream, at = dependency.upstream_pipeline_id, event.time.ToDatetime(UTC)
    return Finding(
        rule=Rule.UPSTREAM_DELETED,
        severity=Severity.WARNING,
        tenant=UUID(event.tenant),
        workspace=UUID(dependency.workspace_id),
        pipeline=UUID(dependency.downstream_pipeline_id),
        message=f"pipeline {upstream}, which it depended on, was deleted: it neither waits for it nor is "
        "started by it any more",
        at=at,
        as_of=at,
        details={"upstreamPipelineId": upstream},
    )
