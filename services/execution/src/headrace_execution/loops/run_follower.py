"""Follows execution's own events of runs, once for all that come of them: the runs themselves pay nothing for
it.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp
from headrace.common.v1 import event_log_pb2
from headrace.execution.v1 import events_pb2, runs_pb2
from headrace_chassis.bus import Bus
from headrace_chassis.consumer import EventConsumer
from headrace_chassis.database import Database
from headrace_chassis.event_sources import OwnEvents
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_execution.alerting.run_judge import judge
from headrace_execution.alerting.telling import Reached, tell_of_runs
from headrace_execution.convert import run_state_of
from headrace_execution.domain.figures import Figures
from headrace_execution.domain.judging import Ended
from headrace_execution.domain.rollups import by_day
from headrace_execution.domain.states import RunState
from headrace_execution.store.port import Tx
from headrace_execution.store.sql import SqlStore
from headrace_execution.store.sql.events import ENDED

_FOLLOWED: Final = ("io.headrace.run.started.v1", *ENDED)
_BY_ITSELF: Final = (runs_pb2.TRIGGER_KIND_SCHEDULE, runs_pb2.TRIGGER_KIND_DEPENDENCY)


class RunFollower(EventConsumer):
    """Has the effects of runs, each once, in the transaction of its position: runs that have ended are added
    to their pipelines' days and judged, and what people want to be told is noted.

    Each round costs some statements, however many runs it is for. So under load it takes what has come in a
    quarter of a second; metrics, alerts and notifications may be that late.
    """

    pause_seconds = 0.25

    def __init__(self, db: Database, log: OwnEvents, store: SqlStore, bus: Bus | None = None) -> None:
        # Under the name of the effect that must not be had twice: what adds up has kept its position there.
        super().__init__(db, f"{log.service}.metrics", log, self._follow, types=_FOLLOWED, bus=bus)
        self._store = store

    async def _follow(self, conn: AsyncConnection, events: Sequence[event_log_pb2.Event]) -> None:
        told = [(event, events_pb2.RunEvent.FromString(event.data)) for event in events]
        ends = [_ended(event, run) for event, run in told if event.type in ENDED]
        reached = [_reached(event, run) for event, run in told if run.notified]
        if ends or reached:
            await have_effects(await self._store.join(conn), ends, reached)


async def have_effects(tx: Tx, ends: Sequence[Ended], reached: Sequence[Reached] = ()) -> None:
    """What comes of runs that have ended, in the order of their ends, and of those whose progress is told.
    Nothing comes of pipelines that are being deleted: what is purged must not come back."""
    gone = await tx.pipelines.enter({end.pipeline for end in ends} | {each.pipeline for each in reached})
    ends = [end for end in ends if end.pipeline not in gone]
    await judge(tx, ends)
    await tell_of_runs(tx, [each for each in reached if each.pipeline not in gone])
    await tx.rollups.add(by_day(ends))


def _ended(event: event_log_pb2.Event, run: events_pb2.RunEvent) -> Ended:
    """The run that an event tells the end of. One of an earlier release tells no figures.

    Raises:
        ValueError: for an event that tells no end.
    """
    if not run.HasField("finished_at"):
        raise ValueError(f"event {event.id} tells no end of a run")
    figures = run.figures
    return Ended(
        tenant=UUID(event.tenant),
        pipeline=UUID(run.pipeline_id),
        state=_state(event, run),
        finished_at=_instant(run.finished_at),
        started_at=_instant(run.started_at) if run.HasField("started_at") else None,
        warning_count=run.warning_count,
        figures=Figures(
            figures.rows_read,
            figures.rows_written,
            figures.bytes_read,
            figures.bytes_written,
            figures.slot_us,
        ),
        run=UUID(run.run_id),
        workspace=UUID(run.workspace_id),
        accepted_at=_instant(run.created_at),
        is_own_start=run.trigger in _BY_ITSELF,
        is_comparable=not run.retry_of and not run.full_refresh,
    )


def _reached(event: event_log_pb2.Event, run: events_pb2.RunEvent) -> Reached:
    at = run.finished_at if run.HasField("finished_at") else run.started_at
    return Reached(UUID(run.run_id), UUID(run.pipeline_id), _state(event, run), _instant(at))


def _state(event: event_log_pb2.Event, run: events_pb2.RunEvent) -> RunState:
    state = run_state_of(run.state)
    if state is None:
        raise ValueError(f"event {event.id} tells no state of a run")
    return state


def _instant(value: Timestamp) -> datetime:
    return value.ToDatetime(tzinfo=UTC)
