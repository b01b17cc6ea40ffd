"""ScheduleService."""

from collections.abc import Callable
from datetime import datetime
from itertools import islice
from uuid import UUID

from google.protobuf.empty_pb2 import Empty
from headrace.common.v1 import paging_pb2
from headrace.scheduler.v1 import schedules_pb2 as pb
from headrace.scheduler.v1 import schedules_pb2_grpc
from headrace_chassis.database import Database
from headrace_chassis.errors import InvalidRequest, NotFound, Problem
from headrace_chassis.idempotency import IdempotencyKey, current_key
from headrace_chassis.identity import current_principal
from headrace_chassis.ids import uuid7
from headrace_chassis.messages import optional_id
from headrace_chassis.pages import Pages
from headrace_chassis.paging import Cursors, page_limit
from headrace_chassis.writes import Writes
from headrace_timetable.merging import in_order
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_scheduler import convert
from headrace_scheduler.application.execution import Execution
from headrace_scheduler.application.metadata import Metadata
from headrace_scheduler.application.schedules import Clock, ScheduleWriter
from headrace_scheduler.domain.schedules import Schedule
from headrace_scheduler.domain.timing import timetable_of
from headrace_scheduler.servicers import Context
from headrace_scheduler.store import schedules as store
from headrace_scheduler.store.scope import Scope, listed, scope_of


