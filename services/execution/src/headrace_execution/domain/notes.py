"""What execution itself has to say in the log of a run.

The notes are derived by comparing a run before and after a change, so that no rule can forget them. Only what
is out of the ordinary makes any, so that a plain run costs nothing; its ordinary course is told from the run
as it stands.
"""

from collections.abc import Container, Iterator
from datetime import datetime
from uuid import UUID

from headrace_execution.domain.logs import Level, LogLine, Note
from headrace_execution.domain.run import Failure, Purpose, Run, Stage, Task
from headrace_execution.domain.states import RunState, StageState, TaskState

_LEVELS = {RunState.FAILED: Level.ERROR, RunState.CANCELLED: Level.WARNING}


def notes(before: Run | None, after: Run, now: datetime) -> list[Note]:
    """The notes on a change; `before` is None where the run is new."""
    if before is None:
        if after.held:
            return [_note(after, now, "it is held: a limit or an earlier run keeps it from starting")]
        return [note for stage in after.stages for note in _of_wait(after, None, stage, now)]
    told: list[Note] = []
    if before.held and not after.held and not after.is_final:
        told.append(_note(after, now, "it is held no longer"))
    if before.cancel_requested_at is None and after.cancel_requested_at is not None:
        why = f": {after.cancel_reason}" if after.cancel_reason else ""
        told.append(_note(after, now, f"a cancel was asked for{why}", Level.WARNING))
    if before.error is None and after.error is not None:
        told.append(_note(after, now, after.error.message, Level.ERROR, code=after.error.code))
    for old, new in zip(before.stages, after.stages, strict=True):
        if old is not new and old.state is not new.state:
            told.extend(_of_stage(after, old, new, now))
        if old is not new:
            told.extend(_of_wait(after, old, new, now))
    return told


def _of_wait(run: Run, old: Stage | None, new: Stage, now: datetime) -> Iterator[Note]:
    """What is told of a stage that waits for a signal."""
    if (wait := run.spec(new).wait) is None:
        return
    task = run.recipe.tasks[new.tasks[0].position].key
    waited = old is not None and old.state is StageState.WAITING
    if new.state is StageState.WAITING and not waited and new.timer is not None:
        until = new.timer.isoformat(timespec="seconds")
        yield _of_waiting(run, now, task, f"it waits for signal {wait.signal} until {until}")
    if new.signal is not None and old is not None and old.signal is None:
        said = f"signal {wait.signal} came from {new.signal.sent_by}"
        early = "" if waited else "; it is kept until its task waits"
        yield _of_waiting(run, now, task, f"{said}{early}")
    if waited and len(new.warnings) > len(old.warnings if old is not None else ()):
        yield _of_waiting(run, now, task, new.warnings[-1].message, Level.WARNING)


def _of_waiting(run: Run, now: datetime, task: str, message: str, level: Level = Level.INFO) -> Note:
    return Note(run.id, LogLine(now, level, message, task, 1))


def _of_stage(run: Run, old: Stage, new: Stage, now: datetime) -> Iterator[Note]:
    name = run.spec(new).key
    error = new.error
    if new.lost > old.lost and error is not None:
        message = f"attempt {new.attempt} of stage {name} ended without a result: {error.message}"
        yield _note(run, now, message, Level.WARNING, attempt=new.attempt, stage=name, code=error.code)
    if (
        new.state is StageState.WAITING
        and new.purpose is Purpose.RUN
        and error is not None
        and new.timer is not None
    ):
        due = new.timer.isoformat(timespec="seconds")
        message = f"attempt {new.attempt} of stage {name} failed ({error.code}); it is tried again at {due}"
        yield _note(run, now, message, Level.WARNING, attempt=new.attempt, stage=name, code=error.code)
    if new.state is StageState.READY and new.purpose is Purpose.SETTLE and old.purpose is Purpose.RUN:
        message = f"stage {name} ended without a word: its targets are asked what has landed"
        yield _note(run, now, message, Level.WARNING, attempt=new.attempt, stage=name)


def _note(
    run: Run, now: datetime, message: str, level: Level = Level.INFO, *, attempt: int = 0, **fields: str
) -> Note:
    return Note(run.id, LogLine(now, level, message, attempt=attempt, fields=fields))


def course(run: Run, logged: Container[UUID]) -> list[LogLine]:
    """The ordinary course of a run, from the run as it stands. The tasks of stages of which an attempt has
    logged by itself (`logged`) are left to its own lines.
    """
    version = (
        f"version {run.pipeline_version}" if run.pipeline_version is not None else "a definition of its own"
    )
    again = f"; it tries run {run.retry_of} again" if run.retry_of is not None else ""
    lines = [
        LogLine(
            run.created_at,
            Level.INFO,
            f"accepted: {version} on engine {run.recipe.engine}, started by {run.triggered_by}{again}",
            fields={"engine": run.recipe.engine, "engineReason": run.recipe.engine_reason},
        )
    ]
    if run.started_at is not None:
        lines.append(LogLine(run.started_at, Level.INFO, "the run has started"))
    for stage in run.stages:
        if stage.id not in logged:
            lines.extend(line for task in stage.tasks for line in _of_task(run, task))
    if run.finished_at is not None:
        lines.append(LogLine(run.finished_at, _LEVELS.get(run.state, Level.INFO), f"the run is {run.state}"))
    return lines


def _of_task(run: Run, task: Task) -> Iterator[LogLine]:
    key = run.recipe.tasks[task.position].key
    if task.started_at is not None:
        yield LogLine(task.started_at, Level.INFO, "started", key, task.attempt)
    if task.finished_at is None:
        return
    if task.error is not None:
        yield _failed(task.finished_at, task.error, key, task.attempt)
    elif task.shown is TaskState.COMPLETED:
        moved = {"rowsIn": str(task.rows_in), "rowsOut": str(task.rows_out), "bytes": str(task.bytes)}
        yield LogLine(task.finished_at, Level.INFO, "completed", key, task.attempt, moved)
    else:
        yield LogLine(task.finished_at, Level.WARNING, str(task.shown).lower(), key, task.attempt)


def _failed(at: datetime, error: Failure, task: str, attempt: int) -> LogLine:
    return LogLine(at, Level.ERROR, error.message, task, attempt, {"code": error.code, **error.details})
