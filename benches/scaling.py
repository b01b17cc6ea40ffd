"""Whether cost follows work and not history: the same requests with ten pipelines and runs in the databases,
and with very many.

Runs on a stack of its own. It makes ten pipelines and runs over REST, measures, copies these rows inside the
databases until there are as many as asked for, and measures again.

    python benches/scaling.py --pipelines 100000 --runs 1000000
"""

import argparse
import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

import asyncpg
import callers
from databases import connect
from headrace_local.testing import StackUnderTest
from rest import Connection, connections, percentile
from runs import latency, make_pipeline

FEW = 10
DAYS = 10
"""How many days each of many pipelines has run on, so that metrics have as much history as they ask for."""
ROUNDS = 150
GOAL = 1.5

Measures = Mapping[str, Callable[[], Awaitable[float]]]


def numbered(kind: int, number: str) -> str:
    """SQL of an id that stands for a number: it grows with it, as the ids of the services do (RFC 9562)."""
    return (
        f"(lpad(to_hex(1600000000000 + {number}), 12, '0') || '7{kind:03x}8000' ||"
        f" substr(md5(({number})::text), 1, 12))::uuid"
    )


async def multiply(
    database: asyncpg.Connection, table: str, key: str, like: str, copies: int, instead: Mapping[str, str]
) -> None:
    """Adds copies of the rows whose `key` is `like`; `instead` has SQL over the number `n` for columns that
    differ."""
    columns = [
        row["attname"]
        for row in await database.fetch(
            "SELECT attname FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0"
            " AND NOT attisdropped AND attgenerated = '' ORDER BY attnum",
            table,
        )
    ]
    values = ", ".join(instead.get(name, f'made."{name}"') for name in columns)
    names = ", ".join(f'"{name}"' for name in columns)
    await database.execute(
        f"INSERT INTO {table} ({names}) SELECT {values} FROM {table} AS made,"
        f" generate_series(1, {copies}) AS n WHERE made.{key} = '{like}'",
        timeout=1800,
    )
    await database.execute(f"VACUUM ANALYZE {table}", timeout=1800)


async def fill(stack: StackUnderTest, pipeline: str, run: str, pipelines: int, runs: int) -> None:
    """Copies a pipeline and its run: the runs belong to all of the pipelines in turn, one an hour in each."""
    metadata, execution = await connect(stack, "metadata"), await connect(stack, "execution")
    try:
        own = numbered(1, "n")
        changed = {"created_at": "made.created_at - n * interval '1 minute'"}
        names = {"name": "'copy ' || n", "slug": "'copy-' || n"}
        await multiply(metadata, "pipeline", "id", pipeline, pipelines, {"id": own, **names, **changed})
        version = {"pipeline_id": own, "name": "'copy ' || n"}
        await multiply(metadata, "pipeline_version", "pipeline_id", pipeline, pipelines, version)
        status = {"pipeline_id": own, **changed}
        await multiply(metadata, "pipeline_status", "pipeline_id", pipeline, pipelines, status)
        await multiply(execution, "recipes", "pipeline", pipeline, pipelines, {"pipeline": own})
        of = numbered(1, f"1 + n % {pipelines}")
        ago = f"n / {pipelines} * interval '1 hour' + n % {pipelines} * interval '30 milliseconds'"
        moments = {
            name: f"made.{name} - {ago}"
            for name in ("created_at", "started_at", "finished_at", "logical_date")
        }
        copy = {"id": numbered(2, "n"), "pipeline": of, **moments}
        await multiply(execution, "runs", "id", run, runs, copy)
        stage = {"id": numbered(3, "n"), "run": numbered(2, "n")}
        await multiply(execution, "stages", "run", run, runs, stage)
        await multiply(execution, "tasks", "run", run, runs, {"run": numbered(2, "n")})
        day = {"pipeline": of, "day": f"made.day - n / {pipelines}"}
        await multiply(execution, "pipeline_days", "pipeline", pipeline, pipelines * DAYS, day)
    finally:
        await metadata.close()
        await execution.close()


async def get(connection: Connection, path: str) -> float:
    """Seconds of one GET, which must succeed."""
    answer = await connection.request("GET", path)
    if answer.status != 200:
        raise SystemExit(f"{path} answered {answer.status}: {answer.body.decode()}")
    return answer.seconds


