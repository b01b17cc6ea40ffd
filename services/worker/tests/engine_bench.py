"""Runs assignments through the engine in this process, with the supervisor's part played over a socket
pair.
"""

import asyncio
import json
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson
from headrace.execution.v1 import logs_pb2, runs_pb2, workers_pb2
from headrace_artifacts.local import LocalStore
from headrace_worker.engine.failure import Failure
from headrace_worker.engine.logs import StageLogFormatter
from headrace_worker.engine.options import EngineOptions
from headrace_worker.engine.session import Session
from headrace_worker.engine.task_error import error_message
from headrace_worker.output_keeper import OutputKeeper
from headrace_worker.processes.frames import Frame, FrameBuffer, StopReason, pack

from .scripted_server import stage
from .stages import payload

Result = workers_pb2.AssignmentResult


@dataclass
class Line(asyncio.Protocol):
    """The supervisor's end: answers questions, keeps what is said."""

    bench: "EngineBench"
    assignment: workers_pb2.Assignment
    progress: list[workers_pb2.AssignmentProgress] = field(default_factory=list)
    log: list[logs_pb2.LogLine] = field(default_factory=list)
    result: Result | None = None
    commits_asked: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    buffer: FrameBuffer = field(default_factory=FrameBuffer)
    transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()

    def data_received(self, data: bytes) -> None:
        for kind, body in self.buffer.feed(data):
            match kind:
                case Frame.NEED_SECRETS:
                    answer = workers_pb2.ResolveSecretsResponse(connections=self.bench.connections.values())
                    self.transport.write(pack(Frame.SECRETS, answer.SerializeToString()))
                case Frame.MAY_COMMIT:
                    self.commits_asked.set()
                    self.bench.spawn(self._answer_commit(self.bench.allow_commit()))
                case Frame.PROGRESS:
                    self.progress.append(workers_pb2.AssignmentProgress.FromString(body))
                case Frame.STORE_OUTPUT:
                    self.bench.spawn(self._keep(**orjson.loads(body)))
                case Frame.LOG:
                    self.log += workers_pb2.LogChunk.FromString(body).lines
                case Frame.LAST_RESULT:
                    self.result = Result.FromString(body)
            self.changed.set()

    async def _keep(self, task: str, file: str) -> None:
        ref = self.assignment.ref
        folder = Path(self.bench.options.temp_dir) / f"{ref.assignment_id}-{ref.fence}"
        kept = await self.bench.outputs.keep(self.assignment, task, folder / file)
        if isinstance(kept, Failure):
            self.transport.write(pack(Frame.OUTPUT_REFUSED, error_message(kept).SerializeToString()))
        else:
            self.transport.write(pack(Frame.OUTPUT_STORED, orjson.dumps(asdict(kept))))

    async def _answer_commit(self, answer: Awaitable[bool]) -> None:
        allowed = await answer
        self.transport.write(pack(Frame.COMMIT_ANSWER, b"\x01" if allowed else b"\x00"))

    def stop(self, reason: StopReason) -> None:
        """Tell the stage to end."""
        self.transport.write(pack(Frame.STOP, reason.encode()))

    async def task_state(self, task: str, state: str, within: float = 30.0) -> None:
        """Wait until a task is told to be in a state."""
        wanted = runs_pb2.TaskState.Value(f"TASK_STATE_{state}")
        async with asyncio.timeout(within):
            while not any(t.task == task and t.state == wanted for p in self.progress[-1:] for t in p.tasks):
                self.changed.clear()
                await self.changed.wait()


async def _yes() -> bool:
    return True


class EngineBench:
    """Runs definitions. Connections are by the names that definitions use."""

    def __init__(self, options: EngineOptions) -> None:
        self.options = options
        self.artifacts = LocalStore(Path(options.artifacts_dir).parent / "store")
        self.outputs = OutputKeeper(self.artifacts)
        self.connections: dict[str, workers_pb2.WorkerConnection] = {}
        self.allow_commit: Callable[[], Awaitable[bool]] = _yes
        self._tasks: set[asyncio.Task[None]] = set()

    def connect(self, name: str, type_: str, **fields: Any) -> None:
        """Make a connection known."""
        self.connections[name] = workers_pb2.WorkerConnection(
            reference=name, id=str(uuid.uuid4()), name=name, type=type_, **fields
        )

    def spawn(self, work: Any) -> None:
        """Let something run beside the test."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @asynccontextmanager
    async def begun(self, assignment: workers_pb2.Assignment) -> AsyncIterator[Line]:
        """An assignment that is being worked off."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        _, line = await loop.create_connection(lambda: Line(self, assignment), sock=ours)
        session = asyncio.create_task(Session(assignment, self.options, StageLogFormatter()).run(theirs))
        try:
            yield line
            await session
        finally:
            session.cancel()
            await asyncio.gather(session, return_exceptions=True)
            line.transport.close()
        await line.ended.wait()

    async def work_off(self, assignment: workers_pb2.Assignment) -> Result:
        """The result of an assignment."""
        async with self.begun(assignment) as line:
            pass
        assert line.result is not None, "the engine gave no result"
        return line.result

    async def run(self, definition: str, stage_key: str = "s1", **fields: Any) -> Result:
        """The result of a stage of a definition."""
        return await self.work_off(self.assignment(definition, stage_key, **fields))

    def assignment(
        self, definition: str, stage_key: str = "s1", parameters: Any = None, **fields: Any
    ) -> workers_pb2.Assignment:
        """A stage of a definition as an assignment."""
        if parameters is not None:
            fields["parameters"] = json.dumps(parameters).encode()
        return stage(payload(definition, stage_key), **fields)


def states(result: Result) -> dict[str, str]:
    """The states of tasks, by key."""
    return {t.task: runs_pb2.TaskState.Name(t.state).removeprefix("TASK_STATE_") for t in result.tasks}


def rows(result: Result) -> dict[str, tuple[int, int]]:
    """Rows in and out of tasks, by key."""
    return {task.task: (task.rows_in, task.rows_out) for task in result.tasks}


def outcome(result: Result) -> str:
    """How an assignment ended, as a word."""
    return workers_pb2.Outcome.Name(result.outcome).removeprefix("OUTCOME_")


def failure(result: Result) -> tuple[str, str, str]:
    """Why it failed: code, class and the task."""
    error_class = runs_pb2.ErrorClass.Name(getattr(result.error, "class"))
    return result.error.code, error_class.removeprefix("ERROR_CLASS_"), result.failed_task


def texts(results: Iterable[Result]) -> str:
    """All that results say, to search for what must not be in it."""
    return "\n".join(str(result) for result in results)
