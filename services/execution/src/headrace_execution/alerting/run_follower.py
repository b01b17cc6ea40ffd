"""Follows execution's own events of runs: finds what is wrong, learns what is usual, and notes who is to be
told.
"""

from collections.abc import Sequence
from datetime import UTC
from typing import Final
from uuid import UUID

from headrace.common.v1 import event_log_pb2
from headrace.execution.v1 import events_pb2, runs_pb2
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_execution.alerting.recording import Verdict, record
from headrace_execution.alerting.telling import Reached, tell_of_alerts, tell_of_runs
from headrace_execution.domain.judging import Ended, findings, healing
from headrace_execution.domain.states import RunState
from headrace_execution.domain.usual import Usual
from headrace_execution.store.port import Tx
from headrace_execution.store.sql import SqlStore
from headrace_execution.store.sql.events import ENDED

_BY_ITSELF: Final = (runs_pb2.TRIGGER_KIND_SCHEDULE, runs_pb2.TRIGGER_KIND_DEPENDENCY)
FOLLOWED: Final = ("io.headrace.run.started.v1", *ENDED)


class RunFollower:
    """Judges runs that have ended, in the transaction of the consumer's position: each once."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store

    async def handle(self, conn: AsyncConnection, events: Sequence[event_log_pb2.Event]) -> None:
        """Has the effects of events. What is deleted is passed over: its purge must find nothing new."""
        tx = await self._store.join(conn)
        told = [(event, events_pb2.RunEvent.FromString(event.data)) for event in events]
        told = [(event, run) for event, run in told if event.type in ENDED or run.notified]
        if not told:
            return
        gone = await tx.pipelines.enter({UUID(run.pipeline_id) for _, run in told})
        told = [(event, run) for event, run in told if UUID(run.pipeline_id) not in gone]
        await judge(tx, [_ended(event, run) for event, run in told if event.type in ENDED])
        await tell_of_runs(tx, [_reached(run) for _, run in told if run.notified])


async def judge(tx: Tx, ended: Sequence[Ended]) -> None:
    """What the rules find of runs, in the order of their ends, each beside those before it."""
    usual = await tx.alerts.usual({each.pipeline for each in ended if each.sample is not None})
    runs = await tx.alerts.runs([each.run for each in ended if each.is_troubled])
    verdicts: list[Verdict] = []
    learned: dict[UUID, Usual] = {}
    for each in ended:
        known = learned.get(each.pipeline) or usual.get(each.pipeline, Usual())
        found = findings(each, runs.get(each.run), known)
        verdicts.append(Verdict(found, healing(each, found)))
        if each.sample is not None:
            learned[each.pipeline] = known.after(each.sample)
    await tx.alerts.remember(learned)
    await tell_of_alerts(tx, await record(tx, verdicts))


def _reached(payload: events_pb2.RunEvent) -> Reached:
    at = payload.finished_at if payload.HasField("finished_at") else payload.started_at
    return Reached(UUID(payload.run_id), _state(payload), at.ToDatetime(UTC))


def _state(payload: events_pb2.RunEvent) -> RunState:
    return RunState(runs_pb2.RunState.Name(payload.state).removeprefix("RUN_STATE_"))


def _ended(event: event_log_pb2.Event, payload: events_pb2.RunEvent) -> Ended:
    has_started = payload.HasField("started_at")
    return Ended(
        run=UUID(payload.run_id),
        tenant=UUID(event.tenant),
        workspace=UUID(payload.workspace_id),
        pipeline=UUID(payload.pipeline_id),
        state=_state(payload),
        accepted_at=payload.created_at.ToDatetime(UTC),
        started_at=payload.started_at.ToDatetime(UTC) if has_started else None,
        finished_at=payload.finished_at.ToDatetime(UTC),
        rows=payload.figures.rows_written,
        warning_count=payload.warning_count,
        is_own_start=payload.trigger in _BY_ITSELF,
        is_comparable=not payload.retry_of and not payload.full_refresh,
    )
