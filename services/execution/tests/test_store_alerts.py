"""The conformance suite goes on: alerts, and what is usual."""

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from headrace_chassis.ids import uuid7
from headrace_execution.domain.alerts import Alert, AlertState, Rule, Severity
from headrace_execution.domain.usual import Sample, Usual
from headrace_execution.store.alerts_port import AlertFilter
from headrace_execution.store.port import Store, Tx

from .factories import NOW, TENANT, WORKER, recipe
from .test_store import add, ask, hello, lease

EVERYTHING = AlertFilter(TENANT)


def alert(pipeline: UUID | None = None, second: float = 0.0, **changes: Any) -> Alert:
    when = NOW + timedelta(seconds=second)
    made = Alert(
        id=uuid7(),
        tenant=TENANT,
        workspace=uuid7(),
        pipeline=pipeline or uuid7(),
        rule=Rule.RUN_FAILED,
        severity=Severity.CRITICAL,
        state=AlertState.OPEN,
        message="it broke",
        details={"code": "X\0"},
        run=uuid7(),
        count=1,
        opened_at=when,
        last_seen_at=when,
        as_of=when,
    )
    return replace(made, **changes)


def resolved(made: Alert, at: datetime = NOW) -> Alert:
    return replace(made, state=AlertState.RESOLVED, resolved_at=at, resolved_by=uuid7())


async def keep(store: Store, *alerts: Alert) -> None:
    async def work(tx: Tx) -> None:
        await tx.alerts.lock({each.pipeline for each in alerts})
        await tx.alerts.save(alerts)

    await store.run(work)


async def page(store: Store, narrow: AlertFilter = EVERYTHING, **more: Any) -> list[Alert]:
    values: dict[str, Any] = {"limit": 100, "offset": 0, "after": None, **more}
    return await ask(store, lambda tx: tx.alerts.page(narrow, **values))


class TestAlerts:
    async def test_alerts_are_kept_as_they_are_and_replaced(self, any_store: Store) -> None:
        first = alert()
        await keep(any_store, first)
        assert await ask(any_store, lambda tx: tx.alerts.active([first.pipeline, uuid7()])) == [first]
        assert await ask(any_store, lambda tx: tx.alerts.lock_one(TENANT, first.id)) == first
        assert await ask(any_store, lambda tx: tx.alerts.lock_one(uuid7(), first.id)) is None
        taken = replace(
            first,
            state=AlertState.ACKNOWLEDGED,
            acknowledged_at=NOW,
            acknowledged_by="ada",
            note="n",
            count=7,
        )
        await keep(any_store, taken)
        assert await ask(any_store, lambda tx: tx.alerts.active([first.pipeline])) == [taken]

    async def test_a_pipeline_has_one_unresolved_alert_of_a_rule(self, any_store: Store) -> None:
        first = alert()
        await keep(any_store, first)
        with pytest.raises(Exception, match=r"two alerts|alerts_active"):
            await keep(any_store, alert(first.pipeline))
        following = alert(first.pipeline)
        await keep(any_store, following, resolved(first))  # whichever comes first
        assert await ask(any_store, lambda tx: tx.alerts.active([first.pipeline])) == [following]

    async def test_whoever_locks_them_second_waits(self, any_store: Store) -> None:
        pipeline = uuid7()
        taken, go_on = asyncio.Event(), asyncio.Event()

        async def first(tx: Tx) -> None:
            await tx.alerts.lock([pipeline])
            taken.set()
            await go_on.wait()
            await tx.alerts.save([alert(pipeline)])

        async def second(tx: Tx) -> list[Alert]:
            await tx.alerts.lock([uuid7(), pipeline])
            return await tx.alerts.active([pipeline])

        writing = asyncio.create_task(any_store.run(first))
        await taken.wait()
        reading = asyncio.create_task(any_store.run(second))
        assert not (await asyncio.wait([reading], timeout=0.1))[0]
        go_on.set()
        assert len(await reading) == 1
        await writing

    async def test_lists_narrow_and_page_from_the_newest(self, any_store: Store) -> None:
        old, young = alert(second=1), alert(second=2, severity=Severity.WARNING, rule=Rule.RUN_LATE)
        gone = resolved(alert(second=3))
        stranger = alert(tenant=uuid7())
        await keep(any_store, old, young, gone, stranger)

        assert await page(any_store) == [gone, young, old]
        assert await page(any_store, limit=1, offset=1) == [young]
        assert await page(any_store, after=(young.opened_at, young.id)) == [old]
        for narrow, expected in [
            (replace(EVERYTHING, state=AlertState.RESOLVED), [gone]),
            (replace(EVERYTHING, severity=Severity.WARNING), [young]),
            (replace(EVERYTHING, rule=Rule.RUN_LATE), [young]),
            (replace(EVERYTHING, pipeline=old.pipeline), [old]),
            (replace(EVERYTHING, workspaces=frozenset({old.workspace, gone.workspace})), [gone, old]),
            (replace(EVERYTHING, workspaces=frozenset()), []),
        ]:
            assert await page(any_store, narrow) == expected
            assert await ask(any_store, partial(_count, narrow)) == len(expected)

    async def test_resolved_ones_are_forgotten_in_time(self, any_store: Any) -> None:
        now = await ask(any_store, _now)
        old, young, live = resolved(alert(), now - timedelta(days=2)), resolved(alert(), now), alert()
        await keep(any_store, old, young, live)
        assert await ask(any_store, lambda tx: tx.alerts.forget_resolved(timedelta(days=1), 10)) == 1
        assert {each.id for each in await page(any_store)} == {young.id, live.id}

    async def test_a_purge_takes_them_along(self, any_store: Store) -> None:
        gone, other = alert(), alert()
        await keep(any_store, gone, resolved(alert(gone.pipeline, rule=Rule.RUN_LATE)), other)
        await ask(
            any_store, lambda tx: tx.alerts.remember({gone.pipeline: steady(), other.pipeline: steady()})
        )
        assert await ask(any_store, lambda tx: tx.pipelines.purge(gone.pipeline, 100))
        assert await page(any_store) == [other]
        kept = await ask(any_store, lambda tx: tx.alerts.usual([gone.pipeline, other.pipeline]))
        assert set(kept) == {other.pipeline}


