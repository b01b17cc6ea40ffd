"""Runs that wait for signals: what a signal and a deadline do, and what survives what."""

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from headrace.execution.v1 import runs_pb2, workflow_pb2
from headrace_chassis.channels import call_metadata
from headrace_chassis.errors import HeadraceError
from headrace_chassis.ids import uuid7
from headrace_execution.domain.assignments import assign, finish
from headrace_execution.domain.lifecycle import accept, let_go, request_cancel
from headrace_execution.domain.moment import Moment
from headrace_execution.domain.recipe import OnTimeout
from headrace_execution.domain.run import ReceivedSignal, Run
from headrace_execution.domain.states import RunState, TaskState
from headrace_execution.domain.timers import run_due
from headrace_execution.domain.waits import AlreadyCame, CameTooLate, receive, stage_for
from headrace_execution.recording import release_held
from headrace_execution.store.port import Store

from .factories import NOW, WORKER, accepted, at, completed, failed, order, recipe, wait
from .support import PATIENT, Cluster, Replica, ScriptedWorker, failure, state_of, task_states
from .test_retries import again, retry
from .test_runs import refused
from .test_store import add, ask, change

BETWEEN = recipe((), (0,), (0, 1), waits={1: wait()})
"""A stage, a wait of a minute, and a stage that gets the rows of the first one then."""


def signal_to(run: Run, name: str = "approval", seconds: float = 2) -> Run:
    """The run with a signal."""
    stage = stage_for(run, name)
    assert stage is not None
    received = ReceivedSignal(b'{"approved":true}', at(seconds).now, "grace", run.id)
    return receive(run, stage, received, at(seconds))


def work(run: Run, position: int, fence: int, *, fails: bool = False) -> Run:
    """The run when a worker has worked a stage off."""
    stage = run.stages[position].id
    run = assign(run, stage, WORKER, fence, at(fence))
    return finish(
        run, stage, WORKER, fence, failed() if fails else completed(run, position, fence), at(fence)
    )


def states(run: Run) -> list[str]:
    """The states of its stages."""
    return [stage.state.value for stage in run.stages]


