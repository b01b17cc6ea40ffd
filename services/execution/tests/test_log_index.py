"""The index of logs and the notes, in any store; and what is noted of a change."""

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from headrace_chassis.ids import uuid7
from headrace_execution.domain.assignments import finish, lose_worker
from headrace_execution.domain.changes import OutputLanding
from headrace_execution.domain.lifecycle import let_go, request_cancel
from headrace_execution.domain.logs import (
    CHUNK_COST,
    ChunkEntry,
    Level,
    LoggedAttempt,
    LogLimits,
    LogLine,
    Note,
    entry,
    expendable,
    gap,
)
from headrace_execution.domain.notes import course, notes
from headrace_execution.domain.run import ErrorClass, Run
from headrace_execution.store.port import LogIndex, RunPlace, Store, Tx

from .factories import NOW, TENANT, WORKER, accepted, at, completed, failed, leased, recipe
from .test_store import add, lease

LIMITS = LogLimits(head=3 * CHUNK_COST, tail=2 * CHUNK_COST)


def line(message: str = "m", task: str = "t0_0", seconds: float = 0.0) -> LogLine:
    return LogLine(NOW + timedelta(seconds=seconds), Level.INFO, message, task, 1)


async def place(store: Store, run: Run) -> LoggedAttempt | None:
    stage = run.stages[0]

    async def look(tx: Tx) -> LoggedAttempt | None:
        return (await tx.logs.attempts([(stage.id, stage.fence)])).get((stage.id, stage.fence))

    return await store.run(look)


async def store_chunk(store: Store, run: Run, sequence: int, *, lines: int = 2) -> ChunkEntry | None:
    """Stores the next chunk as the keeper does; None where it was left out."""
    found = await place(store, run)
    assert found is not None
    told = [line(seconds=sequence) for _ in range(lines)]
    made = entry(found, 1, sequence, f"key-{sequence}-{uuid7()}", 0, told, LIMITS)

    async def write(tx: Tx) -> frozenset[str]:
        return await tx.logs.add([made])

    return made if await store.run(write) else None


async def index(
    store: Store, run: UUID, after: dict[tuple[UUID, int], int] | None = None, notes_after: int = 0
) -> LogIndex:
    return await store.log_index(run, after=after or {}, notes_after=notes_after)


