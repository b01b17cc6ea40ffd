"""Cancels at every moment of a run: one final state, one final event, nothing left running anywhere."""

import random
import secrets
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from headrace_local.testing import demand

from .checking import Reference, await_end, check_bookkeeping, digest, queries
from .cluster import EXECUTION, WORKERS, Cluster, until
from .striking import await_fired
from .submitting import Submitted, submit
from .workload import Pipeline, Places, create, posting

SLOW = """
sources: [{id: read, connection: WAREHOUSE, query: "SELECT 1 AS id, pg_sleep(600)::text AS slept"}]
sinks: [{id: load, connection: WAREHOUSE, table: TABLE}]
"""
SLOW_SWAP = """
sources: [{id: read, connection: WAREHOUSE, table: customers}]
sinks: [{id: load, connection: WAREHOUSE, table: TABLE, mode: merge, keys: [id]}]
"""
ONE_AT_A_TIME = SLOW + "execution: {max_concurrent_runs: 1, queue_when_full: true}\n"
UNREACHABLE = """
sources: [{id: read, connection: nowhere, table: t}]
sinks: [{id: out, discard: true}]
"""
BEFORE_THE_COMMIT = {
    "copy_append": ("worker.stage.claimed", "worker.load.copying", "worker.commit.before"),
    "csv_merge": (
        "worker.stage.claimed",
        "worker.checks.before",
        "worker.checks.after",
        "worker.load.copying",
        "worker.commit.before",
    ),
}


def cancel(client: httpx.Client, run: str) -> httpx.Response:
    """Asks for the end of a run."""
    return client.post(f"runs/{run}/cancel", json={"reason": "a test wants it"})


def cancelled(cluster: Cluster, admin: httpx.Client, submitted: Submitted) -> None:
    """The only run ends as cancelled, and nothing of it is left anywhere."""
    (run,) = submitted.runs
    answer = demand(cancel(admin, run), 200)
    assert answer["status"] in ("CANCELLED", "RUNNING", "PENDING"), answer
    assert await_end(cluster, submitted) == {"CANCELLED": 1}
    check_bookkeeping(cluster, submitted)
    assert cancel(admin, run).json()["status"] == "CANCELLED", "a second cancel agrees"


@pytest.mark.parametrize(
    ("kind", "point"),
    [
        ("copy_append", "worker.load.copying"),
        *(
            pytest.param(kind, point, marks=pytest.mark.long)
            for kind, points in BEFORE_THE_COMMIT.items()
            for point in points
            if (kind, point) != ("copy_append", "worker.load.copying")
        ),
    ],
)
def test_a_stage_that_cannot_stop_by_itself_lands_nothing(
    cluster: Cluster, admin: httpx.Client, places: Places, kind: str, point: str
) -> None:
    """Its process stands still: it is killed, and another one settles the loads."""
    pipeline = create(posting(admin), places, kind)
    cluster.arm(point, "stop")
    submitted = submit(cluster, [pipeline], each=1)
    await_fired(cluster, point)

    cancelled(cluster, admin, submitted)

    assert cluster.sql("warehouse", "SELECT to_regclass($1)::text", pipeline.table) == [(None,)]


@pytest.mark.parametrize("kind", ["copy_append", pytest.param("two_sinks", marks=pytest.mark.long)])
def test_what_has_landed_before_the_cancel_is_told_as_landed(
    cluster: Cluster, admin: httpx.Client, places: Places, reference: Reference, kind: str
) -> None:
    """The commit is through, and the process stands still before it can say so."""
    pipeline = create(posting(admin), places, kind)
    cluster.arm("worker.commit.after", f"stop {len(pipeline.tables)}")
    submitted = submit(cluster, [pipeline], each=1)
    await_fired(cluster, "worker.commit.after")

    demand(cancel(admin, next(iter(submitted.runs))), 200)

    assert await_end(cluster, submitted) == {"COMPLETED": 1}
    check_bookkeeping(cluster, submitted)
    assert [digest(cluster, table) for table in pipeline.tables] == reference.after(kind, 1)


