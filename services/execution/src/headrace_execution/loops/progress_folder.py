"""Folds progress reports. They may be lost: each tells all, and the next one comes soon."""

from dataclasses import dataclass
from uuid import UUID

from headrace_chassis.agents import Agent

from headrace_execution.domain.assignments import report_progress
from headrace_execution.domain.run import Run, TaskReport
from headrace_execution.recording import Change, record
from headrace_execution.signals import Signals
from headrace_execution.store.port import Store, Tx

BATCH = 200
CAPACITY = 5000


@dataclass(frozen=True, slots=True)
class ProgressSeen:
    """How far an assignment is, as it came up a stream."""

    worker: UUID
    assignment: UUID
    fence: int
    tasks: tuple[TaskReport, ...]


class ProgressFolder(Agent):
    """Keeps the latest report of each assignment and writes them in batches, a few times a second."""

    name = "progress_folder"

    def __init__(self, store: Store, signals: Signals) -> None:
        self._store = store
        self._signals = signals
        self._latest: dict[UUID, ProgressSeen] = {}

    def submit(self, seen: ProgressSeen) -> None:
        """Takes a report in; beyond its capacity it is dropped."""
        if seen.assignment in self._latest or len(self._latest) < CAPACITY:
            self._latest[seen.assignment] = seen
            self.wake()

    async def run_once(self) -> bool:
        """Writes one batch. Runs that are being changed at this moment are passed over."""
        keys = list(self._latest)[:BATCH]
        batch = [self._latest.pop(key) for key in keys]
        if batch:
            self._signals.changed(await self._store.run(lambda tx: self._apply(tx, batch)))
        return bool(self._latest)

    @staticmethod
    async def _apply(tx: Tx, batch: list[ProgressSeen]) -> list[Change]:
        before = await tx.runs.lock_idle_of({seen.assignment for seen in batch})
        owner = {stage.id: run.id for run in before.values() for stage in run.stages}
        after: dict[UUID, Run] = dict(before)
        for seen in batch:
            run_id = owner.get(seen.assignment)
            if run_id is not None:
                after[run_id] = report_progress(
                    after[run_id], seen.assignment, seen.worker, seen.fence, seen.tasks
                )
        return await record(tx, [(before[run_id], after[run_id]) for run_id in before])