class TestChunks:
    async def test_a_chunk_is_found_again_and_counted_once(self, any_store: Store) -> None:
        (run,) = await add(any_store)
        run = await lease(any_store, run)
        first = await store_chunk(any_store, run, 0)
        second = await store_chunk(any_store, run, 1, lines=3)
        assert first is not None
        assert second is not None

        repeated = replace(first, artifact="another")

        async def write(tx: Tx) -> frozenset[str]:
            return await tx.logs.add([repeated])

        assert await any_store.run(write) == frozenset()
        assert (await index(any_store, run.id)).chunks == (first, second)
        assert (await index(any_store, run.id, {first.key: 0})).chunks == (second,)
        assert (await index(any_store, run.id, {first.key: 1})).chunks == ()
        found = await place(any_store, run)
        assert found is not None
        assert (found.last, found.lines, found.cost) == (1, 5, 2 * CHUNK_COST)
        assert (found.tenant, found.pipeline, found.run) == (TENANT, run.pipeline, run.id)

    async def test_only_attempts_that_were_handed_out_may_log(self, any_store: Store) -> None:
        (run,) = await add(any_store)
        assert await place(any_store, run) is None
        run = await lease(any_store, run)
        stage = run.stages[0]

        async def look(tx: Tx) -> set[tuple[UUID, int]]:
            wanted = [(stage.id, 0), (stage.id, stage.fence), (stage.id, stage.fence + 1), (uuid7(), 1)]
            return set(await tx.logs.attempts(wanted))

        assert await any_store.run(look) == {(stage.id, stage.fence)}

    async def test_of_a_long_log_the_middle_is_left_out(self, any_store: Store) -> None:
        (run,) = await add(any_store)
        run = await lease(any_store, run)
        chunks = [await store_chunk(any_store, run, sequence) for sequence in range(8)]
        latest = chunks[-1]
        assert latest is not None

        async def trim(tx: Tx) -> list[str]:
            return await tx.logs.trim({(run.id, *latest.key): expendable(latest, LIMITS)})

        removed = await any_store.run(trim)

        assert set(removed) == {chunk.artifact for chunk in chunks[3:6] if chunk is not None}
        kept = (await index(any_store, run.id)).chunks
        assert [chunk.sequence for chunk in kept] == [0, 1, 2, 6, 7]
        assert [gap(before, after) for before, after in zip((None, *kept), kept, strict=False)] == [
            0,
            0,
            0,
            6,
            0,
        ]
        assert await any_store.run(trim) == []

    async def test_all_goes_with_the_run(self, any_store: Store) -> None:
        (run,) = await add(any_store)
        run = await lease(any_store, run)
        await store_chunk(any_store, run, 0)
        left = await place(any_store, run)
        assert left is not None

        async def work(tx: Tx) -> None:
            await tx.logs.note([Note(run.id, line("a note"))])

        await any_store.run(work)
        assert len((await index(any_store, run.id)).notes) == 1

        async def purge(tx: Tx) -> bool:
            return await tx.pipelines.purge(run.pipeline, 10)

        assert await any_store.run(purge)
        late = entry(left, 1, 1, "late", 0, [line()], LIMITS)

        async def write(tx: Tx) -> frozenset[str]:
            return await tx.logs.add([late])

        assert await any_store.run(write) == frozenset()
        assert await index(any_store, run.id) == LogIndex((), ())

    async def test_notes_come_in_their_order(self, any_store: Store) -> None:
        one, other = await add(any_store, {}, {})

        async def work(tx: Tx) -> None:
            lines = [LogLine(tx.now, Level.WARNING, f"{n}", attempt=n, fields={"a": "ü"}) for n in range(3)]
            await tx.logs.note([Note(one.id, each) for each in lines])
            await tx.logs.note([Note(other.id, lines[0])])
            await tx.logs.note([])

        await any_store.run(work)
        first, second, third = (await index(any_store, one.id)).notes
        assert [note.line.message for note in (first, second, third)] == ["0", "1", "2"]
        assert (first.line.level, second.line.attempt, dict(third.line.fields)) == (
            Level.WARNING,
            1,
            {"a": "ü"},
        )
        assert (await index(any_store, one.id, notes_after=second.position)).notes == (third,)


