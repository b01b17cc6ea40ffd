"""Long-running parts: each is an agent whose `run_once` is its unit of work, and a runner that repeats it."""

import abc
import asyncio
import functools
import random
import time
from collections.abc import Callable, Sequence
from typing import Final

import structlog
from prometheus_client import Counter, Histogram

from headrace_chassis.errors import HeadraceError

_log = structlog.get_logger(__name__)

FAILURES: Final = Counter("hr_agent_failures_total", "Rounds of an agent that failed.", ["agent"])
ROUNDS: Final = Histogram("hr_agent_round_seconds", "How long a round of an agent took.", ["agent"])

FIRST_BACKOFF_SECONDS = 0.1
LONGEST_BACKOFF_SECONDS = 10.0


class Agent(abc.ABC):
    """A part that works on its own: a relay, a reaper, a timer.

    It keeps nothing between rounds that it could not do without: it may be killed at any point and started
    again, and another replica may run the same agent at the same time.
    """

    name: str
    """An agent noun in snake case, for logs and metrics."""

    interval_seconds: float = 1.0
    """How long it rests when there was nothing more to do and nobody woke it."""

    gather_seconds: float = 0.0
    """How long it lets more come after it was woken, so that what comes together is done together."""

    pause_seconds: float = 0.0
    """How long it does nothing after a round that did all there was, so that what comes in quick succession
    is done together. Unlike gathering, it does not hold up what comes after a quiet time."""

    @abc.abstractmethod
    async def run_once(self) -> bool:
        """Does a bounded piece of work; returns whether more is waiting."""

    @functools.cached_property
    def _woken(self) -> asyncio.Event:
        return asyncio.Event()

    def wake(self) -> None:
        """Ends the agent's rest; called from the event loop, and as often as one likes."""
        self._woken.set()

    async def rest(self) -> None:
        """Returns after the interval, or some time to gather after somebody has woken the agent."""
        try:
            async with asyncio.timeout(self.interval_seconds):
                await self._woken.wait()
        except TimeoutError:
            return
        if self.gather_seconds:
            await asyncio.sleep(self.gather_seconds)

    def begin_round(self) -> None:
        """Forgets earlier wakings: whatever they told of, this round sees."""
        self._woken.clear()


class AgentRunner:
    """Runs agents until it is stopped. A round that fails is logged, counted, and tried again after a growing
    wait."""

    def __init__(
        self, agents: Sequence[Agent], *, jitter: Callable[[float, float], float] = random.uniform
    ) -> None:
        self._agents = tuple(agents)
        self._jitter = jitter
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Starts all agents. Starting again does nothing."""
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._run(agent), name=agent.name) for agent in self._agents]

    async def stop(self) -> None:
        """Stops all agents, in the middle of a round if need be, and returns when they have. Again does
        nothing."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, agent: Agent) -> None:
        failures = 0
        while True:
            agent.begin_round()
            begun = time.perf_counter()
            try:
                more = await agent.run_once()
            except Exception as error:  # noqa: BLE001 - an agent outlives whatever happens in a round
                failures += 1
                FAILURES.labels(agent.name).inc()
                self._tell(agent, error, failures)
                ceiling = min(FIRST_BACKOFF_SECONDS * 2**failures, LONGEST_BACKOFF_SECONDS)
                await asyncio.sleep(self._jitter(ceiling / 2, ceiling))
                continue
            failures = 0
            ROUNDS.labels(agent.name).observe(time.perf_counter() - begun)
            if more:
                await asyncio.sleep(0)  # others get their turn
                continue
            if agent.pause_seconds:
                await asyncio.sleep(agent.pause_seconds)
            await agent.rest()

    def _tell(self, agent: Agent, error: Exception, failures: int) -> None:
        if isinstance(error, HeadraceError):
            _log.warning("agent failed", agent=agent.name, failures=failures, error=error.message)
        else:
            _log.error("agent failed", agent=agent.name, failures=failures, exc_info=error)
