"""Micro-batches without timers: while one batch is being handled, the next one gathers."""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from headrace_chassis.errors import HeadraceError

I = TypeVar("I")  # noqa: E741 - an item
O = TypeVar("O")  # noqa: E741 - its outcome


class Batcher(Generic[I, O]):
    """Hands items to `handle` in batches: one alone at once when idle, many together under load.

    After each batch it pauses for `pause` seconds, so that what comes in quick succession goes together, and
    for `crowded_pause` after one in which several were together: more will come, and a batch costs much more
    than its items.
    `handle` returns an outcome or an exception for each item. Where it raises something that is not an
    error for callers, one item may be at fault: each is then handled alone, so that it fails alone.
    """

    def __init__(
        self,
        handle: Callable[[Sequence[I]], Awaitable[Sequence[O | Exception]]],
        *,
        largest: int,
        pause: float = 0.0,
        crowded_pause: float | None = None,
    ) -> None:
        self._handle = handle
        self._largest = largest
        self._pause = pause
        self._crowded_pause = pause if crowded_pause is None else crowded_pause
        self._waiting: list[tuple[I, asyncio.Future[O]]] = []
        self._lane: asyncio.Task[None] | None = None

    async def submit(self, item: I) -> O:
        """The outcome of an item; raises what came of it otherwise."""
        future: asyncio.Future[O] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._lane is None:
            # A context of its own: a batch belongs to no single caller's request, trace or principal.
            self._lane = asyncio.create_task(self._run(), context=contextvars.Context())
        return await future

    async def drain(self) -> None:
        """Waits until nothing is waiting any more."""
        while self._lane is not None:
            await asyncio.wait([self._lane])

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[: self._largest], self._waiting[self._largest :]
                await self._settle([pair for pair in batch if not pair[1].done()])
                pause = self._pause if len(batch) == 1 else self._crowded_pause
                if pause and len(self._waiting) < self._largest:
                    await asyncio.sleep(pause)
        finally:
            self._lane = None

    async def _settle(self, batch: Sequence[tuple[I, asyncio.Future[O]]]) -> None:
        if not batch:
            return
        try:
            outcomes = await self._handle([item for item, _ in batch])
        except HeadraceError as error:
            outcomes = [error] * len(batch)
        except Exception as error:  # noqa: BLE001 - it becomes the outcome of the item at fault
            if len(batch) > 1:
                for pair in batch:
                    await self._settle([pair])
                return
            outcomes = [error]
        for (_, future), outcome in zip(batch, outcomes, strict=True):
            if future.done():
                continue  # its caller has gone
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
