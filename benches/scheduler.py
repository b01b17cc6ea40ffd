"""What schedules cost: a hundred thousand that are idle, ten thousand that are due in the same second, how
late single ones are, the next runs over all of them; and a backfill of a hundred thousand intervals.

Runs on a stack of its own. Schedules are made by copying one inside the database; what is measured after that
goes through REST and the clock.

    python benches/scheduler.py --schedules 100000 --due 10000 --minutes 3
    python benches/scheduler.py --part due
"""

import argparse
import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import asyncpg
import callers
import processors
from databases import connect
from headrace_local.home import Home
from headrace_local.testing import StackUnderTest
from memory import proportional
from processors import pid_of, seconds
from rest import Connection, connections, percentile
from runs import make_pipeline
from scaling import get, multiply, numbered

IDLE_SECONDS = 30
SINGLES = 20
"""How many schedules tick a minute where lateness is measured; nothing else goes on then."""

ROUNDS = 200
NEVER = "0 0 29 2 *"
MINUTELY = "* * * * *"


async def post(connection: Connection, path: str, body: Mapping[str, object]) -> str:
    """The id of what a POST made."""
    answer = await connection.request("POST", path, json.dumps(body).encode())
    if answer.status != 201:
        raise SystemExit(f"{path} answered {answer.status}: {answer.body.decode()}")
    return str(answer.json()["id"])


async def copy_schedule(
    scheduler: asyncpg.Connection, schedule: str, copies: int, kind: int, *, due: datetime | None = None
) -> None:
    """Adds copies of a schedule: idle ones, due one after the other from a month on, or all at one minute."""
    own = numbered(kind, "n")
    later = "now() + interval '30 days' + n * interval '1 second'"
    when = later if due is None else f"'{due.isoformat()}'::timestamptz"
    before = (
        "made.decided_until" if due is None else f"'{(due - timedelta(seconds=30)).isoformat()}'::timestamptz"
    )
    progress = {"schedule_id": own, "next_due": when, "next_run_at": when, "decided_until": before}
    await multiply(scheduler, "schedule", "id", schedule, copies, {"id": own})
    await multiply(scheduler, "progress", "schedule_id", schedule, copies, progress)


async def idle(home: Home, span: float) -> tuple[float, float]:
    """The share of one core that the scheduler takes while nothing is due, and its memory in MiB."""
    pid = pid_of(home, "scheduler")
    before = seconds(pid)
    await asyncio.sleep(span)
    return (seconds(pid) - before) / span, proportional(pid) / 2**20


def spent(home: Home) -> dict[str, float]:
    """Processor time of the processes that a tick passes through, in seconds."""
    return {name: seconds(pid_of(home, name)) for name in ("scheduler", "execution", "worker", "postgres")}


async def next_runs(connection: Connection) -> list[float]:
    """Seconds of each of many requests for the next runs."""
    for _ in range(20):
        await get(connection, "/api/v1/scheduler/next-runs")
    return [await get(connection, "/api/v1/scheduler/next-runs") for _ in range(ROUNDS)]


def next_minute(ahead: float) -> datetime:
    """The first full minute that is at least so many seconds away."""
    now = datetime.now(UTC) + timedelta(seconds=ahead)
    return now.replace(second=0, microsecond=0) + timedelta(minutes=1)


async def accepted(
    scheduler: asyncpg.Connection, execution: asyncpg.Connection, tick: datetime, number: int
) -> list[float]:
    """Seconds from a tick to the acceptance of each of its runs, once all are accepted."""
    deadline = time.monotonic() + 300
    while True:
        left = await scheduler.fetchval(
            "SELECT $2 - count(*) FROM tick WHERE at = $1 AND state = 'FIRED'", tick, number
        )
        if left <= 0:
            break
        if time.monotonic() > deadline:
            raise SystemExit(f"{left} of {number} ticks have not fired after five minutes")
        await asyncio.sleep(0.5)
    fired = await scheduler.fetch("SELECT run_id FROM tick WHERE at = $1 AND state = 'FIRED'", tick)
    found = await execution.fetch(
        "SELECT created_at FROM runs WHERE id = ANY($1::uuid[])", [row["run_id"] for row in fired]
    )
    if len(found) != number:
        raise SystemExit(f"{number} ticks have {len(found)} runs")
    return sorted((row["created_at"] - tick).total_seconds() for row in found)


