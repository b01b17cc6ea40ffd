"""The zygote: a clean process with one thread that has imported what stages need, and forks a process for
each slot.

The supervisor itself cannot fork: gRPC runs threads in it. Processes forked from here share the memory of
the imported libraries, start in milliseconds, and inherit nothing but the settings of the engine: no
credential, no environment of the supervisor. The supervisor talks to the zygote in JSON datagrams over a
socket pair:

    {"fork": n} with a descriptor  ->  {"forked": n, "pid": p}   the descriptor is the new process' end of
    a pair
    {"kill": n}                    ->  {"exited": n, ...} in time
                                       {"exited": n, "status": s}   s as os.waitstatus_to_exitcode gives it

Processes are named by numbers of the supervisor's, never by pid: only the zygote, which reaps them, knows
whether a pid still means the same process.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import traceback

from headrace_chassis import faults

from headrace_worker.engine.options import EngineOptions
from headrace_worker.processes.parent_death import Orphaned, die_with_parent

PRELOADED = (
    "asyncpg",
    "duckdb",
    "headrace_connectors.api",
    "headrace_worker.engine.stage_process",
    "uvloop",
)
"""Not pyarrow: importing it starts threads, and a fork of a process with threads inherits their locks for
ever.
"""

_MAX_DATAGRAM = 65536


def main() -> None:
    """Serve the supervisor until it goes away: `python -m headrace_worker.processes.zygote <descriptor>
    <pid>`.
    """
    control = socket.socket(fileno=int(sys.argv[1]))
    # A signal to the whole process group (a terminal's Ctrl-C) is for the supervisor to handle.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        die_with_parent(int(sys.argv[2]))
    except Orphaned:
        return
    first = control.recv(_MAX_DATAGRAM)
    if not first:
        return
    options = EngineOptions.from_json(first)
    faults.arm(os.environ)
    for module in PRELOADED:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # so that collections in the children do not copy the pages they share
    Zygote(control, options).serve()


class Zygote:
    """Forks stage processes, kills them on demand, and tells how they ended."""

    def __init__(self, control: socket.socket, options: EngineOptions) -> None:
        self._control = control
        self._options = options
        self._numbers: dict[int, int] = {}  # pid -> the supervisor's number
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)

    def serve(self) -> None:
        """Work until the supervisor closes its end."""
        signal.signal(signal.SIGCHLD, lambda *_: None)  # a handler must exist for the wake-up to be written
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        self._send({"ready": True})
        while True:
            readable, _, _ = select.select([self._control.fileno(), self._wake_read], [], [])
            if self._wake_read in readable:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_read, 4096)
                self._reap()
            if self._control.fileno() in readable and not self._obey():
                return

    def _obey(self) -> bool:
        message, descriptors, _, _ = socket.recv_fds(self._control, _MAX_DATAGRAM, 1)
        if not message:
            return False
        order = json.loads(message)
        if "fork" in order:
            self._fork(order["fork"], descriptors[0])
        elif "kill" in order:
            for pid, number in self._numbers.items():
                if number == order["kill"]:
                    os.kill(pid, signal.SIGKILL)
        return True

    def _fork(self, number: int, descriptor: int) -> None:
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:  # no process or memory to be had: the supervisor hears of it like of a death
            os.close(descriptor)
            self._send({"exited": number, "status": error.errno or 1, "reason": f"fork: {error.strerror}"})
            return
        if pid == 0:
            self._become_stage_process(descriptor, parent)  # does not return
        os.close(descriptor)
        self._numbers[pid] = number
        self._send({"forked": number, "pid": pid})

    def _become_stage_process(self, descriptor: int, parent: int) -> None:
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.close(self._wake_read)
            os.close(self._wake_write)
            self._control.close()
            die_with_parent(parent)
            from headrace_worker.engine import stage_process

            stage_process.serve(socket.socket(fileno=descriptor), self._options)
            status = 0
        except Orphaned:
            status = 0
        except BaseException:  # noqa: BLE001 - whatever it was, this copy of the zygote must not live on
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            number = self._numbers.pop(pid)
            self._send({"exited": number, "status": os.waitstatus_to_exitcode(status)})

    def _send(self, message: dict[str, object]) -> None:
        try:
            self._control.send(json.dumps(message).encode())
        except BrokenPipeError:
            os._exit(0)  # the supervisor is gone; the children die with this process


if __name__ == "__main__":
    main()
