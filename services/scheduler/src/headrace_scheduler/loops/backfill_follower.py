"""Follows the ends of runs that backfills started, so that the next intervals start at once."""

from collections.abc import Callable, Sequence
from uuid import UUID

from headrace.common.v1 import event_log_pb2
from headrace.execution.v1 import events_pb2, runs_pb2
from headrace_chassis import database
from headrace_chassis.bus import Bus
from headrace_chassis.consumer import EventConsumer
from headrace_chassis.database import Database
from headrace_chassis.event_sources import EventSource
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_scheduler.application.backfill_starts import ENDS
from headrace_scheduler.application.backfills import record
from headrace_scheduler.domain.backfills import Move, attempt_of

ENDS_OF_RUNS = tuple(f"io.headrace.run.{what}.v1" for what in ("completed", "failed", "cancelled"))


class BackfillFollower(EventConsumer):
    """Records the ends of runs of backfills. `followed` is called after rounds that found some: there may be
    room for more intervals."""

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
            "scheduler.backfills",
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
        moves = [move for event in events if (move := _move(events_pb2.RunEvent.FromString(event.data)))]
        if moves:
            self._found = True
            now = await database.now(conn)
            await record(conn, moves, now, look_again=now, rests_until=now)


def _move(event: events_pb2.RunEvent) -> Move | None:
    attempt = attempt_of(event.start_key)
    if event.trigger != runs_pb2.TRIGGER_KIND_BACKFILL or attempt is None or event.state not in ENDS:
        return None
    state, reason, message = ENDS[event.state]
    return Move(*attempt, state, UUID(event.run_id), reason, message)
