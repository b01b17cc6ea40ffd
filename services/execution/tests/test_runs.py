"""Runs from acceptance to their end, over gRPC, with a scripted worker."""

import asyncio
import json
from uuid import UUID

import grpc
import pytest
from headrace.common.v1 import event_log_pb2, event_log_pb2_grpc
from headrace.execution.v1 import events_pb2, runs_pb2, workers_pb2
from headrace.metadata.v1 import definitions_pb2
from headrace_chassis.channels import call_metadata
from headrace_chassis.errors import HeadraceError, IdempotencyInFlight, from_rpc_error
from headrace_chassis.idempotency import IdempotencyKey
from headrace_chassis.ids import uuid7
from headrace_chassis.testing.authority import TENANT
from headrace_chassis.testing.waiting import eventually
from headrace_execution.acceptance.acceptor import Asked

from .factories import order
from .support import (
    BEHIND_AN_ARTIFACT,
    INCREMENTAL,
    LOADING,
    NOOP,
    TRACEPARENT,
    TWO_STAGES,
    WORKSPACE,
    Cluster,
    Replica,
    failure,
    receipt,
    state_of,
    task_states,
)


async def refused(call: object) -> HeadraceError:
    """The error of a call that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    return from_rpc_error(caught.value)


class TestHappyPath:
    async def test_a_run_starts_at_once_where_a_slot_is_free_and_ends_with_its_result(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        pipeline = mesh.metadata.add(NOOP)
        worker = await mesh.worker(replica)

        accepted = await replica.run(pipeline)
        assignment = await worker.next_assignment()
        await worker.finish(assignment)
        status = await replica.ended(accepted.run_id)

        assert (state_of(accepted), accepted.task_count, accepted.pipeline_version) == ("RUNNING", 1, 1)
        assert (state_of(status), task_states(status)) == ("COMPLETED", {"noop": "COMPLETED"})
        assert (await worker.next_ack()) == assignment.ref

    async def test_without_a_worker_it_is_pending_until_one_connects(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        accepted = await replica.run(mesh.metadata.add(NOOP))
        assert state_of(accepted) == "PENDING"

        worker = await mesh.worker(replica)
        await worker.finish(await worker.next_assignment())

        assert state_of(await replica.ended(accepted.run_id)) == "COMPLETED"

    async def test_the_next_stage_follows_the_one_before(self, mesh: Cluster, replica: Replica) -> None:
        worker = await mesh.worker(replica)
        accepted = await replica.run(mesh.metadata.add(TWO_STAGES))

        first = await worker.next_assignment()
        await worker.finish(first)
        second = await worker.next_assignment()
        assert task_states(await replica.status(accepted.run_id))["load"] == "PENDING"
        await worker.finish(second, receipts=[receipt(second.ref.fence, rows=7)])

        status = await replica.ended(accepted.run_id)
        assert set(task_states(status).values()) == {"COMPLETED"}
        assert status.metrics.rows_written == 7
        assert json.loads(second.payload)["stage"]["depends_on"] == [
            json.loads(first.payload)["stage"]["key"]
        ]

    async def test_slots_bound_what_is_handed_out(self, mesh: Cluster, replica: Replica) -> None:
        worker = await mesh.worker(replica, slots=2)
        pipeline = mesh.metadata.add(NOOP)

        runs = [await replica.run(pipeline) for _ in range(5)]

        assert [state_of(run) for run in runs] == ["RUNNING"] * 2 + ["PENDING"] * 3
        assert worker.assignments.qsize() <= 2
        for _ in runs:
            await worker.finish(await worker.next_assignment())
        assert {state_of(await replica.ended(run.run_id)) for run in runs} == {"COMPLETED"}

    async def test_many_at_once_share_their_transactions_and_all_end(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        worker = await mesh.worker(replica, slots=8)
        pipeline = mesh.metadata.add(NOOP)

        async def work() -> None:
            while True:
                await worker.finish(await worker.next_assignment())

        working = asyncio.create_task(work())
        runs = await asyncio.gather(*(replica.run(pipeline) for _ in range(200)))
        ended = [await replica.ended(run.run_id) for run in runs]
        working.cancel()

        assert len({run.run_id for run in runs}) == 200
        assert {state_of(status) for status in ended} == {"COMPLETED"}
        assert len(mesh.metadata.asked) < 100

    async def test_results_may_come_in_batches_where_the_server_has_said_so(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        worker = await mesh.worker(replica, slots=2)
        runs = [await replica.run(mesh.metadata.add(NOOP)) for _ in range(2)]
        work = [await worker.next_assignment() for _ in range(2)]

        completed = workers_pb2.OUTCOME_COMPLETED
        results = [workers_pb2.AssignmentResult(ref=each.ref, outcome=completed) for each in work]
        await worker.send(results=workers_pb2.ResultBatch(results=results))

        assert worker.welcome.takes_result_batches
        assert [await worker.next_ack() for _ in range(2)] == [each.ref for each in work]
        assert {state_of(await replica.ended(run.run_id)) for run in runs} == {"COMPLETED"}

    async def test_progress_is_shown_while_it_runs(self, mesh: Cluster, replica: Replica) -> None:
        worker = await mesh.worker(replica)
        accepted = await replica.run(mesh.metadata.add(LOADING))
        assignment = await worker.next_assignment()

        seen = workers_pb2.TaskProgress(task="rows", state=runs_pb2.TASK_STATE_RUNNING, rows_out=42)
        report = workers_pb2.AssignmentProgress(ref=assignment.ref, tasks=[seen])
        await worker.send(progress=workers_pb2.ProgressReport(assignments=[report]))

        async def shown() -> bool:
            status = await replica.status(accepted.run_id)
            return status.progress.rows_read == 42 and task_states(status)["rows"] == "RUNNING"

        assert await eventually(shown)

    async def test_events_tell_its_life_in_order(self, mesh: Cluster, replica: Replica) -> None:
        accepted = await replica.run(mesh.metadata.add(NOOP))
        worker = await mesh.worker(replica)
        assignment = await worker.next_assignment()
        await worker.finish(assignment)
        await replica.ended(accepted.run_id)
        log = event_log_pb2_grpc.EventLogServiceStub(replica.served.channel)

        async def told() -> list[event_log_pb2.Event]:
            answer = await log.ListEvents(event_log_pb2.ListEventsRequest(), metadata=replica.service)
            return list(answer.events) if len(answer.events) >= 3 else []

        events = await eventually(told)

        assert [event.type.split(".")[3] for event in events] == ["accepted", "started", "completed"]
        assert {event.traceparent for event in events} == {assignment.traceparent}
        assert TRACEPARENT.split("-")[1] in assignment.traceparent
        last = events_pb2.RunEvent.FromString(events[-1].data)
        assert (last.run_id, last.state, last.workspace_id) == (
            accepted.run_id,
            runs_pb2.RUN_STATE_COMPLETED,
            str(WORKSPACE),
        )


class TestAcceptance:
    async def test_the_latest_version_runs_and_its_text_is_read_once(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        pipeline = mesh.metadata.add(NOOP, version=1)
        first = await replica.run(pipeline)
        again = await replica.run(pipeline)
        mesh.metadata.add(TWO_STAGES, version=2, pipeline=pipeline)
        newer = await replica.run(pipeline)

        assert [run.pipeline_version for run in (first, again, newer)] == [1, 1, 2]
        assert [run.task_count for run in (first, again, newer)] == [1, 1, 3]
        assert list(mesh.metadata.asked[1].known) == [f"{pipeline}@1"]

    async def test_a_definition_may_come_with_the_run(self, mesh: Cluster, replica: Replica) -> None:
        accepted = await replica.run(mesh.metadata.add(NOOP), yaml_definition=TWO_STAGES)

        assert (accepted.task_count, accepted.HasField("pipeline_version")) == (3, False)

    async def test_a_sink_says_what_its_connection_guarantees_now(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        async def guarantee() -> str:
            status = await replica.status((await replica.run(pipeline)).run_id)
            return next(task.guarantee for task in status.tasks if task.id == "load")

        pipeline = mesh.metadata.add(LOADING)
        unknown = await guarantee()
        mesh.metadata.add(LOADING, pipeline=pipeline, connection_types={"warehouse": "postgresql"})
        known = await guarantee()
        mesh.metadata.add(LOADING, pipeline=pipeline, connection_types={"warehouse": "ledgerless"})
        changed = await guarantee()

        assert (unknown, known, changed) == ("AT_LEAST_ONCE", "EXACTLY_ONCE", "AT_LEAST_ONCE")

    async def test_connections_of_a_definition_that_came_with_the_run_are_asked_for(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        mesh.metadata.connections["warehouse"] = definitions_pb2.ResolvedConnection(type="postgresql")
        pipeline = mesh.metadata.add(NOOP)

        accepted = [await replica.run(pipeline, yaml_definition=LOADING) for _ in range(2)]

        for run in accepted:
            status = await replica.status(run.run_id)
            assert [task.guarantee for task in status.tasks if task.id == "load"] == ["EXACTLY_ONCE"]

    async def test_a_definition_that_cannot_run_is_told_with_its_places(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        text = "sources:\n  - {id: a, values: [{x: 1}]}\nsinks:\n  - {id: b, input: nothing, discard: true}\n"

        error = await refused(replica.run(mesh.metadata.add(NOOP), yaml_definition=text))

        assert error.code == "INVALID_DEFINITION"
        assert error.problems[0].line == 4

    async def test_parameters_are_checked_and_kept_with_their_defaults(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        declared = (
            "parameters: {day: {type: date, required: true}, n: {type: integer, default: 3}, "
            "x: {type: number}, y: {type: number}}"
        )
        pipeline = mesh.metadata.add(declared + NOOP)

        error = await refused(replica.run(pipeline, parameters=b'{"n": "many", "m": 1}'))
        given = b'{"day": "2026-01-31", "x": 0.1, "y": 0.12345678901234567890}'
        accepted = await replica.run(pipeline, parameters=given)

        assert error.code == "INVALID_PARAMETERS"
        assert {problem.path for problem in error.problems} == {
            "parameters.day",
            "parameters.n",
            "parameters.m",
        }
        status = await replica.status(accepted.run_id)
        kept = json.loads(status.parameters)
        assert kept == {"day": "2026-01-31", "n": 3, "x": 0.1, "y": "0.12345678901234567890"}

    async def test_engines_that_are_not_there_are_refused(self, mesh: Cluster, replica: Replica) -> None:
        pipeline = mesh.metadata.add(NOOP)
        spark = mesh.metadata.add("engine: SPARK" + NOOP)

        assert (await refused(replica.run(pipeline, engine=runs_pb2.ENGINE_FLINK))).code == (
            "ENGINE_NOT_AVAILABLE"
        )
        assert (await refused(replica.run(spark))).code == "ENGINE_NOT_AVAILABLE"
        assert (await replica.run(spark, engine=runs_pb2.ENGINE_AUTO)).engine == runs_pb2.ENGINE_JDBC

    async def test_what_is_not_visible_does_not_exist(self, mesh: Cluster, replica: Replica) -> None:
        pipeline = mesh.metadata.add(NOOP)
        run = await replica.run(pipeline)
        stranger = call_metadata(replica.authority.user("editor", workspaces=[uuid7()]))
        foreigner = call_metadata(replica.authority.user("editor", tenant=uuid7()))

        for metadata in (stranger, foreigner):
            status = replica.runs.GetRunStatus(
                runs_pb2.GetRunStatusRequest(run_id=run.run_id), metadata=metadata
            )
            cancel = replica.runs.CancelRun(runs_pb2.CancelRunRequest(run_id=run.run_id), metadata=metadata)
            listed = await replica.runs.ListRuns(runs_pb2.ListRunsRequest(), metadata=metadata)
            assert (await refused(status)).code == (await refused(cancel)).code == "NOT_FOUND"
            assert not listed.data
        start = replica.runs.RunPipeline(runs_pb2.RunPipelineRequest(id=pipeline), metadata=stranger)
        assert (await refused(start)).code == "NOT_FOUND"
        assert (await refused(replica.run(str(uuid7())))).code == "NOT_FOUND"

    async def test_one_idempotency_key_is_one_run(self, mesh: Cluster, replica: Replica) -> None:
        pipeline = mesh.metadata.add(NOOP)

        first = await replica.run(pipeline, key="k")
        again = await replica.run(pipeline, key="k")
        other = await refused(replica.run(pipeline, key="k", full_refresh=True))

        assert first == again
        assert other.code == "IDEMPOTENCY_KEY_REUSED"

    async def test_one_idempotency_key_in_parallel_is_one_run(self, mesh: Cluster, replica: Replica) -> None:
        pipeline = mesh.metadata.add(NOOP)

        outcomes = await asyncio.gather(
            *(replica.run(pipeline, key="k") for _ in range(10)), return_exceptions=True
        )

        ids = {outcome.run_id for outcome in outcomes if isinstance(outcome, runs_pb2.RunResponse)}
        errors = {from_rpc_error(o).code for o in outcomes if isinstance(o, grpc.aio.AioRpcError)}
        assert len(ids) == 1
        assert errors <= {"IDEMPOTENCY_IN_FLIGHT"}

    async def test_of_equal_keys_in_one_batch_the_first_is_accepted(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        pipeline = UUID(mesh.metadata.add(NOOP))
        key = IdempotencyKey(TENANT, "ada", "RunPipeline", "k", b"hash")
        asked = [Asked(order(pipeline=pipeline, tenant=TENANT), key) for _ in range(3)]

        # All three wait before the first batch begins, so that it has all of them.
        outcomes = await asyncio.gather(*map(replica.parts.acceptor.accept, asked), return_exceptions=True)

        assert [type(outcome) for outcome in outcomes] == [
            runs_pb2.RunResponse,
            IdempotencyInFlight,
            IdempotencyInFlight,
        ]

    async def test_one_request_that_cannot_be_stored_fails_alone(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        pipeline = mesh.metadata.add(NOOP)

        outcomes = await asyncio.gather(
            *(replica.run(pipeline) for _ in range(5)),
            replica.run(pipeline, triggered_by="a\x00b"),
            return_exceptions=True,
        )

        assert [isinstance(outcome, runs_pb2.RunResponse) for outcome in outcomes] == [True] * 5 + [False]

    async def test_lists_page_and_filter(self, mesh: Cluster, replica: Replica) -> None:
        pipeline, other = mesh.metadata.add(NOOP), mesh.metadata.add(NOOP)
        runs = [await replica.run(pipeline) for _ in range(3)]
        await replica.run(other)
        await replica.cancel(runs[0].run_id)

        request = runs_pb2.ListPipelineRunsRequest(id=pipeline, limit=2, include_total=True)
        first = await replica.runs.ListPipelineRuns(request, metadata=replica.editor)
        request.cursor = first.meta.next_cursor
        second = await replica.runs.ListPipelineRuns(request, metadata=replica.editor)
        everything = await replica.runs.ListRuns(runs_pb2.ListRunsRequest(), metadata=replica.editor)
        cancelled = await replica.runs.ListRuns(
            runs_pb2.ListRunsRequest(status=runs_pb2.RUN_STATE_CANCELLED), metadata=replica.editor
        )

        listed = [item.run_id for item in [*first.data, *second.data]]
        assert listed == [run.run_id for run in reversed(runs)]
        assert (first.meta.total, second.meta.HasField("next_cursor")) == (3, False)
        assert (len(everything.data), [item.run_id for item in cancelled.data]) == (4, [runs[0].run_id])


class TestFailures:
    async def test_a_transient_failure_is_tried_again_when_it_is_due(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        worker = await mesh.worker(replica)
        accepted = await replica.run(mesh.metadata.add(LOADING, max_retries=1, retry_delay_seconds=60))
        first = await worker.next_assignment()
        await worker.finish(first, "FAILED", error=failure("GONE", "TRANSIENT"), failed_task="load")
        await worker.next_ack()
        waiting = await replica.status(accepted.run_id)
        replica.travel(10)
        assert worker.assignments.empty()

        await worker.heartbeat()
        replica.travel(70)
        await worker.heartbeat()
        second = await worker.next_assignment()
        await worker.finish(second, receipts=[receipt(second.ref.fence)])

        assert set(task_states(waiting).values()) == {"WAITING"}
        assert waiting.errors == {"load": "it did not work"}
        assert (first.attempt, second.attempt) == (1, 2)
        assert second.ref.fence > first.ref.fence
        status = await replica.ended(accepted.run_id)
        assert (state_of(status), status.attempt, dict(status.errors)) == ("COMPLETED", 2, {})

    async def test_other_failures_end_the_run_with_their_reason(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        worker = await mesh.worker(replica)
        accepted = await replica.run(mesh.metadata.add(LOADING, max_retries=5))
        error = failure("MISSING_TABLE", "CONFIGURATION", "there is no table \x00 public.target", table="t")

        await worker.finish(await worker.next_assignment(), "FAILED", error=error, failed_task="load")

        status = await replica.ended(accepted.run_id)
        (task,) = [task for task in status.tasks if task.id == "load"]
        assert (state_of(status), task_states(status)) == ("FAILED", {"rows": "SKIPPED", "load": "FAILED"})
        assert (task.error.code, dict(task.error.details)) == ("MISSING_TABLE", {"table": "t"})
        listed = await replica.runs.ListRuns(runs_pb2.ListRunsRequest(), metadata=replica.editor)
        assert listed.data[0].error.startswith("load: there is no table")

    async def test_warnings_and_receipts_are_shown(self, mesh: Cluster, replica: Replica) -> None:
        worker = await mesh.worker(replica)
        accepted = await replica.run(mesh.metadata.add(LOADING))
        assignment = await worker.next_assignment()
        warning = runs_pb2.RunWarning(task="load", code="NULLS", message="odd", details={"rows": "3"})

        await worker.finish(assignment, receipts=[receipt(assignment.ref.fence, rows=9)], warnings=[warning])

        status = await replica.ended(accepted.run_id)
        assert list(status.warnings) == [warning]
        assert status.metrics.rows_written == 9

    async def test_a_repeated_result_is_acknowledged_and_changes_nothing(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        worker = await mesh.worker(replica)
        accepted = await replica.run(mesh.metadata.add(NOOP))
        assignment = await worker.next_assignment()
        await worker.finish(assignment)
        await worker.next_ack()
        before = await replica.ended(accepted.run_id)

        await worker.finish(assignment, "FAILED", error=failure("LATE", "DATA"))

        assert await worker.next_ack() == assignment.ref
        assert (await replica.status(accepted.run_id)).revision == before.revision


def given(assignment: workers_pb2.Assignment) -> list[tuple[str, str, bytes]]:
    """The cursors that came with an assignment."""
    return [(cursor.sink, cursor.source, cursor.value) for cursor in assignment.cursors]


class TestCursors:
    async def test_a_cursor_moves_with_its_receipt_and_is_given_to_the_next_run(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        worker = await mesh.worker(replica)
        pipeline = mesh.metadata.add(INCREMENTAL)

        async def run(**result: object) -> workers_pb2.Assignment:
            accepted = await replica.run(pipeline)
            assignment = await worker.next_assignment()
            cursor = workers_pb2.Cursor(sink="load", source="rows", value=b"42")
            if result.pop("lands", True):
                result["receipts"] = [receipt(assignment.ref.fence, cursors=[cursor])]
            await worker.finish(assignment, str(result.pop("outcome", "COMPLETED")), **result)
            await replica.ended(accepted.run_id)
            return assignment

        failed = await run(outcome="FAILED", lands=False, error=failure("BAD", "DATA"))
        first = await run()
        second = await run()

        assert [given(each) for each in (failed, first)] == [[("load", "rows", b"")]] * 2
        assert given(second) == [("load", "rows", b"42")]

    async def test_a_status_shows_how_far_each_load_came(self, mesh: Cluster, replica: Replica) -> None:
        worker = await mesh.worker(replica)
        accepted = await replica.run(mesh.metadata.add(INCREMENTAL))
        assignment = await worker.next_assignment()
        told = workers_pb2.Cursor(
            sink="load", source="rows", value=b"{}", column="id", before="17", after="42"
        )
        await worker.finish(assignment, receipts=[receipt(assignment.ref.fence, cursors=[told])])

        status = await replica.ended(accepted.run_id)

        shown = {
            task.id: [(c.source, c.column, c.before, c.after) for c in task.cursors] for task in status.tasks
        }
        assert shown == {"rows": [], "load": [("rows", "id", "17", "42")]}

    async def test_a_stage_goes_on_from_the_cursors_of_all_sinks_behind_it(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        worker = await mesh.worker(replica)
        pipeline = mesh.metadata.add(BEHIND_AN_ARTIFACT)

        async def run() -> list[workers_pb2.Assignment]:
            accepted = await replica.run(pipeline)
            reading = await worker.next_assignment()
            await worker.finish(reading)
            loading = await worker.next_assignment()
            cursor = workers_pb2.Cursor(sink="load", source="rows", value=b"42")
            await worker.finish(loading, receipts=[receipt(loading.ref.fence, cursors=[cursor])])
            assert state_of(await replica.ended(accepted.run_id)) == "COMPLETED"
            return [reading, loading]

        first, second = await run(), await run()

        assert [given(stage) for stage in first] == [[("load", "rows", b"")], []]
        assert [given(stage) for stage in second] == [[("load", "rows", b"42")], []]


class TestLimits:
    LIMITED = "execution: {max_concurrent_runs: 1}" + NOOP

    async def test_a_run_is_held_until_the_one_before_it_ends(self, mesh: Cluster, replica: Replica) -> None:
        worker = await mesh.worker(replica)
        pipeline = mesh.metadata.add(self.LIMITED)

        first = await replica.run(pipeline)
        second = await replica.run(pipeline)
        urgent = await replica.run(pipeline, priority=runs_pb2.PRIORITY_HIGH)
        order = []
        for _ in range(3):
            assignment = await worker.next_assignment()
            assert worker.assignments.empty()
            order.append(assignment.run_id)
            await worker.finish(assignment)

        assert [state_of(run) for run in (first, second, urgent)] == ["RUNNING", "PENDING", "PENDING"]
        assert order == [first.run_id, urgent.run_id, second.run_id]

    async def test_it_is_refused_where_the_pipeline_does_not_queue(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        text = "execution: {max_concurrent_runs: 2, queue_when_full: false}" + NOOP
        pipeline = mesh.metadata.add(text)

        outcomes = await asyncio.gather(*(replica.run(pipeline) for _ in range(6)), return_exceptions=True)

        errors = [from_rpc_error(o).code for o in outcomes if isinstance(o, grpc.aio.AioRpcError)]
        assert errors == ["CONCURRENCY_LIMIT"] * 4

    async def test_runs_that_share_a_cursor_take_turns(self, mesh: Cluster, replica: Replica) -> None:
        worker = await mesh.worker(replica)
        pipeline = mesh.metadata.add(INCREMENTAL)

        runs = [await replica.run(pipeline) for _ in range(2)]

        assert [state_of(run) for run in runs] == ["RUNNING", "PENDING"]
        first = await worker.next_assignment()
        await worker.finish(first, receipts=[receipt(first.ref.fence)])
        assert (await worker.next_assignment()).run_id == runs[1].run_id

    async def test_cancelling_the_live_one_lets_the_held_one_go(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        worker = await mesh.worker(replica)
        pipeline = mesh.metadata.add(self.LIMITED)
        first, second = [await replica.run(pipeline) for _ in range(2)]
        assignment = await worker.next_assignment()

        cancelling = asyncio.create_task(replica.cancel(first.run_id))
        await worker.next_cancel()
        await worker.finish(assignment, "CANCELLED")

        assert state_of(await cancelling) == "CANCELLED"
        assert (await worker.next_assignment()).run_id == second.run_id
