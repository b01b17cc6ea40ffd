"""The conformance suite, continued: what any store does with the days of pipelines."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from headrace_chassis.database import Database, driver
from headrace_chassis.ids import uuid7
from headrace_execution.domain.figures import Figures
from headrace_execution.domain.judging import Ended
from headrace_execution.domain.rollups import DayTotals, by_day
from headrace_execution.domain.states import RunState
from headrace_execution.loops.run_follower import have_effects
from headrace_execution.store.port import Store, Tx
from headrace_execution.store.sql.rollups import DAYS

from .factories import TENANT

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
TODAY = NOON.date()


def end(pipeline: UUID, **changes: Any) -> Ended:
    """A run that took a minute, until noon."""
    values: dict[str, Any] = {
        "tenant": TENANT,
        "pipeline": pipeline,
        "state": RunState.COMPLETED,
        "finished_at": NOON,
        "started_at": NOON - timedelta(minutes=1),
        "warning_count": 0,
        "figures": Figures(1, 2, 3, 4, 5),
        "run": uuid7(),
        "workspace": TENANT,
        "accepted_at": NOON - timedelta(minutes=2),
        "is_own_start": False,
        "is_comparable": True,
    }
    return Ended(**{**values, **changes})


async def add(store: Store, *ends: Ended) -> None:
    """Adds ends of runs, in a transaction of their own."""

    async def work(tx: Tx) -> None:
        await have_effects(tx, ends)

    await store.run(work)


async def days(store: Store, pipeline: UUID, tenant: UUID = TENANT) -> Sequence[DayTotals]:
    """The days of a pipeline around TODAY."""
    return await store.days(tenant, pipeline, TODAY - timedelta(days=1), TODAY + timedelta(days=1))


async def test_days_come_back_as_they_were_added_oldest_first(any_store: Store) -> None:
    pipeline = uuid7()
    ends = [
        end(pipeline, warning_count=1),
        end(pipeline, state=RunState.FAILED, finished_at=NOON - timedelta(days=1)),
        end(pipeline, state=RunState.CANCELLED, started_at=None),
    ]
    await add(any_store, *ends, end(uuid7()))

    assert await days(any_store, pipeline) == by_day(ends)
    assert await days(any_store, pipeline, tenant=uuid7()) == []


async def test_later_runs_are_added_to_what_was_there(any_store: Store) -> None:
    pipeline, other = uuid7(), uuid7()
    ends = [end(pipeline, started_at=NOON - timedelta(seconds=seconds)) for seconds in (1, 5, 60, 3600)]
    for one in ends:
        await add(any_store, one, end(other))
    await add(any_store)

    (found,) = await days(any_store, pipeline)

    assert found == by_day(ends)[0]
    assert (await days(any_store, other))[0].totals.runs == 4


async def test_a_period_has_its_first_and_its_last_day(any_store: Store) -> None:
    pipeline = uuid7()
    await add(
        any_store, *(end(pipeline, finished_at=NOON + timedelta(days=offset)) for offset in range(-3, 4))
    )

    found = await any_store.days(TENANT, pipeline, date(2026, 3, 9), date(2026, 3, 11))

    assert [day.day.day for day in found] == [9, 10, 11]


async def test_days_go_with_their_pipeline_and_do_not_come_back(any_store: Store) -> None:
    pipeline, other = uuid7(), uuid7()
    await add(any_store, end(pipeline), end(other))
    await any_store.run(lambda tx: tx.pipelines.ask_purge({pipeline: TENANT}))

    assert await any_store.run(lambda tx: tx.pipelines.purge(pipeline, 10))
    await add(any_store, end(pipeline), end(other))  # what its last events still told

    assert await days(any_store, pipeline) == []
    assert (await days(any_store, other))[0].totals.runs == 2


async def test_the_days_of_one_are_found_by_index_among_those_of_many(db: Database) -> None:
    async with db.read() as conn:
        raw = driver(conn)
        await raw.execute(
            "INSERT INTO pipeline_days SELECT gen_random_uuid(), '2026-03-10'::date - n % 100, $1, 1, 0,"
            " 0, 0, '[0,0,0,0,[]]', 0, 0, 0, 0, 0, 'COMPLETED', now() FROM generate_series(1, 20000) AS n",
            TENANT,
        )
        await raw.execute("ANALYZE pipeline_days")
        plan = "\n".join(row[0] for row in await raw.fetch(f"EXPLAIN {DAYS}", TENANT, uuid7(), TODAY, TODAY))

    assert "pipeline_days_pkey" in plan
    assert "Seq Scan" not in plan
