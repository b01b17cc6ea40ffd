"""Follows the runs of execution, so that each pipeline shows what its latest run did."""

from collections.abc import Sequence
from datetime import UTC
from uuid import UUID

from headrace.common.v1 import event_log_pb2
from headrace.execution.v1 import events_pb2, runs_pb2
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_metadata.domain.run_status import Phase, RunFact, latest_by_pipeline
from headrace_metadata.store import run_status as store

RUN_EVENTS = tuple(
    f"io.headrace.run.{what}.v1" for what in ("accepted", "started", "completed", "failed", "cancelled")
)

_SHOWN = {
    runs_pb2.RUN_STATE_PENDING: ("RUNNING", Phase.WAITING),
    runs_pb2.RUN_STATE_RUNNING: ("RUNNING", Phase.RUNNING),
    runs_pb2.RUN_STATE_COMPLETED: ("SUCCESS", Phase.ENDED),
    runs_pb2.RUN_STATE_FAILED: ("FAILED", Phase.ENDED),
    runs_pb2.RUN_STATE_CANCELLED: ("CANCELLED", Phase.ENDED),
}


async def follow_runs(conn: AsyncConnection, events: Sequence[event_log_pb2.Event]) -> None:
    """Records what events of runs say of their pipelines, in the consumer's transaction."""
    facts = [run_fact(events_pb2.RunEvent.FromString(event.data)) for event in events]
    await store.record(conn, latest_by_pipeline(facts))


def run_fact(event: events_pb2.RunEvent) -> RunFact:
    """What an event says of a run."""
    status, phase = _SHOWN[event.state]
    if status == "SUCCESS" and event.warning_count:
        status = "WARNING"
    return RunFact(
        pipeline_id=UUID(event.pipeline_id),
        run_id=UUID(event.run_id),
        status=status,
        phase=phase,
        accepted_at=event.created_at.ToDatetime(tzinfo=UTC),
        finished_at=event.finished_at.ToDatetime(tzinfo=UTC) if event.HasField("finished_at") else None,
    )
