"""Waiting for what will be true, without guessing how long it takes."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(probe: Callable[[], Awaitable[T]], *, within: float = 30.0) -> T:
    """Asks again and again until the answer is true, and returns it; raises AssertionError after `within`
    seconds."""
    deadline = time.monotonic() + within
    while True:
        answer = await probe()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"still {answer!r} after {within} s"  # noqa: S101 - for tests
        await asyncio.sleep(0.01)
