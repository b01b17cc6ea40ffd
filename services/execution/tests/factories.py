"""Makes recipes, orders and runs; whatever a test does not care about has a plain value."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any
from uuid import UUID

from headrace_chassis.ids import uuid7
from headrace_execution.domain.assignments import assign
from headrace_execution.domain.connection_limits import Limits
from headrace_execution.domain.lifecycle import Order, accept
from headrace_execution.domain.moment import Moment, Patience
from headrace_execution.domain.recipe import (
    OnTimeout,
    Policy,
    Priority,
    Recipe,
    StageSpec,
    TaskSpec,
    WaitSpec,
)
from headrace_execution.domain.run import ErrorClass, Failure, Outcome, Receipt, Run, StageResult

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TENANT = UUID("01900000-0000-7000-8000-000000000001")
WORKER = UUID("01900000-0000-7000-8000-0000000000ff")
OTHER_WORKER = UUID("01900000-0000-7000-8000-0000000000fe")


def at(seconds: float = 0.0, chance: float = 0.0) -> Moment:
    """A moment some seconds after NOW."""
    return Moment(NOW + timedelta(seconds=seconds), lambda: chance, Patience())


def policy(**changes: Any) -> Policy:
    """A policy without retries or limits."""
    values: dict[str, Any] = {
        "max_retries": 0,
        "retry_delay": timedelta(seconds=10),
        "attempt_timeout": timedelta(seconds=100),
        "max_lost": 3,
        "max_concurrent_runs": None,
        "queue_when_full": True,
    }
    return Policy(**{**values, **changes})


def recipe(
    *stages: tuple[int, ...],
    loads: bool = True,
    tasks_each: int = 2,
    incremental: bool = False,
    limits: Limits = (),
    waits: Mapping[int, WaitSpec] = MappingProxyType({}),
    **rules: Any,
) -> Recipe:
    """A recipe with a stage for each argument, which says on which earlier stages it depends: `(), (0,)`.

    Each stage has some tasks, of which the last one is a sink; those in `waits`, by position, wait for
    signals.
    """
    specs: list[TaskSpec] = []
    made: list[StageSpec] = []
    for index, depends_on in enumerate(stages or ((),)):
        if index in waits:
            specs.append(TaskSpec(f"wait{index}", "transform", "wait_for_signal"))
            position = (len(specs) - 1,)
            made.append(StageSpec(f"s{index + 1}", position, depends_on, (), (), b"", wait=waits[index]))
            continue
        keys = [f"t{index}_{n}" for n in range(tasks_each - 1)] + [f"load{index}"]
        positions = tuple(range(len(specs), len(specs) + len(keys)))
        specs += [TaskSpec(key, "source", "values") for key in keys[:-1]]
        specs.append(TaskSpec(keys[-1], "sink", "database", "EXACTLY_ONCE"))
        made.append(
            StageSpec(
                key=f"s{index + 1}",
                tasks=positions,
                depends_on=depends_on,
                loads=(keys[-1],) if loads else (),
                connections=("warehouse",),
                payload=b"{}",
                cursors=((keys[-1], keys[0]),) if incremental else (),
                limits=limits,
            )
        )
    rule = policy(**rules)
    digest = hashlib.sha256(repr((specs, made, rule)).encode()).digest()
    return Recipe(digest, "JDBC", "because", tuple(specs), tuple(made), rule)


def wait(signal: str = "approval", on_timeout: OnTimeout = OnTimeout.FAIL, seconds: float = 60) -> WaitSpec:
    """What a stage waits for."""
    return WaitSpec(signal, timedelta(seconds=seconds), on_timeout)


def order(made: Recipe | None = None, **changes: Any) -> Order:
    """An order of a run."""
    made = made or recipe()
    values: dict[str, Any] = {
        "run_id": uuid7(),
        "stage_ids": tuple(uuid7() for _ in made.stages),
        "tenant": TENANT,
        "workspace": uuid7(),
        "pipeline": uuid7(),
        "pipeline_version": 1,
        "recipe": made,
        "parameters": b"{}",
        "triggered_by": "ada",
        "priority": Priority.NORMAL,
    }
    return Order(**{**values, **changes})


def accepted(made: Recipe | None = None, **changes: Any) -> Run:
    """A new run."""
    return accept(order(made, **changes), NOW)


def leased(made: Recipe | None = None, *, worker: UUID = WORKER, fence: int = 1, **changes: Any) -> Run:
    """A run whose first stage a worker has."""
    run = accepted(made, **changes)
    return assign(run, run.stages[0].id, worker, fence, at())


def failed(kind: ErrorClass = ErrorClass.TRANSIENT, code: str = "BROKEN", task: str = "") -> StageResult:
    """A failure."""
    return StageResult(Outcome.FAILED, error=Failure(code, kind, "it broke"), failed_task=task)


def receipt(run: Run, stage: int = 0, fence: int = 1, **changes: Any) -> Receipt:
    """Proof that the load of a stage has landed."""
    sink = run.recipe.stages[stage].loads[0]
    values: dict[str, Any] = {
        "partition": "",
        "fence": fence,
        "rows": 10,
        "bytes": 100,
        "checksum": "c",
        "landed_at": NOW,
    }
    return Receipt(sink=sink, **{**values, **changes})


def completed(run: Run, stage: int = 0, fence: int = 1) -> StageResult:
    """A success with its receipt."""
    receipts = (receipt(run, stage, fence),) if run.recipe.stages[stage].loads else ()
    return StageResult(Outcome.COMPLETED, receipts=receipts)
