"""How much each worker is sent, by a clock that stands still unless a test moves it."""

from uuid import UUID

import pytest
from headrace_chassis.ids import uuid7
from headrace_execution.store.port import WorkerRecord
from headrace_execution.workers.pool import Session, WorkerPool
from headrace_execution.workers.window import DEEPEST, LONGEST_WAIT

SLOTS = 2


class Bench:
    """A pool, and stages that take as long as they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pool = WorkerPool()

    def worker(self) -> Session:
        """Connects a worker."""
        record = WorkerRecord(uuid7(), "w", SLOTS, "1", ("JDBC",))
        session = Session(record, monotonic=lambda: self.now, silence_limit=1e9)
        self.pool.add(session)
        return session

    def hand_out(self, limit: int) -> list[tuple[Session, UUID]]:
        """Hands out as many stages as there are places for, up to a limit."""
        given = [(session, uuid7()) for session in self.pool.reserve(limit)]
        for session, assignment in given:
            session.fill(assignment, 1)
        return given

    def end(self, given: list[tuple[Session, UUID]]) -> None:
        """All of these have come back."""
        for session, assignment in given:
            self.pool.vacate(session.worker.id, assignment, 1)

    def work(self, seconds: float, times: int = 30) -> None:
        """Stages of this length, one after the other."""
        for _ in range(times):
            given = self.hand_out(1)
            self.now += seconds
            self.end(given)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_new_worker_gets_what_it_has_slots_for(bench: Bench) -> None:
    bench.worker()

    assert len(bench.hand_out(100)) == SLOTS


@pytest.mark.parametrize(
    ("seconds", "places"),
    [
        (0.001, SLOTS * DEEPEST),
        (LONGEST_WAIT / 3.5, SLOTS * 3),
        (LONGEST_WAIT, SLOTS),
        (LONGEST_WAIT * 100, SLOTS),
    ],
)
def test_the_shorter_its_stages_the_more_it_is_sent_ahead(bench: Bench, seconds: float, places: int) -> None:
    bench.worker()
    bench.work(seconds)

    assert len(bench.hand_out(100)) == places


def test_stages_are_no_longer_for_having_waited_in_their_worker(bench: Bench) -> None:
    bench.worker()
    bench.work(0.001)
    for _ in range(30):
        given = bench.hand_out(100)
        for pair in range(0, len(given), SLOTS):  # two at a time, each 2 ms
            bench.now += 0.002
            bench.end(given[pair : pair + SLOTS])

    assert len(bench.hand_out(100)) == SLOTS * DEEPEST


def test_after_a_long_stage_nothing_is_sent_ahead_until_stages_are_short_again(bench: Bench) -> None:
    bench.worker()
    bench.work(0.001)
    bench.work(60.0, times=1)
    given = bench.hand_out(100)
    assert len(given) == SLOTS
    bench.end(given)

    bench.work(0.001)

    assert len(bench.hand_out(100)) == SLOTS * DEEPEST


def test_nothing_is_queued_for_a_slot_that_a_long_stage_has(bench: Bench) -> None:
    bench.worker()
    bench.work(0.001)
    bench.hand_out(SLOTS)

    bench.now += LONGEST_WAIT * 2

    assert not bench.hand_out(100)


def test_idle_slots_of_another_worker_come_first(bench: Bench) -> None:
    busy = bench.worker()
    bench.work(0.001)
    other = bench.worker()
    bench.hand_out(1)

    given = [session for session, _ in bench.hand_out(2 * SLOTS)]

    assert given.count(other) >= SLOTS
    assert given.index(busy) < 2 * SLOTS - 1, "its own idle slot is used before any queue"
    assert set(given[: 2 * SLOTS - 1]) == {busy, other}


def test_a_worker_that_gave_back_gets_nothing_until_it_has_room(bench: Bench) -> None:
    session = bench.worker()
    bench.work(0.001)
    given = bench.hand_out(SLOTS + 3)

    session.overran()
    for _, assignment in given[SLOTS:]:
        bench.pool.vacate(session.worker.id, assignment, 1, worked=False)
    assert not bench.hand_out(100)

    bench.end(given[:1])
    assert len(bench.hand_out(100)) == 1


def test_a_worker_that_gave_back_and_says_that_it_has_room_is_sent_what_it_can_start(bench: Bench) -> None:
    session = bench.worker()
    bench.work(0.001)
    session.overran()
    assert not bench.hand_out(100)

    session.has_room()

    assert len(bench.hand_out(100)) == SLOTS
