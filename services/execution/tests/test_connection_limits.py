"""Limits of connections: no more stages use one at once than may, and the others do not wait for that."""

import asyncio
from typing import Any
from uuid import UUID

import pytest
from headrace.metadata.v1 import definitions_pb2
from headrace_execution.domain.assignments import assign, give_back
from headrace_execution.domain.connection_limits import Limits, Usage, from_words, to_words
from headrace_execution.domain.moment import Moment
from headrace_execution.domain.recipe import Priority
from headrace_execution.store.port import Claim, Store, Tx

from .factories import WORKER, recipe
from .support import LOADING, NOOP, Cluster, Replica, state_of
from .test_store import _lost_while_cancelled, add, ask, change, lease

SHARED: Limits = (("a", 2),)
BOTH: Limits = (("a", 2), ("b", 1))


class TestUsage:
    def test_room_is_what_the_tightest_connection_leaves(self) -> None:
        usage = Usage([SHARED, (("b", 5),)])

        assert (usage.room(SHARED), usage.room(BOTH), usage.room((("c", 3),))) == (1, 0, 3)
        assert (usage.take(SHARED), usage.take(SHARED), usage.take(())) == (True, False, True)

    def test_a_lower_limit_than_what_runs_leaves_no_room(self) -> None:
        assert Usage([SHARED, SHARED]).room((("a", 1),)) == 0

    @pytest.mark.parametrize("limits", [SHARED, BOTH])
    def test_words_are_limits_again(self, limits: Limits) -> None:
        words = to_words(limits)
        assert words is not None
        assert from_words(words) == limits
        assert to_words(()) is None


async def claim(store: Store, limit: int = 10) -> list[UUID]:
    """Claims and leases; the runs whose stages these were."""

    async def work(tx: Tx) -> list[UUID]:
        claims, before = await tx.runs.claim(limit)
        moment = Moment(tx.now, lambda: 0.0)
        after = dict(before)
        for item in claims:
            after[item.run] = assign(after[item.run], item.stage, WORKER, item.fence, moment)
        await tx.runs.save([(before[key], after[key]) for key in before])
        return [item.run for item in claims]

    return await store.run(work)


class TestClaims:
    async def test_as_many_are_claimed_as_may_run_and_others_pass(self, any_store: Store) -> None:
        limited = [(await add(any_store, {"made": recipe(limits=SHARED)}))[0].id for _ in range(4)]
        (free,) = await add(any_store)

        assert await claim(any_store) == [*limited[:2], free.id]
        assert await claim(any_store) == []
        await change(any_store, limited[0], _gives_back)
        assert await claim(any_store) == [limited[2]]  # the one that was given back goes behind it

    async def test_a_connection_without_room_does_not_hide_another(self, any_store: Store) -> None:
        for _ in range(5):
            await add(any_store, {"made": recipe(limits=(("a", 1),))})
        (other,) = await add(any_store, {"made": recipe(limits=(("b", 1),))})
        first = await claim(any_store, limit=1)

        assert await claim(any_store, limit=1) == [other.id]
        assert len(first) == 1

    async def test_urgent_ones_go_first_whether_limited_or_not(self, any_store: Store) -> None:
        (low,) = await add(any_store, {"made": recipe(limits=SHARED), "priority": Priority.LOW})
        (normal,) = await add(any_store)
        (high,) = await add(any_store, {"made": recipe(limits=SHARED), "priority": Priority.HIGH})

        assert [await claim(any_store, limit=1) for _ in range(3)] == [[high.id], [normal.id], [low.id]]

    async def test_settlements_neither_wait_nor_count(self, any_store: Store) -> None:
        (settled,) = await add(any_store, {"made": recipe(limits=(("a", 1),))})
        await lease(any_store, settled)
        await change(any_store, settled.id, _lost_while_cancelled)
        (waiting,) = await add(any_store, {"made": recipe(limits=(("a", 1),))})

        assert await claim(any_store, limit=1) == [settled.id]
        assert await claim(any_store) == [waiting.id]

    async def test_only_what_waits_for_a_slot_alone_keeps_fences_back(self, any_store: Store) -> None:
        await add(any_store, {"made": recipe(limits=SHARED)})

        assert len(await ask(any_store, lambda tx: tx.runs.fences(1, unless_ready=True))) == 1
        assert await any_store.has_waiting()

    async def test_while_one_transaction_claims_them_others_pass_them_over(self, any_store: Store) -> None:
        await add(any_store, *({"made": recipe(limits=SHARED)} for _ in range(3)))
        claimed, done = asyncio.Event(), asyncio.Event()

        async def hold(tx: Tx) -> list[Claim]:
            claims, _ = await tx.runs.claim(1)
            claimed.set()
            await done.wait()
            return claims

        holder = asyncio.create_task(any_store.run(hold))
        await claimed.wait()
        (free,) = await add(any_store)
        assert await claim(any_store) == [free.id]
        done.set()
        assert len(await holder) == 1

    async def test_many_claimers_at_once_never_lease_more_than_may_run(self, any_store: Store) -> None:
        await add(any_store, *({"made": recipe(limits=(("a", 3),))} for _ in range(20)))

        async def work() -> int:
            return sum([len(await claim(any_store, limit=2)) for _ in range(10)])

        assert sum(await asyncio.gather(*(work() for _ in range(4)))) == 3