class TestRules:
    def test_a_stage_waits_when_all_before_it_is_done_and_the_signal_lets_the_next_one_start(self) -> None:
        waiting = work(accepted(BETWEEN), 0, 1)

        assert (waiting.state, states(waiting)) == (RunState.RUNNING, ["COMPLETED", "WAITING", "BLOCKED"])
        assert waiting.stages[1].tasks[0].state is TaskState.WAITING
        assert waiting.stages[1].due_at == at(61).now
        after = signal_to(waiting)
        assert states(after) == ["COMPLETED", "COMPLETED", "READY"]
        assert work(after, 2, 3).state is RunState.COMPLETED

    def test_a_signal_that_comes_early_is_kept(self) -> None:
        early = signal_to(accepted(BETWEEN))

        assert states(early) == ["READY", "BLOCKED", "BLOCKED"]
        assert states(work(early, 0, 1)) == ["COMPLETED", "COMPLETED", "READY"]

    def test_a_gate_waits_from_the_start_but_for_a_run_that_is_held(self) -> None:
        gate = recipe((), (0,), waits={0: wait()})
        held = accept(order(gate), NOW, held=True)

        assert (accepted(gate).state, states(accepted(gate))) == (RunState.RUNNING, ["WAITING", "BLOCKED"])
        assert (held.state, states(held)) == (RunState.PENDING, ["BLOCKED", "BLOCKED"])
        freed = let_go(signal_to(held), at(5).now)
        assert (freed.state, states(freed)) == (RunState.RUNNING, ["COMPLETED", "READY"])

    def test_the_first_signal_counts_and_one_after_the_deadline_is_too_late(self) -> None:
        waiting = work(accepted(BETWEEN), 0, 1)

        with pytest.raises(AlreadyCame):
            signal_to(signal_to(waiting))
        with pytest.raises(CameTooLate, match="until"):
            signal_to(waiting, seconds=62)
        with pytest.raises(CameTooLate, match="CANCELLED"):
            signal_to(request_cancel(waiting, None, at(3)))

    @pytest.mark.parametrize(
        ("action", "run_state", "stages"),
        [
            (OnTimeout.FAIL, RunState.FAILED, ["COMPLETED", "FAILED", "SKIPPED"]),
            (OnTimeout.CONTINUE, RunState.RUNNING, ["COMPLETED", "COMPLETED", "READY"]),
            (OnTimeout.CANCEL, RunState.CANCELLED, ["COMPLETED", "CANCELLED", "CANCELLED"]),
        ],
    )
    def test_a_deadline_does_what_the_definition_says(
        self, action: OnTimeout, run_state: RunState, stages: list[str]
    ) -> None:
        waiting = work(accepted(recipe((), (0,), (1,), waits={1: wait(on_timeout=action)})), 0, 1)

        assert run_due(waiting, at(60)) == waiting
        after = run_due(waiting, at(61))

        assert (after.state, states(after)) == (run_state, stages)
        warned = [warning.code for stage in after.stages for warning in stage.warnings]
        assert warned == (["SIGNAL_TIMEOUT"] if action is OnTimeout.CONTINUE else [])
        assert "did not come within 60 seconds" in str(after)

    def test_deadlines_that_pass_at_once_leave_what_the_first_of_them_has_ended(self) -> None:
        cancels = recipe((), (), waits={0: wait("a", OnTimeout.CANCEL), 1: wait("b", OnTimeout.CONTINUE)})

        assert states(run_due(accepted(cancels), at(61))) == ["CANCELLED", "CANCELLED"]

    def test_nothing_waits_when_another_stage_has_failed(self) -> None:
        run = accepted(recipe((), (), (1,), waits={1: wait()}))

        after = work(run, 0, 1, fails=True)

        assert (after.state, states(after)) == (RunState.FAILED, ["FAILED", "SKIPPED", "SKIPPED"])

    def test_a_retry_keeps_the_signals_that_its_run_had(self) -> None:
        broken = work(signal_to(work(accepted(BETWEEN), 0, 1)), 2, 3, fails=True)
        early = work(signal_to(accepted(BETWEEN)), 0, 1, fails=True)

        assert states(again(broken)) == ["READY", "COMPLETED", "BLOCKED"]
        assert states(work(again(broken), 0, 5)) == ["COMPLETED", "COMPLETED", "READY"]
        assert states(work(again(early), 0, 5)) == ["COMPLETED", "COMPLETED", "READY"]
        rowless = recipe((), (0,), (1,), waits={1: wait()})
        done = work(signal_to(work(accepted(rowless), 0, 1)), 2, 3, fails=True)
        assert states(again(done)) == ["COMPLETED", "COMPLETED", "READY"]
        kept = again(broken).stages[1]
        assert (kept.was_taken_over, kept.signal and kept.signal.run) == (True, broken.id)

    def test_a_retry_asks_again_where_nobody_had_answered(self) -> None:
        expired = run_due(work(accepted(BETWEEN), 0, 1), at(61))

        assert states(again(expired)) == ["READY", "BLOCKED", "BLOCKED"]
        gate = run_due(accepted(recipe((), (0,), waits={0: wait()})), at(61))
        assert again(gate).stages[0].due_at == at(60).now

    @pytest.mark.parametrize("ready", [True, False])
    def test_a_signal_that_refuses_cancels_the_run_and_is_not_kept_by_a_retry(self, ready: bool) -> None:
        run = work(accepted(BETWEEN), 0, 1) if ready else accepted(BETWEEN)
        refusal = ReceivedSignal(b"{}", at(2).now, "grace", run.id, "grace says no")

        after = receive(run, run.stages[1], refusal, at(2))

        assert (after.state, after.cancel_reason) == (RunState.CANCELLED, "grace says no")
        assert (after.stages[1].state, after.stages[1].signal) == ("CANCELLED", refusal)
        assert [stage.signal for stage in again(after).stages] == [None, None, None]


class TestStore:
    async def test_a_signal_comes_back_as_it_went_in(self, any_store: Store) -> None:
        (run,) = await add(any_store, {"made": BETWEEN})

        after = await change(any_store, run.id, lambda run, _: signal_to(run))

        found = await any_store.get(run.tenant, run.id)
        assert found is not None
        assert (found.stages, found.recipe.stages[1].wait) == (after.stages, BETWEEN.stages[1].wait)

    async def test_a_held_run_that_only_waited_ends_as_it_is_let_go(self, any_store: Store) -> None:
        (run,) = await add(any_store, {"made": recipe((), waits={0: wait()})}, held=True)
        await change(any_store, run.id, lambda run, _: signal_to(run))

        released = await ask(any_store, lambda tx: release_held(tx, {run.pipeline}))

        assert [after.state for _, after in released] == [RunState.COMPLETED]
        found = await any_store.get(run.tenant, run.id)
        assert found is not None
        assert found.state is RunState.COMPLETED

    async def test_a_waiting_run_is_due_at_its_deadline_and_is_handed_to_nobody(self, any_store: Any) -> None:
        (run,) = await add(any_store, {"made": recipe((), (0,), waits={0: wait()})})

        assert await ask(any_store, lambda tx: tx.runs.claim(5)) == ([], {})
        assert not await any_store.has_waiting()
        assert await ask(any_store, lambda tx: tx.runs.due(5)) == []
        any_store.skew += timedelta(seconds=61)
        assert await ask(any_store, lambda tx: tx.runs.due(5)) == [run.id]
        assert await ask(any_store, lambda tx: tx.pipelines.live_counts({run.pipeline})) == {run.pipeline: 1}

    @pytest.mark.parametrize(
        "end",
        [
            lambda run, _: signal_to(run),
            lambda run, moment: run_due(run, Moment(moment.now + timedelta(days=1), moment.chance)),
            lambda run, moment: request_cancel(run, None, moment),
        ],
    )
    async def test_each_way_to_end_a_wait_can_be_written(
        self, any_store: Store, end: Callable[[Run, Moment], Run]
    ) -> None:
        (run,) = await add(any_store, {"made": recipe((), (0,), waits={0: wait()})})

        after = await change(any_store, run.id, end)

        found = await any_store.get(run.tenant, run.id)
        assert found is not None
        assert states(found) == states(after)
        assert found.stages[0].is_final


