"""Where a task reads from, and the SQL of one that computes: resolved for one run, or precisely refused.

A definition may be stored before all of it is there. What it still lacks when it runs is found here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headrace_connectors.api import Column, Connection, SourceSpec
from headrace_definition.model import SqlTransform
from headrace_definition.plan import SourceTask, Task, TransformTask
from headrace_definition.sql import ColumnError, output_columns, transformation_sql

from headrace_worker.engine.binding import Binding
from headrace_worker.engine.connections import Connections
from headrace_worker.engine.failure import CONFIGURATION, Failure, TaskFailed


def require_rows(task: Task) -> None:
    """Refuse a task that has no rows to work on: nothing was written before it. Raises TaskFailed."""
    makes_rows = isinstance(task, SourceTask) or isinstance(task.config, SqlTransform)
    waits = isinstance(task, TransformTask) and task.wait is not None
    if not task.inputs and not makes_rows and not waits:
        why = f"{task.key}: reads nothing, as there is no task before it"
        raise TaskFailed(task.key, Failure("DEFINITION_INCOMPLETE", CONFIGURATION, why))


def source_place(
    task: SourceTask, binding: Binding, connections: Connections, lower: bytes | None, *, repeats: bool
) -> tuple[SourceSpec, Connection | None]:
    """What a source reads, and through which connection. Raises TaskFailed."""
    connection = connections.get(task.key, task.config.connection) if task.config.connection else None
    spec = binding.source(task, connection, lower, repeats=repeats)
    if connection is None and spec.path is None and spec.values is None:
        why = f"{task.key}: the source names no connection to read from"
        raise TaskFailed(task.key, Failure("CONNECTION_MISSING", CONFIGURATION, why))
    return spec, connection


def transformation_text(task: TransformTask, columns: Mapping[str, Sequence[Column]]) -> str:
    """The SQL of a transformation whose inputs have these columns, before values are put into it. Raises
    TaskFailed."""
    names = {key: [column.name for column in columns[key]] for key in task.inputs}
    try:
        output_columns(task.config, names)
        return transformation_sql(task.config)
    except ColumnError as error:
        details = {"column": error.column}
        failure = Failure("COLUMN_NOT_FOUND", CONFIGURATION, f"{task.key}: {error}", details)
        raise TaskFailed(task.key, failure) from error
    except ValueError as error:
        failure = Failure("DEFINITION_INCOMPLETE", CONFIGURATION, f"{task.key}: {error}")
        raise TaskFailed(task.key, failure) from error
