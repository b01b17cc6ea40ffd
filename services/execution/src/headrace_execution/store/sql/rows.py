"""Rows and values: which column holds what, and the statements that follow from it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from uuid import UUID

from headrace_execution.domain.changes import failure_summary
from headrace_execution.domain.recipe import Priority, Recipe
from headrace_execution.domain.run import Purpose, Run, Stage, StopReason, Task
from headrace_execution.domain.states import RunState, StageState, TaskState
from headrace_execution.domain.triggers import MANUAL, Overlap, Trigger, TriggerKind
from headrace_execution.store.sql.documents import (
    dump_failure,
    dump_receipts,
    dump_warnings,
    load_failure,
    load_receipts,
    load_warnings,
)

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Column(Generic[V]):
    """A column: its name, its type in SQL, and its value of an object."""

    name: str
    type: str
    get: Callable[[V], Any]
    changes: bool = True
    """Whether it can change once the row exists."""


@dataclass(frozen=True, slots=True)
class StageRow:
    """A stage with what its row repeats of its run."""

    run: Run
    stage: Stage


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task with what its row repeats of its run."""

    run: UUID
    task: Task


RUN_COLUMNS: tuple[Column[Run], ...] = (
    Column("id", "uuid", lambda r: r.id, changes=False),
    Column("tenant", "uuid", lambda r: r.tenant, changes=False),
    Column("workspace", "uuid", lambda r: r.workspace, changes=False),
    Column("pipeline", "uuid", lambda r: r.pipeline, changes=False),
    Column("pipeline_version", "int", lambda r: r.pipeline_version, changes=False),
    Column("recipe", "bytea", lambda r: r.recipe.digest, changes=False),
    Column("engine", "text", lambda r: r.recipe.engine, changes=False),
    Column("task_count", "int", lambda r: len(r.recipe.tasks), changes=False),
    Column("created_at", "timestamptz", lambda r: r.created_at, changes=False),
    Column("logical_date", "timestamptz", lambda r: r.logical_date, changes=False),
    Column("interval_start", "timestamptz", lambda r: r.interval_start, changes=False),
    Column("interval_end", "timestamptz", lambda r: r.interval_end, changes=False),
    Column("parameters", "text", lambda r: r.parameters.decode(), changes=False),
    Column("triggered_by", "text", lambda r: r.triggered_by, changes=False),
    Column("trigger_label", "text", lambda r: r.trigger_label, changes=False),
    Column("priority", "smallint", lambda r: r.priority, changes=False),
    Column("full_refresh", "bool", lambda r: r.full_refresh, changes=False),
    Column("root", "uuid", lambda r: r.root, changes=False),
    Column("retry_of", "uuid", lambda r: r.retry_of, changes=False),
    Column("traceparent", "text", lambda r: r.traceparent, changes=False),
    Column("trigger", "text", lambda r: r.trigger.kind, changes=False),
    Column("trigger_id", "text", lambda r: r.trigger.id, changes=False),
    Column("start_key", "text", lambda r: r.trigger.start_key, changes=False),
    Column("overlap", "text", lambda r: r.trigger.overlap, changes=False),
    Column("state", "text", lambda r: r.state),
    Column("held", "bool", lambda r: r.held),
    Column("cancel_requested_at", "timestamptz", lambda r: r.cancel_requested_at),
    Column("cancel_reason", "text", lambda r: r.cancel_reason),
    Column("started_at", "timestamptz", lambda r: r.started_at),
    Column("finished_at", "timestamptz", lambda r: r.finished_at),
    Column("error", "text", lambda r: dump_failure(r.error)),
    Column("summary", "text", failure_summary),
    Column("warning_count", "int", lambda r: r.warning_count),
    Column("due_at", "timestamptz", lambda r: r.due_at),
    Column("revision", "bigint", lambda r: r.revision),
)

