"""Finds and ends processes of a stack that no supervisor looks after any more.

A process belongs to a stack when its environment bears the stack's mark. PostgreSQL overwrites its
environment with its title, so it is known by its working directory, which is the data directory.
"""

import signal
from collections.abc import Iterable

import psutil

from headrace_local import postgres
from headrace_local.errors import LocalStackError
from headrace_local.home import Home
from headrace_local.processes import STACK_MARK

_GRACE_SECONDS = 20.0
_SHUTDOWN_SECONDS = 180.0
"""More than all processes may take together to drain, one after the other."""


def find(home: Home) -> list[psutil.Process]:
    """All running processes of the stack, its supervisor included."""
    return [process for process in psutil.process_iter() if _belongs(process, home)]


def end(home: Home) -> bool:
    """Ends what is found: asked first, killed where that does not help. False where nothing was found."""
    found = find(home)
    if not found:
        return False
    for process in found:
        if not _is_postgres(process, home):
            _send(process, signal.SIGTERM)
        elif process.pid == postgres.postmaster_pid(home):
            _send(process, signal.SIGINT)  # "fast" shutdown; it ends its own children
    _, alive = psutil.wait_procs(found, timeout=_GRACE_SECONDS)
    remaining = {*alive, *find(home)}
    for process in remaining:
        _send(process, signal.SIGKILL)
    psutil.wait_procs(remaining, timeout=_GRACE_SECONDS)
    left = find(home)
    if left:
        raise LocalStackError(f"these processes do not end: {_named(left)}")
    return True


def wait(home: Home) -> None:
    """Waits for processes that were told to stop; what stays is a case for `end`."""
    psutil.wait_procs(find(home), timeout=_SHUTDOWN_SECONDS)


def _belongs(process: psutil.Process, home: Home) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return process.environ().get(STACK_MARK) == str(home.root) or _is_postgres(process, home)
    except (psutil.AccessDenied, psutil.NoSuchProcess, OSError):
        return False


def _is_postgres(process: psutil.Process, home: Home) -> bool:
    try:
        return process.name() == "postgres" and process.cwd() == str(postgres.data_directory(home))
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        return False


def _send(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return  # it has ended by itself


def _named(found: Iterable[psutil.Process]) -> str:
    return ", ".join(f"{process.pid} ({process.name()})" for process in found)
