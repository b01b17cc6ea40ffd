"""What the ends of runs are to dependencies: what they start, and which ticks wait for them no longer."""

from collections.abc import Sequence
from datetime import UTC
from uuid import UUID

from headrace.execution.v1 import runs_pb2
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_scheduler.application.run_ends import RunEnd
from headrace_scheduler.domain.dependencies import Ended, Interval, outcomes, started_by
from headrace_scheduler.store import dependencies as store

_STATES = {
    runs_pb2.RUN_STATE_COMPLETED: "COMPLETED",
    runs_pb2.RUN_STATE_FAILED: "FAILED",
    runs_pb2.RUN_STATE_CANCELLED: "CANCELLED",
}


async def note_upstream_ends(conn: AsyncConnection, ends: Sequence[RunEnd]) -> bool:
    """Notes how pipelines ended for which intervals, and adds the runs that this starts; True where something
    may go on.

    Whoever calls it must do so for one batch after another, whichever replica it is: two upstreams that end
    at once start nothing where each is handled without the other.
    """
    ended = [_ended(end) for end in ends]
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
    return bool(best or starts)


def _ended(end: RunEnd) -> Ended:
    run = end.run
    interval = None
    if run.HasField("interval_start") and run.HasField("interval_end"):
        interval = Interval(
            run.interval_start.ToDatetime(tzinfo=UTC), run.interval_end.ToDatetime(tzinfo=UTC)
        )
    return Ended(UUID(run.run_id), UUID(run.pipeline_id), end.tenant, _STATES[run.state], interval)
