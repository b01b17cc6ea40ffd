"""Writing schedules, each in the caller's transaction, with the event of it."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from headrace_chassis import outbox
from headrace_chassis.errors import InvalidRequest, NotFound, Problem, VersionMismatch
from headrace_chassis.identity import Principal
from headrace_chassis.ids import uuid7
from headrace_timetable.public_holidays import country_of
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_scheduler.application.events import schedule_event
from headrace_scheduler.application.metadata import Found
from headrace_scheduler.domain.deciding import resumed_progress
from headrace_scheduler.domain.schedules import (
    Catchup,
    Change,
    ManagedBy,
    Overlap,
    Progress,
    Reprieve,
    Schedule,
    Status,
    Terms,
    Workspace,
)
from headrace_scheduler.domain.timing import BadTimes, demand_runs, timetable
from headrace_scheduler.errors import ScheduleManaged, invalid
from headrace_scheduler.store import pipelines, ticks
from headrace_scheduler.store import schedules as store
from headrace_scheduler.store.scope import Scope, scope_of

Clock = Callable[[AsyncConnection], Awaitable[datetime]]
"""Tells the time of the database: the only clock that schedules go by."""


@dataclass(frozen=True)
class NewTerms:
    """The terms of a schedule to create; `timezone` is empty where none was given."""

    terms: Terms
    status: Status
    limits_queue: bool = False
    """Whether it says how many runs may wait."""


class ScheduleWriter:
    """Creates, changes, pauses, resumes and deletes schedules."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def create(
        self, conn: AsyncConnection, principal: Principal, found: Found, new: NewTerms
    ) -> Schedule:
        """Adds a schedule of a pipeline; ticks count from now on.

        Raises:
            NotFound: the pipeline is deleted meanwhile.
            InvalidRequest: the terms are wrong.
        """
        await pipelines.note_workspace(conn, found.workspace, found.workspace_as_of)
        known = await pipelines.note(conn, found.pipeline)
        if known.is_deleted:
            raise NotFound("pipeline", found.pipeline.id)
        workspace = await pipelines.workspace(conn, principal.tenant, found.pipeline.workspace_id)
        terms = placed(new.terms, workspace)
        now = await self._clock(conn)
        check_terms(terms, workspace, now, limits_queue=new.limits_queue)
        return await add_schedule(
            conn, known, workspace, terms, ManagedBy.USER, new.status, principal.acts_as, now
        )

    async def update(
        self,
        conn: AsyncConnection,
        principal: Principal,
        schedule_id: UUID,
        change: Change,
        status: Status | None,
        expected: int | None,
    ) -> Schedule:
        """Changes a schedule. Ticks count from now on where its times change.

        Raises:
            NotFound, VersionMismatch: of the schedule as it is.
            ScheduleManaged: it follows its pipeline.
            InvalidRequest: the terms would be wrong.
        """
        before = await self._locked(conn, principal, schedule_id)
        if expected is not None and expected != before.version:
            raise VersionMismatch(expected, before.version)
        if before.managed_by is ManagedBy.PIPELINE:
            raise ScheduleManaged(before.id, before.pipeline_id)
        now = await self._clock(conn)
        terms = change.after(before.terms)
        if terms.times.country is None and (change.touches("country") or change.touches("timezone")):
            terms = placed(terms, await pipelines.workspace(conn, before.tenant, before.workspace_id))
        workspace = Workspace(before.workspace_id, before.tenant, holidays=before.own_holidays)
        check_terms(terms, workspace, now, limits_queue="queue_limit" in change.given)
        after = with_terms(before, terms, now)
        if status is not None and status is not before.status:
            after = paused(after) if status is Status.PAUSED else resumed(after, terms.catchup, None, now)
        return await save_changed(conn, before, after, "updated", now)

    async def pause(self, conn: AsyncConnection, principal: Principal, schedule_id: UUID) -> Schedule:
        """Pauses a schedule; nothing changes where it is paused.

        Raises:
            NotFound: there is no such schedule for the caller.
        """
        before = await self._locked(conn, principal, schedule_id)
        return await save_changed(conn, before, paused(before), "paused", await self._clock(conn))

    async def resume(
        self,
        conn: AsyncConnection,
        principal: Principal,
        schedule_id: UUID,
        catchup: Catchup | None,
        limit: int | None,
    ) -> Schedule:
        """Resumes a schedule; nothing changes where it is active. What it missed is decided by `catchup`, or
        by its own strategy.

        Raises:
            NotFound: there is no such schedule for the caller.
        """
        before = await self._locked(conn, principal, schedule_id)
        now = await self._clock(conn)
        after = before
        if before.status is Status.PAUSED:
            after = resumed(before, catchup or before.terms.catchup, limit, now)
        return await save_changed(conn, before, after, "resumed", now)

    async def delete(
        self, conn: AsyncConnection, principal: Principal, schedule_id: UUID, expected: int | None
    ) -> None:
        """Deletes a schedule with its ticks.

        Raises:
            NotFound, VersionMismatch: of the schedule as it is.
            ScheduleManaged: it follows its pipeline.
        """
        schedule = await self._locked(conn, principal, schedule_id)
        if expected is not None and expected != schedule.version:
            raise VersionMismatch(expected, schedule.version)
        if schedule.managed_by is ManagedBy.PIPELINE:
            raise ScheduleManaged(schedule.id, schedule.pipeline_id)
        await delete_schedule(conn, schedule)

    async def _locked(self, conn: AsyncConnection, principal: Principal, schedule_id: UUID) -> Schedule:
        schedule = await store.lock(conn, scope_of(principal), schedule_id)
        if schedule is None:
            raise NotFound("schedule", schedule_id)
        return schedule


