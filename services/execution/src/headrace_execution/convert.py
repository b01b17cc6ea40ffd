"""Between the domain's values and the contract's messages. No rule lives here."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from headrace.common.v1 import reasons_pb2
from headrace.execution.v1 import (
    dry_runs_pb2,
    events_pb2,
    internal_pb2,
    logs_pb2,
    runs_pb2,
)
from headrace_chassis.messages import timestamp

from headrace_execution.domain.figures import run_figures
from headrace_execution.domain.lifecycle import Order
from headrace_execution.domain.logs import Level, LogLine
from headrace_execution.domain.recipe import PlanNote, Priority, TaskSpec
from headrace_execution.domain.run import (
    ErrorClass,
    Failure,
    Run,
    StoredOutput,
    Task,
)
from headrace_execution.domain.starts import Decision, Standing, StartOutcome
from headrace_execution.domain.states import FINAL_TASK_STATES, RunState, TaskState
from headrace_execution.domain.triggers import Overlap, TriggerKind
from headrace_execution.store.port import RunSummary

_RUN_STATES = {state: runs_pb2.RunState.Value(f"RUN_STATE_{state}") for state in RunState}
_RUN_STATES_READ = {number: state for state, number in _RUN_STATES.items()}
_TASK_STATES = {state: runs_pb2.TaskState.Value(f"TASK_STATE_{state}") for state in TaskState}
_CLASSES = {kind: runs_pb2.ErrorClass.Value(f"ERROR_CLASS_{kind}") for kind in ErrorClass}
_PRIORITIES = {priority: runs_pb2.Priority.Value(f"PRIORITY_{priority.name}") for priority in Priority}
_PRIORITIES_READ = {number: priority for priority, number in _PRIORITIES.items()}
_TRIGGERS = {kind: runs_pb2.TriggerKind.Value(f"TRIGGER_KIND_{kind}") for kind in TriggerKind}
_TRIGGERS_READ = {number: kind for kind, number in _TRIGGERS.items()}
_OVERLAPS_READ = {internal_pb2.Overlap.Value(f"OVERLAP_{overlap}"): overlap for overlap in Overlap}
_START_OUTCOMES = {
    outcome: internal_pb2.StartOutcome.Value(f"START_OUTCOME_{outcome}") for outcome in StartOutcome
}
_LEVELS = {level: logs_pb2.LogLevel.Value(f"LOG_LEVEL_{level}") for level in Level}


def run_state(state: RunState) -> "runs_pb2.RunState.ValueType":
    """A run's state in the contract's words."""
    return _RUN_STATES[state]


def task_state(state: TaskState) -> "runs_pb2.TaskState.ValueType":
    """A task's state in the contract's words."""
    return _TASK_STATES[state]


def run_state_of(state: "runs_pb2.RunState.ValueType") -> RunState | None:
    """The state that a list is narrowed to; None where it is not."""
    return _RUN_STATES_READ.get(state)


def engine(name: str) -> "runs_pb2.Engine.ValueType":
    """An engine in the contract's words."""
    return runs_pb2.Engine.Value(f"ENGINE_{name}")


def engine_of(value: "runs_pb2.Engine.ValueType") -> str | None:
    """The engine that a request asks for; None where it leaves that to the definition."""
    if value == runs_pb2.ENGINE_UNSPECIFIED:
        return None
    return runs_pb2.Engine.Name(value).removeprefix("ENGINE_")


def priority_of(value: "runs_pb2.Priority.ValueType") -> Priority | None:
    """The priority that a request asks for; None where it leaves that to the definition."""
    return _PRIORITIES_READ.get(value)


# What other services ask to be started.


def trigger_of(value: "runs_pb2.TriggerKind.ValueType") -> TriggerKind | None:
    """What a start is triggered by; None for a kind that this release does not know."""
    return _TRIGGERS_READ.get(value)


def overlap_of(value: "internal_pb2.Overlap.ValueType") -> Overlap | None:
    """The overlap rule of a start; None where it has none."""
    return _OVERLAPS_READ.get(value)


def decision(item: Decision) -> internal_pb2.StartDecision:
    """What was decided of a start."""
    return internal_pb2.StartDecision(
        key=item.key,
        outcome=_START_OUTCOMES[item.outcome],
        run_id=str(item.run) if item.run is not None else None,
        reason=item.reason,
        message=item.message,
        running_run_ids=[str(run) for run in item.running],
        decided_at=timestamp(item.decided_at),
    )


