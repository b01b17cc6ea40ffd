"""Between the domain's values and the contract's messages. No rule lives here."""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from headrace.common.v1 import reasons_pb2
from headrace.execution.v1 import (
    dry_runs_pb2,
    events_pb2,
    internal_pb2,
    logs_pb2,
    runs_pb2,
    workers_pb2,
)
from headrace_chassis.messages import timestamp

from headrace_execution.domain.figures import run_figures
from headrace_execution.domain.lifecycle import Order
from headrace_execution.domain.logs import Level, LogLine
from headrace_execution.domain.recipe import PlanNote, Priority, TaskSpec
from headrace_execution.domain.run import (
    Columns,
    CursorValue,
    ErrorClass,
    Failure,
    LoadShape,
    Outcome,
    Receipt,
    Run,
    StageResult,
    StoredOutput,
    Task,
    TaskReport,
    Warned,
)
from headrace_execution.domain.starts import Decision, Standing, StartOutcome
from headrace_execution.domain.states import FINAL_TASK_STATES, RunState, TaskState
from headrace_execution.domain.triggers import Overlap, TriggerKind
from headrace_execution.store.port import RunSummary

_RUN_STATES = {state: runs_pb2.RunState.Value(f"RUN_STATE_{state}") for state in RunState}
_RUN_STATES_READ = {number: state for state, number in _RUN_STATES.items()}
_TASK_STATES = {state: runs_pb2.TaskState.Value(f"TASK_STATE_{state}") for state in TaskState}
_TASK_STATES_READ = {number: state for state, number in _TASK_STATES.items()}
_CLASSES = {kind: runs_pb2.ErrorClass.Value(f"ERROR_CLASS_{kind}") for kind in ErrorClass}
_CLASSES_READ = {number: kind for kind, number in _CLASSES.items()}
_PRIORITIES = {priority: runs_pb2.Priority.Value(f"PRIORITY_{priority.name}") for priority in Priority}
_PRIORITIES_READ = {number: priority for priority, number in _PRIORITIES.items()}
_TRIGGERS = {kind: runs_pb2.TriggerKind.Value(f"TRIGGER_KIND_{kind}") for kind in TriggerKind}
_TRIGGERS_READ = {number: kind for kind, number in _TRIGGERS.items()}
_OVERLAPS_READ = {internal_pb2.Overlap.Value(f"OVERLAP_{overlap}"): overlap for overlap in Overlap}
_START_OUTCOMES = {
    outcome: internal_pb2.StartOutcome.Value(f"START_OUTCOME_{outcome}") for outcome in StartOutcome
}
_LEVELS = {level: logs_pb2.LogLevel.Value(f"LOG_LEVEL_{level}") for level in Level}
_LEVELS_READ = {number: level for level, number in _LEVELS.items()}
_OUTCOMES_READ = {workers_pb2.Outcome.Value(f"OUTCOME_{outcome}"): outcome for outcome in Outcome}


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


# What workers say.


def stage_result(message: workers_pb2.AssignmentResult) -> StageResult:
    """What a worker says came of an assignment. An outcome that this release does not know is a failure."""
    return StageResult(
        outcome=_OUTCOMES_READ.get(message.outcome, Outcome.FAILED),
        tasks=task_reports(message.tasks),
        receipts=tuple(_receipt(item) for item in message.receipts),
        error=_failure(message.error) if message.HasField("error") else None,
        failed_task=message.failed_task,
        warnings=tuple(
            Warned(item.task, item.code, _text(item.message), dict(item.details)) for item in message.warnings
        ),
    )


def task_reports(messages: Iterable[workers_pb2.TaskProgress]) -> tuple[TaskReport, ...]:
    """Tasks as a worker sees them."""
    return tuple(
        TaskReport(
            key=item.task,
            state=_TASK_STATES_READ.get(item.state, TaskState.RUNNING),
            started_at=_instant(item.started_at) if item.HasField("started_at") else None,
            finished_at=_instant(item.finished_at) if item.HasField("finished_at") else None,
            rows_in=item.rows_in,
            rows_out=item.rows_out,
            bytes=item.bytes,
            error=_failure(item.error) if item.HasField("error") else None,
        )
        for item in messages
    )


def log_lines(messages: Iterable[logs_pb2.LogLine]) -> tuple[LogLine, ...]:
    """Lines as a worker logs them."""
    return tuple(
        LogLine(
            time=_instant(item.time),
            level=_LEVELS_READ.get(item.level, Level.INFO),
            message=item.message,
            task=item.task,
            attempt=item.attempt,
            fields=dict(item.fields),
        )
        for item in messages
    )