STAGE_COLUMNS: tuple[Column[StageRow], ...] = (
    Column("id", "uuid", lambda r: r.stage.id, changes=False),
    Column("run", "uuid", lambda r: r.run.id, changes=False),
    Column("position", "int", lambda r: r.stage.position, changes=False),
    Column("priority", "smallint", lambda r: r.run.priority, changes=False),
    Column("state", "text", lambda r: r.stage.state),
    Column("purpose", "text", lambda r: r.stage.purpose),
    Column("verdict", "text", lambda r: r.stage.verdict),
    Column("fence", "bigint", lambda r: r.stage.fence),
    Column("worker", "uuid", lambda r: r.stage.worker),
    Column("leased_at", "timestamptz", lambda r: r.stage.leased_at),
    Column("attempt", "int", lambda r: r.stage.attempt),
    Column("failures", "int", lambda r: r.stage.failures),
    Column("lost", "int", lambda r: r.stage.lost),
    Column("unsettled", "bool", lambda r: r.stage.unsettled),
    Column("stop", "text", lambda r: r.stage.stop),
    Column("ready_at", "timestamptz", lambda r: r.stage.ready_at),
    Column("timer", "timestamptz", lambda r: r.stage.timer),
    Column("settle_by", "timestamptz", lambda r: r.stage.settle_by),
    Column("error", "text", lambda r: dump_failure(r.stage.error)),
    Column("warnings", "text", lambda r: dump_warnings(r.stage.warnings)),
    Column("receipts", "text", lambda r: dump_receipts(r.stage.receipts)),
)

TASK_COLUMNS: tuple[Column[TaskRow], ...] = (
    Column("run", "uuid", lambda r: r.run, changes=False),
    Column("position", "int", lambda r: r.task.position, changes=False),
    Column("state", "text", lambda r: r.task.state),
    Column("attempt", "int", lambda r: r.task.attempt),
    Column("started_at", "timestamptz", lambda r: r.task.started_at),
    Column("finished_at", "timestamptz", lambda r: r.task.finished_at),
    Column("rows_in", "bigint", lambda r: r.task.rows_in),
    Column("rows_out", "bigint", lambda r: r.task.rows_out),
    Column("bytes", "bigint", lambda r: r.task.bytes),
    Column("error", "text", lambda r: dump_failure(r.task.error)),
    Column("retry_at", "timestamptz", lambda r: r.task.retry_at),
)


def names(columns: Iterable[Column[Any]]) -> str:
    """The columns' names, as SQL lists them."""
    return ", ".join(column.name for column in columns)


def arrays(columns: Sequence[Column[V]], objects: Sequence[V]) -> list[list[Any]]:
    """The values of objects, an array a column."""
    return [[column.get(item) for item in objects] for column in columns]


def insert_sql(table: str, columns: Sequence[Column[Any]], *, first: int = 1) -> str:
    """Inserts any number of rows in one statement; its parameters are numbered from `first`."""
    return f"INSERT INTO {table} ({names(columns)}) SELECT * FROM unnest({_parameters(columns, first)})"


def update_sql(
    table: str,
    columns: Sequence[Column[Any]],
    key: Sequence[Column[Any]],
    guard: Mapping[str, str],
    *,
    first: int = 1,
) -> str:
    """Updates any number of rows in one statement; each only where its guard columns have the values given
    last."""
    given = updated(columns, key, guard)
    assignments = ", ".join(f"{column.name} = u.{column.name}" for column in changing(columns))
    matches = [f"t.{column.name} = u.{column.name}" for column in key]
    matches += [f"t.{name} = u.old_{name}" for name in guard]
    return (
        f"UPDATE {table} AS t SET {assignments} "
        f"FROM unnest({_parameters(given, first)}) AS u({names(given)}) WHERE {' AND '.join(matches)}"
    )


def updated(
    columns: Sequence[Column[Any]], key: Sequence[Column[Any]], guard: Mapping[str, str]
) -> list[Column[Any]]:
    """The parameters of an update, in their order: the key, the columns that can change, and the guard."""
    return [
        *key,
        *changing(columns),
        *(Column(f"old_{name}", kind, lambda _: None) for name, kind in guard.items()),
    ]


