"""Asks workers about connections, and waits for the answer."""

import asyncio
from datetime import timedelta

from headrace_chassis.errors import DeadlineExceeded

from headrace_execution.errors import NoWorker
from headrace_execution.signals import Signals
from headrace_execution.store.port import Probe, Store, Tx

POLL_SECONDS = 0.2


class Prober:
    """Writes a question, which any replica may hand to a worker, and reads the answer wherever it was
    folded.
    """

    def __init__(self, store: Store, signals: Signals) -> None:
        self._store = store
        self._signals = signals

    async def ask(self, probe: Probe, seconds: float) -> bytes:
        """The worker's answer.

        Raises:
            NoWorker: when no worker took the question in time.
            DeadlineExceeded: when one did, and has not answered.
        """
        event = self._signals.waiters.wait_for(probe.id)

        async def insert(tx: Tx) -> None:
            await tx.probes.insert(probe, timedelta(seconds=seconds))

        try:
            await self._store.run(insert)
            self._signals.ready()
            return await self._answer(probe, event, seconds)
        finally:
            self._signals.waiters.leave(probe.id, event)

    async def _answer(self, probe: Probe, event: asyncio.Event, seconds: float) -> bytes:
        async def read(tx: Tx) -> bytes | None:
            answer = (await tx.probes.answers([probe.id])).get(probe.id)
            if answer is not None:
                await tx.probes.remove(probe.id)
            return answer

        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            event.clear()
            answer = await self._store.run(read)
            if answer is not None:
                return answer
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                break
            try:
                async with asyncio.timeout(min(left, POLL_SECONDS)):
                    await event.wait()
            except TimeoutError:
                continue

        async def give_up(tx: Tx) -> bool:
            return await tx.probes.remove(probe.id)

        if await self._store.run(give_up):
            raise DeadlineExceeded("the worker's answer")
        raise NoWorker
