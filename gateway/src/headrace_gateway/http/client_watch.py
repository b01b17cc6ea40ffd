"""Notices that a client has gone while its call still runs."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from .exchange import Request

_WATCH_AFTER_SECONDS: Final = 0.25
"""From when on a call is cancelled if its client goes away. Shorter calls are not worth the watching."""


class ClientWatch:
    """Cancels a call once its client has gone. Costs a timer, and a task only where the call takes long."""

    __slots__ = ("_call", "_request", "_task", "_timer", "client_gone")

    def __init__(self, request: Request, call: Any) -> None:
        self.client_gone = False
        self._request = request
        self._call = call
        self._task: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(_WATCH_AFTER_SECONDS, self._start)

    def _start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._request.receive())["type"] != "http.disconnect":
            pass  # what is left of a body that nobody asked for
        self.client_gone = True
        self._call.cancel()

    def stop(self) -> None:
        """Watches no longer."""
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
