"""Starts the runs that upstreams start."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from headrace.execution.v1 import runs_pb2
from headrace_chassis import faults, outbox
from headrace_chassis.agents import Agent
from headrace_chassis.database import Database
from headrace_chassis.errors import HeadraceError
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_scheduler.application.events import RefusedStart, refused_events
from headrace_scheduler.application.execution import Decided, Execution, Start
from headrace_scheduler.application.schedules import Clock
from headrace_scheduler.domain.dependencies import DependentStart
from headrace_scheduler.loops.tick_starter import BATCH, PATIENCE
from headrace_scheduler.store import dependencies as store
from headrace_scheduler.store import pipelines
from headrace_scheduler.store.dependencies import Settled


class DependentStarter(Agent):
    """Leases starts that are due, asks execution for them under their keys, and writes what came of it.
    Where this process dies on that way, another leases them when the lease is over and asks again."""

    name = "dependent_starter"
    interval_seconds = 2.0

    def __init__(self, db: Database, execution: Execution, clock: Clock) -> None:
        self._db = db
        self._execution = execution
        self._clock = clock
        self._lease = timedelta(seconds=execution.start_seconds * 1.5)

    async def run_once(self) -> bool:
        """Starts one batch; returns whether more is waiting."""
        due, now = await self._db.run(self._claim)
        if not due:
            return False
        faults.point("scheduler.dependent.leased")
        by_tenant: defaultdict[UUID, list[DependentStart]] = defaultdict(list)
        for start in due:
            by_tenant[start.tenant].append(start)
        for tenant, starts in by_tenant.items():
            await self._start(tenant, starts, now)
        return len(due) == BATCH

    async def _claim(self, conn: AsyncConnection) -> tuple[list[DependentStart], datetime]:
        now = await self._clock(conn)
        return await store.claim_starts(conn, now, self._lease, BATCH), now

    async def _start(self, tenant: UUID, starts: Sequence[DependentStart], now: datetime) -> None:
        try:
            decided = await self._execution.start_each(tenant, [_start_of(start) for start in starts])
        except HeadraceError:
            keys = [start.key for start in starts]
            await self._db.run(lambda conn: store.release_starts(conn, keys, now + PATIENCE))
            raise
        faults.point("scheduler.dependent.started")
        await self._db.run(lambda conn: _settle(conn, starts, decided))


async def _settle(
    conn: AsyncConnection, starts: Sequence[DependentStart], decided: Sequence[Decided]
) -> None:
    written = await store.settle_starts(conn, [_settled(each) for each in decided])
    refused = [
        (start, each)
        for start, each in zip(starts, decided, strict=True)
        if each.is_trouble and start.key in written
    ]
    if not refused:
        return
    places = await pipelines.workspaces_of(conn, {start.pipeline_id for start, _ in refused})
    told = [
        RefusedStart(
            tenant=start.tenant,
            workspace_id=places[start.pipeline_id],
            pipeline_id=start.pipeline_id,
            schedule_id=None,
            logical_date=start.interval.end if start.interval else None,
            reason=each.reason,
            message=each.message,
        )
        for start, each in refused
        if start.pipeline_id in places
    ]
    await outbox.append(conn, list(refused_events("dependency", told)))


def _start_of(start: DependentStart) -> Start:
    return Start(
        key=start.key,
        pipeline_id=start.pipeline_id,
        trigger=runs_pb2.TRIGGER_KIND_DEPENDENCY,
        trigger_id=str(start.upstream_run),
        triggered_by=start.triggered_by,
        parameters="{}",
        logical_date=start.interval.end if start.interval else None,
        interval_start=start.interval.start if start.interval else None,
    )


def _settled(decided: Decided) -> Settled:
    state = "STARTED" if decided.is_run else "REFUSED"
    return Settled(decided.key, state, decided.run_id, decided.reason, decided.message)
