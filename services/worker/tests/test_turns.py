"""Incremental loads after a run whose end nobody heard: what it has landed is not loaded again, and what it
has not landed cannot land late."""

import asyncio
import uuid
from collections.abc import Sequence

import asyncpg
import pytest
from headrace.execution.v1 import workers_pb2

from .engine_bench import EngineBench, Result, failure, outcome, rows

APPEND = """
sources: [{id: events, connection: warehouse, table: events, incremental: {cursor: id}}]
sinks: [{id: out, input: events, connection: warehouse, table: landed}]
"""
KEPT = """
sources: [{id: events, connection: warehouse, table: events, incremental: {cursor: id}}]
transformations: [{id: kept, input: events, type: filter, condition: id > 0, materialize: true}]
sinks: [{id: out, input: kept, connection: warehouse, table: landed}]
"""
TWO = """
sources: [{id: events, connection: warehouse, table: events, incremental: {cursor: id}}]
sinks:
  - {id: out, input: events, connection: warehouse, table: landed}
  - {id: also, input: events, connection: warehouse, table: also}
"""
PIPELINE = str(uuid.uuid4())


def told(*results: Result, sinks: Sequence[str] = ("out",)) -> list[workers_pb2.Cursor]:
    """The cursors that a server hands out which has heard of these results, in this order."""
    cursors = {
        sink: workers_pb2.Cursor(sink=sink, source="events", fence=0)  # nothing has landed yet
        for sink in sinks
    }
    for receipt in (receipt for result in results for receipt in result.receipts):
        for cursor in receipt.cursors:
            cursors[receipt.sink] = workers_pb2.Cursor(
                sink=receipt.sink, source=cursor.source, value=cursor.value, fence=receipt.fence
            )
    return list(cursors.values())


async def run(
    bench: EngineBench, text: str, fence: int, cursors: Sequence[workers_pb2.Cursor], **fields: object
) -> Result:
    """A whole run of the pipeline; the result is that of its last stage."""
    run_id = str(uuid.uuid4())
    for stage in ("s1", "s2") if text is KEPT else ("s1",):
        result = await bench.run(
            text,
            stage,
            fence=fence,
            run_id=run_id,
            pipeline_id=PIPELINE,
            cursors=cursors if stage == "s1" else (),
            **fields,
        )
        assert outcome(result) == "COMPLETED", result.error
        fence += 1
    return result


async def landed(warehouse: asyncpg.Connection, table: str = "landed") -> list[int]:
    return [row[0] for row in await warehouse.fetch(f"SELECT id FROM {table} ORDER BY id")]


@pytest.fixture
async def events(warehouse: asyncpg.Connection) -> asyncpg.Connection:
    await warehouse.execute("CREATE TABLE events (id bigint); INSERT INTO events VALUES (1), (2)")
    return warehouse


@pytest.mark.parametrize("text", [APPEND, KEPT], ids=["one stage", "rows handed on"])
async def test_rows_of_a_run_that_was_not_heard_of_are_not_loaded_again(
    bench: EngineBench, events: asyncpg.Connection, text: str
) -> None:
    await run(bench, text, 1, told())  # its result is lost
    await events.execute("INSERT INTO events VALUES (3)")

    heard = await run(bench, text, 5, told())

    assert await landed(events) == [1, 2, 3]
    (cursor,) = (cursor for receipt in heard.receipts for cursor in receipt.cursors)
    assert (cursor.before, cursor.after) == ("2", "3")
    await events.execute("INSERT INTO events VALUES (4)")
    await run(bench, text, 9, told(heard))
    assert await landed(events) == [1, 2, 3, 4]


async def test_each_sink_goes_on_from_what_its_own_target_has(
    bench: EngineBench, events: asyncpg.Connection
) -> None:
    both = ("out", "also")
    unheard = await run(bench, TWO, 1, told(sinks=both))
    await events.execute("INSERT INTO events VALUES (3)")
    half = Result(receipts=[receipt for receipt in unheard.receipts if receipt.sink == "also"])

    second = await run(bench, TWO, 2, told(half, sinks=both))

    assert rows(second)["events"] == (0, 1)
    assert await landed(events) == await landed(events, "also") == [1, 2, 3]


async def test_rows_that_somebody_has_dropped_meanwhile_are_not_left_out_in_silence(
    bench: EngineBench, events: asyncpg.Connection
) -> None:
    await run(bench, APPEND, 1, told())
    await events.execute("DROP TABLE landed")

    second = await bench.run(APPEND, fence=2, pipeline_id=PIPELINE, cursors=told())

    assert failure(second)[:2] == ("TARGET_GONE", "CONFIGURATION")


async def test_a_full_refresh_asks_no_target_where_to_begin(
    bench: EngineBench, events: asyncpg.Connection
) -> None:
    await run(bench, APPEND, 1, told())

    again = await run(bench, APPEND, 2, told(), full_refresh=True)

    assert rows(again)["events"] == (0, 2)


async def test_a_server_that_tells_no_fences_is_believed(
    bench: EngineBench, events: asyncpg.Connection
) -> None:
    """An earlier release, whose other workers may have landed what no ledger knows of as one of a series."""
    first = await run(bench, APPEND, 1, ())
    await events.execute("INSERT INTO events VALUES (3)")
    await run(bench, APPEND, 2, ())
    before = [
        workers_pb2.Cursor(sink="out", source="events", value=cursor.value)
        for receipt in first.receipts
        for cursor in receipt.cursors
    ]

    third = await run(bench, APPEND, 3, before)

    assert rows(third)["events"] == (0, 1)


async def test_a_run_that_wakes_up_late_lands_nothing_after_the_next_one(
    bench: EngineBench, events: asyncpg.Connection
) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def when_it_wakes_up() -> bool:
        asked.set()
        await go_on.wait()
        return True

    bench.allow_commit, at_once = when_it_wakes_up, bench.allow_commit
    late = bench.assignment(APPEND, fence=1, pipeline_id=PIPELINE, cursors=told())
    async with bench.begun(late) as line:
        await asked.wait()
        bench.allow_commit = at_once
        await run(bench, APPEND, 2, told())
        go_on.set()

    assert line.result is not None
    assert outcome(line.result) == "FENCED"
    assert await landed(events) == [1, 2]


async def test_loads_that_are_not_incremental_leave_no_series(
    bench: EngineBench, events: asyncpg.Connection
) -> None:
    await bench.run(APPEND.replace(", incremental: {cursor: id}", ""), pipeline_id=PIPELINE)

    assert await events.fetchval("SELECT count(*) FROM headrace._headrace_loads") == 1
