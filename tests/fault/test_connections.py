"""Connections to sources and targets that break, at the worst moment or for long."""

import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from headrace_local.testing import demand

from .checking import (
    Reference,
    await_end,
    check_bookkeeping,
    check_targets,
    digest,
    queries,
    staging,
)
from .cluster import Cluster, until
from .proxy import Proxy
from .submitting import Submitted, submit
from .workload import KINDS, ORDERS, SIGNALS, Pipeline, Places, connect, create, posting

LOADING = [kind for kind in KINDS if kind != "noop" and kind not in SIGNALS]
COPY = """
sources: [{id: read, connection: SOURCE, table: orders}]
sinks: [{id: load, connection: TARGET, table: TABLE, mode: append}]
"""
COMPUTED = """
sources: [{id: read, connection: SOURCE, table: orders}]
transformations: [{id: some, type: filter, input: read, condition: id > 0}]
sinks: [{id: load, input: some, connection: TARGET, table: TABLE, mode: replace}]
"""


@pytest.fixture(scope="module")
def proxy(shared: Cluster) -> Iterator[Proxy]:
    """Between workers and the user's database."""
    with Proxy(int(shared.warehouse_login()["port"])) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def via(shared: Cluster, admin: httpx.Client, places: Places, proxy: Proxy) -> Places:
    """The workload's places, its database behind the proxy."""
    return Places(connect(shared, admin, "via-proxy", proxy.port), places.files)


@pytest.fixture(autouse=True)
def whole(proxy: Proxy) -> Iterator[None]:
    """The proxy forwards again after each test."""
    yield
    proxy.behave()


def attempts(admin: httpx.Client, submitted: Submitted) -> list[int]:
    """How many attempts each run took."""
    return [int(demand(admin.get(f"runs/{run}"), 200)["attempt"]) for run in submitted.runs]


def failure(admin: httpx.Client, submitted: Submitted, task: str) -> dict[str, Any]:
    """Why a task of the only run failed."""
    (run,) = submitted.runs
    status = demand(admin.get(f"runs/{run}"), 200)
    assert status["overallStatus"] == "FAILED", status
    return dict(next(entry["error"] for entry in status["tasks"] if entry["id"] == task))


@pytest.mark.parametrize(
    "landed", [pytest.param(True, id="after COMMIT"), pytest.param(False, id="instead of COMMIT")]
)
@pytest.mark.parametrize(
    "kind",
    [
        kind if kind in ("copy_append", "csv_merge") else pytest.param(kind, marks=pytest.mark.long)
        for kind in LOADING
    ],
)
def test_a_connection_that_breaks_at_the_commit_leaves_the_decision_to_the_ledger(
    cluster: Cluster,
    admin: httpx.Client,
    proxy: Proxy,
    via: Places,
    reference: Reference,
    kind: str,
    landed: bool,
) -> None:
    before = proxy.cut
    pipeline = create(posting(admin), via, kind)
    proxy.cut_at_commit(landed=landed)

    submitted = submit(cluster, [pipeline], each=1)

    assert await_end(cluster, submitted) == {"COMPLETED": 1}
    assert proxy.cut == before + 1
    assert attempts(admin, submitted) == [1 if landed else 2]
    check_bookkeeping(cluster, submitted)
    check_targets(cluster, submitted, reference)


@pytest.mark.parametrize("text", [pytest.param(COPY, id="copied"), pytest.param(COMPUTED, id="computed")])
@pytest.mark.parametrize("end", ["source", "target"])
def test_a_system_that_dies_in_the_middle_leaves_the_target_as_it_was(
    cluster: Cluster, admin: httpx.Client, proxy: Proxy, via: Places, places: Places, text: str, end: str
) -> None:
    """Without retries the run fails, and nothing is left of it; another one lands."""
    pipeline = between(admin, text, via if end == "source" else places, via if end == "target" else places)
    if end == "source":
        proxy.cut_after(100_000)
    else:
        cut_while_writing(proxy, 100_000)
    submitted = submit(cluster, [pipeline], each=1)

    assert await_end(cluster, submitted) == {"FAILED": 1}
    error = failure(admin, submitted, "read" if end == "source" and text is COMPUTED else "load")
    assert (error["class"], error["code"]) == ("TRANSIENT", "CONNECTION_LOST"), error
    assert cluster.sql("warehouse", "SELECT to_regclass($1)::text", pipeline.table) == [(None,)]
    check_bookkeeping(cluster, submitted)
    assert await_end(cluster, submit(cluster, [pipeline], each=1)) == {"COMPLETED": 1}
    assert cluster.sql("warehouse", f"SELECT count(*) FROM {pipeline.table}") == [(ORDERS,)]


def cut_while_writing(proxy: Proxy, size: int) -> None:
    """Breaks the first connection on which so many bytes were sent to the server."""
    sent: dict[int, int] = {}

    def request(connection: Any, block: bytes) -> bool:
        sent[id(connection)] = sent.get(id(connection), 0) + len(block)
        if sent[id(connection)] < size:
            return True
        proxy.on_request = lambda _, __: True
        proxy.cut += 1
        connection.reset()
        return False

    proxy.on_request = request


