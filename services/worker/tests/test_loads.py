"""Loads into PostgreSQL: each mode, landing once, cursors, cancels and the errors of the way."""

import asyncio
import uuid
from typing import Any

import asyncpg
import pytest
from headrace.execution.v1 import workers_pb2
from headrace_chassis.testing.waiting import eventually
from headrace_worker.processes.frames import StopReason

from .engine_bench import EngineBench, Result, failure, outcome, rows, states
from .scripted_server import stage
from .stages import payload
from .target_server import TargetServer, cut_off, gone, queries


def load(values: str, sink: str = "", source: str = "") -> str:
    """Rows into table landed of the warehouse."""
    return f"""
sources: [{{id: rows, values: {values}{source}}}]
sinks: [{{id: out, input: rows, connection: warehouse, table: landed{sink}}}]
"""


async def fetch(warehouse: asyncpg.Connection, table: str = "landed") -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await warehouse.fetch(f'SELECT * FROM "{table}" ORDER BY 1')]


async def test_append_adds_rows(bench: EngineBench, warehouse: asyncpg.Connection) -> None:
    for number in (1, 2):
        result = await bench.run(load(f"[{{id: {number}, name: n}}]"))
        assert outcome(result) == "COMPLETED", result.error
    assert await fetch(warehouse) == [(1, "n"), (2, "n")]


async def test_replace_swaps_all_rows(bench: EngineBench, warehouse: asyncpg.Connection) -> None:
    await warehouse.execute(
        "CREATE TABLE landed (id bigint, name text); INSERT INTO landed VALUES (9, 'old')"
    )
    result = await bench.run(load("[{id: 1, name: new}]", ", mode: replace"))
    assert outcome(result) == "COMPLETED", result.error
    assert await fetch(warehouse) == [(1, "new")]


async def test_merge_updates_by_key_and_adds_the_rest(
    bench: EngineBench, warehouse: asyncpg.Connection
) -> None:
    await warehouse.execute(
        "CREATE TABLE landed (id bigint PRIMARY KEY, name text);"
        "INSERT INTO landed VALUES (1, 'old'), (3, 'kept')"
    )
    result = await bench.run(load("[{id: 1, name: new}, {id: 2, name: added}]", ", mode: merge, keys: [id]"))
    assert outcome(result) == "COMPLETED", result.error
    assert await fetch(warehouse) == [(1, "new"), (2, "added"), (3, "kept")]


async def test_replace_partition_swaps_the_rows_of_the_runs_interval(
    bench: EngineBench, warehouse: asyncpg.Connection
) -> None:
    await warehouse.execute(
        "CREATE TABLE landed (id bigint, day date);"
        "INSERT INTO landed VALUES (1, '2025-06-14'), (2, '2025-06-15'), (3, '2025-06-16')"
    )
    sink = ", mode: replace_partition, partition: {column: day}"
    text = load('[{id: 20, day: "2025-06-15"}]', sink, ", schema: {day: DATE}")
    start = {"seconds": 1_749_945_600}  # 2025-06-15
    end = {"seconds": 1_749_945_600 + 86_400}

    result = await bench.run(text, interval_start=start, interval_end=end)

    assert outcome(result) == "COMPLETED", result.error
    assert [row[0] for row in await fetch(warehouse)] == [1, 3, 20]
    assert result.receipts[0].partition


async def test_replace_partition_without_an_interval_says_what_is_missing(
    bench: EngineBench, warehouse: asyncpg.Connection
) -> None:
    result = await bench.run(load("[{id: 1}]", ", mode: replace_partition, partition: {column: id}"))
    assert failure(result) == ("PARTITION_RANGE_MISSING", "CONFIGURATION", "out")


async def test_an_attempt_after_the_load_landed_lands_nothing_again(
    bench: EngineBench, warehouse: asyncpg.Connection
) -> None:
    root = str(uuid.uuid4())
    first = await bench.run(load("[{id: 1}]"), root_run_id=root, fence=1)
    second = await bench.run(load("[{id: 1}]"), root_run_id=root, fence=2)

    assert outcome(second) == "COMPLETED"
    (receipt,) = first.receipts
    assert [(column.name, column.type) for column in receipt.columns] == [("id", "BIGINT")]
    for told_by_the_attempt_that_landed in ("columns", "sources"):
        receipt.ClearField(told_by_the_attempt_that_landed)
    assert list(second.receipts) == [receipt]
    assert states(second) == {"rows": "COMPLETED", "out": "COMPLETED"}
    assert await fetch(warehouse) == [(1,)]


