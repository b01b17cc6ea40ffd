"""Lets held ticks go once their upstreams have succeeded."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from headrace_chassis.agents import Agent
from headrace_chassis.database import Database
from headrace_timetable import rules
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_scheduler.application.schedules import Clock
from headrace_scheduler.domain.dependencies import DependencyType
from headrace_scheduler.domain.schedules import Schedule
from headrace_scheduler.domain.timing import BadTimes, timetable_of
from headrace_scheduler.store import dependencies as store
from headrace_scheduler.store import held_ticks, schedules
from headrace_scheduler.store.held_ticks import HeldTick, Hold

BATCH = 200

LOOK_AGAIN = timedelta(minutes=1)
"""How long a tick is held before it is looked at again though nothing was told: the schedule of what it waits
for may have changed."""

MOST_HELD = 1000
"""How many ticks of a schedule are held at the most; beyond that the oldest are skipped."""

_DEEPEST = 20


@dataclass(frozen=True)
class Wanted:
    """The interval of an upstream that a tick waits for, by its end."""

    pipeline_id: UUID
    until: datetime
    state: str | None
    """How the upstream ended for it, if it did."""

    @property
    def message(self) -> str:
        """What is waited for, in words."""
        so_far = f"its run {self.state.lower()}" if self.state else "it has not ended yet"
        return (
            f"waits for pipeline {self.pipeline_id} to complete for the interval until "
            f"{self.until.isoformat()}; {so_far}"
        )


class DependencyGate(Agent):
    """Looks at held ticks: at new ones, at those whose upstream has ended, and at the others now and then. A
    tick goes when each STRONG upstream has completed for its latest interval that ends at or before the
    tick's. `released` is called when some go."""

    name = "dependency_gate"
    interval_seconds = 5.0

    def __init__(self, db: Database, clock: Clock, *, released: Callable[[], None]) -> None:
        self._db = db
        self._clock = clock
        self._released = released

    async def run_once(self) -> bool:
        """Looks at one batch; returns whether more is waiting."""
        looked, gone = await self._db.run(self._look)
        if gone:
            self._released()
        return looked == BATCH

    async def _look(self, conn: AsyncConnection) -> tuple[int, int]:
        now = await self._clock(conn)
        held = await held_ticks.lock(conn, now - LOOK_AGAIN, BATCH)
        if not held:
            return 0, 0
        waiting: list[tuple[HeldTick, Wanted]] = []
        free: list[HeldTick] = []
        for tick in held:
            wanted = await self._first_wanted(conn, tick)
            if wanted is None:
                free.append(tick)
            else:
                waiting.append((tick, wanted))
        await held_ticks.let_go(conn, free)
        holds = [Hold(tick, each.pipeline_id, each.until, each.message) for tick, each in waiting]
        await held_ticks.hold(conn, holds, now)
        await held_ticks.skip_beyond(conn, {tick.schedule_id for tick, _ in waiting}, MOST_HELD)
        return len(held), len(free)

    async def _first_wanted(self, conn: AsyncConnection, tick: HeldTick) -> Wanted | None:
        """The first upstream that has not completed; None where all have."""
        for upstream in await store.upstreams(conn, tick.pipeline_id, DependencyType.STRONG):
            until = await latest_interval_end(conn, upstream, tick.at)
            if until is None:
                continue  # it has no interval before that, so there is nothing to wait for
            state = await store.state_at(conn, upstream, until)
            if state != "COMPLETED":
                return Wanted(upstream, until, state)
        return None


async def latest_interval_end(
    conn: AsyncConnection, pipeline_id: UUID, at: datetime, depth: int = 0
) -> datetime | None:
    """The end of a pipeline's latest interval that ends at an instant or before; None where it has none.

    One with schedules has the intervals of their ticks; one without inherits those of its upstreams.
    """
    own = await schedules.of_pipeline(conn, pipeline_id)
    if own:
        ends = [await _latest_tick(conn, schedule, at) for schedule in own]
    elif depth < _DEEPEST:
        above = await store.upstreams(conn, pipeline_id)
        ends = [await latest_interval_end(conn, upstream, at, depth + 1) for upstream in above]
    else:
        ends = []
    return max((end for end in ends if end is not None), default=None)


async def _latest_tick(conn: AsyncConnection, schedule: Schedule, at: datetime) -> datetime | None:
    """The latest tick until an instant that ran or is going to. What is decided is looked up; what is not
    decided yet, the timetable tells."""
    decided_until = schedule.progress.decided_until
    if schedule.is_on and at > decided_until:
        try:
            plan = timetable_of(schedule)
        except BadTimes:
            plan = None  # the ticker tells of it; nothing of it is going to run
        to_come = rules.latest(plan, decided_until, at, 1) if plan else []
        if to_come:
            return to_come[-1]
    return await held_ticks.latest_started(conn, schedule.id, at)
