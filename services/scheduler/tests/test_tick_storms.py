"""Ticks under a clock that jumps, with replicas that die between any two steps: each tick starts one run."""

import asyncio
import random
from contextlib import suppress
from datetime import datetime, timedelta
from uuid import UUID

import pytest
from headrace.scheduler.v1 import schedules_pb2 as pb
from headrace_chassis.database import driver
from headrace_chassis.errors import HeadraceError
from headrace_scheduler.loops.schedule_ticker import ScheduleTicker
from headrace_scheduler.loops.tick_starter import _start_of

from .support import NOON, Service, away

JUMPS = [
    timedelta(hours=1),
    timedelta(hours=-1),
    timedelta(minutes=11),
    timedelta(minutes=3),
    timedelta(seconds=20),
]
EVERY = timedelta(minutes=10)


@pytest.mark.parametrize("seed", range(3))
async def test_each_tick_starts_one_run_whatever_the_clock_does_and_whoever_dies(
    service: Service, seed: int
) -> None:
    async with service.base.db.transaction() as conn:
        await driver(conn).execute("TRUNCATE schedule, progress, tick")
    chance = random.Random(seed)
    everything = [
        await service.create("*/10 * * * *", catchup_strategy=pb.CATCHUP_STRATEGY_RUN_ALL) for _ in range(3)
    ]
    current = await service.create("*/10 * * * *")
    other = ScheduleTicker(
        service.base.db, service.clock, timedelta(minutes=1), start=_nothing, look=_nothing, tell=_nothing
    )
    for _ in range(40):
        service.clock.now += chance.choice(JUMPS)
        await _anything(service, other, chance)
    service.execution.failures.clear()
    service.clock.now = max(service.clock.now, NOON) + timedelta(hours=2)
    await service.tick(200)
    service.clock.now += timedelta(minutes=10)  # what was leased by those who died is free
    await service.tick(200)

    for made in everything:
        fired = await service.rows(
            "SELECT at, run_id FROM tick WHERE schedule_id = $1 AND state = 'FIRED' ORDER BY at",
            UUID(made.id),
        )
        times = [row["at"] for row in fired]
        assert times == [NOON + EVERY * number for number in range(1, len(times) + 1)], "none is missing"
        assert times[-1] > service.clock.now - EVERY
        assert sorted(service.execution.times(made)) == times, "one run each"
        assert len({row["run_id"] for row in fired}) == len(times)
    runs = service.execution.times(current)
    assert len(set(runs)) == len(runs)
    assert await _covered(service, current) == [
        NOON + EVERY * number for number in range(1, len(times) + 1)
    ], "each tick is decided once"


async def _anything(service: Service, other: ScheduleTicker, chance: random.Random) -> None:
    """Lets replicas work at once, or one die on its way."""
    starters = service.parts.starters
    verb = chance.choice(["decide", "decide", "start", "start", "die", "unheard", "away"])
    if verb == "decide":
        await asyncio.gather(service.parts.ticker.run_once(), other.run_once())
    elif verb == "start":
        with suppress(HeadraceError):
            await asyncio.gather(*(starter.run_once() for starter in starters))
    elif verb == "away":
        service.execution.failures.append(away())
    else:
        due, _ = await service.base.db.run(starters[0]._claim)  # whoever leased them dies now,
        if due and verb == "unheard":  # or after execution has decided
            with suppress(HeadraceError):
                await service.parts.execution.start_runs(service.tenant, [_start_of(tick) for tick in due])


async def _covered(service: Service, made: pb.Schedule) -> list[datetime]:
    """The times of all ticks that were decided, those that were skipped together one by one."""
    rows = await service.rows(
        "SELECT at, through FROM tick WHERE schedule_id = $1 ORDER BY at", UUID(made.id)
    )
    return [
        row["at"] + EVERY * number
        for row in rows
        for number in range((row["through"] - row["at"]) // EVERY + 1)
    ]


def _nothing() -> None:
    """Nobody is told."""