APPROVAL = """
version: 1
sources: [{id: rows, values: [{x: 1}]}]
transformations:
  - id: approval
    type: wait_for_signal
    description: May it be published?
    timeout: 14d
    data: {approved: {type: boolean, required: true}, limit: {type: integer, default: 5}, reason: string}
sinks:
  - {id: load, input: approval, connection: warehouse, table: "t_${signals.approval.limit}"}
"""
GATE = """
version: 1
sources: [{id: rows, values: [{x: 1}], after: [go]}]
transformations: [{id: go, type: wait_for_signal}]
sinks: [{discard: true}]
"""


async def say(
    replica: Replica, run_id: str, name: str = "approval", key: str | None = None, **data: Any
) -> Any:
    """Sends a signal."""
    metadata = call_metadata(replica.authority.user("editor"), idempotency_key=key)
    request = workflow_pb2.SignalWorkflowRequest(
        run_id=run_id, signal_name=name, data=json.dumps(data).encode() if data else b""
    )
    return await replica.workflow.SignalWorkflow(request, metadata=metadata, timeout=PATIENT)


async def workflow(replica: Replica, run_id: str) -> workflow_pb2.WorkflowStatus:
    """What a run waits for."""
    request = workflow_pb2.GetWorkflowStatusRequest(run_id=run_id)
    return await replica.workflow.GetWorkflowStatus(request, metadata=replica.editor, timeout=PATIENT)


async def waiting_run(mesh: Cluster, replica: Replica, worker: ScriptedWorker) -> str:
    """A run that waits for its approval."""
    run_id = (await replica.run(mesh.metadata.add(APPROVAL))).run_id
    await worker.finish(await worker.next_assignment())
    await worker.next_ack()
    assert task_states(await replica.status(run_id))["approval"] == "WAITING"
    return run_id


async def test_a_signal_lets_a_run_go_on_with_what_it_said(mesh: Cluster, replica: Replica) -> None:
    worker = await mesh.worker(replica)
    run_id = await waiting_run(mesh, replica, worker)

    shown = await workflow(replica, run_id)
    (wait_,) = shown.waits
    assert (wait_.signal_name, wait_.description) == ("approval", "May it be published?")
    assert wait_.deadline.seconds - wait_.since.seconds == 14 * 86400
    assert [(field.name, field.type, field.required, field.default_value) for field in wait_.fields] == [
        ("approved", "boolean", True, ""),
        ("limit", "integer", False, "5"),
        ("reason", "string", False, ""),
    ]
    answer = await say(replica, run_id, approved=True, reason="looks right")
    assert runs_pb2.TaskState.Name(answer.task_status) == "TASK_STATE_COMPLETED"

    second = await worker.next_assignment()
    assert json.loads(second.signals) == {"approval": {"approved": True, "limit": 5, "reason": "looks right"}}
    assert json.loads(second.payload)["stage"]["held_rows"] == {"approval": "rows"}
    await worker.finish(second)
    assert state_of(await replica.ended(run_id)) == "COMPLETED"
    (signal,) = (await workflow(replica, run_id)).signals
    assert (json.loads(signal.data)["limit"], signal.sent_by) == (5, answer.sent_by)


async def test_a_signal_that_does_not_fit_changes_nothing(mesh: Cluster, replica: Replica) -> None:
    run_id = await waiting_run(mesh, replica, await mesh.worker(replica))

    async def problems(**said: Any) -> list[tuple[str, str]]:
        error = await refused(say(replica, run_id, **said))
        assert error.code == "INVALID_REQUEST"
        return [(problem.code, problem.path) for problem in error.problems]

    assert await problems() == [("MISSING_FIELD", "data.approved")]
    assert await problems(approved="perhaps", limits=3) == [
        ("UNKNOWN_FIELD", "data.limits"),
        ("FIELD_VALUE", "data.approved"),
    ]
    assert await problems(approved=True, reason="db://me:hunter2@host") == [
        ("SECRET_IN_SIGNAL", "data.reason")
    ]
    assert await problems(name="aproval", approved=True) == [("UNKNOWN_SIGNAL", "signalName")]
    assert (await workflow(replica, run_id)).signals == []