def start(item: Decision, run: Standing | None) -> internal_pb2.Start:
    """What was decided of a start, and how its run stands."""
    if run is None:
        return internal_pb2.Start(decision=decision(item))
    return internal_pb2.Start(
        decision=decision(item),
        state=_RUN_STATES[run.state],
        finished_at=timestamp(run.finished_at),
        warning_count=run.warning_count,
    )


def standing(run: Standing) -> internal_pb2.RunStanding:
    """How a run stands."""
    return internal_pb2.RunStanding(
        run_id=str(run.run),
        state=_RUN_STATES[run.state],
        cancel_requested=run.cancel_requested,
        finished_at=timestamp(run.finished_at),
    )


# What users see.


def notes(items: Iterable[PlanNote]) -> list[reasons_pb2.Problem]:
    """What is questionable about a definition."""
    return [
        reasons_pb2.Problem(
            code=item.code, path=item.path, message=item.message, line=item.line, column=item.column
        )
        for item in items
    ]


def accepted(run: Run, estimated_duration_ms: int | None = None) -> runs_pb2.RunResponse:
    """The answer to an acceptance."""
    return runs_pb2.RunResponse(
        run_id=str(run.id),
        pipeline_id=str(run.pipeline),
        status=_RUN_STATES[run.state],
        task_count=len(run.recipe.tasks),
        engine=engine(run.recipe.engine),
        pipeline_version=run.pipeline_version,
        warnings=notes(run.recipe.notes),
        estimated_duration_ms=estimated_duration_ms,
    )


def dry_run(order: Order, report: dry_runs_pb2.DryRun) -> runs_pb2.RunResponse:
    """The answer to a dry run."""
    return runs_pb2.RunResponse(
        pipeline_id=str(order.pipeline),
        status=runs_pb2.RUN_STATE_PENDING,
        task_count=len(order.recipe.tasks),
        engine=engine(order.recipe.engine),
        pipeline_version=order.pipeline_version,
        warnings=notes(order.recipe.notes),
        dry_run=report,
    )


def log_line(line: LogLine) -> logs_pb2.LogLine:
    """A line of a log."""
    return logs_pb2.LogLine(
        time=timestamp(line.time),
        level=_LEVELS[line.level],
        task=line.task,
        attempt=line.attempt,
        message=line.message,
        fields=dict(line.fields),
    )


def summary(item: RunSummary) -> runs_pb2.RunSummary:
    """A run in a list."""
    return runs_pb2.RunSummary(
        run_id=str(item.id),
        pipeline_id=str(item.pipeline),
        workspace_id=str(item.workspace),
        status=_RUN_STATES[item.state],
        engine=engine(item.engine),
        pipeline_version=item.pipeline_version,
        created_at=timestamp(item.created_at),
        started_at=timestamp(item.started_at),
        finished_at=timestamp(item.finished_at),
        task_count=item.task_count,
        warning_count=item.warning_count,
        triggered_by=item.triggered_by,
        error=item.summary,
        cancel_requested=item.cancel_requested,
        trigger=_TRIGGERS[item.trigger.kind],
        trigger_id=item.trigger.id,
        logical_date=timestamp(item.logical_date),
        interval_start=timestamp(item.interval_start),
        interval_end=timestamp(item.interval_end),
    )


def status(run: Run, now: datetime) -> runs_pb2.RunStatusResponse:
    """A run as it stands."""
    by_position = {task.position: task for stage in run.stages for task in stage.tasks}
    tasks = [(spec, by_position[position]) for position, spec in enumerate(run.recipe.tasks)]
    cursors = _task_cursors(run)
    metrics = _metrics(run, now)
    errors = {spec.key: task.error.message for spec, task in tasks if task.error is not None}
    if run.error is not None:
        errors[str(run.id)] = run.error.message
    return runs_pb2.RunStatusResponse(
        run_id=str(run.id),
        pipeline_id=str(run.pipeline),
        overall_status=_RUN_STATES[run.state],
        task_statuses={spec.key: _TASK_STATES[task.shown] for spec, task in tasks},
        errors=errors,
        tasks=[_task(spec, task, cursors.get(spec.key, [])) for spec, task in tasks],
        engine=engine(run.recipe.engine),
        engine_reason=run.recipe.engine_reason,
        pipeline_version=run.pipeline_version,
        created_at=timestamp(run.created_at),
        started_at=timestamp(run.started_at),
        finished_at=timestamp(run.finished_at),
        progress=runs_pb2.Progress(
            tasks_done=sum(task.shown in FINAL_TASK_STATES for _, task in tasks),
            tasks_total=len(tasks),
            rows_read=metrics.rows_read,
            rows_written=metrics.rows_written,
        ),
        metrics=metrics,
        warnings=[
            runs_pb2.RunWarning(
                task=item.task, code=item.code, message=item.message, details=dict(item.details)
            )
            for stage in run.stages
            for item in stage.warnings
        ],
        attempt=max(stage.attempt for stage in run.stages),
        retry_of=str(run.retry_of) if run.retry_of else None,
        cancel_requested=run.cancel_requested_at is not None and not run.is_final,
        triggered_by=run.triggered_by,
        trigger_label=run.trigger_label,
        parameters=run.parameters,
        variables=run.variables or b"{}",
        priority=_PRIORITIES[run.priority],
        workspace_id=str(run.workspace),
        logical_date=timestamp(run.logical_date),
        revision=run.revision,
        outputs=_run_outputs(run),
        trigger=_TRIGGERS[run.trigger.kind],
        trigger_id=run.trigger.id,
        interval_start=timestamp(run.interval_start),
        interval_end=timestamp(run.interval_end),
    )


