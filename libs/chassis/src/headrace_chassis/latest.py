"""The newest state of something that many follow."""

import asyncio
from typing import Generic, TypeVar

T = TypeVar("T")


class Latest(Generic[T]):
    """Holds one state and no queue, however slowly its followers read: who is slow misses what lies between.

    States have an order (a revision): one that is not newer than the one that is held is nothing new.
    """

    def __init__(self) -> None:
        self._order = -1
        self._state: T | None = None
        self._ended: Exception | None = None
        self._turned = asyncio.Event()

    @property
    def order(self) -> int:
        """The order of the state that is held; -1 before there is one."""
        return self._order

    def show(self, order: int, state: T) -> None:
        """Shows a state to all followers, unless one as new is held."""
        if order > self._order:
            self._order, self._state = order, state
            self._turn()

    def end(self, error: Exception) -> None:
        """Says that there will be no newer state, and why. The first reason counts."""
        if self._ended is None:
            self._ended = error
            self._turn()

    async def after(self, order: int) -> tuple[int, T]:
        """Waits for a state that is newer than this order, and returns it with its own.

        Raises what was said at the end, once the follower has seen the last state.
        """
        while self._order <= order:
            if self._ended is not None:
                raise self._ended
            await self._turned.wait()
        assert self._state is not None  # noqa: S101 - there is one as soon as there is an order
        return self._order, self._state

    def _turn(self) -> None:
        turned, self._turned = self._turned, asyncio.Event()
        turned.set()
