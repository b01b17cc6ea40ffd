"""Backfills: how they and their intervals stand, and what becomes of them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from uuid import UUID
from zoneinfo import ZoneInfo

from headrace_timetable.intervals import Granularity, Interval

MOST_INTERVALS = 200_000
"""The most intervals of a backfill: 22 years of hours."""

KEY_PREFIX = "backfill:"


class BackfillEnded(Exception):  # noqa: N818 - named for what happened, as its reason is
    """The backfill has ended in a way that does not allow what was asked."""

    def __init__(self, backfill_id: UUID, status: "BackfillStatus") -> None:
        super().__init__(f"backfill {backfill_id} is {status}")
        self.backfill_id = backfill_id
        self.status = status


class BackfillStatus(StrEnum):
    """How a backfill stands."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


ENDED = frozenset({BackfillStatus.COMPLETED, BackfillStatus.FAILED, BackfillStatus.CANCELLED})
STARTS_RUNS = frozenset({BackfillStatus.PENDING, BackfillStatus.RUNNING})


class IntervalState(StrEnum):
    """How an interval stands."""

    PENDING = "PENDING"
    """Nothing was asked of execution, for its next attempt."""
    STARTING = "STARTING"
    """It was decided to start its run; whether execution has heard of that is not known."""
    RUNNING = "RUNNING"
    """It has a run."""
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


LIVE = frozenset({IntervalState.STARTING, IntervalState.RUNNING})


class Priority(StrEnum):
    """Which backfills go first."""

    LOW = "LOW"
    MEDIUM = "MEDIUM"
    HIGH = "HIGH"


@dataclass(frozen=True)
class Terms:
    """What was asked for. `parameters` is a JSON object as text."""

    first: str
    last: str
    span: Interval
    granularity: Granularity
    zone: ZoneInfo
    concurrency: int = 1
    priority: Priority = Priority.MEDIUM
    parameters: str = "{}"


@dataclass(frozen=True)
class Counts:
    """How many intervals stand how; kept with the backfill, and changed in the transaction that changes
    them."""

    pending: int = 0
    live: int = 0
    """STARTING and RUNNING."""
    completed: int = 0
    failed: int = 0
    cancelled: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.pending + self.live + self.completed + self.failed + self.cancelled

    def moved(self, moves: Mapping[tuple[IntervalState, IntervalState], int]) -> "Counts":
        """The counts after so many intervals went from one state to another."""
        after = {name: getattr(self, name) for name in _COUNTED.values()}
        for (old, new), number in moves.items():
            after[_COUNTED[old]] -= number
            after[_COUNTED[new]] += number
        return Counts(**after)


_COUNTED = {
    IntervalState.PENDING: "pending",
    IntervalState.STARTING: "live",
    IntervalState.RUNNING: "live",
    IntervalState.COMPLETED: "completed",
    IntervalState.FAILED: "failed",
    IntervalState.CANCELLED: "cancelled",
}


@dataclass(frozen=True)
class Backfill:
    """A backfill as it stands."""

    id: UUID
    tenant: UUID
    workspace_id: UUID
    pipeline_id: UUID
    terms: Terms
    status: BackfillStatus
    counts: Counts
    created_at: datetime
    created_by: str
    started_at: datetime | None = None
    finished_at: datetime | None = None
    rests_until: datetime | None = None
    """Nothing is started before: its pipeline had no room."""

    @property
    def room(self) -> int:
        """How many intervals may start now."""
        if self.status not in STARTS_RUNS:
            return 0
        return max(0, min(self.terms.concurrency - self.counts.live, self.counts.pending))


@dataclass(frozen=True)
class BackfillInterval:
    """An interval of a backfill as it stands."""

    backfill_id: UUID
    number: int
    """Its place, from 1."""
    interval: Interval
    state: IntervalState
    attempt: int = 0
    run_id: UUID | None = None
    reason: str | None = None
    message: str | None = None
    finished_at: datetime | None = None

    @property
    def key(self) -> str:
        """The key under which execution decides the start of this attempt, once and for all."""
        return f"{KEY_PREFIX}{self.backfill_id}:{self.number}:{self.attempt}"

    def to(
        self,
        state: IntervalState,
        reason: str | None = None,
        message: str | None = None,
        *,
        run_id: UUID | None = None,
    ) -> "Move":
        """What becomes of this attempt."""
        return Move(self.backfill_id, self.number, self.attempt, state, run_id, reason, message)


