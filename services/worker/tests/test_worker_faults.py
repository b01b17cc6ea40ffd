"""The whole worker over real targets when things go wrong: crashes, full disks, pauses, secrets."""

import glob
import os
import signal
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from headrace.execution.v1 import workers_pb2
from headrace_chassis.testing.waiting import eventually
from headrace_worker.wiring import Worker

from .conftest import Running, process_of
from .engine_bench import failure, outcome, states
from .scripted_server import ScriptedExecution, Stream, stage
from .stages import ENDLESS, NOOP, payload
from .target_server import TargetServer, gone

LOAD = """
sources: [{id: rows, values: [{id: 1}]}]
sinks: [{id: out, input: rows, connection: warehouse, table: landed}]
"""
SLOW_SOURCE = """
sources:
  - {id: slow, connection: warehouse, query: "SELECT 1 AS id, pg_sleep(600)::text AS s"}
sinks: [{id: out, input: slow, connection: warehouse, table: landed}]
"""


@pytest.fixture
async def database(target_server: TargetServer, execution: ScriptedExecution) -> asyncpg.Connection:
    """An empty database behind the connection `warehouse`."""
    name = await target_server.new_database()
    connection = workers_pb2.WorkerConnection(
        reference="warehouse", name="warehouse", type="postgresql", **target_server.fields(name)
    )
    execution.connections = [connection]
    return await target_server.connect(name)


async def test_secrets_are_asked_for_under_the_lease_and_leave_no_trace(
    stream: Stream, execution: ScriptedExecution, database: asyncpg.Connection, worker: Worker
) -> None:
    work = stage(payload(LOAD), fence=3)
    stream.assign(work)

    result = await stream.result_of(work)

    assert outcome(result) == "COMPLETED", result.error
    (asked,) = execution.resolved
    assert (asked.worker_id, asked.ref) == (worker.worker_id, work.ref)
    assert await database.fetchval("SELECT count(*) FROM landed") == 1
    assert "canary" not in str(stream.received)


async def test_a_secret_reference_is_resolved_within_the_operators_prefix(
    run_worker: Running, execution: ScriptedExecution, database: asyncpg.Connection
) -> None:
    (connection,) = execution.connections
    connection.ClearField("secret")
    environment = {"HEADRACE_SECRET_PG": "canary-42", "PATH_TO_ALL": "canary-43"}
    async with run_worker(environment) as _:
        stream = await execution.next_stream()
        connection.secret_ref = "env://HEADRACE_SECRET_PG"
        allowed = stage(payload(LOAD))
        stream.assign(allowed)
        assert outcome(await stream.result_of(allowed)) == "COMPLETED"
        connection.secret_ref = "env://PATH_TO_ALL"
        refused = stage(payload(LOAD))
        stream.assign(refused)

        result = await stream.result_of(refused)

    assert failure(result)[:2] == ("SECRET_UNAVAILABLE", "CONFIGURATION")
    assert "canary" not in str(stream.received)


async def test_no_secrets_without_the_lease(
    stream: Stream, execution: ScriptedExecution, worker: Worker
) -> None:
    execution.refuses_secrets = True
    work = stage(payload(LOAD))
    stream.assign(work)

    async def forgotten() -> bool:
        return bool(execution.resolved) and len(worker.supervisor.holdings) == 0

    await eventually(forgotten)
    assert not stream.bodies("result")


async def test_a_crash_leaves_no_scratch_and_the_next_attempt_lands(
    stream: Stream, worker: Worker, database: asyncpg.Connection
) -> None:
    work = stage(payload(SLOW_SOURCE))
    stream.assign(work)
    os.kill(await process_of(worker, work), signal.SIGKILL)

    result = await stream.result_of(work)

    assert failure(result) == ("STAGE_CRASHED", "TRANSIENT", "slow")
    assert states(result)["slow"] == "FAILED"

    async def clean() -> bool:
        return not glob.glob(f"{worker.supervisor._temp_dir}/{work.ref.assignment_id}*")

    await eventually(clean)
    await gone(database)
    again = stage(payload(LOAD), id=work.ref.assignment_id, fence=2, root_run_id=work.run_id)
    stream.assign(again)
    assert outcome(await stream.result_of(again)) == "COMPLETED"


async def test_a_stage_paused_beyond_its_lease_commits_nothing(
    execution: ScriptedExecution, run_worker: Running, database: asyncpg.Connection
) -> None:
    """SIGSTOP in the middle of a stage; another worker lands it under a newer fence; SIGCONT."""
    text = LOAD.replace("[{id: 1}]", "[{id: 1.5}]") + (
        "transformations: [{id: t, type: sql_transform, inputs: [rows], "
        "sql: 'SELECT id, (SELECT sum(a.range) FROM range(200000000) a) AS s FROM rows'}]\n"
    )
    text = text.replace("input: rows", "input: t")
    async with run_worker() as worker:
        stream = await execution.next_stream()
        old = stage(payload(text), fence=1)
        stream.assign(old)
        pid = await process_of(worker, old)
        os.kill(pid, signal.SIGSTOP)
        execution.lost = [old.ref]
        await eventually(lambda: _empty(worker))
        execution.lost = []
        new = stage(payload(LOAD), id=old.ref.assignment_id, fence=2, root_run_id=old.run_id)
        stream.assign(new)
        assert outcome(await stream.result_of(new)) == "COMPLETED"
        os.kill(pid, signal.SIGCONT)
        await eventually(lambda: _ended(worker, pid))

    assert await database.fetchval("SELECT count(*) FROM landed") == 1
    assert not [result for result in stream.bodies("result") if result.ref.fence == 1]


