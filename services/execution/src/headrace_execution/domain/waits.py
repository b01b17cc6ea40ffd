"""Stages that no worker runs: each waits for one signal, and ends when it comes or its time is over.

The first signal of a name counts. One that comes before its stage waits is kept with the stage; one that
comes after the deadline is too late, also where nobody has noticed the deadline yet.
"""

from headrace_execution.domain.lifecycle import request_cancel
from headrace_execution.domain.moment import Moment
from headrace_execution.domain.recipe import OnTimeout, WaitSpec
from headrace_execution.domain.run import ErrorClass, Failure, ReceivedSignal, Run, Stage, Warned
from headrace_execution.domain.states import StageState
from headrace_execution.domain.steps import advance, end_stage, put_stage
from headrace_execution.domain.values import replace

SIGNAL_TIMEOUT = "SIGNAL_TIMEOUT"


class AlreadyCame(Exception):  # noqa: N818 - it names a fact
    """The signal has come before."""

    def __init__(self, first: ReceivedSignal) -> None:
        super().__init__("the signal has come before")
        self.first = first


class CameTooLate(Exception):  # noqa: N818 - it names a fact
    """Nothing waits for the signal any more. The message says why."""


def stage_for(run: Run, signal: str) -> Stage | None:
    """The stage that waits for a signal; None where no stage does."""
    for stage in run.stages:
        wait = run.spec(stage).wait
        if wait is not None and wait.signal == signal:
            return stage
    return None


def receive(run: Run, stage: Stage, signal: ReceivedSignal, moment: Moment) -> Run:
    """A run with what was said to it: its stage ends, or keeps the signal until it would wait. One that says
    that the run may not go on cancels it at once.

    Raises:
        AlreadyCame: when the signal has come before.
        CameTooLate: when the stage has ended without it, or its deadline has passed.
    """
    if stage.signal is not None:
        raise AlreadyCame(stage.signal)
    if stage.is_final:
        raise CameTooLate(f"the task that waited for it is {stage.state}")
    if stage.timer is not None and stage.timer <= moment.now:
        raise CameTooLate(f"it was waited for until {stage.timer.isoformat(timespec='seconds')}")
    stage = replace(stage, signal=signal)
    if signal.refusal is not None:
        return request_cancel(put_stage(run, stage), signal.refusal, moment)
    if stage.state is StageState.WAITING:
        stage = end_stage(run, stage, StageState.COMPLETED, moment.now)
    return advance(put_stage(run, stage), moment.now)


def expire(run: Run, stage: Stage, wait: WaitSpec, moment: Moment) -> Run:
    """A run of which a signal has not come in time."""
    seconds = wait.timeout.total_seconds()
    message = f"signal {wait.signal} did not come within {seconds:g} seconds"
    match wait.on_timeout:
        case OnTimeout.FAIL:
            failure = Failure(SIGNAL_TIMEOUT, ErrorClass.QUOTA, message)
            return put_stage(run, end_stage(run, stage, StageState.FAILED, moment.now, error=failure))
        case OnTimeout.CONTINUE:
            task = run.recipe.tasks[stage.tasks[0].position].key
            warning = Warned(task, SIGNAL_TIMEOUT, f"{message}; the run went on without it")
            stage = replace(stage, warnings=(*stage.warnings, warning))
            return put_stage(run, end_stage(run, stage, StageState.COMPLETED, moment.now))
        case OnTimeout.CANCEL:
            return request_cancel(run, message, moment)