def _gives_back(run: Any, moment: Moment) -> Any:
    stage = run.stages[0]
    return give_back(run, stage.id, stage.worker, stage.fence, moment, certain=True)


class TestOverGrpc:
    async def test_runs_share_a_connection_and_each_goes_on_when_one_ends(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        other = await mesh.replica()
        limit = definitions_pb2.ConnectionLimit(connection_id="w1", max_concurrent_stages=2)
        pipelines = [mesh.metadata.add(LOADING, connection_limits={"warehouse": limit}) for _ in range(2)]
        workers = [await mesh.worker(replica, slots=6), await mesh.worker(other, slots=6)]

        runs = [(await each.run(pipelines[n % 2])).run_id for n, each in enumerate([replica, other] * 3)]
        free = (await replica.run(mesh.metadata.add(NOOP))).run_id

        served: list[str] = []
        while len(served) < 7:
            for worker in workers:
                await _finish_what_came(worker, served)
            live = sum([state_of(await replica.status(run)) == "RUNNING" for run in runs])
            assert live <= 2
        assert sorted(served) == sorted([*runs, free])
        assert [state_of(await replica.ended(run)) for run in runs] == ["COMPLETED"] * 6

    async def test_a_changed_limit_holds_for_runs_that_are_accepted_from_then_on(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        def limit(most: int) -> dict[str, definitions_pb2.ConnectionLimit]:
            return {
                "warehouse": definitions_pb2.ConnectionLimit(connection_id="w", max_concurrent_stages=most)
            }

        pipeline = mesh.metadata.add(LOADING, connection_limits=limit(1))
        worker = await mesh.worker(replica)
        first, second = [(await replica.run(pipeline)).run_id for _ in range(2)]
        assert (await worker.next_assignment()).run_id == first
        mesh.metadata.add(LOADING, connection_limits=limit(2), pipeline=pipeline)
        third = (await replica.run(pipeline)).run_id

        assert (await worker.next_assignment()).run_id == third
        assert state_of(await replica.status(second)) == "PENDING"


async def _finish_what_came(worker: Any, served: list[str]) -> None:
    """Ends what a worker was handed, as soon as there is something, or not at all."""
    try:
        assignment = await asyncio.wait_for(worker.assignments.get(), 0.3)
    except TimeoutError:
        return
    served.append(assignment.run_id)
    await worker.finish(assignment)
    await worker.next_ack()
