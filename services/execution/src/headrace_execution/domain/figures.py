"""What a run moved, and how long it has held slots: what its metrics show and what its cost is made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from headrace_execution.domain.run import Purpose, Receipt, Run, Stage
from headrace_execution.domain.states import StageState

_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Figures:
    """What a run, or a part of one, moved and took. What a run took over from the one that it tries again is
    not its own, and is not counted."""

    rows_read: int = 0
    """Rows that sources read."""
    rows_written: int = 0
    """Rows that sinks landed."""
    bytes_read: int = 0
    bytes_written: int = 0
    slot_us: int = 0
    """How long its attempts have held slots of workers, in microseconds."""

    def __add__(self, other: "Figures") -> "Figures":
        return sum_of((self, other))


def sum_of(parts: Sequence[Figures]) -> Figures:
    """What several parts, or several runs, moved and took."""
    return Figures(
        rows_read=sum(part.rows_read for part in parts),
        rows_written=sum(part.rows_written for part in parts),
        bytes_read=sum(part.bytes_read for part in parts),
        bytes_written=sum(part.bytes_written for part in parts),
        slot_us=sum(part.slot_us for part in parts),
    )


def attempt_us(stage: Stage, now: datetime) -> int:
    """How long the latest attempt of a stage has held its slot, in microseconds: from the first start that
    its worker has told to the last end, or to now where something has not ended.

    Not from its lease on: a stage may wait in its worker for a slot.
    """
    started = [task.started_at for task in stage.tasks if task.started_at is not None]
    if not started:
        return 0
    ended = [task.finished_at for task in stage.tasks if task.finished_at is not None]
    last = max(ended) if len(ended) == len(stage.tasks) else now
    return max((last - min(started)) // _MICROSECOND, 0)


def stage_figures(run: Run, stage: Stage, now: datetime | None = None) -> Figures:
    """What a stage moved and took; with `now` also what its attempt under way has taken until then."""
    if stage.was_taken_over:
        return Figures()
    specs = run.recipe.tasks
    proven = {receipt.sink for receipt in stage.receipts}
    rows_read = bytes_read = 0
    own = stage.receipts if run.retry_of is None else [each for each in stage.receipts if _is_own(run, each)]
    rows_written = sum(receipt.rows for receipt in own)
    bytes_written = sum(receipt.bytes for receipt in own)
    for task in stage.tasks:
        spec = specs[task.position]
        if spec.kind == "source":
            rows_read += task.rows_out
            bytes_read += task.bytes
        elif spec.kind == "sink" and spec.key not in proven:
            rows_written += task.rows_out
            bytes_written += task.bytes
    slot_us = stage.slot_us
    if now is not None and stage.state is StageState.LEASED and stage.purpose is Purpose.RUN:
        slot_us += attempt_us(stage, now)
    return Figures(rows_read, rows_written, bytes_read, bytes_written, slot_us)


def _is_own(run: Run, receipt: Receipt) -> bool:
    """Whether a load has landed in this run and not in one that it tries again: that one had landed before
    this one was accepted."""
    return receipt.landed_at is None or receipt.landed_at >= run.created_at


def run_figures(run: Run, now: datetime | None = None) -> Figures:
    """What a run moved and took; with `now` also what attempts under way have taken until then."""
    if len(run.stages) == 1:
        return stage_figures(run, run.stages[0], now)
    return sum_of([stage_figures(run, stage, now) for stage in run.stages])
