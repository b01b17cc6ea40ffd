"""What happens to a stage between its hand-out and its end, as the server and its worker tell it."""

from datetime import datetime
from uuid import UUID

from headrace_execution.domain.figures import attempt_us
from headrace_execution.domain.moment import Moment
from headrace_execution.domain.retries import is_retried, retry_delay
from headrace_execution.domain.run import (
    ErrorClass,
    Failure,
    Outcome,
    Purpose,
    Receipt,
    Run,
    Stage,
    StageResult,
    StopReason,
    Task,
    TaskReport,
)
from headrace_execution.domain.states import IllegalTransition, StageState, TaskState
from headrace_execution.domain.steps import (
    advance,
    conclude,
    end_stage,
    guilty_tasks,
    has_landed,
    map_tasks,
    put_stage,
    step_stage,
    step_task,
)
from headrace_execution.domain.values import replace

ENDS_WITHOUT_A_WORD = frozenset({"COMMIT_UNKNOWN", "ATTEMPT_TIMEOUT"})
"""Failures after which a load may have landed although its attempt failed."""
CRASHES = frozenset({"STAGE_CRASHED", "WORKER_SHUTDOWN"})
"""Failures that are the worker's end, not the stage's own: they count as lost workers."""

NO_TOMBSTONE = "CANCEL_UNSETTLED"
"""A worker's warning: a stage was stopped, and its target could not be told that nothing may land."""


def holds(run: Run, stage_id: UUID, worker: UUID, fence: int) -> bool:
    """Whether a worker still owns a stage under this fence. What comes under any other is refused."""
    stage = run.stage(stage_id)
    return (
        stage is not None
        and stage.state is StageState.LEASED
        and stage.worker == worker
        and stage.fence == fence
    )


def assign(run: Run, stage_id: UUID, worker: UUID, fence: int, moment: Moment) -> Run:
    """Hands a ready stage out.

    Its worker stops an attempt at the timeout by itself; the timer follows a little later.

    Raises:
        IllegalTransition: when it is not ready.
        ValueError: when the fence does not grow.
    """
    stage = _stage(run, stage_id)
    if stage.state is not StageState.READY:
        raise IllegalTransition("stage", stage.state, StageState.LEASED)
    if fence <= stage.fence:
        raise ValueError(f"fence {fence} does not grow past {stage.fence}")
    if stage.purpose is Purpose.RUN:
        attempt = stage.failures + stage.lost + 1
        timer: datetime | None = (
            moment.now + run.recipe.policy.attempt_timeout + moment.patience.timeout_slack
        )
        stage = map_tasks(stage, lambda task: _fresh(task, attempt))
    else:
        attempt, timer = stage.attempt, None
    stage = step_stage(
        stage,
        StageState.LEASED,
        worker=worker,
        fence=fence,
        leased_at=moment.now,
        attempt=attempt,
        timer=timer,
        stop=None,
        ready_at=None,
    )
    return advance(put_stage(run, stage), moment.now)


def _fresh(task: Task, attempt: int) -> Task:
    return Task(position=task.position, state=step_task(task, TaskState.PENDING).state, attempt=attempt)


def report_progress(
    run: Run, stage_id: UUID, worker: UUID, fence: int, reports: tuple[TaskReport, ...]
) -> Run:
    """What a worker sees so far. A stage ends as one, so none of its tasks is final before it is."""
    if not holds(run, stage_id, worker, fence):
        return run
    stage = _stage(run, stage_id)
    if stage.purpose is not Purpose.RUN:
        return run
    return put_stage(run, _merge_reports(run, stage, reports))


def _merge_reports(run: Run, stage: Stage, reports: tuple[TaskReport, ...]) -> Stage:
    told = {report.key: report for report in reports}
    specs = run.recipe.tasks

    def merge(task: Task) -> Task:
        report = told.get(specs[task.position].key)
        if report is None or report.state in (TaskState.PENDING, TaskState.SKIPPED):
            return task
        state = TaskState.RUNNING if task.state is TaskState.PENDING else task.state
        return step_task(
            task,
            state,
            started_at=report.started_at or task.started_at,
            finished_at=report.finished_at if report.state is TaskState.COMPLETED else None,
            rows_in=report.rows_in,
            rows_out=report.rows_out,
            bytes=report.bytes,
        )

    return map_tasks(stage, merge)


