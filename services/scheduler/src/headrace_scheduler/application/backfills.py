"""Writing backfills, each in the caller's transaction, with the event of it."""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from headrace.scheduler.v1 import backfill_events_pb2
from headrace_chassis import outbox
from headrace_chassis.errors import InvalidRequest, NotFound, Problem
from headrace_chassis.identity import Principal
from headrace_chassis.ids import uuid7
from headrace_timetable import check_timezone
from headrace_timetable.intervals import Granularity, Interval, count, intervals, range_of
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_scheduler.application.metadata import Found
from headrace_scheduler.domain import backfills as rules
from headrace_scheduler.domain.backfills import (
    MOST_INTERVALS,
    Backfill,
    BackfillStatus,
    Counts,
    Move,
    Priority,
    Terms,
)
from headrace_scheduler.store import backfill_intervals as interval_store
from headrace_scheduler.store import backfills as store
from headrace_scheduler.store import pipelines
from headrace_scheduler.store.scope import scope_of

Clock = Callable[[AsyncConnection], Awaitable[datetime]]
"""Tells the time of the database."""

_IN_A_ROW = 500
"""How many intervals are made before others get their turn."""


@dataclass(frozen=True)
class NewBackfill:
    """A backfill as it was asked for; `timezone` is empty where none was given."""

    first: str
    last: str
    granularity: Granularity
    timezone: str
    concurrency: int
    priority: Priority
    parameters: str


