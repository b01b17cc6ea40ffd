"""Dry runs: a worker is asked about the whole plan, the caller is answered, and nothing is kept."""

import asyncio
import json
from typing import Any

from headrace.execution.v1 import runs_pb2, workers_pb2
from headrace_definition.plan import Plan

from .support import Cluster, Replica, failure, receipt
from .test_runs import refused

TWO_STAGES = """
version: 1
parameters: {least: {type: integer, default: 3}}
sources:
  - {id: orders, connection: warehouse, table: orders, incremental: {cursor: id}}
transformations:
  - {id: kept, type: filter, input: orders, condition: "id > ${params.least}", materialize: true}
sinks:
  - {id: raw, input: orders, connection: warehouse, table: raw}
  - {id: load, input: kept, connection: files, path: kept.parquet}
"""


async def ask(replica: Replica, pipeline: str, **more: Any) -> "asyncio.Task[runs_pb2.RunResponse]":
    return asyncio.create_task(replica.run(pipeline, dry_run=True, **more))


async def test_a_worker_gets_the_whole_plan_and_its_answer_is_the_callers(
    mesh: Cluster, replica: Replica
) -> None:
    worker, pipeline = await mesh.worker(replica), mesh.metadata.add(TWO_STAGES)
    asked = await ask(replica, pipeline, parameters=b'{"least": 5}', full_refresh=True)
    work = await worker.next_assignment()
    answer = {
        "connections": [{"reference": "warehouse"}],
        "tasks": [{"id": "orders", "columns": [{"name": "id"}]}],
    }
    await worker.finish(work, answer=json.dumps(answer).encode())

    told = await asked

    assert work.kind == workers_pb2.ASSIGNMENT_KIND_DRY_RUN
    assert [task.key for task in Plan.from_json(work.payload).tasks] == ["orders", "kept", "raw", "load"]
    assert (json.loads(work.parameters), work.full_refresh) == ({"least": 5}, True)
    assert work.timeout_ms > 0
    assert (told.run_id, told.status, told.task_count) == ("", runs_pb2.RUN_STATE_PENDING, 4)
    assert told.dry_run.ready
    assert [(stage.key, list(stage.depends_on)) for stage in told.dry_run.stages] == [
        ("s1", []),
        ("s2", ["s1"]),
    ]
    assert told.dry_run.tasks[0].columns[0].name == "id"
    assert not (await replica.runs.ListRuns(runs_pb2.ListRunsRequest(), metadata=replica.editor)).data


async def test_the_cursors_of_a_pipeline_go_with_it(mesh: Cluster, replica: Replica) -> None:
    worker, pipeline = await mesh.worker(replica), mesh.metadata.add(TWO_STAGES)
    run = await replica.run(pipeline)
    stage = await worker.next_assignment()
    moved = receipt(stage.ref.fence, sink="raw")
    moved.cursors.add(sink="raw", source="orders", value=b"41")
    await worker.finish(stage, receipts=[moved])
    await worker.finish(await worker.next_assignment())
    await replica.ended(run.run_id)

    asked = await ask(replica, pipeline)
    work = await worker.next_assignment()
    await worker.finish(work, answer=b'{"tasks": [{"id": "raw", "error": {"code": "TABLE_NOT_FOUND"}}]}')

    assert {(c.sink, c.source): c.value for c in work.cursors} == {
        ("raw", "orders"): b"41",
        ("load", "orders"): b"",
    }
    assert not (await asked).dry_run.ready


async def test_what_keeps_a_worker_from_answering_is_told(mesh: Cluster, replica: Replica) -> None:
    worker, pipeline = await mesh.worker(replica), mesh.metadata.add(TWO_STAGES)
    asked = await ask(replica, pipeline)
    crash = failure("STAGE_CRASHED", "TRANSIENT", "the process died")
    await worker.finish(await worker.next_assignment(), "FAILED", error=crash)

    told = (await asked).dry_run

    assert (told.ready, told.error.code, told.error.transient) == (False, "STAGE_CRASHED", True)


async def test_it_is_refused_where_a_run_would_be(mesh: Cluster, replica: Replica) -> None:
    pipeline = mesh.metadata.add(TWO_STAGES)
    error = await refused(replica.run(pipeline, dry_run=True, parameters=b'{"lest": 5}'))
    assert error.code == "INVALID_PARAMETERS"
    error = await refused(replica.run(pipeline, dry_run=True, engine=runs_pb2.ENGINE_FLINK))
    assert error.code == "ENGINE_NOT_AVAILABLE"


async def test_a_caller_has_only_so_many_under_way(mesh: Cluster) -> None:
    replica = await mesh.replica(max_dry_runs_per_caller=1)
    worker, pipeline = await mesh.worker(replica), mesh.metadata.add(TWO_STAGES)
    asked = await ask(replica, pipeline)
    work = await worker.next_assignment()

    error = await refused(replica.run(pipeline, dry_run=True))
    await worker.finish(work, answer=b"{}")

    assert error.code == "RATE_LIMITED"
    assert (await asked).dry_run.ready
