"""Between what runs wait for and the messages that show it. No rule lives here."""

from headrace.execution.v1 import workflow_pb2
from headrace_chassis.messages import timestamp
from headrace_definition.model import Parameter
from headrace_definition.substitution import text_of

from headrace_execution.acceptance.signal_data import declared_fields
from headrace_execution.convert import run_state, task_state
from headrace_execution.domain.recipe import OnTimeout, WaitSpec
from headrace_execution.domain.run import ReceivedSignal, Run, Stage
from headrace_execution.domain.states import StageState

_ACTIONS = {
    action: workflow_pb2.SignalTimeoutAction.Value(f"SIGNAL_TIMEOUT_ACTION_{action.name}")
    for action in OnTimeout
}


def workflow(run: Run) -> workflow_pb2.WorkflowStatus:
    """What a run waits for, and what has come."""
    waits = [(stage, wait) for stage in run.stages if (wait := run.spec(stage).wait) is not None]
    received = [(stage, wait, stage.signal) for stage, wait in waits if stage.signal is not None]
    return workflow_pb2.WorkflowStatus(
        run_id=str(run.id),
        pipeline_id=str(run.pipeline),
        status=run_state(run.state),
        waits=[_wait(run, stage, wait) for stage, wait in waits],
        signals=[
            _received(run, stage, wait, signal)
            for stage, wait, signal in sorted(received, key=lambda item: item[2].received_at)
        ],
    )


def signal_taken(
    run: Run, stage: Stage, wait: WaitSpec, signal: ReceivedSignal
) -> workflow_pb2.SignalWorkflowResponse:
    """The answer to a signal that was taken; the run is as it is afterwards."""
    return workflow_pb2.SignalWorkflowResponse(
        run_id=str(run.id),
        signal_name=wait.signal,
        task_id=_task_key(run, stage),
        task_status=task_state(stage.tasks[0].shown),
        status=run_state(run.state),
        received_at=timestamp(signal.received_at),
        sent_by=signal.sent_by,
    )


def _wait(run: Run, stage: Stage, wait: WaitSpec) -> workflow_pb2.SignalWait:
    (task,) = stage.tasks
    declared = declared_fields(wait)
    return workflow_pb2.SignalWait(
        task_id=_task_key(run, stage),
        signal_name=wait.signal,
        status=task_state(task.shown),
        description=wait.description,
        since=timestamp(task.started_at),
        deadline=timestamp(stage.timer) if stage.state is StageState.WAITING else None,
        on_timeout=_ACTIONS[wait.on_timeout],
        fields=[_field(name, field) for name, field in (declared or {}).items()],
        any_data=declared is None,
        proceed_if=wait.proceed_if or b"{}",
    )


def _field(name: str, field: Parameter) -> workflow_pb2.SignalField:
    return workflow_pb2.SignalField(
        name=name,
        type=field.type,
        required=field.required,
        default_value=None if field.default is None else text_of(field.default),
        allowed=[text_of(value) for value in field.enum or ()],
        description=field.description,
    )


def _received(run: Run, stage: Stage, wait: WaitSpec, signal: ReceivedSignal) -> workflow_pb2.ReceivedSignal:
    return workflow_pb2.ReceivedSignal(
        signal_name=wait.signal,
        task_id=_task_key(run, stage),
        data=signal.data,
        received_at=timestamp(signal.received_at),
        sent_by=signal.sent_by,
        original_run_id=str(signal.run) if signal.run != run.id else None,
        refusal=signal.refusal,
    )


def _task_key(run: Run, stage: Stage) -> str:
    return run.recipe.tasks[stage.tasks[0].position].key
