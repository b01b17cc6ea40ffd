"""Loads beside psql: a CSV file with joins into PostgreSQL, and PostgreSQL to PostgreSQL; and many rows.

Runs on a stack of its own. What a load takes is what its run says: from `startedAt` to `finishedAt`. Rounds
alternate, so that what else the machine does meets both sides alike, and the best round of each side counts.

    python benches/loads.py                                flights and copies, beside psql
    python benches/loads.py --rows 20000000 --memory 512MiB    many rows through a small worker
    python benches/loads.py --rows 3000000 --memory 160MiB --form joined
"""

import argparse
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from typing import Any

import httpx
import processors
import psutil
from headrace_local.demo import dataset
from headrace_local.postgres import installation
from headrace_local.testing import StackUnderTest, create_pipeline, demand, until

FLIGHTS = 336_776
CSV_GOAL = 0.40
COPY_GOAL = 0.95
RUN_SECONDS = 3600.0

RAW_FLIGHTS = """
    year smallint, month smallint, day smallint, dep_time integer, sched_dep_time integer, dep_delay integer,
    arr_time integer, sched_arr_time integer, arr_delay integer, carrier text, flight integer, tailnum text,
    origin text, dest text, air_time integer, distance integer, hour smallint, minute smallint,
    time_hour timestamptz
"""
JOINED_SINK = "sinks: [{id: load, input: enriched, connection: warehouse, table: joined}]"
JOINED_FLIGHTS = f"""{RAW_FLIGHTS},
    airline text, origin_name text, dest_name text, dest_lat double precision, dest_lon double precision,
    plane_year smallint, plane_manufacturer text, plane_model text, plane_seats integer,
    temp double precision, wind_speed double precision, precip double precision, visib double precision,
    flight_date date, cancelled boolean, plane_age smallint
"""
WIDE = """
    id bigint, customer integer, amount numeric(12,2), rate double precision, placed timestamptz, note text
"""
GENERATE = """
    INSERT INTO {table} SELECT n, n % 100000, (n % 1000000) / 100.0, n / 7.0,
        timestamptz '2025-01-01 00:00:00+00' + n * interval '1 second', 'order number ' || n
    FROM generate_series(1, {rows}) AS n
"""
SUMS = "SELECT count(*), sum(id), sum(customer), sum(amount), sum(hashtextextended(note, 0)) FROM {table}"
FLIGHT_SUMS = "SELECT count(*), sum(flight), sum(distance), sum(hashtextextended(tailnum, 0)) FROM {table}"
ORDERS = {"id": "orders", "connection": "warehouse", "table": "orders"}


@dataclass(frozen=True)
class Spent:
    """Seconds of processor time: of the server, and of who moves the rows (the worker, or psql)."""

    server: float
    client: float

    def __sub__(self, before: "Spent") -> "Spent":
        return Spent(self.server - before.server, self.client - before.client)

    def __str__(self) -> str:
        return f"server {self.server:.2f} s, client {self.client:.2f} s"