def placed(terms: Terms, workspace: Workspace) -> Terms:
    """The terms with the zone and place that were not given: those of the workspace, or the country of the
    zone."""
    times = terms.times
    zone = times.timezone or workspace.timezone
    country, subdivision = times.country, times.subdivision
    if country is None:
        country = workspace.country or country_of(zone)
    if subdivision is None and country == workspace.country:
        subdivision = workspace.subdivision
    return replace(terms, times=replace(times, timezone=zone, country=country, subdivision=subdivision))


def check_terms(terms: Terms, workspace: Workspace, now: datetime, *, limits_queue: bool) -> None:
    """Demands terms that make sense and start a run some day. `limits_queue` says that the request gave a
    limit of its queue.

    Raises:
        InvalidRequest: naming each field that is wrong.
    """
    problems = term_problems(terms)
    if limits_queue and terms.overlap is not Overlap.QUEUE:
        problems.append(Problem("NOT_ALLOWED", "queueLimit", "only the overlapStrategy QUEUE takes a limit"))
    try:
        demand_runs(timetable(terms.times, workspace.holidays, terms.catchup, terms.catchup_limit), now)
    except BadTimes as bad:
        problems += invalid(bad).problems
    if problems:
        raise InvalidRequest(problems)


def term_problems(terms: Terms) -> list[Problem]:
    """What is wrong with terms beside their times."""
    problems = catchup_problems(terms.catchup, terms.catchup_limit)
    if not isinstance(json.loads(terms.parameters), dict):
        problems.append(Problem("INVALID_VALUE", "parameters", "must be a JSON object"))
    return problems


def catchup_problems(catchup: Catchup | None, limit: int | None) -> list[Problem]:
    """What is wrong with a strategy and its number."""
    if catchup is Catchup.RUN_LATEST_N and limit is None:
        return [Problem("REQUIRED", "catchupLimit", "RUN_LATEST_N needs how many: 1 to 1000")]
    if catchup is not Catchup.RUN_LATEST_N and limit is not None:
        return [Problem("NOT_ALLOWED", "catchupLimit", "only RUN_LATEST_N takes a number")]
    return []


async def add_schedule(
    conn: AsyncConnection,
    pipeline: pipelines.Pipeline,
    workspace: Workspace,
    terms: Terms,
    managed_by: ManagedBy,
    status: Status,
    created_by: str,
    now: datetime,
) -> Schedule:
    """Adds a schedule whose terms are checked, of a pipeline that is locked."""
    identity = uuid7()
    progress = Progress(decided_until=now, pipeline_active=pipeline.is_active)
    made = Schedule(
        id=identity,
        tenant=pipeline.tenant,
        workspace_id=pipeline.workspace_id,
        pipeline_id=pipeline.id,
        managed_by=managed_by,
        version=1,
        status=status,
        terms=terms,
        progress=progress,
        created_at=now,
        updated_at=now,
        created_by=created_by,
        own_holidays=workspace.holidays,
    )
    made = replace(made, progress=resumed_progress(made, now))
    await store.add(conn, made)
    await outbox.append(conn, [schedule_event("created", made)])
    return made


def with_terms(before: Schedule, terms: Terms, now: datetime) -> Schedule:
    """A schedule with other terms; where its times change, ticks of the past are none of the new ones."""
    progress = before.progress
    if terms.times != before.terms.times:
        progress = replace(progress, decided_until=max(progress.decided_until, now), reprieve=None)
    return replace(before, terms=terms, progress=progress)


def paused(schedule: Schedule) -> Schedule:
    """A schedule that starts no more runs."""
    return replace(schedule, status=Status.PAUSED)


def resumed(schedule: Schedule, catchup: Catchup, limit: int | None, now: datetime) -> Schedule:
    """A schedule that starts runs again; what it missed is to be decided by `catchup`."""
    if limit is None and catchup is schedule.terms.catchup:
        limit = schedule.terms.catchup_limit
    reprieve = Reprieve(now, catchup, limit, "PAUSED")
    return replace(schedule, status=Status.ACTIVE, progress=replace(schedule.progress, reprieve=reprieve))


async def save_changed(
    conn: AsyncConnection, before: Schedule, after: Schedule, what: str, now: datetime
) -> Schedule:
    """Writes a locked schedule with its event, where anything of it has changed; returns it as it is then."""
    if after == before:
        return before
    after = replace(
        after,
        version=before.version + 1,
        updated_at=now,
        progress=resumed_progress(after, now),
    )
    await store.save(conn, after, now)
    if not after.is_on and before.is_on:
        why = "PAUSED" if after.status is Status.PAUSED else "PIPELINE_INACTIVE"
        await ticks.skip_unasked(conn, after.id, why, "the schedule was turned off before its run started")
    await outbox.append(conn, [schedule_event(what, after)])
    saved = await store.get(conn, Scope(after.tenant), after.id)
    if saved is None:
        raise RuntimeError(f"schedule {after.id} vanished in its own transaction")
    return saved


async def delete_schedule(conn: AsyncConnection, schedule: Schedule) -> None:
    """Deletes a locked schedule with its ticks."""
    await store.delete(conn, schedule.id)
    await outbox.append(conn, [schedule_event("deleted", schedule)])
