"""Runs that try other runs again: they go on where those ended, one at a time."""

import asyncio
import json
from typing import Any

import grpc
import pytest
from headrace.execution.v1 import internal_pb2, runs_pb2, workers_pb2
from headrace_chassis.channels import call_metadata
from headrace_chassis.errors import HeadraceError, from_rpc_error
from headrace_chassis.ids import uuid7
from headrace_execution.domain.assignments import assign, finish
from headrace_execution.domain.lifecycle import accept, request_cancel
from headrace_execution.domain.recipe import Recipe
from headrace_execution.domain.retrying import retry_order
from headrace_execution.domain.run import Run, StageResult
from headrace_execution.domain.states import RunState, StageState
from headrace_execution.store.port import Store

from .factories import NOW, WORKER, accepted, at, completed, failed, recipe
from .support import (
    INCREMENTAL,
    LOADING,
    NOOP,
    PATIENT,
    Cluster,
    Replica,
    ScriptedWorker,
    failure,
    receipt,
    state_of,
    task_states,
)
from .test_runs import refused
from .test_starts import ask as tick
from .test_starts import start
from .test_store import add, ask, change

APART = """
version: 1
sources: [{id: rows, values: [{x: 1}]}, {id: others, connection: warehouse, table: public.source}]
transformations: [{id: kept, type: filter, input: rows, condition: "x > 0", materialize: true}]
sinks:
  - {id: load, input: kept, connection: warehouse, table: public.target}
  - {id: copy, input: others, connection: warehouse, table: public.copy}
"""


def ended(made: Recipe, *results: str) -> Run:
    """A run of which each stage that runs ends so, in their order."""
    run = accepted(made)
    for fence, result in enumerate(results, start=1):
        stage = next(stage for stage in run.stages if stage.state is StageState.READY)
        run = assign(run, stage.id, WORKER, fence, at())
        told: StageResult = completed(run, stage.position, fence) if result == "ok" else failed()
        run = finish(run, stage.id, WORKER, fence, told, at(1))
    return run


def again(run: Run) -> Run:
    """The run that tries it again."""
    ids = [uuid7() for _ in run.stages]
    return accept(retry_order(run, run_id=uuid7(), stage_ids=ids, triggered_by="bob"), NOW)


class TestRules:
    def test_stages_beside_the_failed_one_are_taken_over_as_they_ended(self) -> None:
        run = ended(recipe((), ()), "ok", "broken")

        done, left = again(run).stages

        assert run.state is RunState.FAILED
        assert (done.state, done.fence, done.was_taken_over) == (StageState.COMPLETED, 0, True)
        assert (done.receipts, {task.attempt for task in done.tasks}) == (run.stages[0].receipts, {0})
        assert (left.state, left.attempt, left.failures, left.receipts) == (StageState.READY, 0, 0, ())

    def test_a_stage_whose_rows_are_needed_runs_again(self) -> None:
        run = ended(recipe((), (0,), ()), "ok", "ok", "broken")
        rows_needed = ended(recipe((), (0,)), "ok", "broken")

        assert [stage.was_taken_over for stage in again(run).stages] == [True, True, False]
        assert [stage.state for stage in again(rows_needed).stages] == [StageState.READY, StageState.BLOCKED]

    def test_a_chain_of_retries_has_one_root_and_takes_over_what_was_taken_over(self) -> None:
        first = ended(recipe((), ()), "ok", "broken")
        second = again(first)
        second = assign(second, second.stages[1].id, WORKER, 7, at(2))
        second = finish(second, second.stages[1].id, WORKER, 7, failed(), at(3))

        third = again(second)

        assert (first.root_id, second.root_id, third.root_id) == (first.id,) * 3
        assert (second.retry_of, third.retry_of) == (first.id, second.id)
        assert third.stages[0].receipts == first.stages[0].receipts
        assert third.stages[0].was_taken_over

    def test_only_failed_and_cancelled_runs_are_tried_again(self) -> None:
        with pytest.raises(ValueError, match="COMPLETED"):
            again(ended(recipe(), "ok"))