class Bench:
    """One stack, its user's database, and psql beside it."""

    def __init__(self, stack: StackUnderTest, client: httpx.Client) -> None:
        self.stack = stack
        self.client = client
        self.folder = stack.home.work / "flights"
        self._login = stack.warehouse_login()
        dataset.unpack(self.folder)
        self._connect("warehouse", "POSTGRESQL", **self._warehouse())
        self._connect("flights-files", "FILE", path=str(self.folder))

    def pipeline(self, definition: str | Mapping[str, Any]) -> str:
        """Creates a pipeline from YAML, or from what JSON writes as YAML; returns its id."""
        text = definition if isinstance(definition, str) else json.dumps(definition)
        return str(create_pipeline(self.client, text, maxRetries=0)["id"])

    def load(self, pipeline: str, rows: int) -> float:
        """Runs a pipeline whose load must bring that many rows; returns the seconds that the run says."""
        run = demand(self.client.post(f"pipelines/{pipeline}/run", json={}), 202)["runId"]
        status = until(
            lambda: demand(self.client.get(f"runs/{run}"), 200),
            lambda status: status["overallStatus"] in ("COMPLETED", "FAILED", "CANCELLED"),
            RUN_SECONDS,
        )
        if status["overallStatus"] != "COMPLETED" or status["metrics"]["rowsWritten"] != rows:
            raise SystemExit(f"the run ended as {status['overallStatus']}: {status['errors']}")
        began, ended = (datetime.fromisoformat(status[name]) for name in ("startedAt", "finishedAt"))
        return (ended - began).total_seconds()

    def psql(self, *commands: str) -> float:
        """Runs commands, each in a psql that reads what the one before writes; returns the seconds."""
        login = self._login
        place = f"host={login['host']} port={login['port']} user={login['user']} dbname={login['database']}"
        began, running = time.perf_counter(), list[subprocess.Popen[bytes]]()
        for command in commands:
            running.append(
                subprocess.Popen(
                    [
                        str(installation() / "bin" / "psql"),
                        "-X",
                        "-q",
                        "-v",
                        "ON_ERROR_STOP=1",
                        "-c",
                        command,
                        place,
                    ],
                    env={"PGPASSWORD": login["password"]},
                    stdin=running[-1].stdout if running else None,
                    stdout=None if command is commands[-1] else subprocess.PIPE,
                )
            )
        if [process for process in running if process.wait()]:
            raise SystemExit(f"psql failed: {commands}")
        return time.perf_counter() - began

    def spent(self) -> Spent:
        """What has been spent until now, by processes that have ended too."""
        own = os.times()
        server, worker = (
            processors.seconds(processors.pid_of(self.stack.home, name)) for name in ("postgres", "worker")
        )
        return Spent(server, worker + own.children_user + own.children_system)

    def sql(self, text: str) -> list[tuple[Any, ...]]:
        """The rows of a statement in the user's database."""
        return self.stack.warehouse(text)

    def recreate(self, table: str, columns: str) -> None:
        """An empty table, and a server that has nothing left to write from before."""
        self.sql(f"DROP TABLE IF EXISTS {table}")
        self.sql(f"CREATE TABLE {table} ({columns})")

    def demand_equal(self, left: str, right: str) -> None:
        """Ends the bench where two tables do not add up to the same."""
        sums = [self.sql(SUMS.format(table=table)) for table in (left, right)]
        if sums[0] != sums[1]:
            raise SystemExit(f"{right} does not hold what {left} holds: {sums}")

    def _warehouse(self) -> dict[str, Any]:
        login = dict(self._login)
        return {"username": login.pop("user"), "secret": login.pop("password"), **login}

    def _connect(self, name: str, kind: str, **fields: Any) -> None:
        demand(self.client.post("connections", json={"name": name, "type": kind, **fields}), 201)


