"""What a run's recipe says of its data: its plan, its SQL, and where the columns of its sinks come from."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import cast

from headrace_definition.lineage import ColumnOrigin, column_lineage, query_lineage
from headrace_definition.model import SqlTransform, WaitForSignal
from headrace_definition.plan import (
    PLAN_FORMAT,
    EngineName,
    Plan,
    SinkTask,
    SourceTask,
    StagePayload,
    Task,
    TransformTask,
)

from headrace_execution.domain.recipe import Recipe
from headrace_execution.domain.run import Columns, Run

MAX_SQL_CHARACTERS = 100_000
"""The longest SQL that is told of a run; of a longer one, none is."""


@dataclass(frozen=True, slots=True)
class TracedPlan:
    """A plan, and what follows from it and from what its sources were found to have."""

    plan: Plan
    sql: str | None
    """Its queries and transformations in SQL, in their order."""
    sinks: Mapping[str, Mapping[str, tuple[ColumnOrigin, ...]]]
    """For each sink its columns, and the columns of source tasks that they are computed from."""
    queries: Mapping[str, Mapping[str, tuple[ColumnOrigin, ...]]]
    """For each source that is a query its columns, and the columns of the tables that they come from."""


def found_columns(run: Run) -> dict[str, Columns]:
    """The columns that the sources of a run were found to have, as far as its loads have told."""
    found: dict[str, Columns] = {}
    for stage in run.stages:
        for receipt in stage.receipts:
            if receipt.shape is not None:
                found |= receipt.shape.sources
    return found


def plan_of(recipe: Recipe) -> Plan:
    """The plan that a recipe was made of, as far as lineage looks at it.

    Raises:
        pydantic.ValidationError: a stage is of a format that this release does not know.
    """
    # What waits for a signal is given to no worker, and has no payload.
    payloads = [StagePayload.from_json(stage.payload) for stage in recipe.stages if stage.payload]
    tasks: dict[str, Task] = {task.key: task for payload in payloads for task in payload.tasks}
    for payload in payloads:
        tasks |= {key: _held(key, origin) for key, origin in payload.stage.held_rows.items()}
    return Plan(
        format=PLAN_FORMAT,
        engine=cast("EngineName", recipe.engine),
        engine_reason=recipe.engine_reason,
        tasks=tuple(tasks[spec.key] for spec in recipe.tasks if spec.key in tasks),
        stages=tuple(payload.stage for payload in payloads),
        connections=connections(recipe),
    )


def _held(key: str, origin: str) -> TransformTask:
    """A task that waits, as those see it that read the rows which it holds."""
    config = WaitForSignal(type="wait_for_signal", id=key, input=origin)
    return TransformTask(key=key, kind="transform", type=config.type, inputs=(origin,), config=config)


def connections(recipe: Recipe) -> tuple[str, ...]:
    """The words by which a recipe names connections."""
    return tuple(sorted({word for stage in recipe.stages for word in stage.connections}))


def trace(recipe: Recipe, found: Mapping[str, Iterable[str]]) -> TracedPlan:
    """Traces a recipe's columns; `found` are those that its sources were found to have. Takes a while: SQL is
    parsed and analysed.

    Raises:
        pydantic.ValidationError: as `plan_of`.
    """
    plan = plan_of(recipe)
    sinks: dict[str, dict[str, tuple[ColumnOrigin, ...]]] = {
        task.key: {} for task in plan.tasks if isinstance(task, SinkTask)
    }
    for column in column_lineage(plan, {key: tuple(names) for key, names in found.items()}).columns:
        if column.task in sinks:
            sinks[column.task][column.column] = column.origins
    queries = {
        task.key: query_lineage(task.config.query)
        for task in plan.tasks
        if isinstance(task, SourceTask) and task.config.query is not None
    }
    return TracedPlan(plan, _sql(plan), sinks, queries)


def _sql(plan: Plan) -> str | None:
    texts = [text.strip() for text in _texts(plan)]
    told = ";\n\n".join(texts)
    return told if told and len(told) <= MAX_SQL_CHARACTERS else None


def _texts(plan: Plan) -> Iterable[str]:
    for task in plan.tasks:
        match task:
            case SourceTask() if task.config.query is not None:
                yield task.config.query
            case TransformTask(config=SqlTransform(sql=str(text))):
                yield text
            case _:
                continue
