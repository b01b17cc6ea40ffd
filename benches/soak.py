"""A long steady load, to see whether anything grows that should not: memory, open files, the cost of a run.

Starts a stack of its own, starts runs at a fixed rate and looks at each process every few seconds. After the
first third, which is warm-up, a straight line through what was seen must rise by less than the limits below;
a run of the last third must cost little more processor time and disk than one of the second; and every run
that was accepted must have completed.

    python benches/soak.py --minutes 30 --rate 50
"""

import argparse
import asyncio
import time
from dataclasses import dataclass, field

import asyncpg
import callers
from databases import connect
from growth import open_files, own_memory, shared_memory
from headrace_local.home import Home
from headrace_local.postgres import SERVICE_DATABASES
from headrace_local.testing import StackUnderTest
from memory import processes
from processors import spent
from rest import Connection, connections
from runs import count, make_pipeline

LOOK_SECONDS = 5.0
WARM_UP = 1 / 3
MEMORY_GROWTH = 0.10
"""The share by which a process may seem to grow in an hour."""
MEMORY_NOISE = 8 << 20
"""Bytes below which growth over the whole soak is taken for noise."""
FILE_GROWTH = 0.10
"""The share of open files, or five, by which there may be more at the end."""
COST_GROWTH = 0.25
"""The share by which a run may cost more in the last third than in the second: on a busy machine the same
work takes more processor time, and files grow by whole pieces."""


@dataclass
class Seen:
    """What was seen of one process: seconds since the beginning, bytes, open files."""

    at: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    shared: list[float] = field(default_factory=list)
    files: list[float] = field(default_factory=list)


@dataclass
class Progress:
    """What has been done so far, and what was taken for it."""

    accepted: int = 0
    looks: list[tuple[int, float, int]] = field(default_factory=list)
    """At each look: runs accepted, seconds of processor time of all processes, bytes of the databases."""

    def cost(self, since: float, until: float) -> tuple[float, float]:
        """Seconds of processor time and bytes on disk that a run took between two shares of the looks."""
        last = len(self.looks) - 1
        first, then = self.looks[int(since * last)], self.looks[int(until * last)]
        runs = then[0] - first[0]
        return (then[1] - first[1]) / runs, (then[2] - first[2]) / runs


def slope(at: list[float], values: list[float]) -> float:
    """What the least-squares line through the values rises by in a second."""
    middle, mean = sum(at) / len(at), sum(values) / len(values)
    spread = sum((x - middle) ** 2 for x in at)
    return sum((x - middle) * (y - mean) for x, y in zip(at, values, strict=True)) / spread if spread else 0.0


async def watch(
    home: Home,
    databases: list["asyncpg.Connection[asyncpg.Record]"],
    seen: dict[str, Seen],
    progress: Progress,
    ended: asyncio.Event,
) -> None:
    """Looks at each process until the load has ended. A process that was replaced is a failure by itself."""
    pids = processes(home)
    began = time.monotonic()
    while not ended.is_set():
        for name, pid in pids.items():
            of = seen.setdefault(name, Seen())
            of.memory.append(own_memory(pid))
            of.shared.append(shared_memory(pid))
            of.files.append(open_files(pid))
            of.at.append(time.monotonic() - began)
        sizes = [await each.fetchval("SELECT pg_database_size(current_database())") for each in databases]
        progress.looks.append((progress.accepted, sum(spent(home).values()), sum(sizes)))
        try:
            await asyncio.wait_for(ended.wait(), LOOK_SECONDS)
        except TimeoutError:
            continue


async def load(
    workers: list[Connection], pipeline: str, rate: float, seconds: float, progress: Progress
) -> None:
    """Starts runs at that rate a second, and counts those that are accepted."""
    path = f"/api/v1/pipelines/{pipeline}/run"
    began = time.monotonic()

    async def start(worker: Connection, number: int) -> None:
        step = len(workers) / rate
        due = began + number / rate
        while due < began + seconds:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            answer = await worker.request("POST", path, b"{}")
            if answer.status != 202:
                raise SystemExit(f"a trigger answered {answer.status}: {answer.body.decode()}")
            progress.accepted += 1
            due += step

    await asyncio.gather(*(start(worker, number) for number, worker in enumerate(workers)))


def judge(seen: dict[str, Seen]) -> bool:
    """Prints what each process did after warm-up; whether none has grown."""
    fine = True
    for name, of in sorted(seen.items()):
        first = int(len(of.at) * WARM_UP)
        at, memory, files = of.at[first:], of.memory[first:], of.files[first:]
        hourly = slope(at, memory) * 3600
        grown = slope(at, memory) * (at[-1] - at[0])
        more_files = slope(at, files) * (at[-1] - at[0])
        bad = (grown > MEMORY_NOISE and hourly > MEMORY_GROWTH * memory[0]) or more_files > max(
            5.0, FILE_GROWTH * files[0]
        )
        fine = fine and not bad
        print(
            f"{name:<12} {memory[0] / 2**20:6.0f} MiB, {hourly / 2**20:+7.1f} MiB an hour, "
            f"{of.shared[-1] / 2**20:4.0f} MiB shared; "
            f"{files[0]:4.0f} files, {more_files:+5.1f}: {'GROWS' if bad else 'steady'}"
        )
    return fine


def judge_cost(progress: Progress) -> bool:
    """Prints what a run took in the second and the last third; whether that is about the same."""
    (early_time, early_bytes), (late_time, late_bytes) = progress.cost(1 / 3, 2 / 3), progress.cost(2 / 3, 1)
    grows = max(late_time / early_time, late_bytes / early_bytes) > 1 + COST_GROWTH
    print(
        f"a run: {early_time * 1e3:.2f} ms of processor time, then {late_time * 1e3:.2f} ms; "
        f"{early_bytes:.0f} bytes of the databases, then {late_bytes:.0f}: {'GROWS' if grows else 'steady'}"
    )
    return not grows


async def soak(stack: StackUnderTest, minutes: float, rate: float) -> bool:
    """Loads and looks; whether all was well."""
    seen: dict[str, Seen] = {}
    progress = Progress()
    ended = asyncio.Event()
    tokens = callers.tokens(stack.home.root)
    databases = [await connect(stack, name) for name in SERVICE_DATABASES]
    async with connections("127.0.0.1", stack.port, tokens, 8) as workers:
        pipeline = await make_pipeline(workers[0])
        watching = asyncio.create_task(watch(stack.home, databases, seen, progress, ended))
        await load(workers, pipeline, rate, minutes * 60, progress)
        deadline = time.monotonic() + 60
        while (
            await count(workers[0], pipeline, "COMPLETED") < progress.accepted and time.monotonic() < deadline
        ):
            await asyncio.sleep(0.5)
        completed = await count(workers[0], pipeline, "COMPLETED")
        ended.set()
        await watching
    for database in databases:
        await database.close()
    print(f"{progress.accepted} runs accepted, {completed} completed")
    fine = [judge(seen), judge_cost(progress), progress.accepted == completed]
    return all(fine)


def main() -> None:
    """Loads, looks, prints; fails where something grows or a run is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=50.0, help="runs started a second")
    options = parser.parse_args()
    stack = StackUnderTest()
    try:
        stack.up()
        if not asyncio.run(soak(stack, options.minutes, options.rate)):
            raise SystemExit(1)
    finally:
        stack.remove()


if __name__ == "__main__":
    main()
