"""What the ends of runs are to backfills: intervals that have ended, and room for the next."""

from collections.abc import Sequence
from uuid import UUID

from headrace.execution.v1 import events_pb2, runs_pb2
from headrace_chassis import database
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_scheduler.application.backfill_starts import ENDS
from headrace_scheduler.application.backfills import record
from headrace_scheduler.application.run_ends import RunEnd
from headrace_scheduler.domain.backfills import Move, attempt_of


async def note_backfill_ends(conn: AsyncConnection, ends: Sequence[RunEnd]) -> bool:
    """Records the ends of those runs that backfills started; True where there were some, so that more
    intervals may start."""
    moves = [move for end in ends if (move := _move(end.run))]
    if moves:
        now = await database.now(conn)
        await record(conn, moves, now, look_again=now, rests_until=now)
    return bool(moves)


def _move(run: events_pb2.RunEvent) -> Move | None:
    attempt = attempt_of(run.start_key)
    if run.trigger != runs_pb2.TRIGGER_KIND_BACKFILL or attempt is None or run.state not in ENDS:
        return None
    state, reason, message = ENDS[run.state]
    return Move(*attempt, state, UUID(run.run_id), reason, message)
