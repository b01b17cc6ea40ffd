"""BackfillService."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from itertools import islice
from uuid import UUID

from headrace.scheduler.v1 import backfills_pb2 as pb
from headrace.scheduler.v1 import backfills_pb2_grpc
from headrace_chassis.call_context import remaining_seconds
from headrace_chassis.database import Database
from headrace_chassis.errors import InvalidCursor, NotFound
from headrace_chassis.identity import Principal, current_principal
from headrace_chassis.messages import optional_id
from headrace_chassis.pages import Pages
from headrace_chassis.paging import Cursors
from headrace_chassis.writes import Writes
from headrace_timetable.intervals import intervals
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_scheduler import backfill_convert as convert
from headrace_scheduler.application.backfills import BackfillWriter
from headrace_scheduler.application.execution import Execution
from headrace_scheduler.application.metadata import Metadata
from headrace_scheduler.domain.backfills import Backfill, BackfillEnded, BackfillInterval, IntervalState
from headrace_scheduler.errors import BackfillFinished
from headrace_scheduler.servicers import Context
from headrace_scheduler.store import backfill_intervals as interval_store
from headrace_scheduler.store import backfills as store
from headrace_scheduler.store.scope import listed, scope_of

SHOWN_OF_A_PLAN = 20
"""How many intervals the answer to a dry run shows."""

CANCEL_WAIT_SECONDS = 10.0
"""How long a cancel waits for the runs to end."""

_LOOK_SECONDS = 0.1

Change = Callable[[AsyncConnection, Principal, UUID], Awaitable[Backfill]]


class BackfillServicer(backfills_pb2_grpc.BackfillServiceServicer):
    """Serves backfills. `changed` is called after each write, since there may be something to start or to
    stop."""

    def __init__(
        self,
        *,
        db: Database,
        writes: Writes,
        writer: BackfillWriter,
        metadata: Metadata,
        execution: Execution,
        cursors: Cursors,
        changed: Callable[[], None],
    ) -> None:
        self._db = db
        self._writes = writes
        self._writer = writer
        self._metadata = metadata
        self._execution = execution
        self._changed = changed
        self._pages = Pages[Backfill](
            cursors, "backfills", (datetime, UUID), lambda backfill: (backfill.created_at, backfill.id)
        )
        self._interval_pages = Pages[BackfillInterval](
            cursors,
            "backfill intervals",
            (UUID, int),
            lambda interval: (interval.backfill_id, interval.number),
        )

    async def ListBackfills(
        self, request: pb.ListBackfillsRequest, context: Context
    ) -> pb.ListBackfillsResponse:
        limit, after = self._pages.begin(request)
        scope = listed(current_principal(), optional_id(request.workspace_id))
        filters = store.BackfillFilters(optional_id(request.pipeline_id), convert.status(request.status))
        async with self._db.read() as conn:
            found = await store.page(conn, scope, filters, after, limit + 1)  # type: ignore[arg-type]
            total = await store.count(conn, scope, filters) if request.include_total else None
        items, meta = self._pages.end(found, limit, total)
        return pb.ListBackfillsResponse(data=map(convert.backfill_message, items), meta=meta)

    async def CreateBackfill(self, request: pb.CreateBackfillRequest, context: Context) -> pb.Backfill:
        principal = current_principal()
        new = convert.new_backfill(request)
        found = await self._metadata.pipeline(principal, UUID(request.pipeline_id))
        await self._execution.check_parameters(
            principal.tenant, found.pipeline.id, new.parameters, field="parameterOverrides"
        )
        if request.dry_run:
            async with self._db.read() as conn:
                plan = await self._writer.plan(conn, principal, found, new)
            return convert.plan_message(plan, _first_intervals(plan))

        async def apply(conn: AsyncConnection) -> pb.Backfill:
            return convert.backfill_message(await self._writer.create(conn, principal, found, new))

        made = await self._writes.keyed(pb.Backfill, apply)
        self._changed()
        return made

    async def GetBackfillProgress(
        self, request: pb.GetBackfillProgressRequest, context: Context
    ) -> pb.Backfill:
        return convert.backfill_message(await self._get(request.id))

    async def ListBackfillIntervals(
        self, request: pb.ListBackfillIntervalsRequest, context: Context
    ) -> pb.ListBackfillIntervalsResponse:
        backfill = await self._get(request.id)
        limit, place = self._interval_pages.begin(request)
        if place is not None and place[0] != backfill.id:
            raise InvalidCursor
        after = int(place[1]) if place else 0  # type: ignore[arg-type]
        states = convert.states(request.state, backfill.status)
        async with self._db.read() as conn:
            found = await interval_store.page(conn, backfill.id, states, after, limit + 1)
            total = None
            if request.include_total:
                tally = await interval_store.tally(conn, backfill.id)
                total = sum(tally[state] for state in states)
        items, meta = self._interval_pages.end(found, limit, total)
        data = [convert.interval_message(interval, backfill.status) for interval in items]
        return pb.ListBackfillIntervalsResponse(data=data, meta=meta)

    async def PauseBackfill(self, request: pb.PauseBackfillRequest, context: Context) -> pb.Backfill:
        return await self._change(request.id, self._writer.pause)

    async def ResumeBackfill(self, request: pb.ResumeBackfillRequest, context: Context) -> pb.Backfill:
        return await self._change(request.id, self._writer.resume)

    async def RetryBackfill(self, request: pb.RetryBackfillRequest, context: Context) -> pb.Backfill:
        return await self._change(request.id, self._writer.retry)

    async def CancelBackfill(self, request: pb.CancelBackfillRequest, context: Context) -> pb.Backfill:
        told = await self._change(request.id, self._writer.cancel)
        remaining = remaining_seconds()
        wait = CANCEL_WAIT_SECONDS if remaining is None else min(CANCEL_WAIT_SECONDS, remaining / 2)
        until = time.monotonic() + wait
        while told.running_intervals and time.monotonic() < until:
            # Another replica may be the one that hears of the ends, so it is the rows that are looked at.
            await asyncio.sleep(_LOOK_SECONDS)
            told = convert.backfill_message(await self._get(request.id))
        return told

    async def _change(self, backfill_id: str, change: Change) -> pb.Backfill:
        principal = current_principal()

        async def apply(conn: AsyncConnection) -> pb.Backfill:
            try:
                return convert.backfill_message(await change(conn, principal, UUID(backfill_id)))
            except BackfillEnded as ended:
                raise BackfillFinished(ended.backfill_id, ended.status) from None

        changed = await self._writes.keyed(pb.Backfill, apply)
        self._changed()
        return changed

    async def _get(self, backfill_id: str) -> Backfill:
        async with self._db.read() as conn:
            found = await store.get(conn, scope_of(current_principal()), UUID(backfill_id))
        if found is None:
            raise NotFound("backfill", backfill_id)
        return found


def _first_intervals(plan: Backfill) -> list[BackfillInterval]:
    terms = plan.terms
    first = islice(intervals(terms.granularity, terms.zone, terms.span), SHOWN_OF_A_PLAN)
    return [
        BackfillInterval(plan.id, number, interval, IntervalState.PENDING)
        for number, interval in enumerate(first, start=1)
    ]
