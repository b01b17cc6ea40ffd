"""Follows the ends of runs: what they start, and which ticks wait for them."""

from collections.abc import Callable, Sequence
from datetime import UTC
from uuid import UUID

from headrace.common.v1 import event_log_pb2
from headrace.execution.v1 import events_pb2, runs_pb2
from headrace_chassis.bus import Bus
from headrace_chassis.consumer import EventConsumer
from headrace_chassis.database import Database
from headrace_chassis.event_sources import EventSource
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_scheduler.domain.dependencies import Ended, Interval, outcomes, started_by
from headrace_scheduler.loops.backfill_follower import ENDS_OF_RUNS
from headrace_scheduler.store import dependencies as store

_STATES = {
    runs_pb2.RUN_STATE_COMPLETED: "COMPLETED",
    runs_pb2.RUN_STATE_FAILED: "FAILED",
    runs_pb2.RUN_STATE_CANCELLED: "CANCELLED",
}


class DependencyFollower(EventConsumer):
    """Notes how pipelines ended for which intervals, and adds the runs that this starts, in the transaction
    of the consumer's position. Replicas take turns, so two upstreams that end at once are seen one after the
    other. `followed` is called after rounds that found some."""

    def __init__(
        self,
        db: Database,
        source: EventSource,
        bus: Bus,
        *,
        followed: Callable[[], None],
    ) -> None:
        super().__init__(
            db,
            "scheduler.dependencies",
            source,
            self._follow,
            types=ENDS_OF_RUNS,
            bus=bus,
        )
        self._followed = followed
        self._found = False

    async def run_once(self) -> bool:
        """Handles a batch of events; returns whether more is waiting."""
        self._found = False
        more = await super().run_once()
        if self._found:
            self._followed()
        return more

    async def _follow(self, conn: AsyncConnection, events: Sequence[event_log_pb2.Event]) -> None:
        ended = [_ended(event) for event in events]
        best = outcomes(ended)
        await store.note_outcomes(conn, list(best.values()))
        downstreams = await store.downstreams_to_start(conn, {each.pipeline_id for each in ended})
        wanted = {
            (upstream, each.interval)
            for each in ended
            if each.interval is not None
            for downstream in downstreams.get(each.pipeline_id, ())
            for upstream in downstream.strong
        }
        completed = await store.completed(conn, wanted) if wanted else frozenset()
        starts = {
            start.key: start
            for each in ended
            for start in started_by(each, downstreams.get(each.pipeline_id, ()), completed)
        }
        await store.add_starts(conn, list(starts.values()))
        self._found = bool(best or starts)


def _ended(event: event_log_pb2.Event) -> Ended:
    run = events_pb2.RunEvent.FromString(event.data)
    interval = None
    if run.HasField("interval_start") and run.HasField("interval_end"):
        interval = Interval(
            run.interval_start.ToDatetime(tzinfo=UTC), run.interval_end.ToDatetime(tzinfo=UTC)
        )
    return Ended(UUID(run.run_id), UUID(run.pipeline_id), UUID(event.tenant), _STATES[run.state], interval)
