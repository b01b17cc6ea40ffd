"""The steps that all rules are made of: the only code that writes a state."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from headrace_execution.domain.moment import Moment
from headrace_execution.domain.run import Failure, Purpose, Run, Stage, Task
from headrace_execution.domain.states import (
    FINAL_RUN_STATES,
    FINAL_STAGE_STATES,
    RunState,
    StageState,
    TaskState,
    check_run_step,
    check_stage_step,
    check_task_step,
)
from headrace_execution.domain.values import replace


def step_run(run: Run, state: RunState, **changes: Any) -> Run:
    """The run in another state. Raises IllegalTransition for a step that the table lacks."""
    check_run_step(run.state, state)
    return replace(run, state=state, **changes)


def step_stage(stage: Stage, state: StageState, **changes: Any) -> Stage:
    """The stage in another state. Raises IllegalTransition for a step that the table lacks."""
    check_stage_step(stage.state, state)
    return replace(stage, state=state, **changes)


def step_task(task: Task, state: TaskState, **changes: Any) -> Task:
    """The task in another state. Raises IllegalTransition for a step that the table lacks."""
    check_task_step(task.state, state)
    return replace(task, state=state, **changes)


def put_stage(run: Run, stage: Stage) -> Run:
    """The run with one of its stages replaced."""
    stages = list(run.stages)
    stages[stage.position] = stage
    return replace(run, stages=tuple(stages))


def map_tasks(stage: Stage, change: Callable[[Task], Task]) -> Stage:
    """The stage with each of its tasks changed."""
    return replace(stage, tasks=tuple(change(task) for task in stage.tasks))


def is_started(stage: Stage) -> bool:
    """Whether something of a stage may have happened."""
    return bool(stage.failures or stage.lost or stage.unsettled) or stage.state is StageState.LEASED


def has_landed(run: Run, stage: Stage) -> bool:
    """Whether receipts prove that every load of a stage that has loads is in its target."""
    loads = run.spec(stage).loads
    return bool(loads) and {receipt.sink for receipt in stage.receipts}.issuperset(loads)


def conclude(
    run: Run, stage: Stage, verdict: StageState, moment: Moment, error: Failure | None = None
) -> Stage:
    """Ends a stage with a verdict, FAILED or CANCELLED; where its loads may still land, settles it first."""
    error = error or stage.error
    if stage.unsettled and run.spec(stage).loads:
        return step_stage(
            stage,
            StageState.READY,
            purpose=Purpose.SETTLE,
            verdict=verdict,
            worker=None,
            leased_at=None,
            stop=None,
            ready_at=moment.now,
            timer=None,
            settle_by=stage.settle_by or moment.now + moment.patience.settle_limit,
            error=error,
        )
    return end_stage(run, stage, verdict, moment.now, error=error)


def end_stage(
    run: Run,
    stage: Stage,
    state: StageState,
    now: datetime,
    *,
    error: Failure | None = None,
    failed_task: str = "",
) -> Stage:
    """A stage in a final state, its tasks with it."""
    stage = _end_tasks(run, stage, state, now, error, failed_task)
    return step_stage(
        stage,
        state,
        worker=None,
        leased_at=None,
        stop=None,
        ready_at=None,
        timer=None,
        settle_by=None,
        unsettled=False,
        error=error,
    )


def _end_tasks(
    run: Run, stage: Stage, state: StageState, now: datetime, error: Failure | None, failed_task: str
) -> Stage:
    if state is StageState.FAILED:
        guilty = guilty_tasks(run, stage, failed_task)

        def end(task: Task) -> Task:
            if task.is_final:
                return task
            if task.position in guilty:
                return step_task(
                    task, TaskState.FAILED, finished_at=now, retry_at=None, error=task.error or error
                )
            return step_task(task, _left(task, TaskState.SKIPPED), retry_at=None)

        return map_tasks(stage, end)
    after = TaskState(state.value)
    ended_at = now if after in (TaskState.COMPLETED, TaskState.CANCELLED) else None

    def close(task: Task) -> Task:
        if task.is_final:
            return task
        kept = None if after is TaskState.COMPLETED else task.error
        finished_at = task.finished_at or ended_at
        return step_task(task, _left(task, after), finished_at=finished_at, retry_at=None, error=kept)

    return map_tasks(stage, close)


def _left(task: Task, otherwise: TaskState) -> TaskState:
    """What a task of a stage that ended before its time comes to: COMPLETED where its own work was done, and
    CANCELLED where it was stopped in the middle.
    """
    if task.shown is TaskState.COMPLETED:
        return TaskState.COMPLETED
    if task.state is TaskState.RUNNING and otherwise is TaskState.SKIPPED:
        return TaskState.CANCELLED
    return otherwise


def guilty_tasks(run: Run, stage: Stage, failed_task: str) -> frozenset[int]:
    """Positions of the tasks that failed: the named one and those that told why, else what ran, else the
    first that was not done."""
    specs = run.recipe.tasks
    named = [task.position for task in stage.tasks if specs[task.position].key == failed_task]
    told = [task.position for task in stage.tasks if task.error is not None]
    undone = [task for task in stage.tasks if task.shown is not TaskState.COMPLETED] or stage.tasks
    ran = [task.position for task in undone if task.state is TaskState.RUNNING]
    return frozenset([*named, *told] or ran or [undone[0].position])


def advance(run: Run, now: datetime) -> Run:
    """Draws the conclusions of a change: what may start, what never will, and whether the run has ended."""
    failed = any(stage.state is StageState.FAILED for stage in run.stages)
    stages = list(run.stages)
    for position, stage in enumerate(stages):  # each comes after those it depends on
        stages[position] = _follow(run, stages, stage, now, failed=failed)
    run = _start(replace(run, stages=tuple(stages)), now)
    if run.state not in FINAL_RUN_STATES and all(stage.state in FINAL_STAGE_STATES for stage in run.stages):
        return step_run(
            run,
            _result(run.stages, cancelled=run.cancel_requested_at is not None),
            finished_at=now,
            held=False,
        )
    return run


def _start(run: Run, now: datetime) -> Run:
    # An attempt begins when a stage is leased, or when it begins to wait for its signal.
    if run.state is RunState.PENDING and any(stage.attempt for stage in run.stages):
        return step_run(run, RunState.RUNNING, started_at=now)
    return run


def _follow(run: Run, stages: Sequence[Stage], stage: Stage, now: datetime, *, failed: bool) -> Stage:
    if stage.state is StageState.BLOCKED:
        if run.is_stopping:
            return end_stage(run, stage, StageState.CANCELLED, now)
        if failed:
            return end_stage(run, stage, StageState.SKIPPED, now)
        spec = run.spec(stage)
        needed = (stages[position].state for position in spec.depends_on)
        if not run.held and all(state is StageState.COMPLETED for state in needed):
            if spec.wait is not None:
                return _await_signal(run, stage, now + spec.wait.timeout, now)
            return step_stage(stage, StageState.READY, ready_at=now)
    elif failed and not run.is_stopping and _never_starts(run, stage):
        return end_stage(run, stage, StageState.SKIPPED, now)
    return stage


def _never_starts(run: Run, stage: Stage) -> bool:
    """Whether nothing of a stage has happened, so that it need not happen where another has failed."""
    if stage.state is StageState.READY:
        return not is_started(stage)
    return stage.state is StageState.WAITING and run.spec(stage).wait is not None


def _await_signal(run: Run, stage: Stage, deadline: datetime, now: datetime) -> Stage:
    """A stage that begins to wait for its signal, or has it already."""
    stage = map_tasks(stage, lambda task: step_task(task, TaskState.WAITING, attempt=1, started_at=now))
    stage = step_stage(stage, StageState.WAITING, attempt=1, timer=deadline)
    return stage if stage.signal is None else end_stage(run, stage, StageState.COMPLETED, now)


def _result(stages: Iterable[Stage], *, cancelled: bool) -> RunState:
    if all(stage.state is StageState.COMPLETED for stage in stages):
        return RunState.COMPLETED
    return RunState.CANCELLED if cancelled else RunState.FAILED
