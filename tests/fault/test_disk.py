"""A worker whose disk is full: the stage says so, the target is untouched, and the others go on."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import psutil
import pytest
from headrace_local.testing import demand

from .checking import Reference, await_end, check_all, check_bookkeeping
from .cluster import WORKERS, Cluster
from .submitting import submit
from .workload import KINDS, Places, create, posting

LARGE = """
sources: [{id: one, values: [{x: 1}]}]
transformations:
  - id: many
    type: sql_transform
    inputs: [one]
    sql: SELECT range AS id, md5(range::VARCHAR) || md5((-range)::VARCHAR) AS text FROM range(3000000)
sinks: [{id: load, input: many, connection: WAREHOUSE, table: TABLE, mode: append}]
"""
SMALL = ("noop", "values_append", "copy_append", "two_sinks")


@pytest.mark.timeout(300)
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

    (run,) = failing.runs
    status = demand(admin.get(f"runs/{run}"), 200)
    assert states == {"FAILED": 1}
    error = next(task["error"] for task in status["tasks"] if task.get("error"))
    assert (error["code"], error["class"]) == ("DISK_FULL", "QUOTA"), error
    assert cluster.sql("warehouse", "SELECT to_regclass($1)::text", large.table) == [(None,)]
    check_bookkeeping(cluster, failing)
    assert await_end(cluster, submit(cluster, [large], each=1)) == {"COMPLETED": 1}
    assert cluster.sql("warehouse", f"SELECT count(*) FROM {large.table}") == [(3_000_000,)]


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
            process.rlimit(psutil.RLIMIT_FSIZE, (size, psutil.RLIM_INFINITY))
