"""Decides the ticks of schedules whose time has come."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from headrace_chassis import faults, outbox
from headrace_chassis.agents import Agent
from headrace_chassis.database import Database
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_scheduler import metrics
from headrace_scheduler.application.events import ticked_events
from headrace_scheduler.application.schedules import Clock
from headrace_scheduler.domain.deciding import DecidedTick, decide
from headrace_scheduler.domain.schedules import Schedule
from headrace_scheduler.domain.timing import BadTimes
from headrace_scheduler.store import dependencies as dependency_store
from headrace_scheduler.store import schedules as store
from headrace_scheduler.store import ticks as tick_store

_log = structlog.get_logger(__name__)

BATCH = 250
"""The most schedules a transaction."""

MOST_TICKS = 2000
"""How many ticks a transaction decides before it leaves further schedules to the next."""

LONGEST_REST_SECONDS = 5.0
"""How long it rests at the most: a schedule that another replica has changed is found by then, should no
word of it come."""

UNREADABLE_FOR = timedelta(hours=1)


@dataclass(frozen=True)
class Round:
    """What a transaction decided."""

    schedules: int
    skipped: tuple[str, ...]
    """The reasons of the ticks that were skipped."""
    starting: int
    """How many runs are to start."""
    held: bool
    """Whether some of them wait for upstreams."""
    more: bool


class ScheduleTicker(Agent):
    """Claims schedules that are due, many in a transaction, and decides their ticks: each once, since the
    decision and how far the schedule has come are written together. Rests until the next one is due.

    Any number of replicas share the work: none waits for what another holds.
    """

    name = "schedule_ticker"
    interval_seconds = LONGEST_REST_SECONDS

    def __init__(
        self,
        db: Database,
        clock: Clock,
        grace: timedelta,
        *,
        start: Callable[[], None],
        look: Callable[[], None],
        tell: Callable[[], None],
    ) -> None:
        self._db = db
        self._clock = clock
        self._grace = grace
        self._start = start
        self._look = look
        self._tell = tell

    async def run_once(self) -> bool:
        """Decides one batch; returns whether more is due."""
        done = await self._db.run(self._decide)
        if done.schedules:
            faults.point("scheduler.tick.decided")
            for reason in done.skipped:
                metrics.TICKS.labels("SKIPPED", reason).inc()
            if done.starting:
                self._start()
            if done.held:
                self._look()
            self._tell()
        if not done.more:
            self.interval_seconds = await self._rest_seconds()
        return done.more

    async def _decide(self, conn: AsyncConnection) -> Round:
        now = await self._clock(conn)
        due = await store.lock_due(conn, now, BATCH)
        moved: list[Schedule] = []
        decided: list[tuple[UUID, UUID, DecidedTick]] = []
        for schedule in due:
            if len(decided) >= MOST_TICKS:
                break
            outcome = self._outcome(schedule, now)
            moved.append(outcome[0])
            decided += ((schedule.id, schedule.tenant, tick) for tick in outcome[1])
        faults.point("scheduler.tick.claimed")
        held = await self._held(conn, moved)
        moved = [_going_on(schedule) if schedule.id in held else schedule for schedule in moved]
        await tick_store.add(conn, decided, now, held)
        await store.save_progress(conn, [(schedule.id, schedule.progress) for schedule in moved])
        await outbox.append(conn, list(ticked_events(moved, _missed(decided))))
        faults.point("scheduler.tick.before_commit")
        return Round(
            schedules=len(moved),
            skipped=tuple(tick.reason or "" for _, _, tick in decided if not tick.starts),
            starting=sum(tick.starts for _, _, tick in decided),
            held=bool(held),
            more=len(due) == BATCH or len(moved) < len(due),
        )

    def _outcome(self, schedule: Schedule, now: datetime) -> tuple[Schedule, tuple[DecidedTick, ...]]:
        try:
            outcome = decide(schedule, now, self._grace)
        except BadTimes as error:
            # It was checked when it was written; what zones and holidays are known has changed since.
            _log.error("a schedule makes no timetable", schedule_id=str(schedule.id), error=str(error))
            metrics.UNREADABLE.inc()
            progress = replace(schedule.progress, next_due=now + UNREADABLE_FOR, next_run_at=None)
            return replace(schedule, progress=progress), ()
        return replace(schedule, progress=outcome.progress), outcome.ticks

    async def _held(self, conn: AsyncConnection, moved: Sequence[Schedule]) -> frozenset[UUID]:
        """Those of some schedules whose ticks wait for upstreams."""
        waiting = await dependency_store.waiting_pipelines(conn, {each.pipeline_id for each in moved})
        return frozenset(each.id for each in moved if each.pipeline_id in waiting)

    async def _rest_seconds(self) -> float:
        async with self._db.read() as conn:
            due, now = await store.next_due(conn), await self._clock(conn)
        if due is None:
            return LONGEST_REST_SECONDS
        return min(max((due - now).total_seconds(), 0.0), LONGEST_REST_SECONDS)


def _missed(decided: Iterable[tuple[UUID, UUID, DecidedTick]]) -> dict[UUID, tuple[datetime, datetime]]:
    """The first and the last of the ticks of each schedule that pass without a run, though it was on."""
    found: dict[UUID, tuple[datetime, datetime]] = {}
    for schedule_id, _, tick in decided:
        if tick.is_missed:
            first = found[schedule_id][0] if schedule_id in found else tick.at
            found[schedule_id] = first, tick.through
    return found


def _going_on(schedule: Schedule) -> Schedule:
    """The schedule, deciding further ticks though those before are held."""
    return replace(schedule, progress=replace(schedule.progress, starting=False))
