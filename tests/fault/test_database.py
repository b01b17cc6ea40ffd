"""PostgreSQL, where everything is kept, restarted, full, or refusing transactions."""

import asyncio
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import asyncpg
import httpx
import pytest

from .checking import Reference, check_all
from .cluster import AWAY, EXECUTION, METADATA, OURS, SCHEDULER, Cluster, until
from .losing import RUNNING, injected, losing
from .submitting import SteadyLoad
from .workload import Places

_ALLOWED = {"200", "503", "504"}


class Probe:
    """A user who looks at the list of runs again and again, and the probes of an operator."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.answers: Counter[str] = Counter()
        self.last = ""
        self.unready: set[str] = set()
        self.dead: set[str] = set()

    def __enter__(self) -> "Probe":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def await_served(self) -> float:
        """Waits until a read that began after this is served; returns after how many seconds it was."""
        began, looks = time.monotonic(), self.answers.total()
        until(
            lambda: self.last == "200" and self.answers.total() > looks + 1,
            f"reads are served again: {self.answers}",
        )
        return round(time.monotonic() - began, 1)

    def _run(self) -> None:
        with self._cluster.client("viewer") as client:
            while not self._stop.wait(0.1):
                self.last = self.look(client)
                self.answers[self.last] += 1
                for name in (*METADATA, *EXECUTION, *SCHEDULER):
                    if not self._cluster.is_alive(name):
                        self.dead.add(name)
                    elif not self._cluster.is_ready(name):
                        self.unready.add(name)

    @staticmethod
    def look(client: httpx.Client) -> str:
        """How it is answered."""
        answer = client.get("runs", params={"limit": 1})
        if answer.status_code == 503:
            return "503" if answer.headers.get("retry-after") else "503 without Retry-After"
        return str(answer.status_code)


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(signal.SIGINT, id="fast"),
        pytest.param(signal.SIGQUIT, id="immediate"),
    ],
)
def test_postgres_restarted_under_load(
    cluster: Cluster, places: Places, reference: Reference, how: signal.Signals
) -> None:
    restarted(cluster, places, reference, how, times=1, runs=14, at_most=28)


@pytest.mark.long
@pytest.mark.parametrize(
    "how",
    [
        pytest.param(signal.SIGINT, id="fast"),
        pytest.param(signal.SIGQUIT, id="immediate"),
        pytest.param(signal.SIGKILL, id="killed"),
    ],
)
def test_postgres_restarted_again_and_again(
    cluster: Cluster, places: Places, reference: Reference, how: signal.Signals
) -> None:
    restarted(cluster, places, reference, how, times=5, runs=120)


def restarted(
    cluster: Cluster,
    places: Places,
    reference: Reference,
    how: signal.Signals,
    *,
    times: int,
    runs: int,
    at_most: int | None = None,
) -> None:
    """Everything that hangs on it says so meanwhile, and is back by itself soon after it."""
    before = cluster.pids(*OURS)
    served: list[float] = []
    with Probe(cluster) as probe, SteadyLoad(cluster, places, at_least=runs, at_most=at_most) as load:
        for _ in range(times):
            load.check()
            old = cluster.pid("postgres")
            cluster.signal("postgres", how)
            until(lambda old=old: cluster.pid("postgres") != old and cluster.accepts(), "it is back")  # type: ignore[misc]
            served.append(probe.await_served())
            cluster.await_ready(*METADATA, *EXECUTION, *SCHEDULER)

    check_all(cluster, load.submitted, reference)
    assert cluster.pids(*OURS) == before, "no process was restarted"
    assert set(probe.answers) <= _ALLOWED, probe.answers
    assert not probe.dead, "liveness does not hang on the database"
    print(f"served again after {served} s; read {dict(probe.answers)}, posted {dict(load.submitted.answers)}")


@pytest.mark.long
def test_postgres_away_for_a_while(cluster: Cluster, places: Places, reference: Reference) -> None:
    """Readiness is red and liveness green, users get a 503 that says when to come again."""
    before = cluster.pids(*OURS)
    with Probe(cluster) as probe, SteadyLoad(cluster, places, at_least=40) as load:
        cluster.halt("postgres")
        until(
            lambda: probe.unready >= {*METADATA, *EXECUTION, *SCHEDULER},
            f"readiness is red: {probe.unready}",
        )
        until(lambda: probe.answers["503"] >= 20, f"users are told: {probe.answers}")
        cluster.resume("postgres")
        until(lambda: cluster.accepts(), "it is back")
        served = probe.await_served()

    check_all(cluster, load.submitted, reference)
    assert cluster.pids(*OURS) == before, "no process was restarted"
    assert set(probe.answers) <= _ALLOWED, probe.answers
    assert not probe.dead, "liveness does not hang on the database"
    print(f"served again after {served} s; read {dict(probe.answers)}, posted {dict(load.submitted.answers)}")


@pytest.mark.long
def test_no_connection_is_to_be_had(cluster: Cluster, places: Places, reference: Reference) -> None:
    """Somebody else has taken all connections, and those of Headrace were ended."""
    before = cluster.pids(*OURS)
    with Probe(cluster) as probe, SteadyLoad(cluster, places, at_least=40) as load:
        with all_connections_taken(cluster):
            until(lambda: probe.answers["503"] >= 10, f"users are told: {probe.answers}")
        served = probe.await_served()

    check_all(cluster, load.submitted, reference)
    assert cluster.pids(*OURS) == before, "no process was restarted"
    assert set(probe.answers) <= _ALLOWED, probe.answers
    print(f"served again after {served} s; read {dict(probe.answers)}, posted {dict(load.submitted.answers)}")


@contextmanager
def all_connections_taken(cluster: Cluster) -> Iterator[None]:
    """Takes every connection that is free, and ends those of the services so that they become free."""
    login = cluster.warehouse_login()
    login["user"] = login.pop("username")
    stop = threading.Event()
    full = threading.Event()

    async def hold() -> None:
        held: list[asyncpg.Connection[asyncpg.Record]] = []
        try:
            while not stop.is_set():
                try:
                    held.append(await asyncpg.connect(**login, timeout=5))
                except AWAY:
                    full.set()
                    await asyncio.sleep(0.05)
        finally:
            for connection in held:
                connection.terminate()

    thread = threading.Thread(target=lambda: asyncio.run(hold()))
    thread.start()
    try:
        assert full.wait(60)
        # The superuser's connections are kept free for just this.
        statement = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE usename IN ('metadata', 'execution')"
        )
        ended_at = time.monotonic()
        while time.monotonic() < ended_at + 5:  # so often that what is free goes to whoever is faster
            cluster.sql("postgres", statement)
            time.sleep(0.2)
        yield
    finally:
        stop.set()
        thread.join()


@pytest.mark.long
def test_the_pools_of_the_services_are_used_up(
    cluster: Cluster, places: Places, reference: Reference
) -> None:
    """Somebody holds a lock that every request waits for, with a connection of its service in hand."""
    with SteadyLoad(cluster, places, at_least=14, at_most=28) as load:
        with locked(cluster, "execution", "runs"), ThreadPoolExecutor(60) as users:
            answers = Counter(users.map(lambda _: look(cluster), range(60)))
        until(lambda: look(cluster) == "200", "reads are served again")

    check_all(cluster, load.submitted, reference)
    assert answers["503"] > 0, answers
    assert set(answers) <= _ALLOWED, answers
    print(f"read: {dict(answers)}; posted: {dict(load.submitted.answers)}")


def look(cluster: Cluster) -> str:
    """The status of a list of runs, as a new user gets it."""
    with cluster.client("viewer") as client:
        return Probe.look(client)


@contextmanager
def locked(cluster: Cluster, database: str, table: str) -> Iterator[None]:
    """Locks a table while the block lasts, and no longer than half a minute."""
    held, done = threading.Event(), threading.Event()

    async def hold() -> None:
        connection = await asyncpg.connect(**cluster.superuser(database))
        try:
            async with connection.transaction():
                await connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
                held.set()
                await asyncio.to_thread(done.wait, 30)
        finally:
            await connection.close()

    thread = threading.Thread(target=lambda: asyncio.run(hold()))
    thread.start()
    try:
        assert held.wait(60)
        yield
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("runs", [15, pytest.param(150, marks=pytest.mark.long)])
def test_deadlocks_and_serialization_failures(
    cluster: Cluster, places: Places, reference: Reference, runs: int
) -> None:
    with losing(cluster, RUNNING), SteadyLoad(cluster, places, at_least=runs) as load:
        pass
    lost = {database: injected(cluster, database) for database in RUNNING}

    check_all(cluster, load.submitted, reference)
    assert min(lost.values()) > 0, "each database has refused some"
    print(f"posted: {dict(load.submitted.answers)}; {len(load.submitted.runs)} runs; injected: {lost}")