@dataclass(frozen=True)
class Move:
    """What becomes of one attempt at an interval, where it is still live."""

    backfill_id: UUID
    number: int
    attempt: int
    to: IntervalState
    run_id: UUID | None = None
    reason: str | None = None
    message: str | None = None


def attempt_of(key: str) -> tuple[UUID, int, int] | None:
    """The backfill, number and attempt that the key of a start names; None where it names no such thing."""
    if not key.startswith(KEY_PREFIX):
        return None
    backfill, _, rest = key.removeprefix(KEY_PREFIX).partition(":")
    number, _, attempt = rest.partition(":")
    try:
        return UUID(backfill), int(number), int(attempt)
    except ValueError:
        return None


def paused(backfill: Backfill) -> Backfill:
    """Starts nothing more for now.

    Raises:
        BackfillEnded: it has ended.
    """
    _demand_going_on(backfill)
    return replace(backfill, status=BackfillStatus.PAUSED)


def resumed(backfill: Backfill) -> Backfill:
    """Goes on.

    Raises:
        BackfillEnded: it has ended.
    """
    _demand_going_on(backfill)
    if backfill.status is not BackfillStatus.PAUSED:
        return backfill
    status = BackfillStatus.RUNNING if backfill.started_at else BackfillStatus.PENDING
    return replace(backfill, status=status)


def cancelled(backfill: Backfill, now: datetime) -> Backfill:
    """Starts nothing more for good; intervals that have not started count as cancelled.

    Raises:
        BackfillEnded: it has ended otherwise.
    """
    if backfill.status is BackfillStatus.CANCELLED:
        return backfill
    _demand_going_on(backfill)
    counts = backfill.counts
    counts = replace(counts, pending=0, cancelled=counts.cancelled + counts.pending)
    return settled(replace(backfill, status=BackfillStatus.CANCELLED, counts=counts), now)


def retried(backfill: Backfill) -> Backfill:
    """Tries all intervals again that failed or were cancelled.

    Raises:
        BackfillEnded: it was cancelled, or none of its intervals has failed.
    """
    if backfill.status in (BackfillStatus.CANCELLED, BackfillStatus.COMPLETED):
        raise BackfillEnded(backfill.id, backfill.status)
    counts = backfill.counts
    again = counts.failed + counts.cancelled
    if not again:
        return backfill
    status = BackfillStatus.RUNNING if backfill.status in ENDED else backfill.status
    return replace(
        backfill,
        status=status,
        finished_at=None,
        counts=replace(counts, pending=counts.pending + again, failed=0, cancelled=0),
    )


def claimed(backfill: Backfill, number: int, now: datetime) -> Backfill:
    """So many intervals of it are being started."""
    return replace(
        backfill,
        status=BackfillStatus.RUNNING,
        started_at=backfill.started_at or now,
        rests_until=None,
        counts=backfill.counts.moved({(IntervalState.PENDING, IntervalState.STARTING): number}),
    )


def after_moves(
    backfill: Backfill,
    moves: Mapping[tuple[IntervalState, IntervalState], int],
    now: datetime,
    rests_until: datetime,
) -> Backfill:
    """The backfill after intervals of it have moved; ended where all of them have. It rests for a while where
    some went back to PENDING, because its pipeline had no room; in a cancelled one these are cancelled."""
    after = replace(backfill, counts=backfill.counts.moved(moves))
    if any(new is IntervalState.PENDING for _, new in moves):
        if backfill.status is BackfillStatus.CANCELLED:
            counts = after.counts
            after = replace(
                after, counts=replace(counts, pending=0, cancelled=counts.cancelled + counts.pending)
            )
        else:
            after = replace(after, rests_until=rests_until)
    return settled(after, now)


def settled(backfill: Backfill, now: datetime) -> Backfill:
    """The backfill with the status that its counts make."""
    counts = backfill.counts
    if counts.pending or counts.live:
        return backfill
    status = backfill.status
    if status is not BackfillStatus.CANCELLED:
        complete = counts.completed == counts.total
        status = BackfillStatus.COMPLETED if complete else BackfillStatus.FAILED
    return replace(backfill, status=status, finished_at=backfill.finished_at or now)


def _demand_going_on(backfill: Backfill) -> None:
    if backfill.status in ENDED:
        raise BackfillEnded(backfill.id, backfill.status)
