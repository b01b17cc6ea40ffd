"""Writing what came of rules: the runs, their events, the cursors that moved, and the held runs that may
go now.

All in one transaction, so that none of it can be without the rest.
"""

from collections.abc import Sequence
from uuid import UUID

from headrace_execution.domain.changes import cursor_moves, event, output_landings
from headrace_execution.domain.holding import may_go
from headrace_execution.domain.lifecycle import let_go
from headrace_execution.domain.notes import notes
from headrace_execution.domain.run import Run
from headrace_execution.store.port import Tx

Change = tuple[Run, Run]
"""A run as it was locked, and as it is now."""

HELD_BATCH = 50
"""How many held runs of a pipeline are looked at when one of its runs ends."""


async def record(tx: Tx, changes: Sequence[Change]) -> list[Change]:
    """Writes changes of locked runs. Returns those that were any, with those of held runs that were let
    go.
    """
    changed = [(before, after) for before, after in changes if before is not after and before != after]
    await tx.runs.save(changed)
    await tx.pipelines.move_cursors([move for pair in changed for move in cursor_moves(*pair)])
    await tx.logs.landed([output for pair in changed for output in output_landings(*pair)])
    freed = {
        after.pipeline
        for before, after in changed
        if after.is_final and not before.is_final and not before.held and is_limited(after)
    }
    if freed:
        changed += await _let_held_go(tx, freed)
    await _tell(tx, changed)
    return changed


async def release_held(tx: Tx, pipelines: set[UUID]) -> list[Change]:
    """Lets held runs of pipelines go, as many as their limits allow now, and writes them."""
    released = await _let_held_go(tx, pipelines)
    await _tell(tx, released)
    return released


async def _tell(tx: Tx, changed: Sequence[Change]) -> None:
    await tx.logs.note([note for before, after in changed for note in notes(before, after, tx.now)])
    await tx.tell([told for pair in changed if (told := event(*pair)) is not None])


async def _let_held_go(tx: Tx, pipelines: set[UUID]) -> list[Change]:
    counts = await tx.pipelines.live_counts(pipelines)
    released: list[Change] = []
    for pipeline, live in counts.items():
        ids = await tx.pipelines.held(pipeline, HELD_BATCH)
        runs = await tx.runs.lock(ids)
        for run in (runs[run_id] for run_id in ids if run_id in runs):
            if not may_go(run.recipe.policy, live):
                break
            released.append((run, let_go(run, tx.now)))
            live += 1
    await tx.runs.save(released)
    return released


def is_limited(run: Run) -> bool:
    """Whether others may wait for the end of the run: by a limit of its pipeline, or by its overlap rule."""
    return run.recipe.policy.max_concurrent_runs is not None or run.trigger.overlap is not None
