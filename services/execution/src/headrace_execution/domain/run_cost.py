"""What a run costs, by stage and task."""

from dataclasses import dataclass
from datetime import datetime

from headrace_execution.domain.cost import Cost, Rates, Tariff, cost_of
from headrace_execution.domain.figures import Figures, stage_figures, sum_of
from headrace_execution.domain.recipe import TaskSpec
from headrace_execution.domain.rollups import day_of
from headrace_execution.domain.run import Run, Stage
from headrace_execution.domain.values import replace


@dataclass(frozen=True, slots=True)
class TaskCost:
    """What a task costs beside the time of its stage, which its tasks share."""

    spec: TaskSpec
    figures: Figures
    cost: Cost


@dataclass(frozen=True, slots=True)
class StageCost:
    """What a stage costs."""

    key: str
    attempts: int
    figures: Figures
    cost: Cost
    tasks: tuple[TaskCost, ...]


@dataclass(frozen=True, slots=True)
class RunCost:
    """What a run costs: the sum of its stages."""

    rates: Rates
    figures: Figures
    cost: Cost
    stages: tuple[StageCost, ...]


def run_cost(run: Run, tariff: Tariff, now: datetime) -> RunCost:
    """What a run costs, at the rates of the day on which it ended; what it has cost until now while it is
    live."""
    rates = tariff.on(day_of(run.finished_at or now))
    stages = tuple(_stage_cost(run, stage, rates, now) for stage in run.stages)
    figures = sum_of([stage.figures for stage in stages])
    return RunCost(rates, figures, cost_of(figures, rates), stages)


def _stage_cost(run: Run, stage: Stage, rates: Rates, now: datetime) -> StageCost:
    figures = stage_figures(run, stage, now)
    tasks: list[TaskCost] = []
    for task in stage.tasks:
        spec = run.recipe.tasks[task.position]
        landed = tuple(receipt for receipt in stage.receipts if receipt.sink == spec.key)
        # What the task has moved is what the stage would have moved with this task alone.
        moved = stage_figures(run, replace(stage, tasks=(task,), receipts=landed, slot_us=0))
        tasks.append(TaskCost(spec, moved, cost_of(moved, rates)))
    return StageCost(run.spec(stage).key, stage.attempt, figures, cost_of(figures, rates), tuple(tasks))