async def test_an_attempt_with_an_older_fence_lands_nothing(
    bench: EngineBench, warehouse: asyncpg.Connection
) -> None:
    """The attempt was stopped for so long that another one has taken its load over."""
    root = str(uuid.uuid4())
    old = bench.assignment(load("[{id: 1}]"), root_run_id=root, fence=1)
    new = bench.assignment(load("[{id: 2}]"), root_run_id=root, fence=2)
    wakes_up, goes_on = asyncio.Event(), asyncio.Event()

    bench.allow_commit = wakes_up.wait
    async with bench.begun(old) as late:
        await late.commits_asked.wait()
        bench.allow_commit = goes_on.wait
        async with bench.begun(new) as newer:
            await newer.commits_asked.wait()
            wakes_up.set()
            await late.ended.wait()
            goes_on.set()

    # It finds the newer fence, or its session ended by the newer attempt.
    assert late.result is not None
    assert outcome(late.result) in ("FENCED", "FAILED")
    assert newer.result is not None
    assert outcome(newer.result) == "COMPLETED"
    assert await fetch(warehouse) == [(2,)]


async def test_a_stage_whose_lease_is_lost_commits_nothing(
    bench: EngineBench, warehouse: asyncpg.Connection
) -> None:
    async def no() -> bool:
        return False

    bench.allow_commit = no
    async with bench.begun(bench.assignment(load("[{id: 1}]"))) as line:
        pass

    assert line.result is None
    assert await warehouse.fetchval("SELECT to_regclass('landed')") is None or await fetch(warehouse) == []


SLOW = """
sources:
  - id: slow
    connection: warehouse
    query: SELECT g AS id, pg_sleep(0.01)::text AS s FROM generate_series(1, 100000) g
transformations: [{id: same, type: filter, input: slow, condition: id > 0}]
sinks: [{id: out, input: same, connection: warehouse, table: landed}]
"""


async def test_a_cancel_stops_the_query_and_nothing_can_land_afterwards(
    bench: EngineBench, warehouse: asyncpg.Connection
) -> None:
    work = bench.assignment(SLOW, fence=5)
    async with bench.begun(work) as line:
        await line.task_state("slow", "RUNNING")
        await _until_running(warehouse)
        line.stop(StopReason.CANCELLED)

    assert line.result is not None
    assert outcome(line.result) == "CANCELLED"
    await gone(warehouse)
    assert states(line.result)["slow"] == "CANCELLED"
    again = workers_pb2.Assignment()
    again.CopyFrom(work)
    again.payload = payload(SLOW.replace("100000", "3").replace("0.01", "0"))
    assert outcome(await bench.work_off(again)) == "FENCED"


async def _until_running(warehouse: asyncpg.Connection) -> None:
    async def sleeps() -> bool:
        return any("pg_sleep" in query for query in await queries(warehouse))

    await eventually(sleeps)


async def test_a_timeout_stops_the_query_and_may_be_tried_again(
    bench: EngineBench, warehouse: asyncpg.Connection
) -> None:
    result = await bench.run(SLOW, timeout_ms=3000)  # a busy machine takes a while to begin

    assert failure(result) == ("ATTEMPT_TIMEOUT", "TRANSIENT", "slow")
    await gone(warehouse)


async def test_a_cancel_between_two_commits_tells_what_has_landed(
    bench: EngineBench, warehouse: asyncpg.Connection
) -> None:
    """The cancel comes when one sink has committed and the other is about to."""
    text = """
sources: [{id: rows, values: [{id: 1}]}]
sinks:
  - {id: first, input: rows, connection: warehouse, table: first}
  - {id: second, input: rows, connection: warehouse, table: second}
"""
    asked: list[None] = []
    at_the_second = asyncio.Event()

    async def hold_the_second() -> bool:
        asked.append(None)
        if len(asked) == 2:
            at_the_second.set()
            await asyncio.Event().wait()
        return True

    bench.allow_commit = hold_the_second
    async with bench.begun(bench.assignment(text)) as line:
        await at_the_second.wait()
        line.stop(StopReason.CANCELLED)

    assert line.result is not None
    assert outcome(line.result) == "CANCELLED"
    assert [receipt.sink for receipt in line.result.receipts] == ["first"]
    assert await fetch(warehouse, "first") == [(1,)]


