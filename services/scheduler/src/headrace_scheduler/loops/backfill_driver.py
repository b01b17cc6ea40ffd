"""Starts the intervals of backfills, and looks after those that are live."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from uuid import UUID

from headrace_chassis import database, faults
from headrace_chassis.agents import Agent
from headrace_chassis.database import Database
from headrace_chassis.errors import HeadraceError
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_scheduler.application.backfill_starts import AT_ONCE, BackfillStarts
from headrace_scheduler.application.backfills import Clock, record
from headrace_scheduler.domain import backfills as rules
from headrace_scheduler.domain.backfills import IntervalState, Move
from headrace_scheduler.store import backfill_intervals as interval_store
from headrace_scheduler.store import backfills as store
from headrace_scheduler.store.backfill_intervals import Leased

BACKFILLS = 20
"""How many backfills have their turn in one round."""

SHARE = 200
"""How many intervals of one backfill start in one round, so that others have their turn."""

TRY_AGAIN = timedelta(seconds=3)
"""After a call that failed, and for runs that are being cancelled."""

RECONCILE = timedelta(seconds=60)
"""How often a running interval is asked for, in case that the event of its end is late or lost."""

REST = timedelta(seconds=5)
"""How long a backfill waits whose pipeline has no room."""


class BackfillDriver(Agent):
    """Each attempt is decided in a row (STARTING) before execution is asked for it under a key of its own, so
    that a crash at any point repeats a call and never a run. Several replicas drive at once. `committed` is
    called when there may be events to publish."""

    name = "backfill_driver"
    interval_seconds = 2.0

    def __init__(
        self,
        db: Database,
        starts: BackfillStarts,
        *,
        committed: Callable[[], None],
        clock: Clock = database.now,
    ) -> None:
        self._db = db
        self._starts = starts
        self._committed = committed
        self._clock = clock
        self.lease = timedelta(seconds=starts.start_seconds * 1.5)
        """How long a start is left to the process that makes it: longer than that asks execution."""

    async def run_once(self) -> bool:
        """Decides which intervals start, starts those, and looks after live ones that are due; returns
        whether more is waiting."""
        claimed = await self._db.run(self._claim)
        if claimed:
            faults.point("scheduler.backfill.claimed")
        due = await self._db.run(self._lease)
        failures = []
        for tenant, leased in (*_by_tenant(claimed), *_by_tenant(due)):
            try:
                await self._attend(tenant, leased)
            except HeadraceError as error:
                failures.append(error)
                await self._look_again(leased, TRY_AGAIN)
        if failures:
            raise failures[0]
        return bool(claimed) or len(due) == AT_ONCE

    async def _claim(self, conn: AsyncConnection) -> list[Leased]:
        now = await self._clock(conn)
        found: list[Leased] = []
        for backfill in await store.lock_with_room(conn, now, BACKFILLS):
            room = min(backfill.room, SHARE, AT_ONCE - len(found))
            if room == 0:
                break
            intervals = await interval_store.claim(conn, backfill.id, room, now + self.lease)
            await store.save(conn, rules.claimed(backfill, len(intervals), now))
            await store.note_claimed(conn, backfill.id, now)
            found += [interval_store.leased_of(backfill, interval) for interval in intervals]
        return found

    async def _lease(self, conn: AsyncConnection) -> Sequence[Leased]:
        return await interval_store.lease_due(conn, await self._clock(conn), self.lease, AT_ONCE)

    async def _attend(self, tenant: UUID, leased: Sequence[Leased]) -> None:
        """Asks execution what the intervals of one tenant need to have asked, and writes what it says."""

        def those(state: IntervalState, *, cancelled: bool) -> list[Leased]:
            return [each for each in leased if each.interval.state is state and each.cancelled is cancelled]

        if starting := those(IntervalState.STARTING, cancelled=False):
            await self._record(await self._starts.start(tenant, starting))
        if starting := those(IntervalState.STARTING, cancelled=True):
            await self._record(await self._starts.void(tenant, starting))
        if running := those(IntervalState.RUNNING, cancelled=False):
            await self._record(await self._starts.standings(tenant, running))
            await self._look_again(running, RECONCILE)
        if running := those(IntervalState.RUNNING, cancelled=True):
            await self._record(await self._starts.cancel(tenant, running))
            await self._look_again(running, TRY_AGAIN)

    async def _record(self, moves: Sequence[Move]) -> None:
        faults.point("scheduler.backfill.asked")
        if not moves:
            return

        async def write(conn: AsyncConnection) -> None:
            now = await self._clock(conn)
            await record(conn, moves, now, look_again=now + RECONCILE, rests_until=now + REST)

        await self._db.run(write)
        self._committed()

    async def _look_again(self, leased: Sequence[Leased], after: timedelta) -> None:
        async def write(conn: AsyncConnection) -> None:
            due_at = await self._clock(conn) + after
            await interval_store.look_again(conn, [each.interval for each in leased], due_at)

        await self._db.run(write)


def _by_tenant(leased: Iterable[Leased]) -> Iterable[tuple[UUID, list[Leased]]]:
    grouped: defaultdict[UUID, list[Leased]] = defaultdict(list)
    for each in leased:
        grouped[each.tenant].append(each)
    return grouped.items()
