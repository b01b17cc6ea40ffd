"""The conformance suite: what any store of runs must do. It knows nothing of SQL."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

import pytest
from headrace_chassis.idempotency import IdempotencyKey, Standing
from headrace_chassis.ids import uuid7
from headrace_execution.domain.assignments import assign, finish, lose_worker
from headrace_execution.domain.changes import CursorMove
from headrace_execution.domain.lifecycle import accept, request_cancel
from headrace_execution.domain.moment import Moment
from headrace_execution.domain.recipe import PlanNote, Priority
from headrace_execution.domain.run import (
    CursorValue,
    ErrorClass,
    Failure,
    LoadShape,
    Outcome,
    Run,
    StageResult,
    StandingCursor,
    TaskReport,
    Warned,
)
from headrace_execution.domain.states import RunState, StageState, TaskState
from headrace_execution.domain.tickets import StreamTicket
from headrace_execution.store.port import (
    Closing,
    ConcurrentChange,
    Lease,
    Probe,
    ProbeKind,
    RunFilter,
    Store,
    Tx,
    WorkerRecord,
)

from .factories import OTHER_WORKER, TENANT, WORKER, order, receipt, recipe

T = TypeVar("T")
LEASE = timedelta(seconds=15)


async def add(store: Store, *changes: dict[str, Any], held: bool = False) -> list[Run]:
    """Inserts a run for each set of changes of an order."""

    async def work(tx: Tx) -> list[Run]:
        runs = [accept(order(**change), tx.now, held=held) for change in changes or ({},)]
        await tx.runs.insert(runs)
        return runs

    return await store.run(work)


async def change(store: Store, run_id: UUID, rule: Callable[[Run, Moment], Run]) -> Run:
    """Applies a rule to a locked run and saves it."""

    async def work(tx: Tx) -> Run:
        run = (await tx.runs.lock([run_id]))[run_id]
        after = rule(run, Moment(tx.now, lambda: 0.0))
        await tx.runs.save([(run, after)])
        return after

    return await store.run(work)


async def lease(store: Store, run: Run, worker: UUID = WORKER, stage: int = 0) -> Run:
    """Leases a stage of a run to a worker."""

    async def work(tx: Tx) -> Run:
        before = (await tx.runs.lock([run.id]))[run.id]
        (fence,) = await tx.runs.fences(1)
        after = assign(before, before.stages[stage].id, worker, fence, Moment(tx.now, lambda: 0.0))
        await tx.runs.save([(before, after)])
        return after

    return await store.run(work)


async def hello(store: Store, *workers: UUID) -> None:
    """Registers workers."""

    async def work(tx: Tx) -> None:
        for worker in workers:
            assert await tx.workers.hello(WorkerRecord(worker, "w", 4, "1", ("JDBC",)), LEASE)

    await store.run(work)


async def close(store: Store, pipeline: UUID, *, attempt: int = 0, despite_live: bool = False) -> Closing:
    """Closes a pipeline in a transaction of its own."""

    async def work(tx: Tx) -> Closing:
        return await tx.pipelines.close(pipeline, TENANT, attempt=attempt, despite_live=despite_live, limit=5)

    return await store.run(work)


async def ask(store: Store, question: Callable[[Tx], Awaitable[T]]) -> T:
    """Asks within a transaction of its own."""
    return await store.run(question)


class TestRuns:
    async def test_a_run_comes_back_as_it_went_in(self, any_store: Store) -> None:
        made = replace(recipe((), (0,)), notes=(PlanNote("CODE", "sinks[0]", "odd", 3, 4),))
        (run,) = await add(
            any_store,
            {
                "made": made,
                "parameters": b'{"a":1}',
                "variables": b'{"B":"2"}',
                "trigger_label": "nightly",
                "full_refresh": True,
            },
        )

        assert await any_store.get(TENANT, run.id) == run
        assert await any_store.get(uuid7(), run.id) is None

    async def test_revisions_tell_which_runs_have_changed(self, any_store: Store) -> None:
        one, two = await add(any_store, {}, {})
        before = await any_store.revisions([one.id, two.id, uuid7()])
        await change(any_store, two.id, lambda run, moment: request_cancel(run, None, moment))

        after = await any_store.revisions([one.id, two.id])

        assert before.keys() == {one.id, two.id}
        assert after == {one.id: before[one.id], two.id: before[two.id] + 1}
        assert await any_store.revisions([]) == {}

    async def test_everything_that_a_rule_changes_is_kept(self, any_store: Store) -> None:
        (run,) = await add(any_store, {"made": recipe((), (0,), max_retries=3)})
        run = await lease(any_store, run)
        stage = run.stages[0]
        shape = LoadShape((("id", "BIGINT"),), (("t0_0", (("id", "BIGINT"), ("x", "DATE"))),))
        told = CursorValue("load0", "t0_0", b"\x00\xff", "id", None, "7")
        landed = receipt(run, cursors=(told, CursorValue("load0", "t1_0", b"")), shape=shape)
        result = StageResult(
            Outcome.FAILED,
            receipts=(landed,),
            error=Failure("BROKEN", ErrorClass.TRANSIENT, "nul \x00 and ü", {"row": "7"}),
            failed_task="load0",
            warnings=(Warned("t0_0", "ODD", "odd", {"rows": "3"}),),
            tasks=(TaskReport("t0_0", TaskState.RUNNING, run.created_at - timedelta(seconds=1)),),
        )

        after = await change(
            any_store, run.id, lambda run, moment: finish(run, stage.id, WORKER, stage.fence, result, moment)
        )
        assert after.stages[0].slot_us >= 1_000_000

        kept = await any_store.get(TENANT, run.id)
        assert kept is not None
        assert (kept, kept.revision) == (replace(after, revision=kept.revision), 3)

    async def test_a_write_over_what_somebody_else_changed_is_refused(self, any_store: Store) -> None:
        (run,) = await add(any_store)
        await lease(any_store, run)
        stale = request_cancel(run, None, Moment(run.created_at, lambda: 0.0))

        with pytest.raises(ConcurrentChange):
            await any_store.run(lambda tx: tx.runs.save([(run, stale)]))

        kept = await any_store.get(TENANT, run.id)
        assert kept is not None
        assert kept.stages[0].state is StageState.LEASED

    async def test_a_transaction_that_raises_leaves_nothing(self, any_store: Store) -> None:
        run = accept(order(), (await ask(any_store, _now)))

        async def work(tx: Tx) -> None:
            await tx.runs.insert([run])
            raise KeyError("later")

        with pytest.raises(KeyError):
            await any_store.run(work)
        assert await any_store.get(TENANT, run.id) is None

        # The recipe of the transaction that failed is not taken for known.
        await any_store.run(lambda tx: tx.runs.insert([run]))
        assert await any_store.get(TENANT, run.id) == run

    async def test_locks_are_waited_for_or_passed_over(self, any_store: Store) -> None:
        (run,) = await add(any_store)
        locked, done = asyncio.Event(), asyncio.Event()

        async def hold(tx: Tx) -> None:
            await tx.runs.lock([run.id])
            locked.set()
            await done.wait()

        holder = asyncio.create_task(any_store.run(hold))
        await locked.wait()
        stage = run.stages[0].id

        assert await ask(any_store, lambda tx: tx.runs.lock_idle([run.id])) == {}
        assert await ask(any_store, lambda tx: tx.runs.lock_idle_of([stage])) == {}
        assert await ask(any_store, lambda tx: tx.runs.claim(5)) == ([], {})
        waiting = asyncio.create_task(ask(any_store, lambda tx: tx.runs.lock_of([stage])))
        done.set()
        assert set(await waiting) == {run.id}
        await holder


class TestClaims:
    async def test_settlements_first_then_by_priority_and_age(self, any_store: Store) -> None:
        low, old, new, high = [
            (await add(any_store, {"priority": priority}))[0]
            for priority in (Priority.LOW, Priority.NORMAL, Priority.NORMAL, Priority.HIGH)
        ]
        (settled,) = await add(any_store, {"priority": Priority.LOW})
        settled = await lease(any_store, settled)
        await change(any_store, settled.id, _lost_while_cancelled)

        claims, runs = await ask(any_store, lambda tx: tx.runs.claim(10))
        assert set(runs) == {claim.run for claim in claims}

        assert [claim.run for claim in claims] == [settled.id, high.id, old.id, new.id, low.id]
        assert [claim.fence for claim in claims] == sorted({claim.fence for claim in claims})

    async def test_only_ready_stages_are_claimed(self, any_store: Store) -> None:
        await add(any_store, held=True)
        (run,) = await add(any_store, {"made": recipe((), (0,))})
        await lease(any_store, run)

        assert len(await ask(any_store, lambda tx: tx.runs.fences(2, unless_ready=True))) == 2
        assert not await any_store.has_waiting()
        assert await ask(any_store, lambda tx: tx.runs.claim(10)) == ([], {})

    async def test_many_claimers_at_once_share_the_work_and_never_one_stage(self, any_store: Store) -> None:
        await add(any_store, *({"made": recipe((), ())} for _ in range(30)))

        async def claim_some(worker: UUID) -> list[UUID]:
            mine: list[UUID] = []

            async def work(tx: Tx) -> list[UUID]:
                claims, before = await tx.runs.claim(7)
                after = dict(before)
                taken = []
                for claim in claims:
                    stage = after[claim.run].stage(claim.stage)
                    if stage is not None and stage.state is StageState.READY:
                        moment = Moment(tx.now, lambda: 0.0)
                        after[claim.run] = assign(after[claim.run], claim.stage, worker, claim.fence, moment)
                        taken.append(claim.stage)
                await tx.runs.save([(before[key], after[key]) for key in before])
                return taken

            while await any_store.has_waiting():
                mine += await any_store.run(work)
            return mine

        shares = await asyncio.gather(*(claim_some(uuid7()) for _ in range(4)))

        everything = [stage for share in shares for stage in share]
        assert (len(everything), len(set(everything))) == (60, 60)

    async def test_fences_grow_over_all_transactions(self, any_store: Store) -> None:
        first = await ask(any_store, lambda tx: tx.runs.fences(3))
        second = await ask(any_store, lambda tx: tx.runs.fences(2))
        await add(any_store)
        assert await ask(any_store, lambda tx: tx.runs.fences(2, unless_ready=True)) == []

        assert first + second == sorted({*first, *second})


class TestLeases:
    async def test_leases_of_workers_that_do_not_renew_run_out(self, any_store: Any) -> None:
        await hello(any_store, WORKER, OTHER_WORKER)
        (kept,), (lost,) = await add(any_store), await add(any_store)
        await lease(any_store, kept)
        lost = await lease(any_store, lost, OTHER_WORKER)
        any_store.skew = timedelta(seconds=14)
        assert await ask(any_store, lambda tx: tx.workers.renew([WORKER], LEASE)) == {WORKER}
        assert await ask(any_store, lambda tx: tx.runs.expired(10)) == []

        any_store.skew = timedelta(seconds=20)
        expired = await ask(any_store, lambda tx: tx.runs.expired(10))

        assert [(found.worker, found.run) for found in expired] == [(OTHER_WORKER, lost.id)]

    async def test_leases_of_unknown_workers_have_run_out(self, any_store: Store) -> None:
        (run,) = await add(any_store)
        run = await lease(any_store, run)

        expired = await ask(any_store, lambda tx: tx.runs.expired(10))

        stage = run.stages[0]
        assert stage.leased_at is not None
        assert expired == [Lease(WORKER, stage.id, run.id, stage.fence, stage.leased_at)]
        assert await ask(any_store, lambda tx: tx.runs.leases([WORKER])) == expired
        assert await ask(any_store, lambda tx: tx.runs.stops([WORKER])) == []

    async def test_stops_are_found_by_worker(self, any_store: Store) -> None:
        (run,) = await add(any_store)
        await lease(any_store, run)

        await change(any_store, run.id, lambda run, moment: request_cancel(run, None, moment))

        stops = await ask(any_store, lambda tx: tx.runs.stops([WORKER]))
        assert [(stop.run, stop.stop) for stop in stops] == [(run.id, "CANCELLED")]

    async def test_a_worker_of_another_name_cannot_take_an_identity(self, any_store: Store) -> None:
        await hello(any_store, WORKER)
        impostor = WorkerRecord(WORKER, "impostor", 1, "1", ())

        assert not await ask(any_store, lambda tx: tx.workers.hello(impostor, LEASE))

    async def test_workers_that_are_long_gone_are_forgotten_unless_they_hold_something(
        self, any_store: Any
    ) -> None:
        await hello(any_store, WORKER, OTHER_WORKER)
        (run,) = await add(any_store)
        await lease(any_store, run)
        any_store.skew = timedelta(hours=2)

        assert await ask(any_store, lambda tx: tx.workers.forget(timedelta(hours=1), 10)) == 1
        assert await ask(any_store, lambda tx: tx.workers.renew([WORKER, OTHER_WORKER], LEASE)) == {WORKER}

    async def test_secrets_are_for_the_holder_under_the_latest_fence_only(self, any_store: Any) -> None:
        await hello(any_store, WORKER)
        (run,) = await add(any_store)
        run = await lease(any_store, run)
        stage = run.stages[0]

        async def may(worker: UUID, name: str, fence: int) -> bool:
            return (
                await ask(any_store, lambda tx: tx.workers.secrets_of(worker, name, stage.id, fence))
                is not None
            )

        assert await may(WORKER, "w", stage.fence)
        assert not await may(WORKER, "w", stage.fence - 1)
        assert not await may(WORKER, "another", stage.fence)
        assert not await may(OTHER_WORKER, "w", stage.fence)
        any_store.skew = timedelta(seconds=16)
        assert not await may(WORKER, "w", stage.fence)


class TestDue:
    async def test_what_is_due_is_found_and_what_is_not_is_not(self, any_store: Any) -> None:
        (timed,) = await add(any_store, {"made": recipe(queue_timeout=timedelta(seconds=50))})
        (leased,) = await add(any_store, {"made": recipe(attempt_timeout=timedelta(seconds=20))})
        await lease(any_store, leased)
        await add(any_store)
        assert await ask(any_store, lambda tx: tx.runs.due(10)) == []

        any_store.skew = timedelta(seconds=30)
        assert await ask(any_store, lambda tx: tx.runs.due(10)) == [leased.id]

        any_store.skew = timedelta(seconds=60)
        assert await ask(any_store, lambda tx: tx.runs.due(10)) == [leased.id, timed.id]


class TestPipelines:
    async def test_a_closed_pipeline_is_told_at_its_gate(self, any_store: Store) -> None:
        pipeline, other = uuid7(), uuid7()

        assert await close(any_store, pipeline) == Closing(True, [])

        assert await ask(any_store, lambda tx: tx.pipelines.enter([pipeline, other])) == {pipeline}

    async def test_live_runs_keep_it_open_unless_it_is_closed_despite_them(self, any_store: Store) -> None:
        (run,) = await add(any_store)

        assert await close(any_store, run.pipeline) == Closing(False, [run.id])
        assert await ask(any_store, lambda tx: tx.pipelines.enter([run.pipeline])) == frozenset()
        assert await close(any_store, run.pipeline, despite_live=True) == Closing(True, [run.id])
        assert await ask(any_store, lambda tx: tx.pipelines.enter([run.pipeline])) == {run.pipeline}

    async def test_a_refused_attempt_stays_refused_and_so_does_each_before_it(self, any_store: Store) -> None:
        (run,) = await add(any_store)
        assert not (await close(any_store, run.pipeline, attempt=2)).is_closed
        assert not (await close(any_store, run.pipeline, attempt=1)).is_closed
        await change(any_store, run.id, lambda run, moment: request_cancel(run, None, moment))

        late = [await close(any_store, run.pipeline, attempt=attempt) for attempt in (1, 2)]

        assert late == [Closing(False, []), Closing(False, [])]
        assert await ask(any_store, lambda tx: tx.pipelines.enter([run.pipeline])) == frozenset()
        assert await close(any_store, run.pipeline, attempt=3) == Closing(True, [])

    async def test_closing_waits_for_those_inside_the_gate(self, any_store: Store) -> None:
        run = accept(order(), await ask(any_store, _now))
        inside, go_on = asyncio.Event(), asyncio.Event()

        async def accepting(tx: Tx) -> None:
            await tx.pipelines.enter([run.pipeline])
            inside.set()
            await go_on.wait()
            await tx.runs.insert([run])

        acceptance = asyncio.create_task(any_store.run(accepting))
        await inside.wait()
        closing = asyncio.create_task(close(any_store, run.pipeline))
        go_on.set()

        assert await closing == Closing(False, [run.id])
        await acceptance

    async def test_held_runs_are_not_counted_and_go_by_priority_and_age(self, any_store: Store) -> None:
        pipeline = uuid7()
        await add(any_store, {"pipeline": pipeline}, {"pipeline": pipeline})
        low, old, new = [
            (await add(any_store, {"pipeline": pipeline, "priority": priority}, held=True))[0]
            for priority in (Priority.LOW, Priority.NORMAL, Priority.NORMAL)
        ]

        assert await ask(any_store, lambda tx: tx.pipelines.live_counts([pipeline])) == {pipeline: 2}
        held = await ask(any_store, lambda tx: tx.pipelines.held(pipeline, 10))
        assert held == [old.id, new.id, low.id]
        assert await ask(any_store, lambda tx: tx.pipelines.pipelines_with_held(10)) == [pipeline]

    async def test_cursors_only_move_forward(self, any_store: Store) -> None:
        pipeline = uuid7()

        async def move(value: bytes, fence: int) -> None:
            cursor = CursorValue("load", "rows", value)
            await any_store.run(
                lambda tx: tx.pipelines.move_cursors([CursorMove(pipeline, TENANT, cursor, fence)])
            )

        await move(b"1", 5)
        await move(b"0", 4)
        await move(b"again", 5)
        assert await ask(any_store, lambda tx: tx.pipelines.cursors([(pipeline, "load")])) == {
            (pipeline, "load"): [StandingCursor("load", "rows", b"1", 5)]
        }

        await move(b"2", 6)
        found = await ask(any_store, lambda tx: tx.pipelines.cursors([(pipeline, "load")]))
        assert found[pipeline, "load"][0].value == b"2"

    async def test_a_purge_goes_piece_by_piece_and_leaves_others_alone(self, any_store: Store) -> None:
        pipeline = uuid7()
        runs = await add(any_store, *({"pipeline": pipeline} for _ in range(5)))
        (other,) = await add(any_store)
        await ask(any_store, lambda tx: tx.pipelines.ask_purge({pipeline: TENANT}))
        assert await ask(any_store, lambda tx: tx.pipelines.to_purge(10)) == [(pipeline, TENANT)]
        assert await ask(any_store, lambda tx: tx.pipelines.enter([pipeline])) == {pipeline}

        steps = [await ask(any_store, lambda tx: tx.pipelines.purge(pipeline, 2)) for _ in range(3)]

        assert steps == [False, False, True]
        assert [await any_store.get(TENANT, run.id) for run in runs] == [None] * 5
        assert await any_store.get(TENANT, other.id) == other
        await ask(any_store, lambda tx: tx.pipelines.purged(pipeline))
        assert await ask(any_store, lambda tx: tx.pipelines.to_purge(10)) == []


class TestProbes:
    async def test_a_question_is_handed_out_once_and_answered_by_its_holder(self, any_store: Store) -> None:
        probe = Probe(uuid7(), TENANT, uuid7(), ProbeKind.DRY_RUN, ("warehouse", "files"), b'{"a":1}', "ada")
        await ask(any_store, lambda tx: tx.probes.insert(probe, timedelta(seconds=30)))
        await hello(any_store, WORKER)
        assert await any_store.has_waiting()

        ((claimed, held),) = await ask(any_store, lambda tx: tx.probes.claim([WORKER, OTHER_WORKER]))

        assert (claimed, held.worker) == (probe, WORKER)
        assert await ask(any_store, lambda tx: tx.probes.claim([WORKER])) == []
        assert not await ask(any_store, lambda tx: tx.probes.answer(OTHER_WORKER, probe.id, held.fence, b"x"))
        holder = await ask(any_store, lambda tx: tx.workers.secrets_of(WORKER, "w", probe.id, held.fence))
        assert holder is not None
        assert holder.connections == probe.connections
        assert await ask(any_store, lambda tx: tx.probes.answer(WORKER, probe.id, held.fence, b"{}"))
        assert await ask(any_store, lambda tx: tx.probes.answers([probe.id])) == {probe.id: b"{}"}

    async def test_a_lease_begins_when_the_question_is_handed_out(self, any_store: Any) -> None:
        """Not when it was asked: a heartbeat that crosses it on its way must not take it back."""
        probe = Probe(uuid7(), TENANT, uuid7(), ProbeKind.TEST, (str(uuid7()),), b"{}", "ada")
        await ask(any_store, lambda tx: tx.probes.insert(probe, timedelta(seconds=90)))
        any_store.skew = timedelta(seconds=60)

        ((_, held),) = await ask(any_store, lambda tx: tx.probes.claim([WORKER]))

        assert await ask(any_store, lambda tx: tx.probes.leases([WORKER])) == [held]
        assert await ask(any_store, lambda tx: tx.probes.expired(10)) == [held]

    async def test_a_question_whose_worker_is_gone_is_handed_out_again(self, any_store: Store) -> None:
        probe = Probe(uuid7(), TENANT, uuid7(), ProbeKind.TABLES, (str(uuid7()),), b"{}", "ada")
        await ask(any_store, lambda tx: tx.probes.insert(probe, timedelta(seconds=30)))
        ((_, first),) = await ask(any_store, lambda tx: tx.probes.claim([WORKER]))

        expired = await ask(any_store, lambda tx: tx.probes.expired(10))
        await ask(any_store, lambda tx: tx.probes.offer_again(expired))
        ((_, second),) = await ask(any_store, lambda tx: tx.probes.claim([OTHER_WORKER]))

        assert second.fence > first.fence
        assert not await ask(any_store, lambda tx: tx.probes.answer(WORKER, probe.id, first.fence, b"late"))
        assert await ask(any_store, lambda tx: tx.probes.remove(probe.id))


class TestLists:
    async def test_pages_are_newest_first_and_complete(self, any_store: Store) -> None:
        runs = [(await add(any_store))[0] for _ in range(5)]
        narrow = RunFilter(TENANT)

        first = await any_store.list_runs(narrow, limit=3, offset=0, after=None)
        last = first[-1]
        rest = await any_store.list_runs(narrow, limit=3, offset=0, after=(last.created_at, last.id))

        assert [item.id for item in [*first, *rest]] == [run.id for run in reversed(runs)]
        skipped = await any_store.list_runs(narrow, limit=3, offset=3, after=None)
        assert skipped == rest
        assert await any_store.count_runs(narrow) == 5

    async def test_filters_narrow(self, any_store: Store) -> None:
        (run,), (other,) = await add(any_store), await add(any_store, {"tenant": uuid7()})
        (cancelled,) = await add(any_store, {"workspace": run.workspace, "pipeline": run.pipeline})
        await change(any_store, cancelled.id, lambda run, moment: request_cancel(run, None, moment))

        async def listed(**narrow: Any) -> set[UUID]:
            rows = await any_store.list_runs(
                RunFilter(**{"tenant": TENANT, **narrow}), limit=10, offset=0, after=None
            )
            return {row.id for row in rows}

        assert await listed() == {run.id, cancelled.id}
        assert await listed(tenant=other.tenant) == {other.id}
        assert await listed(state=RunState.CANCELLED) == {cancelled.id}
        assert await listed(pipeline=run.pipeline) == {run.id, cancelled.id}
        assert await listed(workspaces=frozenset({run.workspace})) == {run.id, cancelled.id}
        assert await listed(workspaces=frozenset({uuid7(), uuid7()})) == set()
        assert await listed(workspaces=frozenset()) == set()


class TestTickets:
    async def test_a_ticket_is_taken_once(self, any_store: Store) -> None:
        until = datetime(2030, 1, 1, tzinfo=UTC)
        mine = StreamTicket(uuid7(), TENANT, "ada", frozenset({uuid7(), uuid7()}), until)
        all_of_them = replace(mine, workspaces=None)
        await ask(any_store, lambda tx: tx.tickets.add(b"one", mine, timedelta(seconds=30)))
        await ask(any_store, lambda tx: tx.tickets.add(b"two", all_of_them, timedelta(seconds=30)))

        took = [
            await ask(any_store, partial(take, digest)) for digest in (b"one", b"one", b"two", b"unknown")
        ]

        assert took == [mine, None, all_of_them, None]

    async def test_a_ticket_expires(self, any_store: Any) -> None:
        until = datetime(2030, 1, 1, tzinfo=UTC)
        mine = StreamTicket(uuid7(), TENANT, "ada", None, until)
        await ask(any_store, lambda tx: tx.tickets.add(b"one", mine, timedelta(seconds=30)))
        any_store.skew = timedelta(seconds=31)

        assert await ask(any_store, partial(take, b"one")) is None


async def take(digest: bytes, tx: Tx) -> StreamTicket | None:
    return await tx.tickets.take(digest)


class TestAnswers:
    async def test_an_answer_is_found_under_its_key_and_body_only(self, any_store: Store) -> None:
        key = IdempotencyKey(TENANT, "ada", "Run", "k", b"body")
        other = replace(key, body_hash=b"other")

        async def work(tx: Tx) -> Sequence[Standing]:
            lookups = await tx.answers.lookup([key])
            await tx.answers.store([(key, b"answer")])
            return [lookup.standing for lookup in lookups]

        assert await any_store.run(work) == [Standing.NEW]
        found, reused = await ask(any_store, lambda tx: tx.answers.lookup([key, other]))
        assert (found.standing, found.answer, reused.standing) == (
            Standing.STORED,
            b"answer",
            Standing.REUSED,
        )


async def _now(tx: Tx) -> Any:
    return tx.now


def _lost_while_cancelled(run: Run, moment: Moment) -> Run:
    stage = run.stages[0]
    assert stage.worker is not None
    run = request_cancel(run, None, moment)
    return lose_worker(run, stage.id, stage.worker, stage.fence, moment)