async def stop(scheduler: asyncpg.Connection, kind: int) -> None:
    """Has copies of a kind be due no more."""
    await scheduler.execute(
        "UPDATE progress SET next_due = NULL, next_run_at = NULL WHERE substr(schedule_id::text, 16, 3) = $1",
        f"{kind:03x}",
        timeout=600,
    )


async def all_at_once(
    scheduler: asyncpg.Connection, execution: asyncpg.Connection, schedule: str, number: int
) -> list[float]:
    """Seconds to the acceptance of each of many runs whose schedules are due in the same second."""
    tick = next_minute(10)
    await copy_schedule(scheduler, schedule, number, 7, due=tick)
    await asyncio.sleep((tick - datetime.now(UTC)).total_seconds() + 1)
    taken = await accepted(scheduler, execution, tick, number)
    await stop(scheduler, 7)
    return taken


async def one_by_one(
    scheduler: asyncpg.Connection, execution: asyncpg.Connection, schedule: str, minutes: int
) -> list[float]:
    """Seconds to the acceptance of the runs of a few schedules, for some minutes."""
    first = next_minute(5)
    await copy_schedule(scheduler, schedule, SINGLES, 8, due=first)
    taken: list[float] = []
    for minute in range(minutes):
        tick = first + timedelta(minutes=minute)
        await asyncio.sleep((tick - datetime.now(UTC)).total_seconds() + 5)
        taken += await accepted(scheduler, execution, tick, SINGLES)
    await stop(scheduler, 8)
    return sorted(taken)


async def quiet(execution: asyncpg.Connection) -> None:
    """Returns when all runs have ended."""
    while await execution.fetchval("SELECT EXISTS (SELECT FROM runs WHERE finished_at IS NULL)"):
        await asyncio.sleep(1)


async def backfill(connection: Connection, pipeline: str) -> float:
    """Seconds to create a backfill of a hundred thousand hours; it is paused before much of it has run."""
    body = {"pipelineId": pipeline, "from": "2014-06-01", "to": "2025-10-27", "granularity": "HOURLY"}
    started = time.perf_counter()
    made = await post(connection, "/api/v1/scheduler/backfill", body)
    taken = time.perf_counter() - started
    await connection.request("POST", f"/api/v1/scheduler/backfill/{made}/cancel", b"{}")
    return taken


async def driven(connection: Connection, pipeline: str) -> float:
    """Intervals a second of a backfill of a thousand, fifty at a time, whose runs do nothing."""
    body = {
        "pipelineId": pipeline,
        "from": "2023-02-05",
        "to": "2025-10-31",
        "granularity": "DAILY",
        "concurrency": 50,
    }
    started = time.perf_counter()
    path = f"/api/v1/scheduler/backfill/{await post(connection, '/api/v1/scheduler/backfill', body)}"
    while (await connection.request("GET", path)).json()["status"] != "COMPLETED":
        await asyncio.sleep(0.1)
    return 1000 / (time.perf_counter() - started)


def tell(what: str, value: float, goal: float, unit: str) -> None:
    """Prints a figure beside its goal."""
    verdict = "met" if value <= goal else "missed"
    print(
        f"{what}: {value:.3g} {unit}, {value / goal:.2f} of the goal {goal:g} {unit} ({verdict})", flush=True
    )


