"""Between what workers say and the domain's values. No rule lives here."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from headrace.execution.v1 import logs_pb2, runs_pb2, workers_pb2
from headrace_chassis.messages import timestamp

from headrace_execution.convert import output_columns
from headrace_execution.domain.logs import Level, LogLine
from headrace_execution.domain.run import (
    Columns,
    CursorValue,
    ErrorClass,
    Failure,
    LoadShape,
    Outcome,
    Receipt,
    StageResult,
    StoredOutput,
    TaskReport,
    Warned,
)
from headrace_execution.domain.states import TaskState

_TASK_STATES = {runs_pb2.TaskState.Value(f"TASK_STATE_{state}"): state for state in TaskState}
_CLASSES = {runs_pb2.ErrorClass.Value(f"ERROR_CLASS_{kind}"): kind for kind in ErrorClass}
_LEVELS = {logs_pb2.LogLevel.Value(f"LOG_LEVEL_{level}"): level for level in Level}
_OUTCOMES = {workers_pb2.Outcome.Value(f"OUTCOME_{outcome}"): outcome for outcome in Outcome}


def stage_result(message: workers_pb2.AssignmentResult) -> StageResult:
    """What a worker says came of an assignment. An outcome that this release does not know is a failure."""
    return StageResult(
        outcome=_OUTCOMES.get(message.outcome, Outcome.FAILED),
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
            state=_TASK_STATES.get(item.state, TaskState.RUNNING),
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
            level=_LEVELS.get(item.level, Level.INFO),
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
                columns=output_columns(receipt.output),
            )
        )
    return message


def _failure(message: runs_pb2.TaskError) -> Failure:
    kind = _CLASSES.get(getattr(message, "class"), ErrorClass.INTERNAL)
    return Failure(message.code or "UNKNOWN", kind, _text(message.message), dict(message.details))


def _text(value: str) -> str:
    # A value of a user's data may be quoted in it, and PostgreSQL's text holds no NUL.
    return value.replace("\0", "\ufffd")


def _instant(value: Timestamp) -> datetime:
    return value.ToDatetime(tzinfo=UTC)
