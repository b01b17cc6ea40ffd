"""How fast runs are accepted and completed: one-task no-op pipelines over REST, on a running local stack.

Prints the latency from trigger to COMPLETED on an idle system, the rate at which runs are accepted *and
completed*, with a count that shows that none was lost or doubled, and what each process has spent on a run.

    python benches/runs.py --home .headrace --runs 10000
"""

import argparse
import asyncio
import json
import time
from pathlib import Path

import callers
import processors
from headrace_local.home import Home
from rest import Answer, Connection, connections, drive, percentile

NOOP = "version: 1\nsources:\n  - id: noop\n    values: [{x: 1}]\nsinks:\n  - discard: true\n"


async def make_pipeline(connection: Connection) -> str:
    """Creates the no-op pipeline and returns its id."""
    body = {"name": f"noop-{time.time_ns()}", "yamlDefinition": NOOP}
    answer = await connection.request("POST", "/api/v1/pipelines", json.dumps(body).encode())
    if answer.status != 201:
        raise SystemExit(f"creating the pipeline answered {answer.status}: {answer.body.decode()}")
    return str(answer.json()["id"])


async def latency(connection: Connection, pipeline: str, rounds: int) -> list[float]:
    """Seconds from the trigger to the first answer that says COMPLETED, one run after the other."""
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()
        run = (await connection.request("POST", f"/api/v1/pipelines/{pipeline}/run", b"{}")).json()["runId"]
        while (await connection.request("GET", f"/api/v1/runs/{run}")).json()["overallStatus"] != "COMPLETED":
            await asyncio.sleep(0.001)
        taken.append(time.perf_counter() - started)
    return taken


async def count(connection: Connection, pipeline: str, status: str) -> int:
    """How many runs of the pipeline are in a state."""
    path = f"/api/v1/pipelines/{pipeline}/runs?status={status}&limit=1&includeTotal=true"
    return int((await connection.request("GET", path)).json()["meta"]["total"])


async def sustained(workers: list[Connection], pipeline: str, runs: int) -> tuple[float, float, int]:
    """Seconds to accept that many runs, seconds until all had completed, and how many completed."""
    accepted: set[str] = set()

    def seen(answer: Answer) -> None:
        if answer.status != 202:
            raise SystemExit(f"a trigger answered {answer.status}: {answer.body.decode()}")
        accepted.add(answer.json()["runId"])

    path = f"/api/v1/pipelines/{pipeline}/run"
    started = time.perf_counter()
    to_accept = await drive(workers, (("POST", path, b"{}") for _ in range(runs)), seen)
    if len(accepted) != runs:
        raise SystemExit(f"{runs} triggers made {len(accepted)} runs")
    deadline = time.perf_counter() + 300
    while (
        completed := await count(workers[0], pipeline, "COMPLETED")
    ) < runs and time.perf_counter() < deadline:
        await asyncio.sleep(0.05)
    return to_accept, time.perf_counter() - started, completed


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=Path(".headrace"))
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--concurrency", type=int, default=32)
    options = parser.parse_args()
    port = json.loads((options.home / "ports.json").read_text())["gateway"]
    tokens = callers.tokens(options.home)
    async with connections("127.0.0.1", port, tokens, options.concurrency) as workers:
        idle = await make_pipeline(workers[0])
        await latency(workers[0], idle, 20)
        taken = await latency(workers[0], idle, 200)
        median, slow = percentile(taken, 0.5) * 1e3, percentile(taken, 0.99) * 1e3
        print(f"trigger to COMPLETED, idle: p50 {median:.1f} ms, p99 {slow:.1f} ms")
        busy = await make_pipeline(workers[0])
        before = processors.spent(Home(options.home))
        accepting, completing, completed = await sustained(workers, busy, options.runs)
        after = processors.spent(Home(options.home))
        rates = f"accepted {options.runs / accepting:.0f}/s, completed {completed / completing:.0f}/s"
        print(f"{options.runs} runs at concurrency {options.concurrency}: {rates}")
        print(f"completed {completed} of {options.runs}")
        processors.tell(before, after, options.runs, "run")


if __name__ == "__main__":
    asyncio.run(main())
