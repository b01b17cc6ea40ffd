"""Adds up what runs come to as they end, from execution's own log: the runs themselves pay nothing for it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp
from headrace.common.v1 import event_log_pb2
from headrace.execution.v1 import events_pb2
from headrace_chassis.bus import Bus
from headrace_chassis.consumer import EventConsumer
from headrace_chassis.database import Database
from headrace_chassis.event_sources import OwnEvents
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_execution.convert import run_state_of
from headrace_execution.domain.figures import Figures
from headrace_execution.domain.rollups import RunEnd, by_day
from headrace_execution.store.port import Tx
from headrace_execution.store.sql import SqlStore
from headrace_execution.store.sql.events import ENDED


class MetricsFolder(EventConsumer):
    """Follows the ends of runs; each is added to its pipeline's day once, in the transaction of the position.

    Under load it takes a second's worth at a time: metrics may be a little late, and each round costs some
    statements, however many runs it is for.
    """

    pause_seconds = 1.0

    def __init__(self, db: Database, service: str, store: SqlStore, bus: Bus | None = None) -> None:
        super().__init__(db, f"{service}.metrics", OwnEvents(service, db), self._add, types=ENDED, bus=bus)
        self._store = store

    async def _add(self, conn: AsyncConnection, events: Sequence[event_log_pb2.Event]) -> None:
        await add_ends(await self._store.join(conn), [read_end(event) for event in events])


async def add_ends(tx: Tx, ends: Sequence[RunEnd]) -> None:
    """Adds runs to the days of their pipelines, but for pipelines that are being deleted: what is purged must
    not come back."""
    closed = await tx.pipelines.enter({end.pipeline for end in ends})
    await tx.rollups.add(by_day(end for end in ends if end.pipeline not in closed))


def read_end(event: event_log_pb2.Event) -> RunEnd:
    """The run that an event tells the end of. One of an earlier release tells no figures.

    Raises:
        ValueError: for an event that tells no end.
    """
    told = events_pb2.RunEvent.FromString(event.data)
    state = run_state_of(told.state)
    if state is None or not told.HasField("finished_at"):
        raise ValueError(f"event {event.id} tells no end of a run")
    return RunEnd(
        tenant=UUID(event.tenant),
        pipeline=UUID(told.pipeline_id),
        state=state,
        finished_at=_instant(told.finished_at),
        started_at=_instant(told.started_at) if told.HasField("started_at") else None,
        warning_count=told.warning_count,
        figures=Figures(
            told.figures.rows_read,
            told.figures.rows_written,
            told.figures.bytes_read,
            told.figures.bytes_written,
            told.figures.slot_us,
        ),
    )


def _instant(value: Timestamp) -> datetime:
    return value.ToDatetime(tzinfo=UTC)
