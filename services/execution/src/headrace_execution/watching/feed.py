"""One run that is watched in this process, and those who watch it."""

import asyncio

from headrace_chassis.errors import HeadraceError

from headrace_execution.domain.run import Run


class RunFeed:
    """The newest known state of a run. It holds one state and no queue, however slowly its watchers read."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.watchers = 0
        self._ended: HeadraceError | None = None
        self._turned = asyncio.Event()

    def offer(self, run: Run) -> None:
        """Shows a state to all watchers, unless a newer one is known."""
        if run.revision > self.run.revision:
            self.run = run
            self._turn()

    def end(self, error: HeadraceError) -> None:
        """Ends all watches with an error."""
        self._ended = error
        self._turn()

    async def after(self, revision: int) -> Run:
        """Waits for a state of a higher revision. Raises what the feed was ended with."""
        while self.run.revision <= revision:
            if self._ended is not None:
                raise self._ended
            await self._turned.wait()
        return self.run

    def _turn(self) -> None:
        turned, self._turned = self._turned, asyncio.Event()
        turned.set()
