"""What happens when a due-time has passed. They are kept with the run: no process has to live to see them."""

from headrace_execution.domain.assignments import refuse_to_stop
from headrace_execution.domain.lifecycle import fail
from headrace_execution.domain.moment import Moment
from headrace_execution.domain.run import ErrorClass, Failure, Purpose, Run, Stage, StopReason, Warned
from headrace_execution.domain.states import RunState, StageState, TaskState
from headrace_execution.domain.steps import (
    advance,
    conclude,
    end_stage,
    map_tasks,
    put_stage,
    step_stage,
    step_task,
)
from headrace_execution.domain.values import replace
from headrace_execution.domain.waits import expire


def run_due(run: Run, moment: Moment) -> Run:
    """Does everything of a run that is due; what is not stays."""
    if run.due_at is not None and run.due_at <= moment.now:
        run = fail(run, _overdue(run), moment)
    for position in range(len(run.stages)):
        stage, wait = run.stages[position], run.recipe.stages[position].wait
        if stage.is_final or stage.due_at is None or stage.due_at > moment.now:
            continue
        if wait is not None:
            run = expire(run, stage, wait, moment)
        else:
            run = put_stage(run, _due(run, stage, moment))
    return advance(run, moment.now)


def _overdue(run: Run) -> Failure:
    policy = run.recipe.policy
    if run.state is RunState.PENDING and policy.queue_timeout:
        seconds = policy.queue_timeout.total_seconds()
        message = f"it waited longer than {seconds:g} seconds for its start"
        return Failure("QUEUE_TIMEOUT", ErrorClass.QUOTA, message)
    seconds = policy.total_timeout.total_seconds() if policy.total_timeout else 0
    return Failure("RUN_TIMEOUT", ErrorClass.QUOTA, f"it took longer than {seconds:g} seconds")


def _due(run: Run, stage: Stage, moment: Moment) -> Stage:
    if stage.settle_by is not None and stage.settle_by <= moment.now:
        return _give_up_settling(run, stage, moment)
    if stage.state is StageState.WAITING:
        return _again(run, stage, moment)
    if stage.state is StageState.LEASED and stage.purpose is Purpose.RUN:
        if stage.stop is not None:
            return refuse_to_stop(run, stage, moment)
        return replace(stage, stop=StopReason.TIMED_OUT, timer=moment.now + moment.patience.stop_limit)
    return stage


def _again(run: Run, stage: Stage, moment: Moment) -> Stage:
    if run.is_stopping and stage.purpose is Purpose.RUN:
        return conclude(run, stage, StageState.CANCELLED, moment)
    if stage.purpose is Purpose.RUN:
        stage = map_tasks(stage, lambda task: step_task(task, TaskState.PENDING, retry_at=None))
    return step_stage(stage, StageState.READY, timer=None, ready_at=moment.now)


def _give_up_settling(run: Run, stage: Stage, moment: Moment) -> Stage:
    load = run.spec(stage).loads[0]
    warning = Warned(
        task=load,
        code="UNSETTLED",
        message="no worker could reach the target to see to it that nothing lands any more: "
        "a load of this stage may have landed, or may still land; trying the run again finds out",
    )
    stage = replace(stage, warnings=(*stage.warnings, warning))
    verdict = stage.verdict or StageState.FAILED
    return end_stage(run, stage, verdict, moment.now, error=stage.error)