def alternate(bench: Bench, rounds: int, sides: Mapping[str, Callable[[], float]]) -> dict[str, float]:
    """The best seconds of each side, measured in turns; prints those of the processors as well."""
    taken: dict[str, list[tuple[float, Spent]]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, measure in sides.items():
            before = bench.spent()
            seconds = measure()
            taken[name].append((seconds, bench.spent() - before))
    for name, each in taken.items():
        spent = min((spent for _, spent in each), key=lambda spent: spent.server + spent.client)
        print(f"    {name}: {', '.join(f'{seconds:.2f}' for seconds, _ in each)} s; processors: {spent}")
    return {name: min(seconds for seconds, _ in each) for name, each in taken.items()}


def tell(what: str, rows: int, seconds: float, limit: float, goal: float | None = None) -> None:
    """Prints a ratio of rows a second."""
    verdict = "" if goal is None else f" (goal {goal}: {'met' if limit / seconds >= goal else 'missed'})"
    print(f"{what}: {rows / seconds:,.0f} rows/s, psql {rows / limit:,.0f}: {limit / seconds:.2f}{verdict}")


def flights(bench: Bench, rounds: int) -> None:
    """The flights with the joins of the demo, and the demo as it is, beside psql's copies of the rows."""
    demo = resources.files("headrace_local.demo").joinpath("flights.yaml").read_text(encoding="utf-8")
    joins = demo[: demo.index("quality_checks:")] + JOINED_SINK
    with_joins, whole = bench.pipeline(joins), bench.pipeline(demo)
    raw, wide = bench.folder / dataset.FLIGHTS, bench.folder / "joined.csv"

    def join() -> float:
        bench.recreate("joined", JOINED_FLIGHTS)
        return bench.load(with_joins, FLIGHTS)

    def copy(table: str, columns: str, options: str) -> float:
        bench.recreate(table, columns)
        return bench.psql(f"\\copy {table} from {options}")

    join()
    bench.psql(f"\\copy joined to '{wide}' with (format csv)")
    best = alternate(
        bench,
        rounds,
        {
            "run with joins": join,
            "psql of the file": lambda: copy(
                "raw", RAW_FLIGHTS, f"'{raw}' with (format csv, header true, null 'NA')"
            ),
            "run of the demo, with checks and merge": lambda: bench.load(whole, FLIGHTS),
            "psql of the joined rows": lambda: copy("wide", JOINED_FLIGHTS, f"'{wide}' with (format csv)"),
        },
    )
    ours, file, whole_demo, joined = best.values()
    tell("CSV with joins beside the file alone", FLIGHTS, ours, file, CSV_GOAL)
    tell("CSV with joins beside the joined rows", FLIGHTS, ours, joined)
    tell("the demo (joins, seven checks, merge) beside the file alone", FLIGHTS, whole_demo, file)


def copies(bench: Bench, rounds: int, rows: int) -> None:
    """A table copied as it is, in one range and in two, beside a binary pipe of psql."""
    bench.recreate("orders", WIDE)
    bench.sql(GENERATE.format(table="orders", rows=rows))
    bench.sql("ALTER TABLE orders ADD PRIMARY KEY (id)")
    bench.sql("VACUUM ANALYZE orders")
    one, two = (
        bench.pipeline(
            {
                "version": 1,
                "sources": [{"id": "orders", "connection": "warehouse", "table": "orders", **split}],
                "sinks": [{"id": "load", "input": "orders", "connection": "warehouse", "table": "copied"}],
            }
        )
        for split in ({}, {"split": {"column": "id", "ranges": 2}})
    )

    def prepared(measure: Callable[[], float], there: bool = True) -> Callable[[], float]:
        def measured() -> float:
            bench.recreate("copied", WIDE)
            if not there:
                bench.sql("DROP TABLE copied")
            seconds = measure()
            bench.demand_equal("orders", "copied")
            return seconds

        return measured

    best = alternate(
        bench,
        rounds,
        {
            "run": prepared(lambda: bench.load(one, rows)),
            "psql pipe": prepared(
                lambda: bench.psql(
                    "COPY orders TO STDOUT (FORMAT binary)", "COPY copied FROM STDIN (FORMAT binary)"
                )
            ),
            "run in two ranges": prepared(lambda: bench.load(two, rows)),
            "run in two ranges into a new table": prepared(lambda: bench.load(two, rows), there=False),
        },
    )
    ours, pipe, ranges, new = best.values()
    tell(f"copy of {rows:,} rows", rows, ours, pipe, COPY_GOAL)
    tell("copy in two ranges", rows, ranges, pipe)
    tell("copy in two ranges into a new table", rows, new, pipe)


class MemoryWatch:
    """Watches the resident memory of the worker and its processes in a thread."""

    def __init__(self, pid: int) -> None:
        self._worker = psutil.Process(pid)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.idle, _ = self._look()
        self.together = self.one = 0

    def __enter__(self) -> "MemoryWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.1):
            together, one = self._look()
            self.together, self.one = max(self.together, together), max(self.one, one)

    def _look(self) -> tuple[int, int]:
        """Bytes of all processes together, each shared page counted once, and of the largest alone."""
        shares, residents = [0], [0]
        for process in (self._worker, *self._worker.children(recursive=True)):
            try:
                memory = process.memory_full_info()
            except psutil.NoSuchProcess:
                continue
            shares.append(memory.pss)
            residents.append(memory.rss)
        return sum(shares), max(residents)


def many_rows(bench: Bench, rows: int, memory: str, forms: Sequence[str]) -> None:
    """Takes many rows through a small worker: as they are, and through joins into each kind of load."""
    bench.recreate("orders", WIDE)
    bench.sql(GENERATE.format(table="orders", rows=rows))
    bench.recreate("customers", "customer integer, name text")
    bench.sql("INSERT INTO customers SELECT n, 'customer ' || n FROM generate_series(0, 99999) AS n")
    pid = int(bench.stack.home.pid_file("worker").read_text())
    for form in forms:
        with MemoryWatch(pid) as watch:
            moved, seconds = MANY[form](bench, rows)
        print(
            f"{moved:,} rows {form}, limit {memory}: {seconds:.1f} s, {moved / seconds:,.0f} rows/s; "
            f"the worker's processes held at most {watch.together >> 20} MiB together (idle "
            f"{watch.idle >> 20}), the largest {watch.one >> 20} MiB",
            flush=True,
        )


def many_copied(bench: Bench, rows: int) -> tuple[int, float]:
    """The orders as they are."""
    bench.recreate("copied", WIDE)
    sink = {"id": "load", "input": "orders", "connection": "warehouse", "table": "copied"}
    seconds = bench.load(bench.pipeline({"version": 1, "sources": [ORDERS], "sinks": [sink]}), rows)
    bench.demand_equal("orders", "copied")
    return rows, seconds


def many_joined(bench: Bench, rows: int, **sink: Any) -> tuple[int, float]:
    """The orders with the names of their customers."""
    key = ", PRIMARY KEY (id)" if "keys" in sink else ""
    bench.recreate("copied", f"{WIDE}, name text{key}")
    definition = {
        "version": 1,
        "sources": [ORDERS, {"id": "customers", "connection": "warehouse", "table": "customers"}],
        "transformations": [
            {
                "id": "named",
                "type": "lookup_join",
                "input": "orders",
                "lookup": "customers",
                "on": ["customer"],
            }
        ],
        "sinks": [{"id": "load", "input": "named", "connection": "warehouse", "table": "copied", **sink}],
    }
    seconds = bench.load(bench.pipeline(definition), rows)
    bench.demand_equal("orders", "copied")
    if bench.sql("SELECT count(*) FROM copied WHERE name IS DISTINCT FROM 'customer ' || customer") != [(0,)]:
        raise SystemExit("rows were joined with the wrong customer")
    return rows, seconds


def many_flights(bench: Bench, rows: int) -> tuple[int, float]:
    """The flights of the demo, often enough, with its five joins."""
    times = -(-rows // FLIGHTS)
    bench.recreate("one_year", RAW_FLIGHTS)
    bench.psql(
        f"\\copy one_year from '{bench.folder / dataset.FLIGHTS}' with (format csv, header true, null 'NA')"
    )
    bench.recreate("flights", RAW_FLIGHTS)
    bench.sql(f"INSERT INTO flights SELECT one_year.* FROM one_year, generate_series(1, {times})")
    bench.recreate("joined", JOINED_FLIGHTS)
    demo = resources.files("headrace_local.demo").joinpath("flights.yaml").read_text(encoding="utf-8")
    source = "version: 1\nsources:\n  - {id: flights, connection: warehouse, table: flights}\n"
    definition = source + demo[demo.index("  - id: airlines") : demo.index("quality_checks:")] + JOINED_SINK
    seconds = bench.load(bench.pipeline(definition), times * FLIGHTS)
    sums = [bench.sql(FLIGHT_SUMS.format(table=table)) for table in ("flights", "joined")]
    found = bench.sql(
        "SELECT count(airline), count(dest_name), count(plane_model), count(visib) FROM joined"
    )[0]
    if sums[0] != sums[1] or any(count == 0 or count % times for count in found):
        raise SystemExit(f"the flights were not joined as they are once: {sums}, {found}")
    return times * FLIGHTS, seconds


MANY: Mapping[str, Callable[[Bench, int], tuple[int, float]]] = {
    "copied as they are": many_copied,
    "joined": many_joined,
    "joined and merged": lambda bench, rows: many_joined(bench, rows, mode="merge", keys=["id"]),
    "joined and replaced": lambda bench, rows: many_joined(bench, rows, mode="replace"),
    "of flights with five joins": many_flights,
}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--copy-rows", type=int, default=2_000_000, help="rows of the copy beside psql")
    parser.add_argument("--rows", type=int, help="instead: that many rows through a small worker")
    parser.add_argument("--memory", default="512MiB", help="the worker's memory for --rows")
    parser.add_argument("--form", action="append", choices=sorted(MANY), help="for --rows: not all forms")
    parser.add_argument("--only", choices=("flights", "copies"))
    options = parser.parse_args()
    stack = StackUnderTest({"WORKER_MEMORY": options.memory} if options.rows else {})
    try:
        stack.up()
        with stack.client() as client:
            bench = Bench(stack, client)
            if options.rows:
                many_rows(bench, options.rows, options.memory, options.form or list(MANY))
                return
            if options.only != "copies":
                flights(bench, options.rounds)
            if options.only != "flights":
                copies(bench, options.rounds, options.copy_rows)
    finally:
        stack.remove()


if __name__ == "__main__":
    main()
