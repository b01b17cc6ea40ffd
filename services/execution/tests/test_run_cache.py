"""Runs that a process keeps at hand: what they are worth when others change them."""

from uuid import UUID

import pytest
from headrace_chassis.database import Database
from headrace_execution.domain.assignments import assign, finish, report_progress
from headrace_execution.domain.lifecycle import accept, request_cancel
from headrace_execution.domain.moment import Moment
from headrace_execution.domain.run import (
    CursorValue,
    ErrorClass,
    Failure,
    Outcome,
    Run,
    StageResult,
    TaskReport,
    Warned,
)
from headrace_execution.domain.states import TaskState
from headrace_execution.store.port import Tx
from headrace_execution.store.sql import SqlStore

from .factories import NOW, WORKER, order, receipt, recipe


async def insert(store: SqlStore) -> Run:
    async def work(tx: Tx) -> Run:
        run = accept(order(recipe((), (0,), max_retries=1), trigger_label="ü\t"), tx.now)
        await tx.runs.insert([run])
        return run

    return await store.run(work)


async def locked(store: SqlStore, run_id: UUID) -> Run:
    async def work(tx: Tx) -> Run:
        return (await tx.runs.lock([run_id]))[run_id]

    return await store.run(work)


async def lease(store: SqlStore, run_id: UUID, *, fails: bool = False) -> None:
    async def work(tx: Tx) -> None:
        run = (await tx.runs.lock([run_id]))[run_id]
        moment = Moment(tx.now, lambda: 0.5)
        await tx.runs.save([(run, assign(run, run.stages[0].id, WORKER, 1, moment))])
        if fails:
            raise RuntimeError("it is rolled back")

    await store.run(work)


async def fail(store: SqlStore, run_id: UUID) -> None:
    async def work(tx: Tx) -> None:
        run = (await tx.runs.lock([run_id]))[run_id]
        stage, moment = run.stages[0], Moment(tx.now, lambda: 0.5)
        report = TaskReport("t0_0", TaskState.COMPLETED, NOW, NOW, rows_in=1, rows_out=2, bytes=3)
        after = report_progress(run, stage.id, WORKER, 1, (report,))
        why = Failure("BROKEN", ErrorClass.TRANSIENT, "it broke", {"table": "t"})
        landed = receipt(run, cursors=(CursorValue("load0", "t0_0", b"\x00\xff"),))
        warned = Warned("load0", "ODD", "odd", {"a": "b"})
        result = StageResult(
            Outcome.FAILED, (report,), (landed,), error=why, failed_task="load0", warnings=(warned,)
        )
        await tx.runs.save([(run, finish(after, stage.id, WORKER, 1, result, moment))])

    await store.run(work)


async def test_what_is_at_hand_is_what_is_stored(db: Database) -> None:
    here = SqlStore(db)
    run_id = (await insert(here)).id

    for change in (None, lease, fail):
        if change is not None:
            await change(here, run_id)

        assert await locked(here, run_id) == await locked(SqlStore(db), run_id)


async def test_what_another_process_has_changed_is_read_again(db: Database) -> None:
    here, there = SqlStore(db), SqlStore(db)
    run_id = (await insert(here)).id

    await lease(there, run_id)

    run = await locked(here, run_id)
    assert (run.stages[0].worker, run.revision) == (WORKER, 2)


async def test_what_was_rolled_back_is_not_kept(db: Database) -> None:
    here, there = SqlStore(db), SqlStore(db)
    run_id = (await insert(here)).id
    with pytest.raises(RuntimeError, match="rolled back"):
        await lease(here, run_id, fails=True)

    async def cancel(tx: Tx) -> None:
        run = (await tx.runs.lock([run_id]))[run_id]
        await tx.runs.save([(run, request_cancel(run, None, Moment(tx.now, lambda: 0.5)))])

    await there.run(cancel)

    # Another change has the revision that the first one would have had.
    assert await locked(here, run_id) == await locked(there, run_id)
    assert (await locked(here, run_id)).cancel_requested_at is not None
