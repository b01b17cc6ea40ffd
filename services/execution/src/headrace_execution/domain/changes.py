"""What follows from a change of a run: the events that tell it, and the cursors that move.

Derived by comparing, so that no rule can forget them.
"""

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from headrace_execution.domain.run import CursorValue, Run
from headrace_execution.domain.states import RunState


class EventKind(StrEnum):
    """What is told of a run: the last word but one of its event's type."""

    ACCEPTED = "accepted"
    STARTED = "started"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


_TOLD = {
    RunState.PENDING: EventKind.ACCEPTED,
    RunState.RUNNING: EventKind.STARTED,
    RunState.COMPLETED: EventKind.COMPLETED,
    RunState.FAILED: EventKind.FAILED,
    RunState.CANCELLED: EventKind.CANCELLED,
}


@dataclass(frozen=True, slots=True)
class RunChanged:
    """A run has reached a state, its first one included."""

    kind: EventKind
    run: Run


@dataclass(frozen=True, slots=True)
class CursorMove:
    """A cursor that a receipt carries. It only moves forward: a receipt under a lower fence is old."""

    pipeline: UUID
    tenant: UUID
    cursor: CursorValue
    fence: int


@dataclass(frozen=True, slots=True)
class OutputLanding:
    """An output of a run has landed."""

    tenant: UUID
    pipeline: UUID
    run: UUID
    sink: str


def output_landings(before: Run | None, after: Run) -> tuple[OutputLanding, ...]:
    """The outputs that are new."""
    known = {receipt.sink for receipt in before.outputs} if before is not None else set()
    return tuple(
        OutputLanding(after.tenant, after.pipeline, after.id, receipt.sink)
        for receipt in after.outputs
        if receipt.sink not in known
    )


def event(before: Run | None, after: Run) -> RunChanged | None:
    """The event of a change of state. A run that starts as it is accepted is told as started."""
    if before is not None and before.state is after.state:
        return None
    return RunChanged(_TOLD[after.state], after)


def cursor_moves(before: Run | None, after: Run) -> tuple[CursorMove, ...]:
    """The cursors of receipts that are new."""
    moves: list[CursorMove] = []
    for stage in after.stages:
        if not stage.receipts:
            continue
        known = before.stages[stage.position].receipts if before is not None else ()
        moves.extend(
            CursorMove(after.pipeline, after.tenant, cursor, receipt.fence)
            for receipt in stage.receipts
            if receipt not in known
            for cursor in receipt.cursors
        )
    return tuple(moves)


def failure_summary(run: Run) -> str | None:
    """Why a run failed, in one sentence: what its list shows."""
    if run.state is not RunState.FAILED:
        return None
    if run.error is not None:
        return f"{run.error.code}: {run.error.message}"
    for stage in run.stages:
        for task in stage.tasks:
            if task.error is not None and task.state == "FAILED":
                return f"{run.recipe.tasks[task.position].key}: {task.error.message}"
    return None