def probe_failure(result: StageResult) -> bytes:
    """The answer to a question that its worker could not answer, in the form of either kind of probe."""
    error = result.error or Failure("UNANSWERED", ErrorClass.INTERNAL, "the worker gave no answer")
    told = {"code": error.code, "class": error.kind, "message": error.message}
    return json.dumps({"success": False, **told, "error": told}).encode()


def _receipt(message: workers_pb2.Receipt) -> Receipt:
    return Receipt(
        sink=message.sink,
        partition=message.partition,
        fence=message.fence,
        rows=message.rows,
        bytes=message.bytes,
        checksum=message.checksum,
        landed_at=_instant(message.landed_at) if message.HasField("landed_at") else None,
        cursors=tuple(_cursor(item) for item in message.cursors),
        output=_output(message.output) if message.HasField("output") else None,
        shape=_shape(message) if message.columns else None,
    )


def _shape(message: workers_pb2.Receipt) -> LoadShape:
    return LoadShape(
        columns=_told_columns(message.columns),
        sources=tuple((source.task, _told_columns(source.columns)) for source in message.sources),
    )


def _told_columns(columns: Iterable[runs_pb2.OutputColumn]) -> Columns:
    return tuple((_text(column.name), column.type) for column in columns)


def _cursor(message: workers_pb2.Cursor) -> CursorValue:
    before = message.before if message.HasField("before") else None
    return CursorValue(message.sink, message.source, message.value, message.column, before, message.after)


def _output(message: workers_pb2.StoredOutput) -> StoredOutput:
    return StoredOutput(
        key=message.key,
        format=message.format,
        bytes=message.bytes,
        sha256=message.sha256,
        columns=_told_columns(message.columns),
    )


def landed_output(receipt: Receipt) -> workers_pb2.Receipt:
    """A receipt of an output, for the attempts that follow."""
    message = workers_pb2.Receipt(
        sink=receipt.sink,
        partition=receipt.partition,
        fence=receipt.fence,
        rows=receipt.rows,
        bytes=receipt.bytes,
        checksum=receipt.checksum,
        landed_at=timestamp(receipt.landed_at),
    )
    if receipt.output is not None:
        message.output.CopyFrom(
            workers_pb2.StoredOutput(
                key=receipt.output.key,
                format=receipt.output.format,
                bytes=receipt.output.bytes,
                sha256=receipt.output.sha256,
                columns=_columns(receipt.output),
            )
        )
    return message


def _columns(output: StoredOutput) -> list[runs_pb2.OutputColumn]:
    return [runs_pb2.OutputColumn(name=name, type=kind) for name, kind in output.columns]


def _failure(message: runs_pb2.TaskError) -> Failure:
    kind = _CLASSES_READ.get(getattr(message, "class"), ErrorClass.INTERNAL)
    return Failure(message.code or "UNKNOWN", kind, _text(message.message), dict(message.details))


def _text(value: str) -> str:
    # A value of a user's data may be quoted in it, and PostgreSQL's text holds no NUL.
    return value.replace("\0", "\ufffd")


def _instant(value: Timestamp) -> datetime:
    return value.ToDatetime(tzinfo=UTC)


# What users see.


def notes(items: Iterable[PlanNote]) -> list[reasons_pb2.Problem]:
    """What is questionable about a definition."""
    return [
        reasons_pb2.Problem(
            code=item.code, path=item.path, message=item.message, line=item.line, column=item.column
        )
        for item in items
    ]


def accepted(run: Run) -> runs_pb2.RunResponse:
    """The answer to an acceptance."""
    return runs_pb2.RunResponse(
        run_id=str(run.id),
        pipeline_id=str(run.pipeline),
        status=_RUN_STATES[run.state],
        task_count=len(run.recipe.tasks),
        engine=engine(run.recipe.engine),
        pipeline_version=run.pipeline_version,
        warnings=notes(run.recipe.notes),
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


def _run_outputs(run: Run) -> list[runs_pb2.RunOutput]:
    return [
        runs_pb2.RunOutput(
            sink=receipt.sink,
            format=receipt.output.format,
            content_type=CONTENT_TYPES[receipt.output.format],
            bytes=receipt.output.bytes,
            rows=receipt.rows,
            sha256=receipt.output.sha256,
            columns=_columns(receipt.output),
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
