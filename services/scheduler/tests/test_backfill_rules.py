"""What becomes of backfills, as pure functions."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from headrace_scheduler.domain import backfills as rules
from headrace_scheduler.domain.backfills import (
    Backfill,
    BackfillEnded,
    BackfillInterval,
    BackfillStatus,
    Counts,
    IntervalState,
    Terms,
    attempt_of,
)
from headrace_timetable.intervals import Granularity, Interval

NOW = datetime(2026, 3, 4, tzinfo=UTC)
SPAN = Interval(NOW, NOW + timedelta(days=10))
PENDING, STARTING, RUNNING = IntervalState.PENDING, IntervalState.STARTING, IntervalState.RUNNING
COMPLETED, FAILED, CANCELLED = IntervalState.COMPLETED, IntervalState.FAILED, IntervalState.CANCELLED


def backfill(status: BackfillStatus, counts: Counts, concurrency: int = 4) -> Backfill:
    return Backfill(
        id=UUID(int=1),
        tenant=UUID(int=2),
        workspace_id=UUID(int=3),
        pipeline_id=UUID(int=4),
        terms=Terms("", "", SPAN, Granularity.DAILY, ZoneInfo("UTC"), concurrency),
        status=status,
        counts=counts,
        created_at=NOW,
        created_by="anna",
        started_at=NOW,
    )


ENDED = None
GRID = {
    # from: paused, resumed, cancelled, retried (some failed); ENDED where it is refused
    "PENDING": ("PAUSED", "PENDING", "CANCELLED", "PENDING"),
    "RUNNING": ("PAUSED", "RUNNING", "CANCELLED", "RUNNING"),
    "PAUSED": ("PAUSED", "RUNNING", "CANCELLED", "PAUSED"),
    "COMPLETED": (ENDED, ENDED, ENDED, ENDED),
    "FAILED": (ENDED, ENDED, ENDED, "RUNNING"),
    "CANCELLED": (ENDED, ENDED, "CANCELLED", ENDED),
}


@pytest.mark.parametrize("status", BackfillStatus)
@pytest.mark.parametrize("place", range(4))
def test_what_may_be_asked_of_a_backfill(status: BackfillStatus, place: int) -> None:
    before = backfill(status, Counts(pending=3, live=1, completed=2, failed=1, cancelled=1))
    ask = [rules.paused, rules.resumed, lambda each: rules.cancelled(each, NOW), rules.retried][place]
    expected = GRID[status][place]
    if expected is ENDED:
        with pytest.raises(BackfillEnded):
            ask(before)
        return
    after = ask(before)
    assert after.status == expected
    assert after.counts.total == before.counts.total


def test_one_that_never_started_is_pending_again() -> None:
    before = replace(backfill(BackfillStatus.PAUSED, Counts(pending=3)), started_at=None)
    assert rules.resumed(before).status is BackfillStatus.PENDING


def test_room_is_what_concurrency_leaves() -> None:
    counts = Counts(pending=9, live=3)
    assert backfill(BackfillStatus.RUNNING, counts).room == 1
    assert backfill(BackfillStatus.RUNNING, Counts(pending=1)).room == 1
    assert backfill(BackfillStatus.RUNNING, replace(counts, live=5)).room == 0
    assert backfill(BackfillStatus.PAUSED, counts).room == 0
    assert backfill(BackfillStatus.CANCELLED, counts).room == 0


@pytest.mark.parametrize(
    ("status", "counts", "move", "expected"),
    [
        ("RUNNING", Counts(live=1, completed=4), (RUNNING, COMPLETED), "COMPLETED"),
        ("RUNNING", Counts(live=1, completed=4), (RUNNING, FAILED), "FAILED"),
        ("RUNNING", Counts(live=1, completed=4), (STARTING, CANCELLED), "FAILED"),
        ("RUNNING", Counts(live=1, failed=1), (RUNNING, COMPLETED), "FAILED"),
        ("RUNNING", Counts(live=2), (RUNNING, FAILED), "RUNNING"),
        ("RUNNING", Counts(live=1, pending=1), (RUNNING, COMPLETED), "RUNNING"),
        ("PAUSED", Counts(live=1, completed=1), (RUNNING, COMPLETED), "COMPLETED"),
        ("PAUSED", Counts(live=1, pending=1), (RUNNING, COMPLETED), "PAUSED"),
        ("CANCELLED", Counts(live=1, cancelled=1), (RUNNING, COMPLETED), "CANCELLED"),
    ],
)
def test_a_backfill_ends_with_its_last_interval(
    status: str, counts: Counts, move: tuple[IntervalState, IntervalState], expected: str
) -> None:
    before = backfill(BackfillStatus(status), counts)
    after = rules.after_moves(before, {move: 1}, NOW, NOW)
    assert after.status == expected
    assert (after.finished_at is None) == bool(after.counts.pending or after.counts.live)
    assert after.counts.total == before.counts.total


def test_without_room_in_its_pipeline_a_backfill_rests() -> None:
    later = NOW + timedelta(seconds=5)
    running = rules.after_moves(
        backfill(BackfillStatus.RUNNING, Counts(live=1)), {(STARTING, PENDING): 1}, NOW, later
    )
    assert (running.counts, running.rests_until) == (Counts(pending=1), later)
    cancelled = rules.after_moves(
        backfill(BackfillStatus.CANCELLED, Counts(live=1)), {(STARTING, PENDING): 1}, NOW, later
    )
    assert (cancelled.counts, cancelled.status) == (Counts(cancelled=1), BackfillStatus.CANCELLED)


def test_a_key_names_an_attempt_and_nothing_else_does() -> None:
    interval = BackfillInterval(UUID(int=7), 12, SPAN, STARTING, attempt=3)
    assert attempt_of(interval.key) == (UUID(int=7), 12, 3)
    for other in (
        "",
        "tick:1:2",
        "backfill:",
        "backfill:x:1:1",
        f"backfill:{UUID(int=7)}:1",
        "backfill:1:2:3:4",
    ):
        assert attempt_of(other) is None
