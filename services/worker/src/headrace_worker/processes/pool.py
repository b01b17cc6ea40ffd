"""The supervisor's side of the stage processes: starts the zygote, asks it for processes, and hears of their
ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Protocol, cast

import structlog
from headrace_chassis import faults

from headrace_worker.engine.options import EngineOptions
from headrace_worker.processes.frames import Frame, FrameBuffer, FrameError, pack

_log = structlog.get_logger(__name__)

_PASSED_ON = (
    "PATH",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TZDIR",
    "VIRTUAL_ENV",
    "LD_LIBRARY_PATH",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    faults.VARIABLE,
)
"""Environment that stage processes get. Credentials of the worker and the operator's secrets stay behind."""

_MAX_DATAGRAM = 65536
_RESTART_SECONDS = 1.0


class ProcessListener(Protocol):
    """Who is told what a stage process says and how it ends. Called on the event loop; must not block."""

    def frame_received(self, process: StageProcess, kind: Frame, body: bytes) -> None:
        """The process said something."""

    def process_ended(self, process: StageProcess, reason: str) -> None:
        """The process is gone, and `reason` says how, as in "killed by SIGKILL". Nothing comes from it any
        more.
        """


class StageProcess(asyncio.Protocol):
    """One process forked by the zygote. `listener` is whoever has it at the moment."""

    def __init__(self, number: int, kill: Callable[[int], None]) -> None:
        self.number = number
        self.pid: int | None = None
        self.listener: ProcessListener | None = None
        self._kill = kill
        self._transport: asyncio.Transport | None = None
        self._buffer = FrameBuffer()
        self._connection_lost = False
        self._exit: str | None = None
        self._told = False

    @property
    def alive(self) -> bool:
        """Whether it can still be given work."""
        return self._exit is None and not self._connection_lost

    def send(self, kind: Frame, body: bytes = b"") -> None:
        """Say something to the process; lost where it has died, which its listener hears of."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(pack(kind, body))

    def kill(self) -> None:
        """End the process at once, whatever it does; its listener hears of its end."""
        self._kill(self.number)

    def dismiss(self) -> None:
        """Let an idle process end: it does when its supervisor's end is closed."""
        if self._transport is not None:
            self._transport.close()

    def exited(self, reason: str) -> None:
        """The zygote has reaped it."""
        if self._exit is None:
            self._exit = reason
            self._tell()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        try:
            frames = self._buffer.feed(data)
        except FrameError as error:
            _log.error("a stage process sent what is no frame", pid=self.pid, error=str(error))
            self.kill()
            return
        for kind, body in frames:
            if self.listener is not None:
                self.listener.frame_received(self, kind, body)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        self._connection_lost = True
        self._tell()

    def _tell(self) -> None:
        # Both must have happened: the last frames may still be in the socket when the zygote reaps it.
        if self._connection_lost and self._exit is not None and not self._told:
            self._told = True
            if self.listener is not None:
                self.listener.process_ended(self, self._exit)


