"""Cancels runs, and waits for what comes of it."""

import asyncio
from collections.abc import Sequence
from uuid import UUID

from headrace_execution.clock import Moments
from headrace_execution.domain.lifecycle import request_cancel
from headrace_execution.domain.run import Run
from headrace_execution.recording import Change, record
from headrace_execution.signals import Signals
from headrace_execution.store.port import Store, Tx

POLL_SECONDS = 0.2


class RunCanceller:
    """Writes the wish first; whoever has the run then acts on it."""

    def __init__(self, store: Store, signals: Signals, moments: Moments) -> None:
        self._store = store
        self._signals = signals
        self._moments = moments

    async def request(self, run_id: UUID, reason: str | None) -> Run | None:
        """The run as it is after the wish was written; None where it does not exist.

        Raises:
            RunFinished: when it has ended otherwise.
        """

        async def write(tx: Tx) -> tuple[Run | None, list[Change]]:
            run = (await tx.runs.lock([run_id])).get(run_id)
            if run is None:
                return None, []
            after = request_cancel(run, reason, self._moments.at(tx.now))
            return after, await record(tx, [(run, after)])

        run, changes = await self._store.run(write)
        self._signals.committed(changes)
        return run

    async def wait_for_end(self, tenant: UUID, run_id: UUID, seconds: float) -> Run | None:
        """The run as it is when it has ended, or when the time is over; None where it does not exist."""
        event = self._signals.waiters.wait_for(run_id)
        deadline = asyncio.get_running_loop().time() + seconds
        try:
            while True:
                event.clear()
                run = await self._store.get(tenant, run_id)
                left = deadline - asyncio.get_running_loop().time()
                if run is None or run.is_final or left <= 0:
                    return run
                await _wait(event, min(left, POLL_SECONDS))
        finally:
            self._signals.waiters.leave(run_id, event)

    async def cancel_all(self, runs: Sequence[UUID], reason: str | None) -> None:
        """Writes the wish for several runs; those that have ended are left as they are."""

        async def write(tx: Tx) -> list[Change]:
            moment = self._moments.at(tx.now)
            locked = await tx.runs.lock(runs)
            live = [run for run in locked.values() if not run.is_final]
            return await record(tx, [(run, request_cancel(run, reason, moment)) for run in live])

        self._signals.committed(await self._store.run(write))


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
