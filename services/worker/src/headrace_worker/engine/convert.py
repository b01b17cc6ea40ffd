"""Between the messages of the worker protocol and the engine's own words."""

from __future__ import annotations

import datetime as dt
import json  # and not orjson, which rounds whole numbers of more than 64 bits
from collections.abc import Iterable

from google.protobuf import timestamp_pb2
from headrace.execution.v1 import runs_pb2, workers_pb2
from headrace_connectors.api import ConnectorError, Cursor

from headrace_worker.engine.loads import LandedLoad
from headrace_worker.engine.progress import TaskRecord
from headrace_worker.engine.redaction import Redactor
from headrace_worker.engine.run_context import RunContext
from headrace_worker.engine.stage import Warned
from headrace_worker.engine.task_error import error_message

_SHOWN = 200
"""How many characters of a cursor value people are shown."""


def context_of(assignment: workers_pb2.Assignment) -> RunContext:
    """What an assignment says of its run.

    Raises:
        ValueError: when its parameters are not a JSON object.
    """
    parameters = json.loads(assignment.parameters) if assignment.parameters else {}
    if not isinstance(parameters, dict):
        raise ValueError("the parameters are not a JSON object")
    return RunContext(
        assignment_id=assignment.ref.assignment_id,
        fence=assignment.ref.fence,
        run_id=assignment.run_id,
        root_run_id=assignment.root_run_id or assignment.run_id,
        pipeline_id=assignment.pipeline_id,
        attempt=assignment.attempt,
        parameters=parameters,
        signals=json.loads(assignment.signals) if assignment.signals else {},
        variables=json.loads(assignment.variables) if assignment.variables else {},
        logical_date=_instant(assignment, "logical_date"),
        interval_start=_instant(assignment, "interval_start"),
        interval_end=_instant(assignment, "interval_end"),
        cursors={(cursor.sink, cursor.source): cursor.value for cursor in assignment.cursors},
        cursor_fences={
            (cursor.sink, cursor.source): cursor.fence
            for cursor in assignment.cursors
            if cursor.HasField("fence")
        },
        landed={receipt.sink: receipt for receipt in assignment.landed},
        full_refresh=assignment.full_refresh,
        timeout_seconds=assignment.timeout_ms / 1000 if assignment.timeout_ms else None,
    )


def progress_message(record: TaskRecord, redactor: Redactor) -> workers_pb2.TaskProgress:
    """A task as it stands."""
    message = workers_pb2.TaskProgress(
        task=record.key,
        state=runs_pb2.TaskState.Value(f"TASK_STATE_{record.state}"),
        rows_in=record.rows_in,
        rows_out=record.rows_out,
        bytes=record.bytes,
    )
    if record.started_at is not None:
        message.started_at.FromDatetime(record.started_at)
    if record.finished_at is not None:
        message.finished_at.FromDatetime(record.finished_at)
    if record.failure is not None:
        message.error.CopyFrom(error_message(record.failure.redacted(redactor)))
    return message


def receipt_messages(landed: Iterable[LandedLoad]) -> list[workers_pb2.Receipt]:
    """What has landed."""
    messages = []
    for load in landed:
        receipt = load.receipt
        message = workers_pb2.Receipt(
            sink=load.task,
            partition=load.partition,
            fence=receipt.fence,
            rows=receipt.rows,
            bytes=receipt.bytes,
            checksum=receipt.checksum,
        )
        message.landed_at.FromDatetime(receipt.committed_at)
        if load.output is not None:
            message.output.CopyFrom(load.output)
        if load.shape is not None:
            load.shape.tell(message)
        for source, value in load.cursors.items():
            _tell(message.cursors.add(sink=load.task, source=source, value=value))
        messages.append(message)
    return messages


def _tell(cursor: workers_pb2.Cursor) -> None:
    """Add what people understand of a cursor. What cannot be read, the next reading refuses by name."""
    try:
        read = Cursor.decode(cursor.value)
    except ConnectorError:
        return
    cursor.column, cursor.after = read.column, read.value[:_SHOWN]
    if read.before is not None:
        cursor.before = read.before[:_SHOWN]


def warning_message(warned: Warned, redactor: Redactor) -> runs_pb2.RunWarning:
    """Something questionable."""
    return runs_pb2.RunWarning(
        task=warned.task,
        code=warned.code,
        message=redactor.text(warned.message),
        details=redactor.mapping(warned.details),
    )


def _instant(assignment: workers_pb2.Assignment, name: str) -> dt.datetime | None:
    if not assignment.HasField(name):  # type: ignore[arg-type] # the stub lists the names one by one
        return None
    value: timestamp_pb2.Timestamp = getattr(assignment, name)
    return value.ToDatetime(tzinfo=dt.UTC)