def gathered_sql(table: str, columns: Sequence[Column[Any]], prefix: str, run: str) -> str:
    """One row for all rows of a run in a table, in the order of their positions: an array a column.

    Arrays of columns, and not of rows: a column that a newer release adds does not disturb them.
    """
    arrays = ", ".join(f"array_agg(x.{column.name}) AS {prefix}{column.name}" for column in columns)
    return f"(SELECT {arrays} FROM (SELECT * FROM {table} WHERE run = {run} ORDER BY position) AS x)"


def scattered(row: Mapping[str, Any], columns: Sequence[Column[Any]], prefix: str) -> list[Mapping[str, Any]]:
    """The rows that `gathered_sql` gathered."""
    names = [column.name for column in columns]
    values = (row[f"{prefix}{name}"] or () for name in names)
    return [dict(zip(names, each, strict=True)) for each in zip(*values, strict=True)]


def changing(columns: Sequence[Column[V]]) -> list[Column[V]]:
    """The columns that can change."""
    return [column for column in columns if column.changes]


def _parameters(columns: Sequence[Column[Any]], first: int) -> str:
    return ", ".join(f"${index}::{column.type}[]" for index, column in enumerate(columns, start=first))


def to_run(row: Mapping[str, Any], recipe: Recipe, stages: tuple[Stage, ...]) -> Run:
    """A run from its row."""
    return Run(
        id=row["id"],
        tenant=row["tenant"],
        workspace=row["workspace"],
        pipeline=row["pipeline"],
        pipeline_version=row["pipeline_version"],
        recipe=recipe,
        stages=stages,
        created_at=row["created_at"],
        logical_date=row["logical_date"],
        parameters=row["parameters"].encode(),
        triggered_by=row["triggered_by"],
        trigger_label=row["trigger_label"],
        priority=Priority(row["priority"]),
        full_refresh=row["full_refresh"],
        root=row["root"],
        retry_of=row["retry_of"],
        interval_start=row["interval_start"],
        interval_end=row["interval_end"],
        traceparent=row["traceparent"],
        trigger=to_trigger(row),
        state=RunState(row["state"]),
        held=row["held"],
        cancel_requested_at=row["cancel_requested_at"],
        cancel_reason=row["cancel_reason"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        error=load_failure(row["error"]),
        revision=row["revision"],
    )


def to_trigger(row: Mapping[str, Any]) -> Trigger:
    """What started a run, from its row; the same value for all that nothing but a caller started."""
    if row["trigger"] == TriggerKind.MANUAL and row["trigger_id"] is None and row["start_key"] is None:
        return MANUAL
    return Trigger(
        kind=TriggerKind(row["trigger"]),
        id=row["trigger_id"],
        start_key=row["start_key"],
        overlap=Overlap(row["overlap"]) if row["overlap"] else None,
    )


def to_stage(row: Mapping[str, Any], tasks: tuple[Task, ...]) -> Stage:
    """A stage from its row."""
    return Stage(
        id=row["id"],
        position=row["position"],
        tasks=tasks,
        state=StageState(row["state"]),
        purpose=Purpose(row["purpose"]),
        verdict=StageState(row["verdict"]) if row["verdict"] else None,
        fence=row["fence"],
        worker=row["worker"],
        leased_at=row["leased_at"],
        attempt=row["attempt"],
        failures=row["failures"],
        lost=row["lost"],
        unsettled=row["unsettled"],
        stop=StopReason(row["stop"]) if row["stop"] else None,
        ready_at=row["ready_at"],
        timer=row["timer"],
        settle_by=row["settle_by"],
        error=load_failure(row["error"]),
        warnings=load_warnings(row["warnings"]),
        receipts=load_receipts(row["receipts"]),
    )


def to_task(row: Mapping[str, Any]) -> Task:
    """A task from its row."""
    return Task(
        position=row["position"],
        state=TaskState(row["state"]),
        attempt=row["attempt"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        rows_in=row["rows_in"],
        rows_out=row["rows_out"],
        bytes=row["bytes"],
        error=load_failure(row["error"]),
        retry_at=row["retry_at"],
    )