async def test_a_signal_that_does_not_say_what_is_demanded_cancels_the_run(
    mesh: Cluster, replica: Replica
) -> None:
    worker = await mesh.worker(replica)
    demanding = APPROVAL.replace("timeout: 14d", "proceed_if: {approved: true}")
    run_id = (await replica.run(mesh.metadata.add(demanding))).run_id
    await worker.finish(await worker.next_assignment())
    await worker.next_ack()

    answer = await say(replica, run_id, approved="false", reason="two rows too many")

    assert state_of(await replica.ended(run_id)) == "CANCELLED"
    assert runs_pb2.TaskState.Name(answer.task_status) == "TASK_STATE_CANCELLED"
    shown = await workflow(replica, run_id)
    assert json.loads(shown.waits[0].proceed_if) == {"approved": True}
    assert shown.signals[0].refusal == f"signal approval of {answer.sent_by}: approved is not true"


async def test_one_signal_counts_whoever_sends_it_how_often(mesh: Cluster, replica: Replica) -> None:
    run_id = await waiting_run(mesh, replica, await mesh.worker(replica))
    other = await mesh.replica()

    calls = [
        say(each, run_id, key="k" if n < 2 else None, approved=True)
        for n, each in enumerate([replica, other, replica, other])
    ]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)

    taken = {answer.SerializeToString() for answer in outcomes if not isinstance(answer, BaseException)}
    assert len(taken) == 1
    error = await refused(say(replica, run_id, approved=True))
    assert (error.code, error.metadata["signalName"]) == ("SIGNAL_RECEIVED", "approval")
    assert len((await workflow(other, run_id)).signals) == 1


async def test_a_deadline_passes_whichever_process_is_there_to_see_it(
    mesh: Cluster, replica: Replica
) -> None:
    pipeline = mesh.metadata.add(GATE)
    run_id = (await replica.run(pipeline)).run_id
    await replica.runner.stop()
    other = await mesh.replica()
    other.travel(31 * 86400)

    status = await other.ended(run_id)

    assert (state_of(status), task_states(status)["go"]) == ("FAILED", "FAILED")
    assert "did not come within" in status.errors["go"]
    assert (await refused(say(other, run_id, "go"))).code == "RUN_FINISHED"


async def test_a_gate_takes_anything_and_a_retry_does_not_ask_again(mesh: Cluster, replica: Replica) -> None:
    worker = await mesh.worker(replica)
    run = await replica.run(mesh.metadata.add(GATE))
    assert (state_of(run), worker.assignments.empty()) == ("RUNNING", True)

    await say(replica, run.run_id, "go", note={"any": ["thing", 1.5]})
    await worker.finish(
        await worker.next_assignment(), "FAILED", error=failure("BAD", "DATA"), failed_task="rows"
    )
    await replica.ended(run.run_id)
    second = (await retry(replica, run.run_id)).run_id

    await worker.finish(await worker.next_assignment())
    assert state_of(await replica.ended(second)) == "COMPLETED"
    (signal,) = (await workflow(replica, second)).signals
    assert (json.loads(signal.data), signal.original_run_id) == (
        {"note": {"any": ["thing", 1.5]}},
        run.run_id,
    )


async def test_a_waiting_run_is_cancelled_at_once(mesh: Cluster, replica: Replica) -> None:
    run_id = (await replica.run(mesh.metadata.add(GATE))).run_id

    assert state_of(await replica.cancel(run_id)) == "CANCELLED"
    assert task_states(await replica.status(run_id)) == {"go": "CANCELLED", "rows": "CANCELLED"}


async def test_others_see_nothing_and_viewers_send_nothing(mesh: Cluster, replica: Replica) -> None:
    run_id = (await replica.run(mesh.metadata.add(GATE))).run_id
    request = workflow_pb2.SignalWorkflowRequest(run_id=run_id, signal_name="go")

    async def send(**who: Any) -> HeadraceError:
        metadata = call_metadata(replica.authority.user(**who))
        return await refused(replica.workflow.SignalWorkflow(request, metadata=metadata, timeout=PATIENT))

    assert (await send(role="viewer")).code == "ROLE_REQUIRED"
    assert (await send(role="editor", tenant=uuid7())).code == "NOT_FOUND"
