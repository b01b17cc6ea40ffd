"""Several things at a time, a few of them at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


async def at_once(limit: int, work: Callable[[T], Awaitable[None]], things: Iterable[T]) -> None:
    """Work on all things, on no more than `limit` at a time.

    Raises what the first one to fail raises, after the others have been stopped.
    """
    places = asyncio.Semaphore(limit)

    async def one(thing: T) -> None:
        async with places:
            await work(thing)

    try:
        async with asyncio.TaskGroup() as group:
            for thing in things:
                group.create_task(one(thing))
    except BaseExceptionGroup as failed:
        first = failed.exceptions[0]
        raise first from first.__cause__