class TestUsual:
    async def test_what_is_remembered_is_replaced(self, any_store: Store) -> None:
        pipeline = uuid7()
        for usual in (steady(), Usual((Sample(1, 2),))):
            await ask(any_store, partial(_remember, {pipeline: usual}))
            assert await ask(any_store, lambda tx: tx.alerts.usual([pipeline, uuid7()])) == {pipeline: usual}

    async def test_runs_that_go_on_for_too_long_are_found_until_there_is_an_alert(
        self, any_store: Any
    ) -> None:
        made = recipe()
        late_one, full, waiting = await add(
            any_store, {"recipe": made}, {"recipe": made, "full_refresh": True}, {"recipe": made}
        )
        await hello(any_store, WORKER)
        for run in (late_one, full):
            await lease(any_store, run)
        known = {run.pipeline: steady() for run in (late_one, full, waiting)}
        await ask(any_store, lambda tx: tx.alerts.remember(known))
        assert await ask(any_store, lambda tx: tx.alerts.overdue(10)) == []

        any_store.skew = timedelta(seconds=100)
        (going,) = await ask(any_store, lambda tx: tx.alerts.overdue(10))
        assert (going.run, going.pipeline, going.usual) == (late_one.id, late_one.pipeline, steady())

        told = alert(late_one.pipeline, rule=Rule.RUN_LATE, as_of=late_one.created_at)
        await keep(any_store, told)
        assert await ask(any_store, lambda tx: tx.alerts.overdue(10)) == []

    async def test_runs_are_read_as_they_stand(self, any_store: Store) -> None:
        (run,) = await add(any_store)
        assert await ask(any_store, lambda tx: tx.alerts.runs([run.id, uuid7()])) == {run.id: run}


def steady() -> Usual:
    return Usual(tuple(Sample(20_000, 10) for _ in range(12)))


async def _count(narrow: AlertFilter, tx: Tx) -> int:
    return await tx.alerts.count(narrow)


async def _remember(usual: dict[UUID, Usual], tx: Tx) -> None:
    await tx.alerts.remember(usual)


async def _now(tx: Tx) -> datetime:
    return tx.now
