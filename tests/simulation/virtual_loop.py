"""An event loop without time, threads and sockets: the clock jumps to whatever is next.

Callbacks belong to simulated processes, which can be killed and stopped as real ones can.
"""

import asyncio
import contextvars
import heapq
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

NOBODY = contextvars.Context()
"""The context of what no process does: the network's deliveries."""


class NothingLeft(Exception):  # noqa: N818 - it names a fact
    """Somebody waits, and nothing will ever happen any more."""


class Process:
    """A simulated process: whatever is started in it, and all that starts from there."""

    def __init__(self, loop: "VirtualLoop", name: str) -> None:
        self._loop = loop
        self.name = name
        self.alive = True
        self.stopped = False
        self.deferred: list[asyncio.Handle] = []
        self.tasks: dict[asyncio.Task[Any], None] = {}

    def start(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Begins something in this process, with nothing of the caller's context."""
        context = contextvars.Context()
        context.run(_PROCESS.set, self)
        return self._loop.create_task(work, context=context)

    def kill(self) -> None:
        """Ends it as SIGKILL does: what it was doing does not go on. Its edges drop what it still says."""
        self.alive = False
        self.go_on()
        for task in list(self.tasks):
            task.cancel()

    def stop(self) -> None:
        """Stops it as SIGSTOP does: nothing of it runs, and time goes by."""
        self.stopped = True

    def go_on(self) -> None:
        """Lets it go on where it was stopped."""
        self.stopped = False
        deferred, self.deferred = self.deferred, []
        self._loop.make_ready(deferred)


_PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


def current_process() -> Process | None:
    """Whose code runs now."""
    return _PROCESS.get()


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs callbacks in the order of their times, and of their making where times are equal."""

    _ready: Any
    _stopping: bool

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._made = 0
        self.set_task_factory(_make_task)

    def time(self) -> float:
        """Seconds since the beginning."""
        return self._now

    def make_ready(self, handles: list[asyncio.Handle]) -> None:
        """Runs these next."""
        self._ready.extend(handles)

    def _process_events(self, event_list: object) -> None:
        raise NotImplementedError  # there are no sockets

    def _write_to_self(self) -> None:
        raise NotImplementedError  # nor threads

    def call_soon(  # type: ignore[override]  # asyncio's checks are left out: they take a third of the time
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Runs a callback next."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Runs a callback at a time."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._made += 1
        heapq.heappush(self._timers, (when, self._made, handle))
        return handle

    def _run_once(self) -> None:
        # In the place of asyncio's, which asks the operating system for events and for the time.
        timers, ready = self._timers, self._ready
        if not ready:
            while timers and timers[0][2].cancelled():
                heapq.heappop(timers)
            if timers:
                self._now = max(self._now, timers[0][0])
            elif not self._stopping:
                raise NothingLeft
        while timers and timers[0][0] <= self._now:
            ready.append(heapq.heappop(timers)[2])
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            process = handle._context.get(_PROCESS)
            if process is not None and process.stopped:
                process.deferred.append(handle)
            else:
                handle._run()


def _make_task(
    loop: asyncio.AbstractEventLoop, work: Any, context: contextvars.Context | None = None, **more: Any
) -> "asyncio.Task[Any]":
    creator = _PROCESS.get()
    context = context if context is not None else contextvars.copy_context()
    process = context.get(_PROCESS) or creator
    if process is not context.get(_PROCESS):
        context.run(_PROCESS.set, process)
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, context=context, **more)
    if process is not None:
        process.tasks[task] = None
        task.add_done_callback(_forget(process), context=NOBODY)
        if not process.alive:
            task.cancel()
    return task


def _forget(process: Process) -> Callable[["asyncio.Task[Any]"], None]:
    def done(task: "asyncio.Task[Any]") -> None:
        process.tasks.pop(task, None)

    return done