class ScheduleServicer(schedules_pb2_grpc.ScheduleServiceServicer):
    """Serves schedules. `changed` is called after each write, since a schedule may be due sooner."""

    def __init__(
        self,
        *,
        db: Database,
        writes: Writes,
        writer: ScheduleWriter,
        metadata: Metadata,
        execution: Execution,
        cursors: Cursors,
        clock: Clock,
        changed: Callable[[], None],
    ) -> None:
        self._db = db
        self._writes = writes
        self._writer = writer
        self._metadata = metadata
        self._execution = execution
        self._clock = clock
        self._changed = changed
        self._pages = Pages[Schedule](
            cursors, "schedules", (datetime, UUID), lambda schedule: (schedule.created_at, schedule.id)
        )

    async def ListSchedules(
        self, request: pb.ListSchedulesRequest, context: Context
    ) -> pb.ListSchedulesResponse:
        limit, after = self._pages.begin(request)
        scope = listed(current_principal(), optional_id(request.workspace_id))
        filters = store.Filters(optional_id(request.pipeline_id), convert.status(request.status))
        async with self._db.read() as conn:
            found = await store.page(conn, scope, filters, after, limit + 1)  # type: ignore[arg-type]
            total = await store.count(conn, scope, filters) if request.include_total else None
        items, meta = self._pages.end(found, limit, total)
        return pb.ListSchedulesResponse(data=map(convert.schedule_message, items), meta=meta)

    async def CreateSchedule(self, request: pb.CreateScheduleRequest, context: Context) -> pb.Schedule:
        principal = current_principal()
        new = convert.new_terms(request)
        found = await self._metadata.pipeline(principal, UUID(request.pipeline_id))
        await self._execution.check_parameters(principal.tenant, found.pipeline.id, new.terms.parameters)

        async def apply(conn: AsyncConnection) -> pb.Schedule:
            return convert.schedule_message(await self._writer.create(conn, principal, found, new))

        made = await self._writes.keyed(pb.Schedule, apply)
        self._changed()
        return made

    async def GetSchedule(self, request: pb.GetScheduleRequest, context: Context) -> pb.Schedule:
        return convert.schedule_message(await self._get(request.id))

    async def UpdateSchedule(self, request: pb.UpdateScheduleRequest, context: Context) -> pb.Schedule:
        principal = current_principal()
        change, status = convert.change(request), convert.status(request.status)
        expected = request.expected_version if request.HasField("expected_version") else None
        if change.touches("parameters"):
            before = await self._get(request.id)
            parameters = change.after(before.terms).parameters
            await self._execution.check_parameters(principal.tenant, before.pipeline_id, parameters)

        async def apply(conn: AsyncConnection) -> pb.Schedule:
            saved = await self._writer.update(conn, principal, UUID(request.id), change, status, expected)
            if request.HasField("pipeline_id") and UUID(request.pipeline_id) != saved.pipeline_id:
                message = "a schedule stays with its pipeline; create one for the other pipeline"
                raise InvalidRequest([Problem("NOT_ALLOWED", "pipelineId", message)])
            return convert.schedule_message(saved)

        return await self._written(apply)

    async def DeleteSchedule(self, request: pb.DeleteScheduleRequest, context: Context) -> Empty:
        principal = current_principal()
        expected = request.expected_version if request.HasField("expected_version") else None

        async def apply(conn: AsyncConnection) -> None:
            await self._writer.delete(conn, principal, UUID(request.id), expected)

        await self._writes.plain(apply)
        return Empty()

    async def PauseSchedule(self, request: pb.PauseScheduleRequest, context: Context) -> pb.Schedule:
        principal = current_principal()

        async def apply(conn: AsyncConnection) -> pb.Schedule:
            return convert.schedule_message(await self._writer.pause(conn, principal, UUID(request.id)))

        return await self._writes.keyed(pb.Schedule, apply)

    async def ResumeSchedule(self, request: pb.ResumeScheduleRequest, context: Context) -> pb.Schedule:
        principal = current_principal()
        catchup, limit = convert.resumption(request)

        async def apply(conn: AsyncConnection) -> pb.Schedule:
            saved = await self._writer.resume(conn, principal, UUID(request.id), catchup, limit)
            return convert.schedule_message(saved)

        resumed = await self._writes.keyed(pb.Schedule, apply)
        self._changed()
        return resumed

    async def TriggerSchedule(
        self, request: pb.TriggerScheduleRequest, context: Context
    ) -> pb.TriggerScheduleResponse:
        principal = current_principal()
        schedule = await self._get(request.id)
        decided = await self._execution.trigger(principal, schedule, _trigger_key(current_key()))
        answer = convert.trigger_message(schedule, decided)

        async def apply(conn: AsyncConnection) -> pb.TriggerScheduleResponse:
            return answer

        # The key of the start made the run once; this keeps the answer for whoever asks again.
        return await self._writes.keyed(pb.TriggerScheduleResponse, apply)

    async def GetNextRuns(self, request: pb.GetNextRunsRequest, context: Context) -> pb.GetNextRunsResponse:
        limit = page_limit(request.limit)
        scope = listed(current_principal(), optional_id(request.workspace_id))
        pipeline_id, schedule_id = (
            optional_id(request.pipeline_id),
            optional_id(request.schedule_id),
        )
        async with self._db.read() as conn:
            now = await self._clock(conn)
            soonest = await store.soonest(conn, scope, pipeline_id, schedule_id, limit)
            if schedule_id is not None and not soonest:
                await self._demand(conn, scope, schedule_id)
        # A schedule beyond those whose next runs are the soonest has none among the first ones. Ticks that
        # are skipped may come before a schedule's next run: with those, all are looked at from now on.
        sources = [
            (
                schedule,
                timetable_of(schedule),
                now if request.include_skipped else schedule.progress.next_run_at or now,
                schedule.progress.decided_until if schedule.progress.held_until else None,
            )
            for schedule in soonest
        ]
        entries = islice(in_order(sources, now, skips=request.include_skipped), limit)
        return pb.GetNextRunsResponse(
            data=[convert.next_run_message(schedule, entry) for schedule, entry in entries],
            meta=paging_pb2.ListMeta(limit=limit),
        )

    async def _get(self, schedule_id: str) -> Schedule:
        async with self._db.read() as conn:
            found = await store.get(conn, scope_of(current_principal()), UUID(schedule_id))
        if found is None:
            raise NotFound("schedule", schedule_id)
        return found

    async def _demand(self, conn: AsyncConnection, scope: Scope, schedule_id: UUID) -> None:
        if await store.get(conn, scope, schedule_id) is None:
            raise NotFound("schedule", schedule_id)

    async def _written(self, apply: Callable[[AsyncConnection], object]) -> pb.Schedule:
        written: pb.Schedule = await self._writes.plain(apply)  # type: ignore[arg-type]
        self._changed()
        return written


def _trigger_key(given: IdempotencyKey | None) -> str:
    """What names a trigger: the caller's idempotency key, so that execution starts one run for it."""
    return str(uuid7()) if given is None else f"{given.lock() & (1 << 64) - 1:016x}"
