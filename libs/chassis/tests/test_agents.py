"""Agents: woken, rested, and never dead of a failure."""

import asyncio
from collections.abc import Awaitable, Callable

from headrace_chassis.agents import Agent, AgentRunner
from prometheus_client import REGISTRY


class Scripted(Agent):
    """Does what a test tells it to."""

    name = "scripted"
    interval_seconds = 3600.0

    def __init__(self, work: Callable[[int], Awaitable[bool]]) -> None:
        self.rounds = 0
        self.reached = asyncio.Condition()
        self._work = work

    async def run_once(self) -> bool:
        self.rounds += 1
        async with self.reached:
            self.reached.notify_all()
        return await self._work(self.rounds)

    async def has_run(self, times: int) -> None:
        async with asyncio.timeout(10), self.reached:
            await self.reached.wait_for(lambda: self.rounds >= times)


async def test_more_work_is_done_at_once_and_then_it_rests() -> None:
    async def three(round_: int) -> bool:
        return round_ < 3

    agent = Scripted(three)
    runner = AgentRunner([agent])
    await runner.start()
    await agent.has_run(3)
    for _ in range(5):
        await asyncio.sleep(0)
    assert agent.rounds == 3
    agent.wake()
    await agent.has_run(4)
    await runner.stop()


async def test_a_waking_during_a_round_is_not_lost() -> None:
    async def wakes_itself(round_: int) -> bool:
        if round_ == 1:
            agent.wake()
        return False

    agent = Scripted(wakes_itself)
    runner = AgentRunner([agent])
    await runner.start()
    await agent.has_run(2)
    await runner.stop()


async def test_what_comes_within_the_pause_of_a_round_is_done_together() -> None:
    waiting, done = ["first"], []

    class Pausing(Scripted):
        pause_seconds = 0.2

    async def takes_all(_: int) -> bool:
        done.append(list(waiting))
        waiting.clear()
        return False

    agent = Pausing(takes_all)
    runner = AgentRunner([agent])
    await runner.start()
    await agent.has_run(1)
    for item in ("second", "third"):
        waiting.append(item)
        agent.wake()
        await asyncio.sleep(0.01)
    await agent.has_run(2)
    await runner.stop()

    assert done == [["first"], ["second", "third"]]


async def test_a_failure_is_counted_and_survived() -> None:
    async def fails_twice(round_: int) -> bool:
        if round_ <= 2:
            raise RuntimeError("no")
        return False

    def failures() -> float:
        return REGISTRY.get_sample_value("hr_agent_failures_total", {"agent": "scripted"}) or 0.0

    before = failures()
    agent = Scripted(fails_twice)
    runner = AgentRunner([agent], jitter=lambda low, high: 0.0)
    await runner.start()
    await agent.has_run(3)
    await runner.stop()
    assert failures() == before + 2


async def test_stopping_ends_a_round_and_may_be_repeated() -> None:
    async def forever(_: int) -> bool:
        await asyncio.Event().wait()
        return False

    agent = Scripted(forever)
    runner = AgentRunner([agent])
    await runner.start()
    await runner.start()
    await agent.has_run(1)
    await runner.stop()
    await runner.stop()
    assert agent.rounds == 1


async def test_wakings_that_come_together_are_one_round() -> None:
    async def nothing_more(_: int) -> bool:
        return False

    agent = Scripted(nothing_more)
    agent.gather_seconds = 0.01
    runner = AgentRunner([agent])
    await runner.start()
    await agent.has_run(1)
    for _ in range(3):
        agent.wake()
        await asyncio.sleep(0)
    await agent.has_run(2)
    await asyncio.sleep(0)
    await runner.stop()
    assert agent.rounds == 2
