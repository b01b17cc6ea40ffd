"""Writes new runs: leases what finds a free slot, inserts them, and tells of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from headrace_execution.domain.changes import event
from headrace_execution.domain.moment import Moment
from headrace_execution.domain.notes import notes
from headrace_execution.domain.run import Run
from headrace_execution.domain.states import StageState
from headrace_execution.recording import Change, record
from headrace_execution.store.port import Tx
from headrace_execution.workers.handouts import Hand, Handout, is_limited, lease_stages, stage_handouts
from headrace_execution.workers.pool import Session


@dataclass(frozen=True, slots=True)
class Placed:
    """New runs as they were written."""

    runs: dict[UUID, Run]
    handouts: list[Handout]
    changes: list[Change]
    """Of older runs: those that waited for these slots, and those that were to change beside."""

    @property
    def any_ready(self) -> bool:
        """Whether a stage of a new run waits for a slot."""
        return any(stage.state is StageState.READY for run in self.runs.values() for stage in run.stages)


async def place(
    tx: Tx, runs: dict[UUID, Run], slots: Sequence[Session], moment: Moment, beside: Sequence[Change] = ()
) -> Placed:
    """Writes new runs, with changes of locked ones beside them.

    Where there are such changes no slot is filled: the store would still offer stages that they take away.
    """
    hand = await _lease(tx, runs, () if beside else slots, moment)
    runs = {run_id: hand.after[run_id] for run_id in runs}
    await tx.runs.insert(list(runs.values()))
    await tx.logs.note([note for run in runs.values() for note in notes(None, run, tx.now)])
    changes = await record(tx, [*beside, *hand.changes])
    await tx.tell([told for run in runs.values() if (told := event(None, run)) is not None])
    return Placed(runs, await stage_handouts(tx, hand), changes)


async def _lease(tx: Tx, runs: dict[UUID, Run], slots: Sequence[Session], moment: Moment) -> Hand:
    """Hands ready stages to free slots, the most urgent first; older ones that wait for them come before
    these.
    """
    urgent_first = sorted(runs.values(), key=lambda run: -run.priority)
    hand = Hand(after={run.id: run for run in urgent_first})
    ready = [
        (run.id, stage.id)
        for run in urgent_first
        for stage in run.stages
        if stage.state is StageState.READY and not is_limited(run, stage)
    ][: len(slots)]
    fences = await tx.runs.fences(len(ready), unless_ready=True)
    if ready and not fences:
        await lease_stages(tx, hand, slots, moment)
    for (run_id, stage_id), session, fence in zip(ready, slots, fences, strict=False):
        hand.give(run_id, stage_id, session, fence, moment)
    return hand