@pytest.mark.parametrize("end", ["source", pytest.param("target", marks=pytest.mark.long)])
def test_a_black_hole_is_left_by_the_timeout(
    cluster: Cluster, admin: httpx.Client, proxy: Proxy, via: Places, places: Places, end: str
) -> None:
    """Bytes stay on their way and nobody is told. The attempt ends by its timeout, the retry goes through."""
    pipeline = between(
        admin,
        COMPUTED,
        via if end == "source" else places,
        via if end == "target" else places,
        timeoutSeconds=6,
        maxRetries=20,
    )
    swallow_when(proxy, end)

    submitted = submit(cluster, [pipeline], each=1)
    (run,) = submitted.runs
    until(lambda: failures(cluster, run) > 0, "the attempt is given up")
    proxy.behave()

    assert await_end(cluster, submitted) == {"COMPLETED": 1}
    assert cluster.sql("warehouse", f"SELECT count(*) FROM {pipeline.table}") == [(ORDERS,)]
    check_bookkeeping(cluster, submitted)


@pytest.mark.long
def test_a_black_hole_does_not_keep_a_run_from_its_end(
    cluster: Cluster, admin: httpx.Client, proxy: Proxy, via: Places, places: Places
) -> None:
    """Without retries, and with a target that cannot be asked: the run ends and tells what is unknown."""
    pipeline = between(admin, COMPUTED, places, via, timeoutSeconds=5)
    swallow_when(proxy, "target")

    submitted = submit(cluster, [pipeline], each=1)

    assert await_end(cluster, submitted) == {"FAILED": 1}
    (run,) = submitted.runs
    status = demand(admin.get(f"runs/{run}"), 200)
    assert [warning["code"] for warning in status["warnings"]] == ["UNSETTLED"], status
    proxy.behave()
    for connection in proxy.connections:
        connection.reset()
    assert cluster.sql("warehouse", "SELECT to_regclass($1)::text", pipeline.table) == [(None,)]
    until(lambda: not queries(cluster, submitted), "its server process has ended")
    assert len(staging(cluster, submitted)) == 1, "nobody could reach it"
    another = between(admin, COMPUTED, places, via)
    assert await_end(cluster, submit(cluster, [another], each=1)) == {"COMPLETED": 1}
    assert staging(cluster, submitted) == [], "the next load to that target has cleared it away"


NEW_APPENDED = """
sources: [{id: read, connection: SOURCE, table: ROWS, incremental: {cursor: id}}]
sinks: [{id: load, connection: TARGET, table: TABLE, mode: append}]
"""
NEW_KEPT = """
sources: [{id: read, connection: SOURCE, table: ROWS, incremental: {cursor: id}}]
transformations: [{id: kept, input: read, type: filter, condition: id > 0, materialize: true}]
sinks: [{id: load, input: kept, connection: TARGET, table: TABLE, mode: append}]
"""


@pytest.mark.parametrize(
    ("text", "landed"),
    [
        pytest.param(NEW_APPENDED, True, id="after COMMIT"),
        pytest.param(NEW_APPENDED, False, id="instead of COMMIT", marks=pytest.mark.long),
        pytest.param(NEW_KEPT, True, id="rows handed on", marks=pytest.mark.long),
    ],
)
def test_what_is_new_lands_once_although_nobody_heard_the_end_of_a_run(
    cluster: Cluster, admin: httpx.Client, proxy: Proxy, via: Places, places: Places, text: str, landed: bool
) -> None:
    """The target stays away until the run has ended unsettled."""
    rows = f"new_{uuid.uuid4().hex[:12]}"
    cluster.sql("warehouse", f"CREATE TABLE {rows} AS SELECT g AS id FROM generate_series(1, 500) AS g")
    cluster.sql("warehouse", f"GRANT ALL ON {rows} TO warehouse")
    pipeline = between(admin, text.replace("ROWS", rows), places, via)
    proxy.cut_at_commit(landed=landed, for_good=True)

    unheard = submit(cluster, [pipeline], each=1)
    assert await_end(cluster, unheard) == {"FAILED": 1}
    (run,) = unheard.runs
    status = demand(admin.get(f"runs/{run}"), 200)
    assert [warning["code"] for warning in status["warnings"]] == ["UNSETTLED"], status
    there = "SELECT to_regclass($1) IS NOT NULL"
    assert cluster.sql("warehouse", there, pipeline.table) == [(landed,)]

    proxy.behave()
    for more in (0, 500):
        grown = f"INSERT INTO {rows} SELECT g + 500 FROM generate_series(1, {more}) AS g"
        cluster.sql("warehouse", grown)
        assert await_end(cluster, submit(cluster, [pipeline], each=1)) == {"COMPLETED": 1}
        assert digest(cluster, pipeline.table) == digest(cluster, rows)


def swallow_when(proxy: Proxy, end: str) -> None:
    """Turns into a black hole when rows are under way."""

    def look(connection: Any, block: bytes) -> bool:
        connection.received += len(block)
        if connection.received > 50_000:
            proxy.on_answer = proxy.on_request = lambda _, __: True
            proxy.swallow()
        return True

    if end == "source":
        proxy.on_answer = look
    else:
        proxy.on_request = look


def failures(cluster: Cluster, run: str) -> int:
    """How many attempts of a run have failed or were lost."""
    ((count,),) = cluster.sql("execution", "SELECT max(failures + lost) FROM stages WHERE run = $1", run)
    return int(count)


def between(admin: httpx.Client, text: str, source: Places, target: Places, **settings: int) -> Pipeline:
    """A pipeline from one connection to another, without retries unless told otherwise."""
    named = text.replace("SOURCE", source.warehouse).replace("TARGET", target.warehouse)
    return create(posting(admin), source, "between", named, **{"maxRetries": 0, **settings})