INCREMENTAL = """
sources:
  - {id: events, connection: warehouse, table: events, incremental: {cursor: id}}
sinks: [{id: out, input: events, connection: warehouse, table: landed}]
"""


def cursors(result: Result) -> list[workers_pb2.Cursor]:
    return [cursor for receipt in result.receipts for cursor in receipt.cursors]


async def test_a_commit_whose_target_is_gone_is_told_as_unknown(
    bench: EngineBench, warehouse: asyncpg.Connection, target_server: TargetServer
) -> None:
    async with cut_off(target_server.port) as line:
        bench.connections["warehouse"].port = line.port

        async def cut() -> bool:
            line.cut()
            return True

        bench.allow_commit = cut
        result = await bench.run(load("[{id: 1}]"))

    assert outcome(result) == "FAILED"
    assert failure(result) == ("COMMIT_UNKNOWN", "TRANSIENT", "out")
    assert not result.receipts


async def test_an_incremental_source_goes_on_where_its_load_came_to(
    bench: EngineBench, warehouse: asyncpg.Connection
) -> None:
    await warehouse.execute(
        "CREATE TABLE events (id bigint, v text); INSERT INTO events VALUES (1,'a'),(2,'b')"
    )
    first = await bench.run(INCREMENTAL)
    assert outcome(first) == "COMPLETED", first.error
    await warehouse.execute("INSERT INTO events VALUES (3, 'c')")

    second = await bench.run(INCREMENTAL, cursors=cursors(first))

    assert rows(second)["events"] == (0, 1)
    assert await fetch(warehouse) == [(1, "a"), (2, "b"), (3, "c")]
    (cursor,) = cursors(second)
    assert (cursor.sink, cursor.source, cursor.column) == ("out", "events", "id")
    assert (cursor.before, cursor.after) == ("2", "3")
    assert not cursors(first)[0].HasField("before")


@pytest.mark.parametrize(("mode", "expected"), [("merge", 3), ("append", 2)])
async def test_what_may_have_been_committed_late_is_only_read_again_for_a_merge(
    bench: EngineBench, warehouse: asyncpg.Connection, mode: str, expected: int
) -> None:
    text = INCREMENTAL.replace("table: landed", f"table: landed, mode: {mode}, keys: [id]")
    await warehouse.execute("CREATE TABLE events (id int, at date NOT NULL, v text)")
    text = text.replace("cursor: id", "cursor: at")
    await warehouse.execute("INSERT INTO events VALUES (1, '2024-01-01', 'a')")
    first = await bench.run(text)
    assert outcome(first) == "COMPLETED", first.error
    await warehouse.execute("INSERT INTO events VALUES (2, '2024-01-01', 'b'), (3, '2024-01-02', 'c')")

    second = await bench.run(text, cursors=cursors(first))

    assert rows(second)["events"] == (0, expected)
    assert [row[0] for row in await fetch(warehouse)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("table: landed", "table: elsewhere", "TARGET_GONE"),  # it would have nothing of what landed before
        ("table: events", "table: public.others", "CURSOR_CHANGED"),
    ],
)
async def test_a_cursor_is_no_use_for_another_table(
    bench: EngineBench, warehouse: asyncpg.Connection, old: str, new: str, code: str
) -> None:
    for table in ("events", "others"):
        await warehouse.execute(f"CREATE TABLE {table} (id bigint); INSERT INTO {table} VALUES (1), (2)")
    first = await bench.run(INCREMENTAL.replace("table: events", "table: public.events"))
    same = await bench.run(INCREMENTAL, cursors=cursors(first))
    assert outcome(same) == "COMPLETED", same.error
    changed = INCREMENTAL.replace(old, new)

    refused = await bench.run(changed, cursors=cursors(same))
    refreshed = await bench.run(changed, cursors=cursors(same), full_refresh=True)

    assert failure(refused)[:2] == (code, "CONFIGURATION")
    assert "run a full refresh" in refused.error.message
    assert rows(refreshed)["events"] == (0, 2)