async def _empty(worker: Worker) -> bool:
    return len(worker.supervisor.holdings) == 0


async def _ended(worker: Worker, pid: int) -> bool:
    return pid not in worker.pool.pids


async def test_a_cancelled_stage_that_had_to_be_killed_is_settled(
    stream: Stream, worker: Worker, database: asyncpg.Connection
) -> None:
    work = stage(payload(SLOW_SOURCE), fence=4)
    stream.assign(work)
    os.kill(await process_of(worker, work), signal.SIGSTOP)
    stream.cancel(work, grace_ms=200)

    result = await stream.result_of(work)

    assert outcome(result) == "CANCELLED"
    assert not result.warnings
    assert states(result)["slow"] == "CANCELLED"
    late = stage(payload(LOAD), id=work.ref.assignment_id, fence=4, root_run_id=work.run_id)
    late.ref.assignment_id = stage(b"").ref.assignment_id
    stream.assign(late)
    assert outcome(await stream.result_of(late)) == "FENCED"


async def test_a_full_disk_is_a_quota_failure_and_leaves_no_target(
    execution: ScriptedExecution, run_worker: Running, tmp_path: Path
) -> None:
    text = """
sources: [{id: one, values: [{x: 1.5}]}]
transformations:
  - {id: many, type: sql_transform, inputs: [one],
     sql: "SELECT range AS id, hash(range)::VARCHAR || hash(-range)::VARCHAR AS h FROM range(1000000)"}
sinks: [{id: out, input: many, path: out.csv, mode: replace}]
"""
    async with run_worker(worker_max_file="8MiB") as _:
        stream = await execution.next_stream()
        work = stage(payload(text))
        stream.assign(work)

        result = await stream.result_of(work)

    assert failure(result)[:2] == ("DISK_FULL", "QUOTA"), result.error
    assert not glob.glob(f"{tmp_path}/files/out.csv*")


async def test_a_poison_stage_leaves_its_neighbours_unharmed(
    stream: Stream, worker: Worker, database: asyncpg.Connection
) -> None:
    poison = [stage(payload(SLOW_SOURCE)) for _ in range(2)]
    for work in poison:
        stream.assign(work)
        os.kill(await process_of(worker, work), signal.SIGSEGV)
        result = await stream.result_of(work)
        assert failure(result)[0] == "STAGE_CRASHED"
        assert "SIGSEGV" in result.error.message
    work = stage(payload(LOAD))
    stream.assign(work)
    assert outcome(await stream.result_of(work)) == "COMPLETED"


async def test_a_stage_beyond_its_memory_fails_by_quota_or_spills(
    execution: ScriptedExecution, run_worker: Running
) -> None:
    """A hash of a million distinct strings in 64 MiB: DuckDB spills, or says that it cannot."""
    text = """
sources: [{id: one, values: [{x: 1.5}]}]
transformations:
  - {id: t, type: sql_transform, inputs: [one],
     sql: "SELECT count(*) AS n FROM (SELECT DISTINCT hash(range)::VARCHAR || range AS h FROM range(999999))"}
sinks: [{id: out, input: t, discard: true}]
"""
    async with run_worker(worker_memory="171MiB", worker_max_temp="1GB") as _:
        stream = await execution.next_stream()
        work = stage(payload(text))
        stream.assign(work)
        result = await stream.result_of(work)

    assert outcome(result) == "COMPLETED" or failure(result)[:2] == ("MEMORY_LIMIT", "QUOTA")


async def test_a_trivial_stage_is_not_slowed_by_a_long_one(stream: Stream) -> None:
    long = stage(payload(ENDLESS))
    stream.assign(long)
    quick = [stage(payload(NOOP)) for _ in range(50)]
    stream.assign(*quick)

    await stream.until(lambda: len(stream.bodies("result")) == 50)

    assert all(each.outcome == workers_pb2.OUTCOME_COMPLETED for each in stream.bodies("result"))


async def test_chores_travel_like_stages(stream: Stream, database: asyncpg.Connection) -> None:
    chore = stage(b'{"connection": "warehouse"}', kind=workers_pb2.ASSIGNMENT_KIND_TEST_CONNECTION)
    stream.assign(chore)
    result: Any = await stream.result_of(chore)
    assert b'"success":true' in result.answer
    assert not result.tasks