def give_back(run: Run, stage_id: UUID, worker: UUID, fence: int, moment: Moment, *, certain: bool) -> Run:
    """A stage that its worker did not start: offered again at no cost.

    `certain` says that the worker itself gave it back. Otherwise it only does not seem to have it, and the
    message may still be on its way: what would land then has to be settled before the stage may end without a
    result.
    """
    if not holds(run, stage_id, worker, fence):
        return run
    stage = _stage(run, stage_id)
    stage = replace(stage, unsettled=stage.unsettled or not certain)
    return advance(put_stage(run, _offer_again(run, stage, moment)), moment.now)


def _offer_again(run: Run, stage: Stage, moment: Moment) -> Stage:
    if stage.purpose is Purpose.RUN and run.is_stopping:
        return conclude(run, stage, StageState.CANCELLED, moment)
    if stage.purpose is Purpose.RUN:
        stage = map_tasks(stage, _unstarted)
    return step_stage(
        stage,
        StageState.READY,
        worker=None,
        leased_at=None,
        stop=None,
        timer=None,
        ready_at=moment.now,
    )


def _unstarted(task: Task) -> Task:
    return _fresh(task, task.attempt) if task.state is TaskState.RUNNING else task


def lose_worker(run: Run, stage_id: UUID, worker: UUID, fence: int, moment: Moment) -> Run:
    """The lease of a stage has run out: nobody knows what its worker did last."""
    if not holds(run, stage_id, worker, fence):
        return run
    stage = _lost(
        run,
        _spent(_stage(run, stage_id), moment),
        Failure("WORKER_LOST", ErrorClass.TRANSIENT, "the worker that ran it did not renew its lease"),
        moment,
    )
    return advance(put_stage(run, stage), moment.now)


def _lost(run: Run, stage: Stage, failure: Failure, moment: Moment) -> Stage:
    if stage.purpose is Purpose.SETTLE:
        return _offer_again(run, stage, moment)
    stage = replace(stage, unsettled=True, lost=stage.lost + 1, error=failure)
    if run.is_stopping:
        return conclude(run, stage, StageState.CANCELLED, moment)
    if stage.lost >= run.recipe.policy.max_lost:
        message = (
            f"parked after {stage.lost} attempts that ended without a result; the last: {failure.message}"
        )
        parked = Failure(failure.code, ErrorClass.INTERNAL, message, failure.details)
        return conclude(run, stage, StageState.FAILED, moment, parked)
    return _offer_again(run, stage, moment)


def finish(run: Run, stage_id: UUID, worker: UUID, fence: int, result: StageResult, moment: Moment) -> Run:
    """What came of an assignment. A repeated result, and one under an old fence, change nothing."""
    if not holds(run, stage_id, worker, fence):
        return run
    stage = _stage(run, stage_id)
    stage = replace(stage, receipts=merge_receipts(stage.receipts, result.receipts))
    if stage.purpose is Purpose.SETTLE:
        stage = _settled(run, stage, result, moment)
    else:
        stage = replace(_merge_reports(run, stage, result.tasks), warnings=result.warnings)
        stage = _ran(run, _spent(stage, moment), result, moment)
    return advance(put_stage(run, stage), moment.now)


def _spent(stage: Stage, moment: Moment) -> Stage:
    """A stage whose attempt has ended, with the time that it has held its slot. Settling is not counted."""
    if stage.purpose is Purpose.SETTLE:
        return stage
    return replace(stage, slot_us=stage.slot_us + attempt_us(stage, moment.now))


def _ran(run: Run, stage: Stage, result: StageResult, moment: Moment) -> Stage:
    if result.outcome is Outcome.COMPLETED:
        return end_stage(run, _ended_at(run, stage, result), StageState.COMPLETED, moment.now)
    if run.is_stopping:
        return conclude(run, _stopped(stage, result), StageState.CANCELLED, moment, result.error)
    if stage.stop is StopReason.TIMED_OUT:
        return _timed_out(run, stage, moment)
    if result.outcome is Outcome.FENCED:
        message = "another attempt owns the load: a higher fence or a tombstone stands in the target"
        return _lost(run, stage, Failure("LOAD_FENCED", ErrorClass.INTERNAL, message), moment)
    if result.outcome is Outcome.CANCELLED:
        message = "the worker stopped it although nobody had asked for that"
        return _lost(run, stage, Failure("WORKER_LOST", ErrorClass.TRANSIENT, message), moment)
    failure = result.error or Failure("UNKNOWN", ErrorClass.INTERNAL, "the worker gave no reason")
    if failure.code in CRASHES:
        return _lost(run, stage, failure, moment)
    unsettled = stage.unsettled or failure.code in ENDS_WITHOUT_A_WORD
    stage = _blame(run, replace(stage, unsettled=unsettled), failure, result.failed_task, result.tasks)
    return _failed(run, stage, failure, result.failed_task, moment)


