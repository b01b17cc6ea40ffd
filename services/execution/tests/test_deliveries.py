"""What is told to whom, how it is shown, and how any store keeps it until it has been told."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from headrace_chassis.ids import uuid7
from headrace_execution.domain.alerts import AlertBook, Rule
from headrace_execution.domain.assignments import finish
from headrace_execution.domain.deliveries import (
    DELAYS,
    Delivery,
    is_told,
    next_try,
    of_alert,
    of_run,
)
from headrace_execution.domain.recipe import Channel, Notices, Receiver, Recipe
from headrace_execution.domain.run import ErrorClass
from headrace_execution.domain.states import RunState
from headrace_execution.notifying.rendering import slack_message, subject, text
from headrace_execution.store.deliveries_port import MOST_WAITING
from headrace_execution.store.port import Store, Tx

from .factories import NOW, TENANT, WORKER, at, completed, failed, leased, recipe
from .test_alert_rules import finding
from .test_store import add, ask

LEASE = timedelta(seconds=60)


def noticed(*receivers: Receiver) -> Recipe:
    return replace(recipe(), notices=Notices("sales <daily>", receivers))


def receiver(*on: str, channel: Channel = Channel.WEBHOOK, target: str = "https://example.com/x") -> Receiver:
    return Receiver(on, channel, target)


def delivery(pipeline: UUID | None = None, **changes: Any) -> Delivery:
    made = Delivery(
        uuid7(), TENANT, uuid7(), pipeline or uuid7(), Channel.SLACK, "https://x", "${secrets.s}", "{}"
    )
    return replace(made, **changes)


class TestWhatIsTold:
    def test_those_hear_of_a_run_who_ask_for_its_state(self) -> None:
        run = leased(noticed(receiver("RUNNING"), receiver("FAILED", "SUCCESS"), receiver("WARNING")))
        assert is_told(run)
        ended = finish(run, run.stages[0].id, WORKER, 1, failed(ErrorClass.DATA, "BAD", "t0_0"), at(90))
        (told,) = of_run(ended, RunState.FAILED, at(90).now, uuid7)
        body = json.loads(told.body)
        assert (body["type"], body["timestamp"]) == ("run.failed", "2026-01-02T03:05:35Z")
        assert (body["data"]["runId"], body["data"]["error"]) == (str(run.id), "t0_0: it broke")
        assert "intervalStart" not in body["data"]

    def test_a_state_is_told_as_it_was_when_the_run_has_gone_on(self) -> None:
        run = leased(noticed(receiver("RUNNING")))
        ended = finish(run, run.stages[0].id, WORKER, 1, completed(run), at(1))
        assert not is_told(ended)
        (told,) = of_run(ended, RunState.RUNNING, NOW, uuid7)
        data = json.loads(told.body)["data"]
        assert (data["status"], "finishedAt" in data) == ("RUNNING", False)

    def test_nobody_is_told_where_nobody_asks(self) -> None:
        assert not is_told(leased())
        assert of_run(leased(), RunState.RUNNING, NOW, uuid7) == []

    @pytest.mark.parametrize(("rule", "count"), [(Rule.ROWS_UNUSUAL, 1), (Rule.RUN_FAILED, 0)])
    def test_alerts_are_told_that_no_end_of_a_run_tells(self, rule: Rule, count: int) -> None:
        book = AlertBook((), uuid7)
        book.find(finding(rule))
        notices = Notices("p", (receiver("WARNING"), receiver("FAILED")))
        told = [made for change in book.told for made in of_alert(change, notices, uuid7)]
        assert len(told) == count
        assert all(json.loads(made.body)["data"]["rule"] == rule for made in told)

    def test_what_a_name_holds_is_no_markup(self) -> None:
        run = leased(noticed(receiver("RUNNING")))
        (told,) = of_run(run, RunState.RUNNING, NOW, uuid7)
        assert subject(told.body) == "sales <daily>: a run has started"
        assert f"Run: {run.id}" in text(told.body).splitlines()
        assert b"sales &lt;daily&gt;" in slack_message(told.body)

    def test_tries_go_on_for_days_and_end(self) -> None:
        assert [next_try(number, 0.0) for number in (1, 2, 9, 10)] == [DELAYS[0], DELAYS[1], DELAYS[8], None]
        assert next_try(1, 1.0) == DELAYS[0] * 1.1
        assert next_try(1, 0.0, retry_after=60.0) == timedelta(seconds=60)
        assert next_try(2, 0.0, retry_after=1.0) == DELAYS[1]
        assert next_try(1, 0.0, retry_after=1e12) == timedelta(hours=24)

    def test_a_target_is_shown_by_no_repr(self) -> None:
        made = delivery(target="https://hooks.example.com/canary")
        assert "canary" not in repr(made) + repr(receiver(target="canary")) + made.receiver


class TestStore:
    async def test_a_delivery_is_handed_out_once_until_its_lease_is_over(self, any_store: Any) -> None:
        made = delivery()
        assert await ask(any_store, lambda tx: tx.deliveries.add([made])) == []
        first = await claim(any_store)
        assert first == [replace(made, attempts=1)]
        assert await claim(any_store) == await claim(any_store, again=True) == []
        any_store.skew = timedelta(seconds=61)
        assert await claim(any_store, again=True) == [replace(made, attempts=2)]

        await ask(any_store, lambda tx: tx.deliveries.put_off(first[0], timedelta(), "late"))
        assert await claim(any_store, again=True) == [], "who has lost the lease changes nothing"
        await ask(any_store, lambda tx: tx.deliveries.delivered(first[0]))
        any_store.skew = timedelta(days=9)
        assert await claim(any_store, again=True) == []

    async def test_what_failed_is_tried_again_and_what_was_given_up_is_not(self, any_store: Any) -> None:
        later, never = delivery(), delivery()
        await ask(any_store, lambda tx: tx.deliveries.add([later, never]))
        claimed = {each.id: each for each in await claim(any_store)}

        async def settle(tx: Tx) -> None:
            await tx.deliveries.put_off(claimed[later.id], timedelta(seconds=5), "503")
            await tx.deliveries.park(claimed[never.id], "410")

        await any_store.run(settle)
        assert await claim(any_store, again=True) == []
        any_store.skew = timedelta(seconds=6)
        assert [each.id for each in await claim(any_store, again=True)] == [later.id]
        any_store.skew = timedelta(days=3)
        assert await ask(any_store, lambda tx: tx.deliveries.forget_parked(timedelta(days=1), 10)) == 1
        assert await ask(any_store, lambda tx: tx.deliveries.forget_parked(timedelta(days=1), 10)) == 0

    async def test_only_so_many_of_a_pipeline_wait(self, any_store: Store) -> None:
        busy, other = uuid7(), delivery()
        many = [delivery(busy) for _ in range(MOST_WAITING + 1)]
        assert await ask(any_store, lambda tx: tx.deliveries.add([*many, other])) == [many[-1]]
        assert await ask(any_store, lambda tx: tx.deliveries.add([many[-1]])) == [many[-1]]

    async def test_the_latest_run_says_who_is_told(self, any_store: Store) -> None:
        pipeline = uuid7()
        old, new = (replace(noticed(receiver(word)), digest=word.encode()) for word in ("FAILED", "WARNING"))
        await add(any_store, {"pipeline": pipeline, "recipe": old})
        await add(any_store, {"pipeline": pipeline, "recipe": new})
        (silent,) = await add(any_store)
        found = await ask(any_store, lambda tx: tx.deliveries.notices([pipeline, silent.pipeline, uuid7()]))
        assert found == {pipeline: new.notices}

    async def test_a_purge_takes_them_along(self, any_store: Store) -> None:
        gone, other = delivery(), delivery()
        await ask(any_store, lambda tx: tx.deliveries.add([gone, other]))
        assert await ask(any_store, lambda tx: tx.pipelines.purge(gone.pipeline, 100))
        assert [each.id for each in await claim(any_store)] == [other.id]


async def claim(store: Store, *, again: bool = False) -> list[Delivery]:
    async def work(tx: Tx) -> list[Delivery]:
        return await tx.deliveries.claim(10, LEASE, again=again)

    return await store.run(work)