async def test_the_live_run_of_a_chain_is_found_by_its_root(any_store: Store) -> None:
    root, other = uuid7(), uuid7()
    (live,) = await add(any_store, {"root": root, "retry_of": root})
    (gone,) = await add(any_store, {"root": other, "retry_of": other})
    await change(any_store, gone.id, lambda run, moment: request_cancel(run, None, moment))

    found = await ask(any_store, lambda tx: tx.runs.live_of_roots({root, other, uuid7()}))

    assert found == {root: live.id}
    kept = await any_store.get(live.tenant, live.id)
    assert (kept, live.root_id) == (live, root)


async def retry(replica: Replica, run_id: str, key: str | None = None, **more: Any) -> runs_pb2.RunResponse:
    """Tries a run again."""
    metadata = call_metadata(replica.authority.user("editor"), idempotency_key=key)
    request = runs_pb2.RetryRunRequest(run_id=run_id, **more)
    return await replica.runs.RetryRun(request, metadata=metadata, timeout=PATIENT)


async def retry_all(*calls: Any) -> tuple[list[runs_pb2.RunResponse], list[HeadraceError]]:
    """The answers and the errors of calls at once."""
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    answers = [outcome for outcome in outcomes if isinstance(outcome, runs_pb2.RunResponse)]
    errors = [outcome for outcome in outcomes if isinstance(outcome, grpc.aio.AioRpcError)]
    return answers, [from_rpc_error(error) for error in errors]


async def fail(worker: ScriptedWorker, assignment: workers_pb2.Assignment, task: str = "load") -> None:
    """Reports that a task has failed for good."""
    await worker.finish(assignment, "FAILED", error=failure("BAD_VALUE", "DATA"), failed_task=task)


async def failed_run(replica: Replica, worker: ScriptedWorker, pipeline: str, **more: Any) -> str:
    """A run of one stage that has failed."""
    run_id = (await replica.run(pipeline, **more)).run_id
    await fail(worker, await worker.next_assignment())
    await replica.ended(run_id)
    return run_id


