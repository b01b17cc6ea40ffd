"""The conformance suite goes on: decisions on starts, and whose turn it is among the runs of a trigger."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from headrace_chassis.ids import uuid7
from headrace_execution.domain.lifecycle import request_cancel
from headrace_execution.domain.starts import Decision, StartOutcome
from headrace_execution.domain.states import RunState
from headrace_execution.domain.triggers import Overlap, Peer, Trigger, TriggerKind
from headrace_execution.store.port import RunFilter, Store, Tx

from .factories import TENANT
from .test_store import add, ask, change, lease


def behind(name: str, overlap: Overlap | None = Overlap.QUEUE) -> Trigger:
    """A trigger whose runs go one after another."""
    return Trigger(TriggerKind.SCHEDULE, name, overlap=overlap)


class TestDecisions:
    async def test_a_key_is_decided_once_and_told_to_who_asks_again(self, any_store: Any) -> None:
        run, other = uuid7(), uuid7()

        async def decide(tx: Tx) -> Decision:
            assert await tx.starts.take(TENANT, ["b", "a"]) == {}
            made = Decision("a", StartOutcome.HELD, tx.now, run, "WHY", "because", (other, run))
            skipped = Decision("b", StartOutcome.SKIPPED, tx.now)
            await tx.starts.decide(TENANT, [made, skipped])
            return made

        made = await any_store.run(decide)

        assert await ask(any_store, lambda tx: tx.starts.take(TENANT, ["a", "c"])) == {"a": made}
        assert await any_store.decisions(TENANT, ["a", "zzz"]) == [made]
        assert await any_store.decisions(uuid7(), ["a", "b"]) == []

    async def test_who_comes_second_waits_and_gets_what_the_first_decided(self, any_store: Store) -> None:
        taken, go_on = asyncio.Event(), asyncio.Event()

        async def first(tx: Tx) -> None:
            await tx.starts.take(TENANT, ["k"])
            taken.set()
            await go_on.wait()
            await tx.starts.decide(TENANT, [Decision("k", StartOutcome.REFUSED, tx.now, None, "NO")])

        deciding = asyncio.create_task(any_store.run(first))
        await taken.wait()
        asking = asyncio.create_task(ask(any_store, lambda tx: tx.starts.take(TENANT, ["j", "k", "l"])))
        assert not (await asyncio.wait([asking], timeout=0.1))[0]
        go_on.set()

        assert [(key, made.reason) for key, made in (await asking).items()] == [("k", "NO")]
        await deciding

    async def test_what_a_failed_transaction_took_is_free_again(self, any_store: Store) -> None:
        async def work(tx: Tx) -> None:
            await tx.starts.take(TENANT, ["k"])
            raise KeyError("later")

        with pytest.raises(KeyError):
            await any_store.run(work)
        assert await ask(any_store, lambda tx: tx.starts.take(TENANT, ["k"])) == {}

    async def test_only_keys_that_were_taken_are_decided(self, any_store: Store) -> None:
        async def work(tx: Tx) -> None:
            await tx.starts.decide(TENANT, [Decision("k", StartOutcome.STARTED, tx.now)])

        with pytest.raises(ValueError, match="not taken"):
            await any_store.run(work)

    async def test_old_decisions_are_forgotten(self, any_store: Any) -> None:
        async def decide(tx: Tx) -> None:
            await tx.starts.take(TENANT, ["k", "l"])
            made = [Decision(key, StartOutcome.STARTED, tx.now) for key in ("k", "l")]
            await tx.starts.decide(TENANT, made)

        await any_store.run(decide)
        assert await ask(any_store, lambda tx: tx.starts.forget(timedelta(days=1), 10)) == 0
        any_store.skew = timedelta(days=2)

        assert await ask(any_store, lambda tx: tx.starts.forget(timedelta(days=1), 1)) == 1
        assert len(await any_store.decisions(TENANT, ["k", "l"])) == 1


class TestTriggers:
    async def test_a_trigger_comes_back_with_its_run_and_narrows_lists(self, any_store: Store) -> None:
        trigger = Trigger(TriggerKind.BACKFILL, "b1", "key", Overlap.SKIP)
        (run,) = await add(any_store, {"trigger": trigger})
        await add(any_store)
        narrow = RunFilter(TENANT, trigger_id="b1")

        assert await any_store.get(TENANT, run.id) == run
        found = await any_store.list_runs(narrow, limit=5, offset=0, after=None)
        assert [(item.id, item.trigger) for item in found] == [(run.id, trigger)]
        assert await any_store.count_runs(narrow) == 1

    async def test_live_runs_of_triggers_are_told_oldest_first(self, any_store: Store) -> None:
        pipeline = uuid7()
        (old,) = await add(any_store, {"pipeline": pipeline, "trigger": behind("s", None)})
        (new,) = await add(any_store, {"pipeline": pipeline, "trigger": behind("s")}, held=True)
        await add(any_store, {"pipeline": pipeline, "trigger": behind("other")}, {"trigger": behind("s")})
        (ended,) = await add(any_store, {"pipeline": pipeline, "trigger": behind("s")})
        await change(any_store, ended.id, lambda run, moment: request_cancel(run, None, moment))

        found = await ask(any_store, lambda tx: tx.runs.live_of({(pipeline, "s"), (pipeline, "none")}))

        assert found == {(pipeline, "s"): [Peer(old.id, False), Peer(new.id, True)]}

    async def test_of_those_that_go_one_after_another_only_the_first_has_its_turn(
        self, any_store: Store
    ) -> None:
        pipeline = uuid7()
        made = [
            (await add(any_store, {"pipeline": pipeline, "trigger": trigger}, held=True))[0].id
            for trigger in (behind("s"), behind("s"), behind("t"), behind("u", None), behind("u", None))
        ]
        first, second, third, *free = made

        async def turns() -> list[Any]:
            return await ask(any_store, lambda tx: tx.pipelines.held(pipeline, 10))

        assert await turns() == [first, third, *free]
        await change(any_store, first, lambda run, moment: request_cancel(run, None, moment))
        assert await turns() == [second, third, *free]
        await add(any_store, {"pipeline": pipeline, "trigger": behind("s", None)})
        assert await turns() == [third, *free]

    async def test_how_runs_stand(self, any_store: Store) -> None:
        (live,), (gone,) = await add(any_store), await add(any_store)
        await lease(any_store, live)
        await change(any_store, live.id, lambda run, moment: request_cancel(run, None, moment))
        await change(any_store, gone.id, lambda run, moment: request_cancel(run, None, moment))

        found = await any_store.standings(TENANT, [live.id, gone.id, uuid7()])

        assert {key: (run.state, run.cancel_requested) for key, run in found.items()} == {
            live.id: (RunState.RUNNING, True),
            gone.id: (RunState.CANCELLED, False),
        }
        assert (found[live.id].finished_at, found[gone.id].finished_at is None) == (None, False)
        assert await any_store.standings(uuid7(), [live.id]) == {}
