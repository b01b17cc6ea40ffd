"""Does what is due: retries, timeouts, the ends of graces, and held runs for which there is room."""

from headrace_chassis.agents import Agent

from headrace_execution.clock import Moments
from headrace_execution.domain.timers import run_due
from headrace_execution.recording import Change, record, release_held
from headrace_execution.signals import Signals
from headrace_execution.store.port import Store, Tx

BATCH = 200


class DueTimer(Agent):
    """Finds runs of which something is due, by the database's clock, and applies what is."""

    name = "due_timer"
    interval_seconds = 0.5

    def __init__(self, store: Store, signals: Signals, moments: Moments) -> None:
        self._store = store
        self._signals = signals
        self._moments = moments

    async def run_once(self) -> bool:
        """Handles one batch; more is waiting when it was full and something came of it."""
        found, changes = await self._store.run(self._apply)
        self._signals.committed(changes)
        return found >= BATCH and bool(changes)

    async def _apply(self, tx: Tx) -> tuple[int, list[Change]]:
        ids = await tx.runs.due(BATCH)
        runs = await tx.runs.lock_idle(ids)
        moment = self._moments.at(tx.now)
        return len(ids), await record(tx, [(run, run_due(run, moment)) for run in runs.values()])


class HeldReleaser(Agent):
    """Lets held runs go where their pipelines have room.

    The run that makes room does so itself, in the transaction of its end. This heals what that cannot see:
    a held run that was locked just then, limits that differ between the versions of a pipeline, and runs of a
    trigger that were started under different overlap rules.
    """

    name = "held_releaser"
    interval_seconds = 2.0

    def __init__(self, store: Store, signals: Signals) -> None:
        self._store = store
        self._signals = signals

    async def run_once(self) -> bool:
        """Looks at one batch of pipelines."""
        self._signals.committed(await self._store.run(self._release))
        return False

    @staticmethod
    async def _release(tx: Tx) -> list[Change]:
        pipelines = await tx.pipelines.pipelines_with_held(BATCH)
        return await release_held(tx, set(pipelines)) if pipelines else []
