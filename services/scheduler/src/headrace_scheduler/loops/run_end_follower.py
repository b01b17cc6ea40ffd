"""Follows the ends of runs: backfills go on, and dependencies start what waits for them."""

from collections.abc import Callable, Sequence

from headrace.common.v1 import event_log_pb2
from headrace_chassis.bus import Bus
from headrace_chassis.consumer import EventConsumer
from headrace_chassis.database import Database
from headrace_chassis.event_sources import EventSource
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_scheduler.application.backfill_ends import note_backfill_ends
from headrace_scheduler.application.run_ends import ENDS_OF_RUNS, RunEnd
from headrace_scheduler.application.upstream_ends import note_upstream_ends


class RunEndFollower(EventConsumer):
    """Has both effects of a batch in the transaction of the consumer's position; replicas take turns.

    After a round, `intervals_ended` is called where it ended intervals of backfills: there may be room for
    more; and `upstreams_ended` where a dependency may start something or let a tick go.
    """

    def __init__(
        self,
        db: Database,
        source: EventSource,
        bus: Bus,
        *,
        intervals_ended: Callable[[], None],
        upstreams_ended: Callable[[], None],
    ) -> None:
        super().__init__(db, "scheduler.run_ends", source, self._follow, types=ENDS_OF_RUNS, bus=bus)
        self._intervals_ended = intervals_ended
        self._upstreams_ended = upstreams_ended
        self._to_tell: list[Callable[[], None]] = []

    async def run_once(self) -> bool:
        """Handles a batch of events; returns whether more is waiting."""
        self._to_tell = []
        more = await super().run_once()
        for tell in self._to_tell:
            tell()
        return more

    async def _follow(self, conn: AsyncConnection, events: Sequence[event_log_pb2.Event]) -> None:
        ends = [RunEnd.of(event) for event in events]
        self._to_tell = []  # the transaction may be tried again
        if await note_backfill_ends(conn, ends):
            self._to_tell.append(self._intervals_ended)
        if await note_upstream_ends(conn, ends):
            self._to_tell.append(self._upstreams_ended)
