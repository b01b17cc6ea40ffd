"""Starts, heals, shows and stops the local stack."""

import asyncio
import fcntl
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from headrace_local import broker, leftovers, postgres
from headrace_local.credentials import Credentials, ensure_credentials
from headrace_local.errors import LocalStackError, NotHealthyError
from headrace_local.health import Health, check
from headrace_local.home import Home, write_private
from headrace_local.ports import Ports, all_known, choose_ports, read_ports
from headrace_local.processes import Process, processes
from headrace_local.supervision import Standing, Supervisor
from headrace_local.tokens import renew_ready_made

START_SECONDS = 180.0
"""How long a start may take before it is given up: a busy machine needs many times the usual few."""

_POLL_SECONDS = 0.05
_BACKING_UP = ("BACKOFF", "EXITED", "FATAL")


@dataclass(frozen=True)
class Status:
    """One process as `headrace status` shows it."""

    name: str
    state: str
    pid: int | None
    since: float | None
    health: Health


@dataclass(frozen=True)
class Running:
    """A stack that is up."""

    home: Home
    ports: Ports
    credentials: Credentials

    @property
    def url(self) -> str:
        """Where the gateway is."""
        return f"http://{self.ports.address('gateway')}"

    def token(self, role: str) -> str:
        """The ready-made token of a role."""
        return self.home.token_file(role).read_text()


def up(home: Home, report: Callable[[str], None] = lambda _: None) -> Running:
    """Starts what is not running and waits until everything is ready; what is healthy is left alone.

    `report` is told of each process that has become ready. Raises PortTakenError for the gateway's port,
    NotHealthyError naming the processes that are not ready, and LocalStackError for anything else in the way.
    """
    home.prepare()
    with _exclusive(home):
        supervisor = Supervisor(home)
        standings = supervisor.standings()
        if standings is None:
            leftovers.end(home)  # of a supervisor that was killed
            postgres.forget_stale_pid(home)
        credentials = ensure_credentials(home)
        ports = choose_ports(home, _listening(standings or []))
        wanted = processes(home, ports, credentials)
        postgres.prepare(home, credentials)
        broker.prepare(home, ports, credentials)
        changed = supervisor.write(wanted)
        if standings is None:
            supervisor.start()
        else:
            supervisor.adopt(changed)
        deadline = time.monotonic() + START_SECONDS
        asyncio.run(postgres.provision(home, ports, credentials, START_SECONDS))
        login = postgres.warehouse_login(ports, credentials)
        write_private(home.warehouse_file, json.dumps(login, indent=2).encode() + b"\n")
        _wait_until_ready(home, supervisor, wanted, deadline, report)
        renew_ready_made(home, credentials)
        return Running(home, ports, credentials)


def down(home: Home) -> bool:
    """Stops everything and leaves no process; False where nothing ran."""
    if not home.exists():
        return False
    with _exclusive(home):
        supervisor = Supervisor(home)
        ran = supervisor.shut_down()
        if ran:
            leftovers.wait(home)
        ran = leftovers.end(home) or ran
        for pid_file in home.run.glob("*.pid"):
            pid_file.unlink()
        return ran


def attach(home: Home) -> Running | None:
    """The stack, where all of it is ready; None where it is not."""
    if (
        not home.exists()
        or not all_known(home)
        or any(status.health is not Health.READY for status in status_of(home))
    ):
        return None
    return started(home)


def started(home: Home) -> Running:
    """The stack as it was last started, whether it is ready now or not.

    Raises LocalStackError where no stack of this version was ever started in this home.
    """
    if not home.exists():
        raise LocalStackError(f"no stack in {home.root}: start one by `headrace up`")
    if not all_known(home):
        raise LocalStackError(f"the stack in {home.root} is of an older version: `headrace up` renews it")
    return Running(home, Ports(read_ports(home)), ensure_credentials(home))


def status_of(home: Home) -> list[Status]:
    """How each process stands.

    Raises LocalStackError as `started`.
    """
    running = started(home)
    standings = {standing.name: standing for standing in Supervisor(home).standings() or []}
    wanted = processes(home, running.ports, running.credentials)
    return [_status(running, process, standings.get(process.name)) for process in wanted]


def _status(running: Running, process: Process, standing: Standing | None) -> Status:
    if standing is None:
        return Status(process.name, "STOPPED", None, None, Health.DOWN)
    health = check(process, running.ports) if standing.pid else Health.DOWN
    return Status(process.name, standing.state, standing.pid or None, standing.since or None, health)


def _listening(standings: list[Standing]) -> set[str]:
    """The names of ports whose taker is a running process of ours."""
    alive = {standing.name for standing in standings if standing.pid}
    return alive | {f"{name}.metrics" for name in alive}


@contextmanager
def _exclusive(home: Home) -> Iterator[None]:
    """One start or stop at a time; a second one waits for the first."""
    with home.lock_file.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _wait_until_ready(
    home: Home,
    supervisor: Supervisor,
    wanted: list[Process],
    deadline: float,
    report: Callable[[str], None],
) -> None:
    ports = Ports(read_ports(home))
    waiting = list(wanted)
    while waiting:
        ready = [process for process in waiting if check(process, ports) is Health.READY]
        for process in ready:
            report(process.name)
        waiting = [process for process in waiting if process not in ready]
        if waiting and time.monotonic() > deadline:
            raise _not_healthy(home, supervisor, waiting)
        if waiting:
            time.sleep(_POLL_SECONDS)


def _not_healthy(home: Home, supervisor: Supervisor, waiting: list[Process]) -> NotHealthyError:
    states = {standing.name: standing.state for standing in supervisor.standings() or []}
    lines = [f"not ready after {START_SECONDS:.0f} seconds:"]
    for process in waiting:
        log = home.log_file(process.name)
        state = states.get(process.name, "STOPPED")
        how = "keeps ending" if state in _BACKING_UP else state
        lines.append(f"  {process.name} ({how}), see {log}")
        lines += [f"    {line}" for line in _last_lines(home, process.name)]
    return NotHealthyError("\n".join(lines))


def _last_lines(home: Home, name: str, count: int = 5) -> list[str]:
    log = home.log_file(name)
    if not log.exists():
        return []
    lines = log.read_text(errors="replace")[-8000:].splitlines()[-count:]
    return [line if len(line) <= 300 else f"{line[:300]} …" for line in lines]
