"""The ports of a stack: the gateway's by name, the others wherever there is room, all kept between starts."""

import fcntl
import json
import os
import random
import socket
import tempfile
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from functools import cache

import psutil

from headrace_local.errors import LocalStackError, PortTakenError
from headrace_local.home import PORT_VARIABLE, Home, write_private

HOST = "127.0.0.1"
DEFAULT_GATEWAY_PORT = 8082

_LOWEST, _HIGHEST = 20000, 32000
"""Below the range from which systems take the ports of outgoing connections, which would race with ours."""

NAMES = (
    "gateway",
    "gateway.metrics",
    "postgres",
    "nats",
    "metadata",
    "metadata.metrics",
    "execution",
    "execution.metrics",
    "scheduler",
    "scheduler.metrics",
    "worker.metrics",
)


@dataclass(frozen=True)
class Ports:
    """A port for each name of NAMES."""

    by_name: Mapping[str, int]

    def __getitem__(self, name: str) -> int:
        return self.by_name[name]

    def address(self, name: str) -> str:
        """`host:port` of a name."""
        return f"{HOST}:{self.by_name[name]}"


def wanted_gateway_port(kept: int | None) -> int:
    """HEADRACE_GATEWAY_PORT, else the port of the last start, else 8082.

    Raises LocalStackError where the variable holds no port.
    """
    text = os.environ.get(PORT_VARIABLE, "")
    if not text:
        return kept or DEFAULT_GATEWAY_PORT
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise LocalStackError(f"{PORT_VARIABLE} must be a port from 1 to 65535, not {text!r}")
    return int(text)


def read_ports(home: Home) -> dict[str, int]:
    """The ports of the last start; empty where there was none."""
    try:
        content = json.loads(home.ports_file.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise LocalStackError(f"{home.ports_file} is damaged: {error}; remove it and start again") from error
    return {name: int(port) for name, port in content.items() if name in NAMES}


def all_known(home: Home) -> bool:
    """Whether the last start chose every port; one of an older version did not know all of them."""
    return read_ports(home).keys() >= set(NAMES)


def choose_ports(home: Home, ours: Iterable[str]) -> Ports:
    """Settles all ports and stores them.

    `ours` names what already listens on its port, being a process of this stack. Any other port that is taken
    is picked anew, but for the gateway's: people know that one, so PortTakenError is raised.
    """
    kept = read_ports(home)
    ours = set(ours)
    chosen: dict[str, int] = {}
    for name in NAMES:
        port = kept.get(name)
        if name == "gateway":
            wanted = wanted_gateway_port(port)
            if not (name in ours and wanted == port):
                _demand_free(wanted)
            chosen[name] = wanted
        elif port is not None and port not in chosen.values() and (name in ours or is_free(port)):
            chosen[name] = port
        else:
            chosen[name] = find_free_port({*kept.values(), *chosen.values()})
    if chosen != kept:
        write_private(home.ports_file, json.dumps(chosen, indent=2).encode() + b"\n")
    return Ports(chosen)


def is_free(port: int) -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # TIME_WAIT does not keep a server away
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _demand_free(port: int) -> None:
    if is_free(port):
        return
    if port < 1024 and os.geteuid() != 0:
        raise PortTakenError(f"port {port} is not open to this user; name another by {PORT_VARIABLE}=<port>")
    raise PortTakenError(
        f"port {port} on {HOST} is taken{_holder(port)}; stop what uses it, or name another port by "
        f"{PORT_VARIABLE}=<port>"
    )


def _holder(port: int) -> str:
    """Which process listens on a port, as far as this user may know."""
    try:
        for connection in psutil.net_connections(kind="tcp"):
            listening = connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,)
            if listening and connection.pid is not None:
                return f" by {psutil.Process(connection.pid).name()} (process {connection.pid})"
    except psutil.Error:
        return ""
    return ""


def find_free_port(avoid: Set[int] = frozenset()) -> int:
    """A port that nobody listens on, and that no other process is told until this one has ended.

    Raises LocalStackError where there is none.
    """
    for port in random.sample(range(_LOWEST, _HIGHEST), k=2000):
        if port not in avoid and _promise(port) and is_free(port):
            return port
    raise LocalStackError(f"no free port between {_LOWEST} and {_HIGHEST} on {HOST}")


_promised: set[int] = set()
"""What this process has been promised."""


def _promise(port: int) -> bool:
    """Whether a port is this process's own from now on: servers listen only some seconds after their ports
    were chosen, and two stacks that start at the same time would choose the same one now and then.

    A port is the byte of that number in a file, which is locked while the process lives.
    """
    if port in _promised:
        return False
    try:
        fcntl.lockf(_promises(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except (BlockingIOError, PermissionError):
        return False
    _promised.add(port)
    return True


@cache
def _promises() -> int:
    """The file, open for as long as the process lives: closing any descriptor would break the promises."""
    path = os.path.join(tempfile.gettempdir(), f"headrace-ports-{os.getuid()}.lock")
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise LocalStackError(
            f"ports are shared out by locks in {path}, which cannot be opened: {error}"
        ) from error