def test_a_slow_query_is_stopped_at_the_source(cluster: Cluster, admin: httpx.Client, places: Places) -> None:
    submitted = submit(cluster, [create(posting(admin), places, "slow", SLOW)], each=1)
    until(lambda: "pg_sleep" in str(queries(cluster, submitted)), "the query runs")

    cancelled(cluster, admin, submitted)

    assert "pg_sleep" not in str(queries(cluster, submitted))


def test_a_slow_swap_is_stopped_at_the_target(cluster: Cluster, admin: httpx.Client, places: Places) -> None:
    """The statement that merges waits for a lock that somebody else holds."""
    pipeline = create(posting(admin), places, "slow swap", SLOW_SWAP)
    assert await_end(cluster, submit(cluster, [pipeline], each=1)) == {"COMPLETED": 1}
    before = digest(cluster, pipeline.table)
    cluster.sql(
        "warehouse",
        f"CREATE FUNCTION wait_{pipeline.table}() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM pg_sleep(600); RETURN NEW; END $$",
    )
    cluster.sql(
        "warehouse",
        f"CREATE TRIGGER wait BEFORE UPDATE ON {pipeline.table} FOR EACH ROW "
        f"EXECUTE FUNCTION wait_{pipeline.table}()",
    )
    submitted = submit(cluster, [pipeline], each=1)
    until(lambda: "INSERT INTO" in str(queries(cluster, submitted)), "the swap is under way")

    (run,) = submitted.runs
    demand(cancel(admin, run), 200)

    assert await_end(cluster, submitted) == {"CANCELLED": 1}
    until(lambda: not queries(cluster, submitted), "the swap is gone")
    assert digest(cluster, pipeline.table) == before


def test_a_queued_run_is_cancelled_without_a_worker(
    cluster: Cluster, admin: httpx.Client, places: Places
) -> None:
    pipeline = create(posting(admin), places, "one at a time", ONE_AT_A_TIME)
    first = submit(cluster, [pipeline], each=1)
    until(lambda: "pg_sleep" in str(queries(cluster, first)), "the first runs")
    second = submit(cluster, [pipeline], each=1)
    (held,) = second.runs
    assert demand(admin.get(f"runs/{held}"), 200)["overallStatus"] == "PENDING"

    assert demand(cancel(admin, held), 200)["status"] == "CANCELLED"

    first.runs.update(second.runs)
    demand(cancel(admin, next(iter(first.runs))), 200)
    assert await_end(cluster, first) == {"CANCELLED": 2}
    check_bookkeeping(cluster, first)


def test_a_run_that_no_worker_has_taken_is_cancelled(
    cluster: Cluster, admin: httpx.Client, places: Places
) -> None:
    for worker in WORKERS:
        cluster.halt(worker)
    try:
        submitted = submit(cluster, [create(posting(admin), places, "copy_append")], each=2)
        states = {demand(cancel(admin, run), 200)["status"] for run in submitted.runs}
        assert states == {"CANCELLED"}, "nobody has to be asked"
        check_bookkeeping(cluster, submitted)
    finally:
        for worker in WORKERS:
            cluster.resume(worker)


def test_a_cancel_outlives_the_replica_that_took_it(
    cluster: Cluster, admin: httpx.Client, places: Places
) -> None:
    """Both replicas die while the stage cannot answer; the cancel is in the database."""
    pipeline = create(posting(admin), places, "copy_append")
    cluster.arm("worker.load.copying", "stop")
    submitted = submit(cluster, [pipeline], each=1)
    await_fired(cluster, "worker.load.copying")
    (run,) = submitted.runs

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(cancel, admin, run)
        until(lambda: cancel_is_asked(cluster, run), "the cancel is durable")
        for name in EXECUTION:
            cluster.kill(name)
        assert asked.result().status_code in (200, 503, 504)

    cluster.await_ready()
    cancelled(cluster, admin, submitted)
    assert cluster.sql("warehouse", "SELECT to_regclass($1)::text", pipeline.table) == [(None,)]


