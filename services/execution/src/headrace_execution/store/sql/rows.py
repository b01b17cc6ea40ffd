"""Rows and values: which column holds what."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Generic, TypeVar
from uuid import UUID

from headrace_execution.domain.changes import failure_summary
from headrace_execution.domain.connection_limits import to_words
from headrace_execution.domain.recipe import Priority, Recipe
from headrace_execution.domain.run import Purpose, Run, Stage, StopReason, Task
from headrace_execution.domain.states import RunState, StageState, TaskState
from headrace_execution.domain.triggers import MANUAL, Overlap, Trigger, TriggerKind
from headrace_execution.store.sql.documents import (
    dump_failure,
    dump_receipts,
    dump_signal,
    dump_warnings,
    load_failure,
    load_receipts,
    load_signal,
    load_warnings,
)

V = TypeVar("V")


@dataclass(frozen=True, slots=True, eq=False)
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
    Column("id", "uuid", attrgetter("id"), changes=False),
    Column("tenant", "uuid", attrgetter("tenant"), changes=False),
    Column("workspace", "uuid", attrgetter("workspace"), changes=False),
    Column("pipeline", "uuid", attrgetter("pipeline"), changes=False),
    Column("pipeline_version", "int", attrgetter("pipeline_version"), changes=False),
    Column("recipe", "bytea", attrgetter("recipe.digest"), changes=False),
    Column("engine", "text", attrgetter("recipe.engine"), changes=False),
    Column("task_count", "int", lambda r: len(r.recipe.tasks), changes=False),
    Column("created_at", "timestamptz", attrgetter("created_at"), changes=False),
    Column("logical_date", "timestamptz", attrgetter("logical_date"), changes=False),
    Column("interval_start", "timestamptz", attrgetter("interval_start"), changes=False),
    Column("interval_end", "timestamptz", attrgetter("interval_end"), changes=False),
    Column("parameters", "text", lambda r: r.parameters.decode(), changes=False),
    Column("variables", "text", lambda r: r.variables.decode() if r.variables else None, changes=False),
    Column("triggered_by", "text", attrgetter("triggered_by"), changes=False),
    Column("trigger_label", "text", attrgetter("trigger_label"), changes=False),
    Column("priority", "smallint", attrgetter("priority"), changes=False),
    Column("full_refresh", "bool", attrgetter("full_refresh"), changes=False),
    Column("root", "uuid", attrgetter("root"), changes=False),
    Column("retry_of", "uuid", attrgetter("retry_of"), changes=False),
    Column("traceparent", "text", attrgetter("traceparent"), changes=False),
    Column("trigger", "text", attrgetter("trigger.kind"), changes=False),
    Column("trigger_id", "text", attrgetter("trigger.id"), changes=False),
    Column("start_key", "text", attrgetter("trigger.start_key"), changes=False),
    Column("overlap", "text", attrgetter("trigger.overlap"), changes=False),
    Column("state", "text", attrgetter("state")),
    Column("held", "bool", attrgetter("held")),
    Column("cancel_requested_at", "timestamptz", attrgetter("cancel_requested_at")),
    Column("cancel_reason", "text", attrgetter("cancel_reason")),
    Column("started_at", "timestamptz", attrgetter("started_at")),
    Column("finished_at", "timestamptz", attrgetter("finished_at")),
    Column("error", "text", lambda r: dump_failure(r.error)),
    Column("summary", "text", failure_summary),
    Column("warning_count", "int", attrgetter("warning_count")),
    Column("due_at", "timestamptz", attrgetter("due_at")),
    Column("revision", "bigint", attrgetter("revision")),
)

STAGE_COLUMNS: tuple[Column[StageRow], ...] = (
    Column("id", "uuid", attrgetter("stage.id"), changes=False),
    Column("run", "uuid", attrgetter("run.id"), changes=False),
    Column("position", "int", attrgetter("stage.position"), changes=False),
    Column("priority", "smallint", attrgetter("run.priority"), changes=False),
    Column("state", "text", attrgetter("stage.state")),
    Column("purpose", "text", attrgetter("stage.purpose")),
    Column("verdict", "text", attrgetter("stage.verdict")),
    Column("fence", "bigint", attrgetter("stage.fence")),
    Column("worker", "uuid", attrgetter("stage.worker")),
    Column("leased_at", "timestamptz", attrgetter("stage.leased_at")),
    Column("attempt", "int", attrgetter("stage.attempt")),
    Column("failures", "int", attrgetter("stage.failures")),
    Column("lost", "int", attrgetter("stage.lost")),
    Column("unsettled", "bool", attrgetter("stage.unsettled")),
    Column("stop", "text", attrgetter("stage.stop")),
    Column("ready_at", "timestamptz", attrgetter("stage.ready_at")),
    Column("timer", "timestamptz", attrgetter("stage.timer")),
    Column("settle_by", "timestamptz", attrgetter("stage.settle_by")),
    Column("error", "text", lambda r: dump_failure(r.stage.error)),
    Column("warnings", "text", lambda r: dump_warnings(r.stage.warnings)),
    Column("receipts", "text", lambda r: dump_receipts(r.stage.receipts)),
    # NULL means none: most inserts leave it out.
    Column("slot_us", "bigint", lambda r: r.stage.slot_us or None),
    Column("signal", "text", lambda r: dump_signal(r.stage.signal)),
    Column("limited", "text", lambda r: to_words(r.run.spec(r.stage).limits), changes=False),
)

TASK_COLUMNS: tuple[Column[TaskRow], ...] = (
    Column("run", "uuid", attrgetter("run"), changes=False),
    Column("position", "int", attrgetter("task.position"), changes=False),
    Column("state", "text", attrgetter("task.state")),
    Column("attempt", "int", attrgetter("task.attempt")),
    Column("started_at", "timestamptz", attrgetter("task.started_at")),
    Column("finished_at", "timestamptz", attrgetter("task.finished_at")),
    Column("rows_in", "bigint", attrgetter("task.rows_in")),
    Column("rows_out", "bigint", attrgetter("task.rows_out")),
    Column("bytes", "bigint", attrgetter("task.bytes")),
    Column("error", "text", lambda r: dump_failure(r.task.error)),
    Column("retry_at", "timestamptz", attrgetter("task.retry_at")),
)


def names(columns: Iterable[Column[Any]]) -> str:
    """The columns' names, as SQL lists them."""
    return ", ".join(column.name for column in columns)


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
        variables=row["variables"].encode() if row["variables"] else None,
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
        slot_us=row["slot_us"] or 0,
        signal=load_signal(row["signal"]),
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
