"""A worker or a target whose disk is full: the stage says so, the target is untouched, the others go on."""

import asyncio
import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import psutil
import pytest
from headrace_chassis.testing.postgres import PostgresServer
from headrace_local.testing import demand

from .checking import Reference, await_end, check_all, check_bookkeeping
from .cluster import WORKERS, Cluster
from .proxy import Proxy
from .submitting import Submitted, submit
from .workload import KINDS, Places, create, posting

LARGE = """
sources: [{id: one, values: [{x: 1}]}]
transformations:
  - id: many
    type: sql_transform
    inputs: [one]
    sql: SELECT range AS id, md5(range::VARCHAR) || md5((-range)::VARCHAR) AS text FROM range(1500000)
  - {id: few, type: filter, input: many, condition: id % 1000 = 0}
quality_checks: [{id: enough, type: row_count, input: many, min: 1500000}]
sinks: [{id: load, input: few, connection: WAREHOUSE, table: TABLE, mode: append}]
"""
TEN_MEBIBYTES = """
sources: [{id: one, values: [{x: 1}]}]
transformations:
  - id: many
    type: sql_transform
    inputs: [one]
    sql: SELECT range AS id, repeat(md5(range::VARCHAR), 30) AS text FROM range(10000)
sinks: [{id: load, input: many, connection: full, table: kept, mode: MODE}]
"""
LARGEST_FILE = 17 << 20
"""More than a segment of PostgreSQL's log, and less than what the target would need."""
SMALL = ("noop", "values_append", "copy_append", "two_sinks")


def test_a_full_disk_fails_the_stage_that_needs_it_and_no_other(
    cluster: Cluster, admin: httpx.Client, places: Places, reference: Reference
) -> None:
    large = create(posting(admin), places, "large", LARGE)
    small = [create(posting(admin), places, kind) for kind in KINDS if kind in SMALL]
    with no_file_larger_than(cluster, 4 << 20):
        failing = submit(cluster, [large], each=1)
        others = submit(cluster, small, each=2)
        states = await_end(cluster, failing)
        check_all(cluster, others, reference)

    assert states == {"FAILED": 1}
    error = failure(admin, failing)
    assert (error["code"], error["class"]) == ("DISK_FULL", "QUOTA"), error
    assert cluster.sql("warehouse", "SELECT to_regclass($1)::text", large.table) == [(None,)]
    check_bookkeeping(cluster, failing)
    assert await_end(cluster, submit(cluster, [large], each=1)) == {"COMPLETED": 1}
    assert cluster.sql("warehouse", f"SELECT count(*) FROM {large.table}") == [(1_500,)]


@contextmanager
def no_file_larger_than(cluster: Cluster, size: int) -> Iterator[None]:
    """Bounds the files of all workers, as a full disk does."""
    limit(cluster, size)
    try:
        yield
    finally:
        limit(cluster, psutil.RLIM_INFINITY)


def limit(cluster: Cluster, size: int) -> None:
    """Sets the largest file of the workers and of all their processes."""
    for name in WORKERS:
        worker = psutil.Process(cluster.pid(name))
        for process in (worker, *worker.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):  # a stage process that has just ended
                process.rlimit(psutil.RLIMIT_FSIZE, (size, psutil.RLIM_INFINITY))


def failure(admin: httpx.Client, submitted: Submitted) -> dict[str, Any]:
    """Why the only run failed."""
    (run,) = submitted.runs
    status = demand(admin.get(f"runs/{run}"), 200)
    return dict(next(task["error"] for task in status["tasks"] if task.get("error")))


class FullServer:
    """A PostgreSQL of the user's that can make no large file, reached through a proxy by TCP."""

    def __init__(self, folder: Path) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, hard))  # the server inherits it
        try:
            self._server = PostgresServer(folder)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        self._proxy = Proxy(f"{self._server.host}/.s.PGSQL.5432")
        self.port = self._proxy.port

    def close(self) -> None:
        """Ends it and deletes all of it."""
        self._proxy.__exit__(None, None, None)
        self._server.remove()

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """The rows of a statement."""

        async def ask() -> list[tuple[Any, ...]]:
            connection = await asyncpg.connect(self._server.url())
            try:
                return [tuple(row) for row in await connection.fetch(statement)]
            finally:
                await connection.close()

        return asyncio.run(ask())


@pytest.fixture(scope="module")
def full(shared: Cluster, admin: httpx.Client) -> Iterator[FullServer]:
    """The server, and a connection to it by the name of `full`."""
    folder = Path(tempfile.mkdtemp(prefix="headrace-fault-full-", dir="/tmp"))
    server = FullServer(folder / "data")
    login = {"host": "127.0.0.1", "port": server.port, "database": "postgres", "username": "postgres"}
    body = {"name": "full", "type": "POSTGRESQL", **login, "secret": "not-to-be-told"}
    demand(admin.post("connections", json=body), 201)
    yield server
    server.close()
    folder.rmdir()


@pytest.mark.parametrize("mode", ["append", pytest.param("replace", marks=pytest.mark.long)])
def test_a_target_whose_disk_is_full_stays_as_it_was(
    cluster: Cluster, admin: httpx.Client, places: Places, reference: Reference, full: FullServer, mode: str
) -> None:
    """It is not tried again, though the run may retry; the next one lands when there is room."""
    full.sql("DROP TABLE IF EXISTS kept")
    full.sql(
        "CREATE TABLE kept AS SELECT i::bigint AS id, repeat(md5('o' || i), 30) AS text "
        "FROM generate_series(1, 10000) AS g(i)"
    )
    before = full.sql("SELECT count(*), md5(string_agg(kept::text, '' ORDER BY id)) FROM kept")
    pipeline = create(posting(admin), places, "full", TEN_MEBIBYTES.replace("MODE", mode))
    neighbour = create(posting(admin), places, "values_append")

    failing, others = submit(cluster, [pipeline], each=1), submit(cluster, [neighbour], each=2)

    assert await_end(cluster, failing) == {"FAILED": 1}
    error = failure(admin, failing)
    assert (error["code"], error["class"]) == ("TARGET_DISK_FULL", "QUOTA"), error
    assert "not-to-be-told" not in str(error)
    (run,) = failing.runs
    assert demand(admin.get(f"runs/{run}"), 200)["attempt"] == 1, "a retry would not help"
    assert full.sql("SELECT count(*), md5(string_agg(kept::text, '' ORDER BY id)) FROM kept") == before
    assert full.sql("SELECT relname FROM pg_class WHERE starts_with(relname, '_stg_')") == []
    check_bookkeeping(cluster, failing)
    check_all(cluster, others, reference)
    full.sql("TRUNCATE kept")
    assert await_end(cluster, submit(cluster, [pipeline], each=1)) == {"COMPLETED": 1}
    assert full.sql("SELECT count(*) FROM kept") == [(10_000,)]