class TestOverGrpc:
    async def test_a_failed_run_is_tried_again_under_its_root(self, mesh: Cluster, replica: Replica) -> None:
        text = LOADING + "parameters: {region: {type: string, required: true}}\n"
        pipeline, worker = mesh.metadata.add(text), await mesh.worker(replica)
        first = await failed_run(replica, worker, pipeline, parameters=b'{"region":"eu"}', full_refresh=True)
        mesh.metadata.add(NOOP, pipeline=pipeline, version=2)

        accepted = await retry(replica, first, triggered_by="by hand", priority=runs_pb2.PRIORITY_HIGH)
        assignment = await worker.next_assignment()
        await worker.finish(assignment, receipts=[receipt(assignment.ref.fence)])
        status = await replica.ended(accepted.run_id)

        assert (assignment.run_id, assignment.root_run_id) == (accepted.run_id, first)
        assert (assignment.parameters, assignment.full_refresh) == (b'{"region":"eu"}', True)
        assert (state_of(accepted), state_of(status), status.retry_of) == ("RUNNING", "COMPLETED", first)
        assert (status.pipeline_version, status.trigger_label, status.attempt) == (1, "by hand", 1)
        assert (status.trigger, status.priority) == (runs_pb2.TRIGGER_KIND_RETRY, runs_pb2.PRIORITY_HIGH)

    async def test_what_had_completed_is_not_handed_out_again(self, mesh: Cluster, replica: Replica) -> None:
        pipeline, worker = mesh.metadata.add(APART), await mesh.worker(replica)
        first = (await replica.run(pipeline)).run_id
        for _ in range(2):
            assignment = await worker.next_assignment()
            if "copy" in _tasks(assignment):
                landed = [receipt(assignment.ref.fence, "copy", rows=7)]
                await worker.finish(assignment, receipts=landed)
            else:
                await fail(worker, assignment, "rows")
        await replica.ended(first)

        second = (await retry(replica, first)).run_id
        assignments = []
        for sink in ("kept", "load"):
            assignment = await worker.next_assignment()
            assignments += _tasks(assignment)
            landed = [receipt(assignment.ref.fence, sink, rows=3)] if sink == "load" else []
            await worker.finish(assignment, receipts=landed)
        status = await replica.ended(second)

        assert "copy" not in assignments
        assert task_states(status)["copy"] == "COMPLETED"
        assert (status.metrics.rows_written, state_of(status)) == (3, "COMPLETED")

    async def test_one_run_is_tried_again_once_at_a_time(self, mesh: Cluster, replica: Replica) -> None:
        other = await mesh.replica()
        pipeline, worker = mesh.metadata.add(LOADING), await mesh.worker(replica)
        first = await failed_run(replica, worker, pipeline)

        answers, errors = await retry_all(
            *(retry(each, first) for each in (replica, other, replica, other, replica))
        )
        await fail(worker, await worker.next_assignment())
        await replica.ended(answers[0].run_id)
        more, late = await retry_all(retry(replica, first), retry(other, answers[0].run_id))

        assert (len(answers), {error.code for error in errors}) == (1, {"NOT_RETRYABLE"})
        assert errors[0].metadata["runId"] == answers[0].run_id
        assert (len(more), len(late)) == (1, 1)

    async def test_the_same_key_is_the_same_retry(self, mesh: Cluster, replica: Replica) -> None:
        pipeline, worker = mesh.metadata.add(LOADING), await mesh.worker(replica)
        first = await failed_run(replica, worker, pipeline)

        answers = [await retry(replica, first, key="once") for _ in range(2)]

        assert answers[0] == answers[1]

    async def test_a_cancelled_run_is_tried_again_and_a_completed_one_is_not(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        pipeline = mesh.metadata.add(NOOP)
        cancelled = (await replica.run(pipeline)).run_id
        error = await refused(retry(replica, cancelled))
        await replica.cancel(cancelled)
        second = (await retry(replica, cancelled)).run_id
        worker = await mesh.worker(replica)
        await worker.finish(await worker.next_assignment())
        done = await replica.ended(second)

        assert (error.code, error.metadata["status"]) == ("NOT_RETRYABLE", "PENDING")
        assert state_of(done) == "COMPLETED"
        assert (await refused(retry(replica, second))).code == "NOT_RETRYABLE"
        assert (await refused(retry(replica, str(uuid7())))).code == "NOT_FOUND"

    async def test_a_deleted_pipeline_is_not_tried_again(self, mesh: Cluster, replica: Replica) -> None:
        pipeline, worker = mesh.metadata.add(LOADING), await mesh.worker(replica)
        first = await failed_run(replica, worker, pipeline)
        close = internal_pb2.ClosePipelineRequest(pipeline_id=pipeline)
        await replica.internal.ClosePipeline(close, metadata=replica.service, timeout=PATIENT)

        assert (await refused(retry(replica, first))).code == "PIPELINE_DELETING"

    async def test_it_goes_on_from_the_cursors_as_they_stand_and_takes_its_turn(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        pipeline, worker = mesh.metadata.add(INCREMENTAL), await mesh.worker(replica)
        first = await failed_run(replica, worker, pipeline)
        between = (await replica.run(pipeline)).run_id
        held = await retry(replica, first)

        assignment = await worker.next_assignment()
        cursor = workers_pb2.Cursor(sink="load", source="rows", value=b"200")
        await worker.finish(assignment, receipts=[receipt(assignment.ref.fence, cursors=[cursor])])
        retried = await worker.next_assignment()

        assert (assignment.run_id, state_of(held)) == (between, "PENDING")
        assert (retried.run_id, retried.root_run_id) == (held.run_id, first)
        assert [item.value for item in retried.cursors] == [b"200"]

    async def test_a_retried_tick_keeps_its_interval_and_its_schedule(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        pipeline, worker = mesh.metadata.add(LOADING), await mesh.worker(replica)
        (decision,) = await start(replica, tick(pipeline, overlap="SKIP"))
        await fail(worker, await worker.next_assignment())
        first = await replica.ended(decision.run_id)

        second = await replica.status((await retry(replica, decision.run_id)).run_id)

        assert (second.trigger_id, second.logical_date) == ("nightly", first.logical_date)
        (blocked,) = await start(replica, tick(pipeline, "next", overlap="SKIP"))
        assert list(blocked.running_run_ids) == [second.run_id]


def _tasks(assignment: workers_pb2.Assignment) -> list[str]:
    tasks: list[str] = json.loads(assignment.payload)["stage"]["tasks"]
    return tasks
