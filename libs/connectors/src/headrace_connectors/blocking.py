"""Blocking calls (DuckDB, SQLite, files) in threads, so that a cancelled task really stops its call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

_POOL = ThreadPoolExecutor(max_workers=64, thread_name_prefix="headrace-connector")
"""Threads start when used.  A copy needs two or three at a time (engine, pipe, files), so 64 never block each
other."""

_NUDGE_SECONDS = 0.05


async def in_thread(call: Callable[[], T], stop: Callable[[], object] | None = None) -> T:
    """Run ``call`` in a thread and wait for it.

    When the waiting task is cancelled, ``stop`` is called until ``call`` has ended (an interrupt that comes
    before the statement has begun is lost, hence again and again); only then is the cancellation passed on.
    Without ``stop`` the call is waited for.
    """
    future = asyncio.get_running_loop().run_in_executor(_POOL, call)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        while not future.done():
            if stop is not None:
                stop()
            try:
                await asyncio.wait({future}, timeout=_NUDGE_SECONDS)
            except asyncio.CancelledError:
                continue
        if not future.cancelled():
            future.exception()  # seen: the cancellation is what the caller learns
        raise


async def finish(call: Callable[[], T]) -> T:
    """Run a short clean-up ``call`` in a thread to its end, whatever is cancelled meanwhile."""
    return await in_thread(call)
