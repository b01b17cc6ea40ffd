"""Following metadata: schedules that pipelines manage, pipelines that are switched off or deleted, and the
calendars of workspaces. Each event has its effects in the transaction of the consumer's position."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from uuid import UUID

from headrace.common.v1 import event_log_pb2
from headrace.metadata.v1 import events_pb2
from headrace_chassis import outbox
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_scheduler.application.dependencies import release
from headrace_scheduler.application.events import schedule_event
from headrace_scheduler.application.schedules import (
    Clock,
    add_schedule,
    delete_schedule,
    placed,
    save_changed,
    with_terms,
)
from headrace_scheduler.domain.deciding import resumed_progress
from headrace_scheduler.domain.schedules import (
    Catchup,
    ManagedBy,
    Reprieve,
    Schedule,
    Status,
    Terms,
    Times,
    Workspace,
)
from headrace_scheduler.store import pipelines as store
from headrace_scheduler.store import schedules, ticks
from headrace_scheduler.store.pipelines import Pipeline

PIPELINE_CHANGED = ("io.headrace.pipeline.created.v1", "io.headrace.pipeline.updated.v1")
PIPELINE_DELETED = "io.headrace.pipeline.deleted.v1"
WORKSPACE_CHANGED = ("io.headrace.workspace.created.v1", "io.headrace.workspace.updated.v1")
EVENTS = (*PIPELINE_CHANGED, PIPELINE_DELETED, *WORKSPACE_CHANGED)

_OFF = "the pipeline was switched off before its run started"


class PipelineFollower:
    """Has the effects of metadata's events. `changed` is called with each batch: schedules may be due."""

    def __init__(self, clock: Clock, changed: Callable[[], None]) -> None:
        self._clock = clock
        self._changed = changed

    async def handle(self, conn: AsyncConnection, events: Sequence[event_log_pb2.Event]) -> None:
        """Follows events, in their order."""
        for event in events:
            if event.type in WORKSPACE_CHANGED:
                await self._workspace(
                    conn, UUID(event.tenant), events_pb2.WorkspaceEvent.FromString(event.data)
                )
                continue
            told = events_pb2.PipelineEvent.FromString(event.data)
            pipeline = Pipeline(
                id=UUID(told.pipeline_id),
                tenant=UUID(event.tenant),
                workspace_id=UUID(told.workspace_id),
                version=told.version,
                is_active=told.is_active,
            )
            if event.type == PIPELINE_DELETED:
                await self._deleted(conn, pipeline)
            else:
                await self._pipeline(conn, pipeline, told.schedule_cron, told.changed_by)
        self._changed()

    async def _pipeline(self, conn: AsyncConnection, told: Pipeline, cron: str, changed_by: str) -> None:
        known = await store.note(conn, told)
        if known.is_deleted or known.version != told.version:
            return
        now = await self._clock(conn)
        existing = await schedules.lock_of_pipeline(conn, told.tenant, told.id)
        switched = [await self._switch(conn, each, told.is_active, now) for each in existing]
        managed = next((each for each in switched if each.managed_by is ManagedBy.PIPELINE), None)
        if managed is not None:
            await self._manage(conn, managed, cron, now)
        elif cron:
            workspace = await store.workspace(conn, told.tenant, told.workspace_id)
            terms = placed(Terms(Times(cron_expression=cron, timezone="")), workspace)
            await add_schedule(
                conn, known, workspace, terms, ManagedBy.PIPELINE, Status.ACTIVE, changed_by, now
            )

    async def _manage(self, conn: AsyncConnection, schedule: Schedule, cron: str, now: datetime) -> None:
        if not cron:
            await delete_schedule(conn, schedule)
        elif cron != schedule.terms.times.cron_expression:
            times = replace(schedule.terms.times, cron_expression=cron)
            after = with_terms(schedule, replace(schedule.terms, times=times), now)
            await save_changed(conn, schedule, after, "updated", now)

    async def _switch(
        self, conn: AsyncConnection, schedule: Schedule, is_active: bool, now: datetime
    ) -> Schedule:
        """Turns a schedule off or on with its pipeline; what it missed meanwhile is passed over."""
        if schedule.progress.pipeline_active == is_active:
            return schedule
        reprieve = schedule.progress.reprieve
        if is_active:
            reprieve = Reprieve(now, Catchup.SKIP_TO_CURRENT, None, "PIPELINE_INACTIVE")
        progress = replace(schedule.progress, pipeline_active=is_active, reprieve=reprieve)
        moved = await self._move(conn, replace(schedule, progress=progress), now)
        if not is_active:
            await ticks.skip_unasked(conn, schedule.id, "PIPELINE_INACTIVE", _OFF)
        return moved

    async def _deleted(self, conn: AsyncConnection, pipeline: Pipeline) -> None:
        now = await self._clock(conn)
        await store.note_deleted(conn, pipeline, now)
        for schedule in await schedules.lock_of_pipeline(conn, pipeline.tenant, pipeline.id):
            await self._switch(conn, schedule, False, now)
        await release(conn, pipeline.id)

    async def _workspace(self, conn: AsyncConnection, tenant: UUID, told: events_pb2.WorkspaceEvent) -> None:
        workspace = Workspace(
            id=UUID(told.workspace_id),
            tenant=tenant,
            timezone=told.timezone or "UTC",
            country=told.country if told.HasField("country") else None,
            subdivision=told.subdivision if told.HasField("subdivision") else None,
            holidays=_dates(told.holidays),
        )
        if not await store.note_workspace(conn, workspace, told.updated_at.ToDatetime(tzinfo=UTC)):
            return
        now = await self._clock(conn)
        for schedule in await schedules.lock_with_holidays_of(conn, workspace.id):
            await self._move(conn, schedule, now)

    async def _move(self, conn: AsyncConnection, schedule: Schedule, now: datetime) -> Schedule:
        """Writes the progress of a locked schedule, and tells when its next run starts now."""
        moved = replace(schedule, progress=resumed_progress(schedule, now))
        await schedules.save_progress(conn, [(moved.id, moved.progress)])
        await outbox.append(conn, [schedule_event("updated", moved)])
        return moved


def _dates(days: Iterable[str]) -> tuple[date, ...]:
    return tuple(date.fromisoformat(day) for day in days)