class ProcessPool:
    """Stage processes on demand, with some kept warm."""

    def __init__(self, options: EngineOptions, *, warm: int) -> None:
        self._options = options
        self._warm = warm
        self._next = 0
        self._idle: list[StageProcess] = []
        self._all: dict[int, StageProcess] = {}
        self._zygote: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._closed = False
        self._fewest_idle = 0
        self._ready = asyncio.Event()
        self._forking = asyncio.Lock()
        self._forked: asyncio.Future[bool] | None = None

    @property
    def zygote_pid(self) -> int | None:
        """The zygote's pid, while it is up."""
        return self._zygote.pid if self._zygote is not None else None

    @property
    def pids(self) -> tuple[int, ...]:
        """The pids of all stage processes that have started."""
        return tuple(process.pid for process in self._all.values() if process.pid is not None)

    async def start(self) -> None:
        """Start the zygote and the warm processes."""
        self._start_zygote()
        await self._ready.wait()
        await self._fill()

    def try_acquire(self) -> StageProcess | None:
        """An idle process, or None where there is none: `acquire` makes one."""
        while self._idle:
            process = self._idle.pop()
            if process.alive:
                self._fewest_idle = min(self._fewest_idle, len(self._idle))
                return process
        self._fewest_idle = 0
        return None

    async def acquire(self) -> StageProcess:
        """A process with nothing to do, an idle one where there is one."""
        return self.try_acquire() or await self._fork()

    def release(self, process: StageProcess) -> None:
        """Take a process back that is ready for more work."""
        process.listener = None
        if not process.alive:
            return
        if self._closed:
            process.dismiss()
        else:
            self._idle.append(process)

    async def replenish(self) -> None:
        """Have as many warm processes as there should be; called when one has ended."""
        if not self._closed:
            await self._fill()

    def trim(self) -> None:
        """Dismiss the processes beyond the warm ones that nobody needed since the last call."""
        for _ in range(min(self._fewest_idle, len(self._idle)) - self._warm):
            self._idle.pop(0).dismiss()
        self._fewest_idle = len(self._idle)

    async def close(self) -> None:
        """End all processes, working or not."""
        self._closed = True
        if self._control is not None:
            asyncio.get_running_loop().remove_reader(self._control.fileno())
            self._control.close()
            self._control = None
        for process in list(self._all.values()):
            process.dismiss()
        if self._zygote is not None:
            # Its end takes the stage processes with it: each asked the kernel for that.
            self._zygote.kill()
            await asyncio.to_thread(self._zygote.wait)
            self._zygote = None

    async def _fill(self) -> None:
        self._idle = [process for process in self._idle if process.alive]
        while not self._closed and len(self._idle) < self._warm:
            self._idle.append(await self._fork())

    async def _fork(self) -> StageProcess:
        # One at a time: the zygote forks one after the other anyway, and its queue of orders is short.
        async with self._forking:
            while True:
                await self._ready.wait()
                process = await self._try_fork()
                if process is not None:
                    return process

    async def _try_fork(self) -> StageProcess | None:
        """A new process, or None where the zygote died over it."""
        self._next += 1
        ours, theirs = socket.socketpair()
        process = StageProcess(self._next, self._kill)
        self._all[process.number] = process
        loop = asyncio.get_running_loop()
        self._forked = loop.create_future()
        order = json.dumps({"fork": process.number}).encode()
        socket.send_fds(self._line(), [order], [theirs.fileno()])
        theirs.close()
        ours.setblocking(False)
        await loop.create_connection(lambda: process, sock=ours)
        return process if await self._forked else None

    def _line(self) -> socket.socket:
        if self._control is None:
            raise RuntimeError("there is no zygote")
        return self._control

    def _kill(self, number: int) -> None:
        if self._control is not None:
            self._control.send(json.dumps({"kill": number}).encode())

    def _start_zygote(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
            environment |= {
                name: value for name, value in os.environ.items() if name.startswith(("LC_", "PYTHON"))
            }
            environment["MALLOC_ARENA_MAX"] = "2"  # one arena a thread would multiply what glibc holds back
            self._zygote = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [
                    sys.executable,
                    "-m",
                    "headrace_worker.processes.zygote",
                    str(theirs.fileno()),
                    str(os.getpid()),
                ],
                pass_fds=(theirs.fileno(),),
                env=environment,
                stdin=subprocess.DEVNULL,
            )
        ours.send(self._options.to_json())
        ours.setblocking(False)
        self._control = ours
        asyncio.get_running_loop().add_reader(ours.fileno(), self._zygote_spoke, ours)

    def _zygote_spoke(self, control: socket.socket) -> None:
        try:
            message = control.recv(_MAX_DATAGRAM)
        except BlockingIOError:
            return
        except ConnectionResetError:
            message = b""
        if not message:
            self._zygote_ended(control)
            return
        news = json.loads(message)
        if "ready" in news:
            self._ready.set()
        elif "forked" in news:
            self._all[news["forked"]].pid = news["pid"]
            self._answer_fork(forked=True)
        elif "exited" in news:
            if news["exited"] == self._next:  # a fork that failed is told as a death
                self._answer_fork(forked=True)
            process = self._all.pop(news["exited"])
            process.exited(news.get("reason") or _how(news["status"]))

    def _answer_fork(self, *, forked: bool) -> None:
        if self._forked is not None and not self._forked.done():
            self._forked.set_result(forked)

    def _zygote_ended(self, control: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(control.fileno())
        control.close()
        self._control = None
        self._ready.clear()
        self._answer_fork(forked=False)
        status = self._zygote.poll() if self._zygote is not None else None
        _log.error("the zygote ended, and its stage processes with it; another is started", status=status)
        for process in list(self._all.values()):
            process.exited("killed with the process that started it")
        self._all.clear()
        if not self._closed:
            loop.call_later(_RESTART_SECONDS, self._start_again)

    def _start_again(self) -> None:
        if not self._closed:
            if self._zygote is not None:
                self._zygote.poll()  # reaps the old one
            self._start_zygote()


def _how(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    if -status == signal.SIGKILL:
        return "killed by SIGKILL, as the kernel does when memory runs out"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"