class BackfillWriter:
    """Creates, pauses, resumes, cancels and retries backfills."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def plan(
        self, conn: AsyncConnection, principal: Principal, found: Found, new: NewBackfill
    ) -> Backfill:
        """The backfill that a request would create, with how many intervals it has.

        Raises:
            InvalidRequest: naming each field that is wrong.
        """
        pipeline = found.pipeline
        zone_name = new.timezone or await store.only_zone_of_schedules(conn, principal.tenant, pipeline.id)
        terms = _terms(new, zone_name or "UTC")
        # In a thread, so that counting twenty years of hours holds nobody up.
        total = await asyncio.to_thread(count, terms.granularity, terms.zone, terms.span, MOST_INTERVALS)
        if total > MOST_INTERVALS:
            message = (
                f"the range has more than {MOST_INTERVALS} intervals; take a shorter one, or longer intervals"
            )
            raise InvalidRequest([Problem("TOO_MANY_INTERVALS", "to", message)])
        return Backfill(
            id=uuid7(),
            tenant=principal.tenant,
            workspace_id=pipeline.workspace_id,
            pipeline_id=pipeline.id,
            terms=terms,
            status=BackfillStatus.PENDING,
            counts=Counts(pending=total),
            created_at=await self._clock(conn),
            created_by=principal.acts_as,
        )

    async def create(
        self, conn: AsyncConnection, principal: Principal, found: Found, new: NewBackfill
    ) -> Backfill:
        """Adds a backfill with all its intervals.

        Raises:
            NotFound: the pipeline is deleted meanwhile.
            InvalidRequest: naming each field that is wrong.
        """
        known = await pipelines.note(conn, found.pipeline)
        if known.is_deleted:
            raise NotFound("pipeline", found.pipeline.id)
        backfill = await self.plan(conn, principal, found, new)
        await store.add(conn, backfill, _numbered(backfill.terms))
        await outbox.append(conn, [backfill_event("created", backfill)])
        return backfill

    async def pause(self, conn: AsyncConnection, principal: Principal, backfill_id: UUID) -> Backfill:
        """Pauses a backfill.

        Raises:
            NotFound: there is no such backfill for the caller.
            BackfillEnded: it has ended.
        """
        before = await self._locked(conn, principal, backfill_id)
        return await _save_changed(conn, before, rules.paused(before), "paused")

    async def resume(self, conn: AsyncConnection, principal: Principal, backfill_id: UUID) -> Backfill:
        """Resumes a backfill.

        Raises:
            NotFound: there is no such backfill for the caller.
            BackfillEnded: it has ended.
        """
        before = await self._locked(conn, principal, backfill_id)
        return await _save_changed(conn, before, rules.resumed(before), "resumed")

    async def cancel(self, conn: AsyncConnection, principal: Principal, backfill_id: UUID) -> Backfill:
        """Cancels a backfill; its live intervals are looked after at once.

        Raises:
            NotFound: there is no such backfill for the caller.
            BackfillEnded: it has ended otherwise.
        """
        before = await self._locked(conn, principal, backfill_id)
        now = await self._clock(conn)
        after = rules.cancelled(before, now)
        if after != before:
            await interval_store.hurry(conn, backfill_id, now)
        return await _save_changed(conn, before, after, "cancelled")

    async def retry(self, conn: AsyncConnection, principal: Principal, backfill_id: UUID) -> Backfill:
        """Tries the intervals again that failed or were cancelled.

        Raises:
            NotFound: there is no such backfill for the caller.
            BackfillEnded: it was cancelled, or has completed.
        """
        before = await self._locked(conn, principal, backfill_id)
        after = rules.retried(before)
        if after != before:
            await interval_store.try_again(conn, backfill_id)
        return await _save_changed(conn, before, after, "retried")

    async def _locked(self, conn: AsyncConnection, principal: Principal, backfill_id: UUID) -> Backfill:
        backfill = await store.lock(conn, scope_of(principal), backfill_id)
        if backfill is None:
            raise NotFound("backfill", backfill_id)
        return backfill


async def record(
    conn: AsyncConnection, moves: Sequence[Move], now: datetime, look_again: datetime, rests_until: datetime
) -> None:
    """Writes what became of attempts, in the backfills that there still are, and ends those that are done.

    Runs of cancelled backfills are looked after at once, others at `look_again`. Backfills of which an
    interval goes back to PENDING, because its pipeline had no room, rest until `rests_until`.
    """
    by_backfill: defaultdict[UUID, list[Move]] = defaultdict(list)
    for move in moves:
        by_backfill[move.backfill_id].append(move)
    ended = []
    for backfill_id, before in (await store.lock_all(conn, list(by_backfill))).items():
        due_at = now if before.status is BackfillStatus.CANCELLED else look_again
        moved = await interval_store.move(conn, backfill_id, by_backfill[backfill_id], now, due_at)
        after = rules.after_moves(before, moved, now, rests_until)
        if after != before:
            await store.save(conn, after)
        if after.status is not before.status:
            ended.append(backfill_event(after.status.value.lower(), after))
    await outbox.append(conn, ended)


def backfill_event(what: str, backfill: Backfill) -> outbox.NewEvent:
    """The event that something happened to a backfill."""
    payload = backfill_events_pb2.BackfillEvent(
        backfill_id=str(backfill.id),
        pipeline_id=str(backfill.pipeline_id),
        workspace_id=str(backfill.workspace_id),
        total_intervals=backfill.counts.total,
        completed_intervals=backfill.counts.completed,
        failed_intervals=backfill.counts.failed,
    )
    return outbox.NewEvent(
        type=f"io.headrace.backfill.{what}.v1",
        tenant=backfill.tenant,
        subject=str(backfill.id),
        data=payload.SerializeToString(),
    )


async def _save_changed(conn: AsyncConnection, before: Backfill, after: Backfill, what: str) -> Backfill:
    if after != before:
        await store.save(conn, after)
        await outbox.append(conn, [backfill_event(what, after)])
    return after


def _terms(new: NewBackfill, zone_name: str) -> Terms:
    problems = []
    if not isinstance(json.loads(new.parameters), dict):
        problems.append(Problem("INVALID_VALUE", "parameterOverrides", "must be a JSON object"))
    zone = check_timezone(zone_name)
    try:
        span = range_of(new.first, new.last, zone)
    except ValueError as error:
        problems.append(Problem("INVALID_RANGE", "from", str(error)))
    if problems:
        raise InvalidRequest(problems)
    return Terms(
        first=new.first,
        last=new.last,
        span=span,
        granularity=new.granularity,
        zone=zone,
        concurrency=new.concurrency,
        priority=new.priority,
        parameters=new.parameters,
    )


async def _numbered(terms: Terms) -> AsyncIterator[tuple[int, Interval]]:
    for number, interval in enumerate(intervals(terms.granularity, terms.zone, terms.span), start=1):
        yield number, interval
        if number % _IN_A_ROW == 0:
            await asyncio.sleep(0)  # others get their turn
