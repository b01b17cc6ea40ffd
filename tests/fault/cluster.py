"""The local stack with two of each service and two workers, in a temporary home, to be harmed by tests."""

import asyncio
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import httpx
import psutil
from headrace_chassis import faults
from headrace_local import broker, leftovers, postgres
from headrace_local.credentials import Credentials, ensure_credentials
from headrace_local.health import Health, check
from headrace_local.home import Home, write_private
from headrace_local.ports import NAMES, Ports, find_free_port
from headrace_local.processes import Process, processes
from headrace_local.supervision import Supervisor
from headrace_local.tokens import mint

T = TypeVar("T")

METADATA = ("metadata", "metadata-b")
EXECUTION = ("execution", "execution-b")
SCHEDULER = ("scheduler", "scheduler-b")
WORKERS = ("worker", "worker-b")
OURS = ("gateway", *METADATA, *EXECUTION, *SCHEDULER, *WORKERS)
"""Every process that is Headrace's own."""

LEASE_SECONDS = 5.0
MAX_LOST_WORKERS = 5
AWAY = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.TooManyConnectionsError,
)
"""What a server says, or does not say, that is away or full; and the driver, where the server goes in the
middle of a conversation."""
PATIENCE = 180.0
"""How many seconds tests wait for what takes a moment: on a machine that is busy with other work the moment
may be a hundred times as long, and how long it takes is not what these tests are about."""
_START_SECONDS = 600.0
"""What eleven processes that start at the same time may take where a hundred others want the processors."""
_SETTINGS: Mapping[str, Mapping[str, str]] = {
    "execution": {
        "LEASE_SECONDS": str(LEASE_SECONDS),
        "HEARTBEAT_SECONDS": "1",
        "MAX_LOST_WORKERS": str(MAX_LOST_WORKERS),
        "STOP_GRACE_SECONDS": "4",
        "SETTLE_LIMIT_SECONDS": "20",
    },
    "worker": {"WORKER_SLOTS": "3", "WORKER_MEMORY": "384MiB", "WORKER_THREADS": "1"},
    "gateway": {"RATE_LIMIT_PER_SECOND": "10000", "RATE_LIMIT_BURST": "10000"},
}
"""Short leases, so that the work of what was killed comes back soon."""


def until(look: Callable[[], T], what: str, seconds: float = PATIENCE) -> T:
    """What is seen once it is true; AssertionError naming what was waited for when the time is over."""
    deadline = time.monotonic() + seconds
    while True:
        seen = look()
        if seen:
            return seen
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)