def cancel_is_asked(cluster: Cluster, run: str) -> bool:
    """Whether the database knows that a run is to be cancelled."""
    ((asked,),) = cluster.sql(
        "execution", "SELECT bool_or(stop IS NOT NULL) FROM stages WHERE run = $1::uuid", run
    )
    return bool(asked)


def test_a_run_that_waits_for_its_retry_is_cancelled(
    cluster: Cluster, admin: httpx.Client, places: Places
) -> None:
    nowhere = {"name": "nowhere", "type": "POSTGRESQL", "host": "127.0.0.1", "port": 1, "username": "nobody"}
    demand(admin.post("connections", json={**nowhere, "database": "nothing", "secret": "nothing"}), 201)
    pipeline = create(posting(admin), places, "unreachable", UNREACHABLE, retryDelaySeconds=3600)
    submitted = submit(cluster, [pipeline], each=1)
    (run,) = submitted.runs
    until(
        lambda: "WAITING" in demand(admin.get(f"runs/{run}"), 200)["taskStatuses"].values(),
        "it waits",
    )

    assert demand(cancel(admin, run), 200)["status"] == "CANCELLED"
    check_bookkeeping(cluster, submitted)


@pytest.mark.parametrize("callers", [8])
def test_many_cancel_at_once(cluster: Cluster, admin: httpx.Client, places: Places, callers: int) -> None:
    submitted = submit(cluster, [create(posting(admin), places, "slow", SLOW)], each=1)
    (run,) = submitted.runs
    until(lambda: "pg_sleep" in str(queries(cluster, submitted)), "the query runs")

    with ThreadPoolExecutor(callers) as pool:
        answers = list(pool.map(lambda _: cancel(admin, run), range(callers)))

    assert {answer.status_code for answer in answers} == {200}, [answer.text for answer in answers]
    assert await_end(cluster, submitted) == {"CANCELLED": 1}
    check_bookkeeping(cluster, submitted)


def test_cancels_race_with_the_ends_of_runs(
    cluster: Cluster, admin: httpx.Client, places: Places, reference: Reference
) -> None:
    race(cluster, admin, places, reference, runs=12)


@pytest.mark.long
def test_many_cancels_race_with_the_ends_of_runs(
    cluster: Cluster, admin: httpx.Client, places: Places, reference: Reference
) -> None:
    race(cluster, admin, places, reference, runs=150)


def race(cluster: Cluster, admin: httpx.Client, places: Places, reference: Reference, *, runs: int) -> None:
    """Each run is cancelled after a random wait: it has landed wholly or not at all, and says so."""
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    pipeline = create(posting(admin), places, "values_append")
    waits = [dice.uniform(0, 1.2) for _ in range(runs)]

    def one(wait: float) -> Submitted:
        submitted = submit(cluster, [pipeline], each=1)
        time.sleep(wait)  # the moment is the fault
        (run,) = submitted.runs
        answer = cancel(admin, run)
        assert answer.status_code in (200, 409), answer.text
        return submitted

    with ThreadPoolExecutor(3) as pool:
        submitted = gathered(pool.map(one, waits))
    states = await_end(cluster, submitted)

    assert set(states) <= {"COMPLETED", "CANCELLED"}, states
    check_bookkeeping(cluster, submitted)
    landed_as_told(cluster, pipeline, states, reference)
    print(f"{dict(states)}")


def gathered(each: Iterable[Submitted]) -> Submitted:
    """All of them in one."""
    together = Submitted()
    for submitted in each:
        together.runs.update(submitted.runs)
    return together


def landed_as_told(cluster: Cluster, pipeline: Pipeline, states: Counter[str], reference: Reference) -> None:
    """The table holds the rows of exactly those runs that completed."""
    if states["COMPLETED"]:
        found = [digest(cluster, table) for table in pipeline.tables]
        assert found == reference.after(pipeline.kind, states["COMPLETED"])
    else:
        assert cluster.sql("warehouse", "SELECT to_regclass($1)::text", pipeline.table) == [(None,)]
