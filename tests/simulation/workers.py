"""Workers: the real supervisor, lease and line to the server, over simulated streams and stage processes."""

import asyncio
import functools
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import grpc
from headrace.execution.v1 import workers_pb2, workers_pb2_grpc
from headrace_chassis.agents import AgentRunner
from headrace_execution.workers.window import DEEPEST
from headrace_worker.engine.failure import Failure
from headrace_worker.lease import Lease
from headrace_worker.loops import LeaseGuard
from headrace_worker.output_keeper import OutputKeeper
from headrace_worker.server_link import ServerLink, WorkerIdentity
from headrace_worker.supervisor import Supervisor

from .network import Network, Stream, unavailable
from .replicas import TERMS, Replica
from .scripts import IdMaker
from .stages import SimulatedPool, Surroundings
from .virtual_loop import NOBODY, Process

NAME = "worker-1"
FORGOTTEN_AFTER = 2 * TERMS.lease.total_seconds()


class _Call:
    """The worker's side of a stream, as grpc.aio gives one."""

    def __init__(
        self, stream: Stream[Any] | None, on_up: Callable[[workers_pb2.ConnectRequest], None]
    ) -> None:
        self._stream = stream
        self._on_up = on_up

    async def write(self, request: workers_pb2.ConnectRequest) -> None:
        """Sends."""
        if self._stream is None or self._stream.is_cut:
            raise unavailable()
        self._on_up(request)
        self._stream.up.send(request)

    async def read(self) -> object:
        """Receives."""
        if self._stream is None:
            raise unavailable()
        message = await self._stream.down.next()
        return grpc.aio.EOF if message is None else message

    def cancel(self) -> None:
        """Hangs up."""
        if self._stream is not None:
            self._stream.cut()


class _Stub:
    """How a worker finds a replica: any that is there."""

    def __init__(self, worker: "Worker") -> None:
        self._worker = worker

    def Connect(self, metadata: object) -> _Call:
        """Opens a stream."""
        return _Call(self._worker.open_stream(), self._worker.on_up)


class _NoSecrets:
    """No stage of the simulation uses a connection that has one."""

    async def connections(
        self, ref: workers_pb2.AssignmentRef
    ) -> workers_pb2.ResolveSecretsResponse | Failure | None:
        """None at all."""
        return workers_pb2.ResolveSecretsResponse()


class Worker:
    """One worker process."""

    def __init__(
        self,
        process: Process,
        network: Network,
        around: Surroundings,
        slots: int,
        new_id: IdMaker,
        replicas: Callable[[], list[Replica]],
        kill: Callable[["Worker"], None],
        on_up: Callable[[UUID, workers_pb2.ConnectRequest], None],
        on_down: Callable[[UUID, workers_pb2.ConnectResponse], None],
        wrong: Callable[[str], None],
    ) -> None:
        self.process = process
        self.slots = slots
        self.id = new_id()
        self.stream: Stream[Any] | None = None
        self.disturbed_at = float("-inf")
        """When it was last stopped, or its stream held up or cut: until it is told of all since, it may have
        been given more than it can take."""
        self._network = network
        self._chance: random.Random = around.chance
        self._replicas = replicas
        self._on_up = on_up
        self._on_down = functools.partial(on_down, self.id)
        loop = network.loop
        pool = SimulatedPool(around, lambda: kill(self))
        lease = Lease(loop.time)
        identity = WorkerIdentity(str(self.id), NAME, "1", slots)
        stub = cast("workers_pb2_grpc.WorkerServiceAsyncStub", _Stub(self))
        self.link = ServerLink(stub, identity, lease, lambda: (), loop.time)
        self.supervisor = _WatchedSupervisor(
            self,
            wrong,
            pool.as_pool(),
            slots=slots,
            lease=lease,
            outbox=self.link,
            secrets=_NoSecrets(),
            outputs=cast("OutputKeeper", None),  # no stage of the simulation has any
            temp_dir=Path("/nonexistent"),
            clock=loop.time,
        )
        self.link.serve(self.supervisor)
        guard = LeaseGuard(self.supervisor)
        guard.interval_seconds = 0.7
        self._agents = AgentRunner([self.link, guard], jitter=self._chance.uniform)

    def start(self) -> None:
        """Begins to work."""
        self.process.start(self._agents.start())

    async def drain(self) -> None:
        """Goes down as SIGTERM asks it to."""
        await self.supervisor.drain(self._chance.choice((0.5, 3.0)))
        await self.link.flush(1.0)

    def disturb(self) -> None:
        """Notes that it may not know what it was given."""
        self.disturbed_at = self._network.loop.time()

    @property
    def knows_all(self) -> bool:
        """Whether nothing has kept it and its replica from knowing of each other what there is."""
        return self._network.loop.time() - self.disturbed_at > FORGOTTEN_AFTER

    def on_up(self, request: workers_pb2.ConnectRequest) -> None:
        """It says something. Results may be repeated at any time: they say so much later, too."""
        self._on_up(self.id, request)
        if (
            request.WhichOneof("body") in ("result", "results")
            and self._network.unsteady
            and self._chance.random() < 0.5
        ):
            later = self._chance.uniform(0.3, 6.0)
            self._network.loop.call_later(later, self._repeat, request, context=NOBODY)

    def _repeat(self, request: workers_pb2.ConnectRequest) -> None:
        if self.process.alive and self.stream is not None:
            self.stream.up.send(request)

    def open_stream(self) -> Stream[Any] | None:
        """A stream to one of the replicas; None where none answers."""
        self.disturb()
        found = [replica for replica in self._replicas() if replica.serves]
        if not found or not self.process.alive:
            return None
        stream: Stream[Any] = Stream(self._network)
        self.stream = stream
        self._chance.choice(found).serve_worker(stream, self._on_down)
        return stream


class _WatchedSupervisor(Supervisor):
    """Tells when it is given more than it has slots for, without any reason to be."""

    def __init__(self, worker: Worker, wrong: Callable[[str], None], *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._worker = worker
        self._wrong = wrong

    def accept(self, assignments: Iterable[workers_pb2.Assignment]) -> None:
        """See the supervisor."""
        super().accept(assignments)
        if len(self._queue) > self._worker.slots * (DEEPEST - 1) and self._worker.knows_all:
            self._wrong(
                f"worker {self._worker.id} was given more than may wait for its {self._worker.slots} slots"
            )


async def wait_done(task: "asyncio.Task[Any]", seconds: float) -> bool:
    """Waits for a task, but only so long; returns whether it is done. It goes on in any case."""
    done, _ = await asyncio.wait([task], timeout=seconds)
    return bool(done)