@dataclass
class Cluster:
    """A stack whose processes can be killed, stopped and continued. The supervisor restarts what dies."""

    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="headrace-fault-", dir="/tmp")))

    def __post_init__(self) -> None:
        self.home = Home(self.folder / "home")
        self.home.prepare()
        self.points = self.folder / "points"
        self.points.mkdir()
        self.ports = _choose_ports(self.home)
        self.credentials: Credentials = ensure_credentials(self.home)
        self._supervisor = Supervisor(self.home)
        self.processes = {
            process.name: process for process in _twice(self.home, self.ports, self.credentials, self.points)
        }

    def start(self) -> None:
        """Starts everything and waits until it is ready."""
        postgres.prepare(self.home, self.credentials)
        broker.prepare(self.home, self.ports, self.credentials)
        self._supervisor.write(list(self.processes.values()))
        self._supervisor.start()
        asyncio.run(postgres.provision(self.home, self.ports, self.credentials, _START_SECONDS))
        self.await_ready(seconds=_START_SECONDS)

    def remove(self) -> None:
        """Kills everything and deletes the home: nothing of it is needed any more."""
        supervisord = self._pid_of("supervisord")
        if supervisord is not None:
            _send(supervisord, signal.SIGKILL)
        postmaster = self._alive("postgres")
        if postmaster is not None:
            _send(postmaster, signal.SIGQUIT)  # it ends its own children
        for name in (*OURS, "nats"):
            pid = self._alive(name)
            if pid is not None:
                _send(pid, signal.SIGKILL)
        leftovers.end(self.home)
        shutil.rmtree(self.home.sockets, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def lineage(self) -> list[tuple[str, str]]:
        """The runs and types of the OpenLineage events that were told so far, in their order."""
        lines = _lineage(self.home).read_text(encoding="utf-8").split("\n")[:-1]
        return [(event["run"]["runId"], event["eventType"]) for event in map(json.loads, lines)]

    # -- processes

    def pid(self, name: str) -> int:
        """The process id of a process that is there; waits for one that is being restarted."""
        pid = until(lambda: self._alive(name), f"{name} runs")
        assert pid is not None
        return pid

    def pids(self, *names: str) -> dict[str, int]:
        """The process ids of several."""
        return {name: self.pid(name) for name in names}

    def kill(self, name: str) -> None:
        """SIGKILL; the supervisor starts it again."""
        _send(self.pid(name), signal.SIGKILL)

    def signal(self, name: str, number: signal.Signals) -> None:
        """A signal to one process."""
        _send(self.pid(name), number)

    def kill_process(self, pid: int) -> None:
        """SIGKILL to one of the processes of a worker."""
        assert self.worker_of(pid) is not None
        _send(pid, signal.SIGKILL)

    def freeze(self, worker: str) -> list[int]:
        """SIGSTOP to a worker and all its stage processes; returns them for `thaw`."""
        main = psutil.Process(self.pid(worker))
        frozen = [main.pid]
        main.suspend()  # first: it starts no more
        for child in main.children(recursive=True):
            child.suspend()
            frozen.append(child.pid)
        return frozen

    @staticmethod
    def thaw(frozen: list[int]) -> None:
        """SIGCONT to what still lives of them."""
        for pid in frozen:
            _send(pid, signal.SIGCONT)

    def worker_of(self, stage_process: int) -> str | None:
        """Which worker a process belongs to; None where it has ended."""
        try:
            family = {parent.pid for parent in psutil.Process(stage_process).parents()}
        except psutil.NoSuchProcess:
            return None
        return next((name for name in WORKERS if self._alive(name) in family), None)

    def is_ready(self, name: str) -> bool:
        """Whether its readiness probe says so."""
        process = self.processes[name]
        return self._alive(name) is not None and check(process, self.ports) is Health.READY

    def is_alive(self, name: str) -> bool:
        """Whether its liveness probe says so, or, for the others, whether there is a process."""
        url = self.processes[name].ready_url
        if url is None:
            return self._alive(name) is not None
        try:
            return httpx.get(url.replace("/readyz", "/healthz"), timeout=PATIENCE / 2).status_code == 200
        except httpx.TransportError:
            return False

    def await_ready(self, *names: str, seconds: float = PATIENCE) -> float:
        """Waits until these, or all, are ready; returns after how many seconds they were."""
        began = time.monotonic()
        for name in names or self.processes:
            until(partial(self.is_ready, name), f"{name} is ready", seconds)
        return time.monotonic() - began

    def halt(self, name: str) -> None:
        """Has the supervisor stop a process and leave it stopped."""
        self._supervisor._rpc().supervisor.stopProcess(name, True)

    def resume(self, name: str) -> None:
        """Has the supervisor start a stopped process."""
        self._supervisor._rpc().supervisor.startProcess(name, False)

    def _alive(self, name: str) -> int | None:
        pid = self._pid_of(name)
        try:
            if pid is None or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return None
        except psutil.NoSuchProcess:
            return None
        return pid

    def _pid_of(self, name: str) -> int | None:
        try:
            return int(self.home.pid_file(name).read_text())
        except (FileNotFoundError, ValueError):
            return None

    # -- named points

    def arm(self, point: str, order: str) -> None:
        """Orders what happens at a point; see headrace_chassis.faults."""
        partial = self.points / f".{point}"
        partial.write_text(order)
        partial.rename(self.points / point)

    def fired(self, point: str) -> int | None:
        """The id of the process that came to an armed point, or None."""
        found = [path for path in self.points.glob(f"{point}.*") if path.suffix[1:].isdecimal()]
        return int(found[0].suffix[1:]) if found else None

    def disarm(self) -> None:
        """Forgets all orders, and what came of them."""
        for path in self.points.iterdir():
            path.unlink(missing_ok=True)

    # -- data

    def client(self, role: str = "admin") -> httpx.Client:
        """An HTTP client of the API; paths are relative to /api/v1/."""
        token = mint(self.credentials, role=role, lifetime=timedelta(hours=6))
        return httpx.Client(
            base_url=f"http://{self.ports.address('gateway')}/api/v1/",
            headers={"Authorization": f"Bearer {token}"},
            timeout=httpx.Timeout(60.0),
        )

    def sql(self, database: str, statement: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """The rows of a statement in a database, as the superuser; waits while the server is away."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return asyncio.run(self._sql(database, statement, *arguments))
            except AWAY:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def accepts(self) -> bool:
        """Whether PostgreSQL takes connections now."""
        try:
            return asyncio.run(self._sql("postgres", "SELECT 1")) == [(1,)]
        except AWAY:
            return False

    async def _sql(self, database: str, statement: str, *arguments: Any) -> list[tuple[Any, ...]]:
        connection = await asyncpg.connect(**self.superuser(database))
        try:
            return [tuple(row) for row in await connection.fetch(statement, *arguments)]
        finally:
            await connection.close()

    def superuser(self, database: str) -> dict[str, Any]:
        """How the superuser logs in."""
        return {
            "host": str(postgres.socket_directory(self.home)),
            "port": self.ports["postgres"],
            "user": postgres.SUPERUSER,
            "password": self.credentials.postgres_passwords[postgres.SUPERUSER],
            "database": database,
        }

    def warehouse_login(self) -> dict[str, Any]:
        """How the user logs in to their own database, by the names that connections use."""
        return postgres.warehouse_login(self.ports, self.credentials)

    def log(self, name: str) -> str:
        """What a process has said."""
        return self.home.log_file(name).read_text(errors="replace")


def _choose_ports(home: Home) -> Ports:
    names = [*NAMES]
    for name in (*METADATA, *EXECUTION, *SCHEDULER, *WORKERS):
        names += [port for port in (name, f"{name}.metrics") if port not in names]
    chosen: dict[str, int] = {}
    for name in names:
        chosen[name] = find_free_port(set(chosen.values()))
    write_private(home.ports_file, json.dumps(chosen).encode())
    return Ports(chosen)


def _twice(home: Home, ports: Ports, credentials: Credentials, points: Path) -> list[Process]:
    """The processes of the local stack; metadata, execution, the scheduler and the worker twice."""
    targets = {
        "METADATA_TARGET": _both(ports, METADATA),
        "EXECUTION_TARGET": _both(ports, EXECUTION),
        "SCHEDULER_TARGET": _both(ports, SCHEDULER),
    }
    wanted: list[Process] = []
    for process in processes(home, ports, credentials):
        if process.name in ("postgres", "nats"):
            wanted.append(process)
            continue
        environment = {
            **process.environment,
            **_SETTINGS.get(process.name, {}),
            **{name: target for name, target in targets.items() if name in process.environment},
            faults.VARIABLE: str(points),
            "DRAIN_SECONDS": "5",
            **({"OPENLINEAGE_URL": f"file://{_lineage(home)}"} if process.name == "execution" else {}),
            # The code that is tested is the code that tests import.
            **{name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ},
        }
        first = replace(process, environment=environment)
        wanted.append(first)
        if process.name != "gateway":
            wanted.append(_replica(first, f"{process.name}-b", ports))
    return wanted


def _lineage(home: Home) -> Path:
    return home.root / "openlineage.jsonl"


def _replica(process: Process, name: str, ports: Ports) -> Process:
    environment = dict(process.environment)
    metrics = f"{name}.metrics"
    environment["METRICS_LISTEN"] = ports.address(metrics)
    if "GRPC_LISTEN" in environment:
        environment["GRPC_LISTEN"] = ports.address(name)
    url = f"http://{ports.address(metrics)}/readyz"
    return replace(process, name=name, environment=environment, ready_url=url)


def _both(ports: Ports, names: tuple[str, ...]) -> str:
    return "ipv4:" + ",".join(ports.address(name) for name in names)


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # it has ended by itself