class TestRetention:
    async def test_logs_expire_when_their_last_part_is_old(self, any_store: Any) -> None:
        young, old, noted = await add(any_store, {}, {}, {})

        async def write(tx: Tx) -> None:
            long_ago = LogLine(tx.now - timedelta(days=9), Level.INFO, "m")
            just_now = LogLine(tx.now, Level.INFO, "m")
            await tx.logs.note([Note(young.id, long_ago), Note(young.id, just_now), Note(old.id, long_ago)])
            await tx.logs.note([Note(noted.id, just_now)])

        await any_store.run(write)

        async def expired(tx: Tx) -> set[UUID]:
            return {place.run for place in await tx.logs.expired_logs(timedelta(days=7), 10)}

        assert await any_store.run(expired) == {old.id}
        any_store.skew += timedelta(days=8)
        assert await any_store.run(expired) == {old.id, young.id, noted.id}

        async def forget(tx: Tx) -> None:
            await tx.logs.forget_logs([old.id, young.id])

        await any_store.run(forget)
        assert await any_store.run(expired) == {noted.id}
        assert (await index(any_store, young.id)).notes == ()

    async def test_outputs_expire_when_the_last_of_their_run_is_old(self, any_store: Any) -> None:
        one, other = await add(any_store, {}, {})

        async def land(tx: Tx, run: Run, sink: str) -> None:
            await tx.logs.landed([OutputLanding(run.tenant, run.pipeline, run.id, sink)])

        await any_store.run(lambda tx: land(tx, one, "a"))
        await any_store.run(lambda tx: land(tx, other, "a"))
        any_store.skew += timedelta(days=5)
        await any_store.run(lambda tx: land(tx, one, "b"))
        await any_store.run(lambda tx: land(tx, one, "a"))
        any_store.skew += timedelta(days=5)

        async def expired(tx: Tx) -> list[RunPlace]:
            return await tx.logs.expired_outputs(timedelta(days=7), 10)

        assert await any_store.run(expired) == [RunPlace(TENANT, other.pipeline, other.id)]
        any_store.skew += timedelta(days=5)
        assert {place.run for place in await any_store.run(expired)} == {one.id, other.id}

        async def forget(tx: Tx) -> None:
            await tx.logs.forget_outputs([one.id])

        await any_store.run(forget)
        assert {place.run for place in await any_store.run(expired)} == {other.id}

        async def purge(tx: Tx) -> bool:
            return await tx.pipelines.purge(other.pipeline, 10)

        assert await any_store.run(purge)
        assert await any_store.run(expired) == []


def told(before: Run | None, after: Run) -> list[str]:
    return [note.line.message for note in notes(before, after, NOW)]


class TestNotes:
    def test_a_plain_run_needs_none(self) -> None:
        run = accepted()
        begun = leased()
        done = finish(begun, begun.stages[0].id, WORKER, 1, completed(begun), at(1))
        assert told(None, run) == []
        assert told(begun, done) == []

    def test_a_lost_worker_and_a_retry_are_told(self) -> None:
        run = leased(recipe(max_retries=1))
        stage = run.stages[0]
        lost = lose_worker(run, stage.id, WORKER, 1, at(1))
        (message,) = told(run, lost)
        assert "attempt 1 of stage s1 ended without a result: the worker that ran it did not renew" in message
        retried = finish(run, stage.id, WORKER, 1, failed(ErrorClass.TRANSIENT), at(1))
        (message,) = told(run, retried)
        assert message.startswith(
            "attempt 1 of stage s1 failed (BROKEN); it is tried again at 2026-01-02T03:04:"
        )

    def test_a_cancel_and_its_reason_are_told(self) -> None:
        run = accepted()
        assert told(run, request_cancel(run, "not today", at())) == ["a cancel was asked for: not today"]

    def test_holding_and_letting_go_are_told(self) -> None:
        held = replace(accepted(), held=True)
        assert told(None, held) == ["it is held: a limit or an earlier run keeps it from starting"]
        assert told(held, let_go(held, NOW)) == ["it is held no longer"]


class TestCourse:
    def test_it_is_told_from_the_run_as_it_stands(self) -> None:
        run = leased()
        done = finish(run, run.stages[0].id, WORKER, 1, completed(run), at(1))
        lines = course(done, frozenset())
        assert [each.message for each in lines if not each.task] == [
            "accepted: version 1 on engine JDBC, started by ada",
            "the run has started",
            "the run is COMPLETED",
        ]
        assert {each.task for each in lines if each.message == "completed"} == {"t0_0", "load0"}
        assert not [each for each in course(done, {run.stages[0].id}) if each.task]

    @pytest.mark.parametrize("kind", [ErrorClass.DATA])
    def test_a_failure_is_told_with_its_code(self, kind: ErrorClass) -> None:
        run = leased()
        ended = finish(run, run.stages[0].id, WORKER, 1, failed(kind, task="load0"), at(1))
        (error,) = [each for each in course(ended, frozenset()) if each.task and each.level is Level.ERROR]
        assert (error.task, error.message, error.fields["code"]) == ("load0", "it broke", "BROKEN")
