"""Starts the runs of ticks that were decided to run."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from headrace.execution.v1 import runs_pb2
from headrace_chassis import faults, outbox
from headrace_chassis.agents import Agent
from headrace_chassis.database import Database
from headrace_chassis.errors import HeadraceError
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_scheduler import metrics
from headrace_scheduler.application.events import RefusedStart, refused_events
from headrace_scheduler.application.execution import Decided, Execution, Start
from headrace_scheduler.application.schedules import Clock
from headrace_scheduler.store import ticks as store
from headrace_scheduler.store.ticks import DueTick, Settled

BATCH = 200
"""The most starts a call: as many as execution decides in one transaction, so that no call ends in a small
one."""

PATIENCE = timedelta(seconds=1)
"""How long a tick waits whose start has failed."""


class TickStarter(Agent):
    """Leases due ticks, asks execution to start their runs under keys of their own, and writes what came of
    it. Where this process dies anywhere on that way, another leases them when the lease is over and asks
    again: execution answers the same key alike.

    `settled` is called when schedules may go on.
    """

    interval_seconds = 2.0

    def __init__(
        self, db: Database, execution: Execution, clock: Clock, *, settled: Callable[[], None], lane: int = 0
    ) -> None:
        self.name = f"tick_starter_{lane}"
        self._db = db
        self._execution = execution
        self._clock = clock
        self._settled = settled
        # A tick is left to the process that starts it for longer than that asks execution.
        self._lease = timedelta(seconds=execution.start_seconds * 1.5)

    async def run_once(self) -> bool:
        """Starts one batch; returns whether more is waiting."""
        due, now = await self._db.run(self._claim)
        if not due:
            return False
        faults.point("scheduler.tick.leased")
        by_tenant: defaultdict[UUID, list[DueTick]] = defaultdict(list)
        for tick in due:
            by_tenant[tick.tenant].append(tick)
        failed = [
            error
            for error in await asyncio.gather(
                *(self._start(tenant, ticks, now) for tenant, ticks in by_tenant.items())
            )
            if error is not None
        ]
        self._settled()
        if failed:
            raise failed[0]
        return len(due) == BATCH

    async def _claim(self, conn: AsyncConnection) -> tuple[Sequence[DueTick], datetime]:
        now = await self._clock(conn)
        return await store.claim(conn, now, self._lease, BATCH), now

    async def _start(self, tenant: UUID, ticks: Sequence[DueTick], now: datetime) -> HeadraceError | None:
        """Starts ticks of a tenant; returns what keeps it from that for now."""
        try:
            decided = await self._execution.start_each(tenant, [_start_of(tick) for tick in ticks])
        except HeadraceError as error:
            await self._db.run(lambda conn: store.release(conn, ticks, now + PATIENCE))
            return error
        faults.point("scheduler.tick.started")
        await self._db.run(lambda conn: self._settle(conn, ticks, decided))
        faults.point("scheduler.tick.settled")
        return None

    async def _settle(
        self, conn: AsyncConnection, ticks: Sequence[DueTick], decided: Sequence[Decided]
    ) -> None:
        pairs = list(zip(ticks, decided, strict=True))
        settled = [_settled_as(tick, each) for tick, each in pairs]
        written = await store.settle(conn, settled)
        refused = [
            _refused(tick, each)
            for tick, each in pairs
            if each.is_trouble and (tick.schedule_id, tick.at) in written
        ]
        if refused:
            await outbox.append(conn, list(refused_events("schedule", refused)))
        now = await self._clock(conn)
        for tick, each in zip(ticks, settled, strict=True):
            metrics.TICKS.labels(each.state, each.reason or "").inc()
            if each.state == "FIRED" and not tick.is_caught_up:
                metrics.LATENESS.observe(max((now - tick.at).total_seconds(), 0.0))


def _start_of(tick: DueTick) -> Start:
    return Start(
        key=tick.key,
        pipeline_id=tick.pipeline_id,
        trigger=runs_pb2.TRIGGER_KIND_SCHEDULE,
        trigger_id=str(tick.schedule_id),
        triggered_by=tick.created_by,
        parameters=tick.parameters,
        logical_date=tick.at,
        interval_start=tick.interval_start,
        overlap=tick.overlap,
        queue_limit=tick.queue_limit,
    )


def _settled_as(tick: DueTick, decided: Decided) -> Settled:
    state = "FIRED" if decided.is_run else "SKIPPED"
    return Settled(tick.schedule_id, tick.at, state, decided.run_id, decided.reason, decided.message)


def _refused(tick: DueTick, decided: Decided) -> RefusedStart:
    return RefusedStart(
        tenant=tick.tenant,
        workspace_id=tick.workspace_id,
        pipeline_id=tick.pipeline_id,
        schedule_id=tick.schedule_id,
        logical_date=tick.at,
        reason=decided.reason,
        message=decided.message,
    )