async def test_a_full_refresh_ignores_the_cursor(bench: EngineBench, warehouse: asyncpg.Connection) -> None:
    await warehouse.execute("CREATE TABLE events (id bigint); INSERT INTO events VALUES (1), (2)")
    first = await bench.run(INCREMENTAL)

    second = await bench.run(INCREMENTAL, cursors=cursors(first), full_refresh=True)

    assert rows(second)["events"] == (0, 2)
    assert [cursor.source for cursor in cursors(second)] == ["events"]


async def test_sinks_that_came_to_different_places_each_get_what_they_lack(
    bench: EngineBench, warehouse: asyncpg.Connection
) -> None:
    text = """
sources: [{id: events, connection: warehouse, table: events, incremental: {cursor: id}}]
sinks:
  - {id: ahead, input: events, connection: warehouse, table: ahead}
  - {id: behind, input: events, connection: warehouse, table: behind}
"""
    await warehouse.execute("CREATE TABLE events (id bigint); INSERT INTO events VALUES (1), (2)")
    first = await bench.run(text)
    assert outcome(first) == "COMPLETED", first.error
    await warehouse.execute("INSERT INTO events VALUES (3); DELETE FROM behind")

    second = await bench.run(text, cursors=[c for c in cursors(first) if c.sink == "ahead"])

    assert outcome(second) == "COMPLETED", second.error
    assert await fetch(warehouse, "ahead") == [(1,), (2,), (3,)]
    assert await fetch(warehouse, "behind") == [(1,), (2,), (3,)]


async def test_a_same_database_copy_keeps_what_no_other_type_system_holds(
    bench: EngineBench, warehouse: asyncpg.Connection
) -> None:
    await warehouse.execute(
        "CREATE TABLE odd (id int, n numeric, d date, t time, i interval, j jsonb, a int[]);"
        "INSERT INTO odd VALUES (1, 'NaN', 'infinity', '24:00', '1 mon 2 days', '{\"b\": 1}', '{{1},{3}}')"
    )
    text = """
sources: [{id: odd, connection: warehouse, table: odd}]
sinks: [{id: out, input: odd, connection: warehouse, table: landed}]
"""
    result = await bench.run(text)

    assert outcome(result) == "COMPLETED", result.error
    same = "SELECT (SELECT odd::text FROM odd) = (SELECT landed::text FROM landed)"
    assert await warehouse.fetchval(same)
    assert rows(result) == {"odd": (0, 1), "out": (1, 1)}


async def test_a_native_type_survives_a_transformation_that_hands_it_on(
    bench: EngineBench, warehouse: asyncpg.Connection
) -> None:
    big = "1234567890123456789012345678901234567890123456789.5"
    await warehouse.execute(f"CREATE TABLE wide (id int, n numeric); INSERT INTO wide VALUES (1, {big})")
    text = """
sources: [{id: wide, connection: warehouse, table: wide}]
transformations:
  - {id: some, type: filter, input: wide, condition: id = 1}
  - {id: named, type: rename, input: some, columns: {n: amount}}
sinks: [{id: out, input: named, connection: warehouse, table: landed}]
"""
    result = await bench.run(text)

    assert outcome(result) == "COMPLETED", result.error
    assert await warehouse.fetchval("SELECT pg_typeof(amount)::text || ' ' || amount FROM landed") == (
        f"numeric {big}"
    )


async def test_what_is_wrong_with_source_or_target_is_told_precisely(
    bench: EngineBench, warehouse: asyncpg.Connection
) -> None:
    await warehouse.execute(
        "CREATE TABLE small (id int, name text); CREATE TABLE landed (id smallint NOT NULL)"
    )
    nowhere = "\nsinks: [{id: o, input: a, discard: true}]"
    missing_table = "sources: [{id: a, connection: warehouse, table: nothing}]" + nowhere
    missing_column = "sources: [{id: a, connection: warehouse, table: small, columns: [id, gone]}]" + nowhere
    unknown_connection = missing_table.replace("warehouse", "nowhere")
    assert failure(await bench.run(missing_table)) == ("TABLE_NOT_FOUND", "CONFIGURATION", "a")
    assert failure(await bench.run(missing_column)) == ("COLUMN_NOT_FOUND", "CONFIGURATION", "a")
    assert failure(await bench.run(unknown_connection)) == ("CONNECTION_NOT_FOUND", "CONFIGURATION", "a")
    too_big = await bench.run(load("[{id: 1}, {id: 40000}]"))
    assert failure(too_big)[1:] == ("DATA", "out")
    assert "id" in too_big.error.message
    assert await fetch(warehouse) == []
    for result in (too_big, await bench.run(load("[{id: null}]"))):
        assert outcome(result) == "FAILED"
        assert "canary" not in str(result)


