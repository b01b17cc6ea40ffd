"""What is done to a run as a whole: accepting it, letting it go, stopping it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from uuid import UUID

from headrace_execution.domain.moment import Moment
from headrace_execution.domain.recipe import Priority, Recipe
from headrace_execution.domain.run import (
    Failure,
    Purpose,
    Receipt,
    ReceivedSignal,
    Run,
    Stage,
    StopReason,
    Task,
)
from headrace_execution.domain.states import RunState, StageState
from headrace_execution.domain.steps import advance, conclude, end_stage
from headrace_execution.domain.triggers import MANUAL, Trigger
from headrace_execution.domain.values import replace


class RunFinished(Exception):  # noqa: N818 - it names a fact
    """The run has reached another final state and cannot be cancelled any more."""

    def __init__(self, run_id: UUID, state: RunState) -> None:
        super().__init__(f"run {run_id} has already ended: it is {state}")
        self.run_id = run_id
        self.state = state


@dataclass(frozen=True, slots=True)
class Order:
    """What somebody asked to be run, checked and compiled."""

    run_id: UUID
    stage_ids: tuple[UUID, ...]
    """One for each stage of the recipe."""
    tenant: UUID
    workspace: UUID
    pipeline: UUID
    pipeline_version: int | None
    recipe: Recipe
    parameters: bytes
    triggered_by: str
    trigger_label: str | None = None
    priority: Priority = Priority.NORMAL
    full_refresh: bool = False
    traceparent: str = ""
    trigger: Trigger = MANUAL
    variables: bytes | None = None
    logical_date: datetime | None = None
    """The instant that the run is for; None means its acceptance."""
    interval_start: datetime | None = None
    interval_end: datetime | None = None
    root: UUID | None = None
    """The first run of a chain of retries; None where it is this one."""
    retry_of: UUID | None = None
    taken_over: tuple[Stage, ...] = ()
    """Stages that have completed in the run that this one tries again."""
    outputs: Mapping[int, tuple[Receipt, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """The outputs that stages which run again have landed there, by the stages' positions."""
    signals: Mapping[int, ReceivedSignal] = field(default_factory=lambda: MappingProxyType({}))
    """The signals that have come there for stages which have not completed, by the stages' positions."""


def accept(order: Order, now: datetime, *, held: bool = False) -> Run:
    """A new run: held by a limit, or with the stages that depend on no other ready to start."""
    recipe = order.recipe
    if not recipe.stages or len(order.stage_ids) != len(recipe.stages):
        raise ValueError("a run has at least one stage, and an id for each")
    done = {stage.position: stage for stage in order.taken_over}
    stages = tuple(
        replace(done[position], id=stage_id)
        if position in done
        else Stage(
            id=stage_id,
            position=position,
            tasks=tuple(Task(index) for index in spec.tasks),
            receipts=order.outputs.get(position, ()),
            signal=order.signals.get(position),
        )
        for position, (stage_id, spec) in enumerate(zip(order.stage_ids, recipe.stages, strict=True))
    )
    run = Run(
        id=order.run_id,
        tenant=order.tenant,
        workspace=order.workspace,
        pipeline=order.pipeline,
        pipeline_version=order.pipeline_version,
        recipe=recipe,
        stages=stages,
        created_at=now,
        logical_date=order.logical_date or now,
        parameters=order.parameters,
        triggered_by=order.triggered_by,
        trigger_label=order.trigger_label,
        priority=order.priority,
        full_refresh=order.full_refresh,
        root=order.root,
        retry_of=order.retry_of,
        interval_start=order.interval_start,
        interval_end=order.interval_end,
        traceparent=order.traceparent,
        trigger=order.trigger,
        variables=order.variables,
        held=held,
    )
    return advance(run, now)


def let_go(run: Run, now: datetime) -> Run:
    """A held run for which there is room now."""
    return advance(replace(run, held=False), now) if run.held else run


def request_cancel(run: Run, reason: str | None, moment: Moment) -> Run:
    """Stops a run because a user wants it; asked again it changes nothing.

    Raises:
        RunFinished: when it has ended otherwise.
    """
    if run.state is RunState.CANCELLED or (run.cancel_requested_at is not None and not run.is_final):
        return run
    if run.is_final:
        raise RunFinished(run.id, run.state)
    return _stop(replace(run, cancel_requested_at=moment.now, cancel_reason=reason), moment)


def fail(run: Run, failure: Failure, moment: Moment) -> Run:
    """Stops a run because it failed as a whole; one that is stopping already goes on with that."""
    if run.is_final or run.is_stopping:
        return run
    return _stop(replace(run, error=failure), moment)


def _stop(run: Run, moment: Moment) -> Run:
    stages: Sequence[Stage] = tuple(_stop_stage(run, stage, moment) for stage in run.stages)
    return advance(replace(run, stages=tuple(stages), held=False), moment.now)


def _stop_stage(run: Run, stage: Stage, moment: Moment) -> Stage:
    match stage.state:
        case StageState.BLOCKED:
            return end_stage(run, stage, StageState.CANCELLED, moment.now)
        case StageState.READY | StageState.WAITING if stage.purpose is Purpose.RUN:
            return conclude(run, stage, StageState.CANCELLED, moment)
        case StageState.LEASED if stage.purpose is Purpose.RUN:
            # The worker decides: it has stopped, or its load had landed before. Its silence has a limit.
            return replace(stage, stop=StopReason.CANCELLED, timer=moment.now + moment.patience.stop_limit)
        case _:
            return stage