def _stopped(stage: Stage, result: StageResult) -> Stage:
    """A stage of a run that is stopping, as its worker leaves it: what may land yet has to be settled."""
    if result.outcome is Outcome.CANCELLED:
        # The worker stopped it and raised a tombstone, so that nothing of any attempt can land any more; or
        # it says that it could not. Then settling does, or warns in its turn.
        rest = tuple(warning for warning in stage.warnings if warning.code != NO_TOMBSTONE)
        return replace(stage, warnings=rest, unsettled=len(rest) < len(stage.warnings))
    code = result.error.code if result.error is not None else ""
    wordless = result.outcome is Outcome.FENCED or code in ENDS_WITHOUT_A_WORD | CRASHES
    return replace(stage, unsettled=stage.unsettled or wordless)


def _failed(run: Run, stage: Stage, failure: Failure, failed_task: str, moment: Moment) -> Stage:
    if is_retried(failure, stage.failures, run.recipe.policy):
        due = moment.now + retry_delay(stage.failures, run.recipe.policy, moment.chance())
        stage = map_tasks(
            stage, lambda task: step_task(task, TaskState.WAITING, finished_at=None, retry_at=due)
        )
        return step_stage(
            stage,
            StageState.WAITING,
            failures=stage.failures + 1,
            worker=None,
            leased_at=None,
            stop=None,
            timer=due,
            error=failure,
        )
    if stage.unsettled and run.spec(stage).loads:
        return conclude(run, stage, StageState.FAILED, moment, failure)
    return end_stage(run, stage, StageState.FAILED, moment.now, error=failure, failed_task=failed_task)


def _timed_out(run: Run, stage: Stage, moment: Moment) -> Stage:
    limit = run.recipe.policy.attempt_timeout.total_seconds()
    failure = Failure(
        "ATTEMPT_TIMEOUT", ErrorClass.TRANSIENT, f"the attempt took longer than {limit:g} seconds"
    )
    return _failed(run, replace(stage, unsettled=True), failure, "", moment)


def refuse_to_stop(run: Run, stage: Stage, moment: Moment) -> Stage:
    """A leased stage whose worker was told to stop and has not: its lease is taken away."""
    stage = _spent(stage, moment)
    if stage.stop is StopReason.TIMED_OUT and not run.is_stopping:
        return _timed_out(run, stage, moment)
    return conclude(run, replace(stage, unsettled=True), StageState.CANCELLED, moment)


def _settled(run: Run, stage: Stage, result: StageResult, moment: Moment) -> Stage:
    if result.outcome is not Outcome.COMPLETED:
        return step_stage(
            stage,
            StageState.WAITING,
            worker=None,
            leased_at=None,
            timer=moment.now + moment.patience.settle_retry,
        )
    if has_landed(run, stage):
        return end_stage(run, stage, StageState.COMPLETED, moment.now)
    verdict = stage.verdict or StageState.FAILED
    return end_stage(run, stage, verdict, moment.now, error=stage.error)


def _blame(
    run: Run, stage: Stage, failure: Failure, failed_task: str, reports: tuple[TaskReport, ...]
) -> Stage:
    told = {report.key: report.error for report in reports if report.error is not None}
    specs = run.recipe.tasks
    stage = map_tasks(stage, lambda task: replace(task, error=told.get(specs[task.position].key)))
    guilty = guilty_tasks(run, stage, failed_task)
    return map_tasks(
        stage,
        lambda task: replace(task, error=task.error or failure) if task.position in guilty else task,
    )


def _ended_at(run: Run, stage: Stage, result: StageResult) -> Stage:
    told = {report.key: report.finished_at for report in result.tasks}
    specs = run.recipe.tasks
    return map_tasks(stage, lambda task: replace(task, finished_at=told.get(specs[task.position].key)))


def merge_receipts(known: tuple[Receipt, ...], told: tuple[Receipt, ...]) -> tuple[Receipt, ...]:
    """All receipts, one for each sink and partition: what has landed stays as it was first told."""
    merged = {(receipt.sink, receipt.partition): receipt for receipt in told}
    merged.update({(receipt.sink, receipt.partition): receipt for receipt in known})
    return tuple(merged[key] for key in sorted(merged))


def _stage(run: Run, stage_id: UUID) -> Stage:
    stage = run.stage(stage_id)
    if stage is None:
        raise KeyError(stage_id)
    return stage