def _task_cursors(run: Run) -> dict[str, list[runs_pb2.TaskCursor]]:
    """How far loads have come, by their sink."""
    found: dict[str, list[runs_pb2.TaskCursor]] = {}
    for stage in run.stages:
        for receipt in stage.receipts:
            for item in receipt.cursors:
                if item.column:
                    told = runs_pb2.TaskCursor(
                        source=item.source, column=item.column, before=item.before, after=item.after
                    )
                    found.setdefault(receipt.sink, []).append(told)
    return found


def _task(spec: TaskSpec, task: Task, cursors: Sequence[runs_pb2.TaskCursor]) -> runs_pb2.TaskStatus:
    return runs_pb2.TaskStatus(
        id=spec.key,
        kind=spec.kind,
        type=spec.type,
        status=_TASK_STATES[task.shown],
        attempt=task.attempt,
        started_at=timestamp(task.started_at),
        finished_at=timestamp(task.finished_at),
        rows_in=task.rows_in,
        rows_out=task.rows_out,
        bytes=task.bytes,
        error=_error(task.error),
        retry_at=timestamp(task.retry_at),
        guarantee=spec.guarantee,
        cursors=cursors,
    )


CONTENT_TYPES = {
    "csv": "text/csv; charset=utf-8",
    "json": "application/x-ndjson",
    "parquet": "application/vnd.apache.parquet",
}
"""The media types of outputs, by their format."""


def output_columns(output: StoredOutput) -> list[runs_pb2.OutputColumn]:
    """The columns of an output."""
    return [runs_pb2.OutputColumn(name=name, type=kind) for name, kind in output.columns]


def _run_outputs(run: Run) -> list[runs_pb2.RunOutput]:
    return [
        runs_pb2.RunOutput(
            sink=receipt.sink,
            format=receipt.output.format,
            content_type=CONTENT_TYPES[receipt.output.format],
            bytes=receipt.output.bytes,
            rows=receipt.rows,
            sha256=receipt.output.sha256,
            columns=output_columns(receipt.output),
            href=f"/api/v1/runs/{run.id}/output?sink={receipt.sink}",
        )
        for receipt in run.outputs
        if receipt.output is not None
    ]


def _error(failure: Failure | None) -> runs_pb2.TaskError | None:
    if failure is None:
        return None
    message = runs_pb2.TaskError(code=failure.code, message=failure.message, details=dict(failure.details))
    # "class" is a word of Python's.
    setattr(message, "class", _CLASSES[failure.kind])
    return message


def _metrics(run: Run, now: datetime) -> runs_pb2.RunMetrics:
    figures = run_figures(run)
    duration = ((run.finished_at or now) - run.started_at).total_seconds() if run.started_at else 0.0
    return runs_pb2.RunMetrics(
        rows_read=figures.rows_read,
        rows_written=figures.rows_written,
        bytes_read=figures.bytes_read,
        bytes_written=figures.bytes_written,
        duration_ms=max(int(duration * 1000), 0),
    )


def figures(run: Run) -> events_pb2.RunFigures:
    """What a run that has ended moved and took."""
    found = run_figures(run)
    return events_pb2.RunFigures(
        rows_read=found.rows_read,
        rows_written=found.rows_written,
        bytes_read=found.bytes_read,
        bytes_written=found.bytes_written,
        slot_us=found.slot_us,
    )