def measures(connection: Connection, pipelines: Sequence[str], runs: Sequence[str]) -> Measures:
    """What is measured, by name. Pages have equal sizes, and as few different pipelines run."""
    some = random.Random(1)

    async def run() -> float:
        return (await latency(connection, some.choice(pipelines[:FEW]), 1))[0]

    return {
        "list pipelines": lambda: get(connection, f"/api/v1/pipelines?limit={FEW}"),
        "list pipelines by status": lambda: get(connection, f"/api/v1/pipelines?status=SUCCESS&limit={FEW}"),
        "get a pipeline": lambda: get(connection, f"/api/v1/pipelines/{some.choice(pipelines)}"),
        "list runs": lambda: get(connection, f"/api/v1/runs?limit={FEW}"),
        "list completed runs": lambda: get(connection, f"/api/v1/runs?status=COMPLETED&limit={FEW}"),
        "list runs of a pipeline": lambda: get(
            connection, f"/api/v1/pipelines/{some.choice(pipelines)}/runs?limit={FEW}"
        ),
        "get a run": lambda: get(connection, f"/api/v1/runs/{some.choice(runs)}"),
        "metrics of a pipeline": lambda: get(
            connection, f"/api/v1/pipelines/{some.choice(pipelines)}/metrics"
        ),
        "cost of a pipeline": lambda: get(connection, f"/api/v1/pipelines/{some.choice(pipelines)}/cost"),
        "cost of a run": lambda: get(connection, f"/api/v1/runs/{some.choice(runs)}/cost"),
        "run to its end": run,
    }


async def medians(each: Measures) -> dict[str, float]:
    """The median seconds of each measure."""
    found = {}
    for name, measure in each.items():
        for _ in range(20):
            await measure()
        found[name] = percentile([await measure() for _ in range(ROUNDS)], 0.5)
    return found


async def copies(connection: Connection, path: str, key: str) -> list[str]:
    """Ids from the first pages of a list."""
    found: list[str] = []
    after = ""
    for _ in range(5):
        page = (await connection.request("GET", f"{path}?limit=200{after}")).json()
        found += [item[key] for item in page["data"]]
        if "nextCursor" not in page["meta"]:
            break
        after = f"&cursor={page['meta']['nextCursor']}"
    return found


async def compare(stack: StackUnderTest, pipelines: int, runs: int) -> None:
    """Measures with few and with many, and prints both."""
    tokens = callers.tokens(stack.home.root)
    async with connections("127.0.0.1", stack.port, tokens, 1) as (connection,):
        made = [await make_pipeline(connection) for _ in range(FEW)]
        for pipeline in made:
            await latency(connection, pipeline, 1)
        first = (await copies(connection, "/api/v1/runs", "runId"))[0]
        pipeline = (await connection.request("GET", f"/api/v1/runs/{first}")).json()["pipelineId"]
        few = await medians(measures(connection, made, await copies(connection, "/api/v1/runs", "runId")))
    began = time.perf_counter()
    await fill(stack, pipeline, first, pipelines, runs)
    print(f"{pipelines:,} pipelines and {runs:,} runs added in {time.perf_counter() - began:.0f} s")
    async with connections("127.0.0.1", stack.port, tokens, 1) as (connection,):
        many = await medians(
            measures(
                connection,
                await copies(connection, "/api/v1/pipelines", "id"),
                await copies(connection, "/api/v1/runs", "runId"),
            )
        )
    for name, seconds in few.items():
        ratio = many[name] / seconds
        verdict = "met" if ratio <= GOAL else "missed"
        print(
            f"{name}: {seconds * 1e3:.2f} ms with {FEW}, {many[name] * 1e3:.2f} ms with many: "
            f"{ratio:.2f} (goal {GOAL}: {verdict})"
        )


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pipelines", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=1_000_000)
    options = parser.parse_args()
    stack = StackUnderTest()
    try:
        stack.up()
        asyncio.run(compare(stack, options.pipelines, options.runs))
    finally:
        stack.remove()


if __name__ == "__main__":
    main()