@dataclass
class Bench:
    """A stack, what its parts are measured with, and two schedules to copy: one that never comes, one that
    comes each minute."""

    stack: StackUnderTest
    scheduler: asyncpg.Connection
    execution: asyncpg.Connection
    pipeline: str
    rare: str
    often: str
    asked: argparse.Namespace

    @asynccontextmanager
    async def gateway(self) -> AsyncIterator[Connection]:
        """A connection for one step: one that is idle for long is closed by the gateway."""
        tokens = callers.tokens(self.stack.home.root)
        async with connections("127.0.0.1", self.stack.port, tokens, 1) as (opened,):
            yield opened

    async def idle(self) -> None:
        """What schedules cost that are not due, and the next runs over all of them."""
        number: int = self.asked.schedules
        share, size = await idle(self.stack.home, IDLE_SECONDS)
        print(f"one schedule: {share:.2%} of a core, {size:.0f} MiB")
        await copy_schedule(self.scheduler, self.rare, number, 6)
        await asyncio.sleep(5)
        share, size = await idle(self.stack.home, IDLE_SECONDS)
        tell(f"{number} idle schedules, processor", share * 100, 2, "% of a core")
        tell(f"{number} idle schedules, memory", size, 150, "MiB")
        async with self.gateway() as connection:
            asked = await next_runs(connection)
        tell("next runs over all of them, median", percentile(asked, 0.5) * 1e3, 100, "ms")
        tell("next runs over all of them, p99", percentile(asked, 0.99) * 1e3, 100, "ms")

    async def single(self) -> None:
        """How late a few ticks are."""
        late = await one_by_one(self.scheduler, self.execution, self.often, self.asked.minutes)
        tell(f"lateness of {len(late)} single ticks, median", percentile(late, 0.5) * 1e3, 250, "ms")
        tell(f"lateness of {len(late)} single ticks, p99", percentile(late, 0.99) * 1e3, 1000, "ms")
        await quiet(self.execution)

    async def due(self) -> None:
        """Many ticks in the same second."""
        number: int = self.asked.due
        before = spent(self.stack.home)
        taken = await all_at_once(self.scheduler, self.execution, self.often, number)
        tell(f"{number} due in the same second, until all are accepted", taken[-1], 15, "s")
        print(f"    half of them after {percentile(taken, 0.5):.1f} s; with their runs, ", end="")
        processors.tell(before, spent(self.stack.home), number, "tick")
        await quiet(self.execution)

    async def backfills(self) -> None:
        """Many intervals."""
        async with self.gateway() as connection:
            made = await backfill(connection, self.pipeline)
            tell("a backfill of 100,008 intervals, created", made, 10, "s")
            await quiet(self.execution)
            rate = await driven(connection, self.pipeline)
        print(f"a backfill of 1,000 intervals, 50 at a time: {rate:.0f} a second")


PARTS = {"idle": Bench.idle, "single": Bench.single, "due": Bench.due, "backfills": Bench.backfills}


async def measure(stack: StackUnderTest, asked: argparse.Namespace) -> None:
    """Measures what is asked for, and prints."""
    scheduler, execution = await connect(stack, "scheduler"), await connect(stack, "execution")
    async with connections("127.0.0.1", stack.port, callers.tokens(stack.home.root), 1) as (connection,):
        pipeline = await make_pipeline(connection)
        rare, often = [
            await post(
                connection,
                "/api/v1/scheduler/schedules",
                {"pipelineId": pipeline, "cronExpression": cron, **rest},
            )
            for cron, rest in ((NEVER, {}), (MINUTELY, {"status": "PAUSED"}))
        ]
    await scheduler.execute("UPDATE schedule SET status = 'ACTIVE' WHERE id = $1", often)
    bench = Bench(stack, scheduler, execution, pipeline, rare, often, asked)
    for name in asked.part or PARTS:
        await PARTS[name](bench)
    size = proportional(pid_of(stack.home, "scheduler")) / 2**20
    tell("memory of the scheduler at the end", size, 150, "MiB")
    await scheduler.close()
    await execution.close()


def main() -> None:
    """Runs the bench."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--schedules", type=int, default=100_000)
    parser.add_argument("--due", type=int, default=10_000)
    parser.add_argument("--minutes", type=int, default=3)
    parser.add_argument("--part", choices=PARTS, action="append", help="only this one; may be given again")
    asked = parser.parse_args()
    stack = StackUnderTest()
    try:
        stack.up()
        asyncio.run(measure(stack, asked))
    finally:
        stack.remove()


if __name__ == "__main__":
    main()