async def test_settling_a_stage_tells_what_landed_and_keeps_the_rest_out(
    bench: EngineBench, warehouse: asyncpg.Connection
) -> None:
    text = """
sources: [{id: rows, values: [{id: 1}]}]
sinks:
  - {id: first, input: rows, connection: warehouse, table: first}
  - {id: second, input: rows, connection: warehouse, table: second}
"""
    root = str(uuid.uuid4())
    only_first = text.replace("  - {id: second, input: rows, connection: warehouse, table: second}\n", "")
    await bench.run(only_first, root_run_id=root, fence=1)
    settle = stage(payload(text), root_run_id=root, fence=7, kind=workers_pb2.ASSIGNMENT_KIND_SETTLE)

    result = await bench.work_off(settle)

    assert outcome(result) == "COMPLETED"
    assert [receipt.sink for receipt in result.receipts] == ["first"]
    late = await bench.run(text, root_run_id=root, fence=2)
    assert outcome(late) == "FENCED"
    assert await warehouse.fetchval("SELECT to_regclass('second')") is None


async def test_a_target_that_is_away_is_a_transient_failure(bench: EngineBench) -> None:
    bench.connect(
        "warehouse", "postgresql", host="127.0.0.1", port=1, database="x", username="u", secret="canary-1"
    )
    result = await bench.run(load("[{id: 1}]"))
    assert failure(result)[1:] == ("TRANSIENT", "out")
    assert "canary" not in str(result)


@pytest.mark.parametrize(
    ("between", "last"),
    [
        ("type: filter, condition: id > 0, materialize: true", "s2"),
        ("type: wait_for_signal", "s3"),
    ],
)
async def test_an_incremental_source_hands_its_cursor_on_through_an_artifact(
    bench: EngineBench, warehouse: asyncpg.Connection, between: str, last: str
) -> None:
    text = f"""
sources: [{{id: events, connection: warehouse, table: events, incremental: {{cursor: id}}}}]
transformations: [{{id: kept, input: events, {between}}}]
sinks: [{{id: out, input: kept, connection: warehouse, table: landed}}]
"""
    await warehouse.execute("CREATE TABLE events (id bigint); INSERT INTO events VALUES (1), (2)")
    known: list[workers_pb2.Cursor] = []
    for expected in (2, 1):
        run = str(uuid.uuid4())
        first = await bench.run(text, "s1", run_id=run, cursors=known)
        second = await bench.run(text, last, run_id=run)
        assert (outcome(first), outcome(second)) == ("COMPLETED", "COMPLETED")
        assert rows(first)["events"] == (0, expected)
        known = cursors(second)
        await warehouse.execute("INSERT INTO events VALUES (3)")

    assert await fetch(warehouse) == [(1,), (2,), (3,)]


async def test_sinks_of_other_stages_that_came_to_different_places_are_refused(
    bench: EngineBench, warehouse: asyncpg.Connection
) -> None:
    text = """
sources: [{id: events, connection: warehouse, table: events, incremental: {cursor: id}}]
transformations: [{id: kept, type: filter, input: events, condition: id > 0, materialize: true}]
sinks:
  - {id: a, input: kept, connection: warehouse, table: a}
  - {id: b, input: kept, connection: warehouse, table: b}
"""
    known = [
        workers_pb2.Cursor(sink="a", source="events", value=b"{}"),
        workers_pb2.Cursor(sink="b", source="events", value=b""),
    ]
    result = await bench.run(text, "s1", cursors=known)
    assert failure(result) == ("CURSORS_DIVERGED", "CONFIGURATION", "events")
