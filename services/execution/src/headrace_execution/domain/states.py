"""The states of runs, stages and tasks, and the one table of legal steps for each.

The charts in the service's README show the same tables; the database refuses every other step as well.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class RunState(StrEnum):
    """The state of a run, as users see it."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class StageState(StrEnum):
    """The state of a stage: what a worker is given."""

    BLOCKED = "BLOCKED"
    """Other stages must complete first, or the run is held by a limit."""
    READY = "READY"
    """Waits for a free slot."""
    LEASED = "LEASED"
    """A worker has it, under a fence, for as long as it renews its lease."""
    WAITING = "WAITING"
    """Waits until its next attempt is due, or for a signal."""
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"
    CANCELLED = "CANCELLED"


class TaskState(StrEnum):
    """The state of a task, as users see it."""

    PENDING = "PENDING"
    WAITING = "WAITING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"
    CANCELLED = "CANCELLED"


class IllegalTransition(Exception):  # noqa: N818 - it names a fact, as the other domain errors do
    """A step that no table allows: a defect of this service, never of its input."""

    def __init__(self, what: str, before: str, after: str) -> None:
        super().__init__(f"a {what} cannot go from {before} to {after}")
        self.what = what
        self.before = before
        self.after = after


RUN_STEPS: Mapping[RunState, frozenset[RunState]] = MappingProxyType(
    {
        RunState.PENDING: frozenset({RunState.RUNNING, RunState.FAILED, RunState.CANCELLED}),
        RunState.RUNNING: frozenset({RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED}),
        RunState.COMPLETED: frozenset(),
        RunState.FAILED: frozenset(),
        RunState.CANCELLED: frozenset(),
    }
)

STAGE_STEPS: Mapping[StageState, frozenset[StageState]] = MappingProxyType(
    {
        StageState.BLOCKED: frozenset(
            {StageState.READY, StageState.WAITING, StageState.SKIPPED, StageState.CANCELLED}
        ),
        StageState.READY: frozenset(
            {StageState.LEASED, StageState.FAILED, StageState.SKIPPED, StageState.CANCELLED}
        ),
        StageState.LEASED: frozenset(
            {
                StageState.READY,
                StageState.WAITING,
                StageState.COMPLETED,
                StageState.FAILED,
                StageState.CANCELLED,
            }
        ),
        StageState.WAITING: frozenset(
            {
                StageState.READY,
                StageState.COMPLETED,
                StageState.FAILED,
                StageState.SKIPPED,
                StageState.CANCELLED,
            }
        ),
        StageState.COMPLETED: frozenset(),
        StageState.FAILED: frozenset(),
        StageState.SKIPPED: frozenset(),
        StageState.CANCELLED: frozenset(),
    }
)

RUN_LEAPS = frozenset({(RunState.PENDING, RunState.COMPLETED)})
"""Two steps that one transaction takes at once: a held run is let go that has nothing to do but to wait for
signals which have come before.
"""

STAGE_LEAPS = frozenset({(StageState.BLOCKED, StageState.LEASED), (StageState.BLOCKED, StageState.COMPLETED)})
"""Two steps that one transaction takes at once: what a stage waited for completes, and a free slot takes
it, or the signal that it would wait for has come before.
"""

_TASK_ENDS = frozenset({TaskState.COMPLETED, TaskState.FAILED, TaskState.SKIPPED, TaskState.CANCELLED})

TASK_STEPS: Mapping[TaskState, frozenset[TaskState]] = MappingProxyType(
    {
        TaskState.PENDING: frozenset({TaskState.RUNNING, TaskState.WAITING}) | _TASK_ENDS,
        TaskState.WAITING: frozenset({TaskState.PENDING}) | _TASK_ENDS,
        TaskState.RUNNING: frozenset({TaskState.PENDING, TaskState.WAITING}) | _TASK_ENDS,
        TaskState.COMPLETED: frozenset(),
        TaskState.FAILED: frozenset(),
        TaskState.SKIPPED: frozenset(),
        TaskState.CANCELLED: frozenset(),
    }
)

FINAL_RUN_STATES = frozenset(state for state, steps in RUN_STEPS.items() if not steps)
FINAL_STAGE_STATES = frozenset(state for state, steps in STAGE_STEPS.items() if not steps)
FINAL_TASK_STATES = frozenset(state for state, steps in TASK_STEPS.items() if not steps)


def check_run_step(before: RunState, after: RunState) -> None:
    """Raises IllegalTransition unless a run may go from one state to the other; staying is no step."""
    if before is not after and after not in RUN_STEPS[before]:
        raise IllegalTransition("run", before, after)


def check_stage_step(before: StageState, after: StageState) -> None:
    """Raises IllegalTransition unless a stage may go from one state to the other; staying is no step."""
    if before is not after and after not in STAGE_STEPS[before]:
        raise IllegalTransition("stage", before, after)


def check_task_step(before: TaskState, after: TaskState) -> None:
    """Raises IllegalTransition unless a task may go from one state to the other; staying is no step."""
    if before is not after and after not in TASK_STEPS[before]:
        raise IllegalTransition("task", before, after)
