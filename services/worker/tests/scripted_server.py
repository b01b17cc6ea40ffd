"""Execution's side of the worker protocol, doing what a test tells it to."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

from headrace.common.v1 import reasons_pb2
from headrace.execution.v1 import workers_pb2
from headrace_chassis.errors import HeadraceError
from headrace_chassis.server import Service
from headrace_chassis.testing.stand_ins import stand_in

Requests = AsyncIterator[workers_pb2.ConnectRequest]


class LeaseLost(HeadraceError):  # noqa: N818 - as the contract calls it
    """The lease or fence of an assignment is not valid."""

    reason = reasons_pb2.REASON_LEASE_LOST


class Stream:
    """One stream of a worker, as the server sees it."""

    def __init__(self, hello: workers_pb2.WorkerHello) -> None:
        self.hello = hello
        self.received: list[workers_pb2.ConnectRequest] = []
        self.outgoing: asyncio.Queue[workers_pb2.ConnectResponse | None] = asyncio.Queue()
        self.changed = asyncio.Event()
        self.closed = False

    def send(self, **body: Any) -> None:
        """Send one message: send(assignments=…), send(cancel=…)."""
        self.outgoing.put_nowait(workers_pb2.ConnectResponse(**body))

    def assign(self, *assignments: workers_pb2.Assignment) -> None:
        """Hand work out."""
        self.send(assignments=workers_pb2.AssignmentBatch(assignments=assignments))

    def cancel(self, work: workers_pb2.Assignment, *, grace_ms: int = 5000) -> None:
        """Say that a user cancelled it."""
        reason = workers_pb2.CANCEL_REASON_CANCELLED
        self.send(cancel=workers_pb2.CancelAssignment(ref=work.ref, reason=reason, grace_ms=grace_ms))

    def end(self) -> None:
        """Close the stream."""
        self.outgoing.put_nowait(None)

    def bodies(self, name: str) -> list[Any]:
        """All messages of a kind that have come."""
        return [getattr(each, name) for each in self.received if each.WhichOneof("body") == name]

    async def until(self, condition: Callable[[], Any], within: float = 30.0) -> Any:
        """Wait until something is true of what has come."""
        async with asyncio.timeout(within):
            while not (found := condition()):
                self.changed.clear()
                await self.changed.wait()
        return found

    async def result_of(self, assignment: workers_pb2.Assignment) -> workers_pb2.AssignmentResult:
        """Wait for the result of an assignment."""

        def found() -> Any:
            return [r for r in self.bodies("result") if r.ref == assignment.ref]

        return (await self.until(found))[0]  # type: ignore[no-any-return]


class ScriptedExecution:
    """Welcomes workers, renews what it is told to, and keeps everything that they say."""

    def __init__(self) -> None:
        self.streams: list[Stream] = []
        self.connected: asyncio.Queue[Stream] = asyncio.Queue()
        self.lease_ms = 30_000
        self.heartbeat_ms = 1_000
        self.renews = True
        self.acknowledges = True
        self.takes_logs = True
        self.takes_batches = False
        self.lost: list[workers_pb2.AssignmentRef] = []
        self.connections: list[workers_pb2.WorkerConnection] = []
        self.refuses_secrets = False
        self.resolved: list[workers_pb2.ResolveSecretsRequest] = []

    async def Connect(self, requests: Requests, context: Any) -> AsyncIterator[workers_pb2.ConnectResponse]:
        first = await anext(requests)
        stream = Stream(first.hello)
        welcome = workers_pb2.WorkerWelcome(
            lease_ms=self.lease_ms,
            heartbeat_ms=self.heartbeat_ms,
            lost=self.lost,
            takes_result_batches=self.takes_batches,
        )
        stream.send(welcome=welcome)
        self.streams.append(stream)
        self.connected.put_nowait(stream)
        listener = asyncio.create_task(self._listen(stream, requests))
        try:
            while (response := await stream.outgoing.get()) is not None:
                yield response
        finally:
            listener.cancel()
            stream.closed = True

    async def _listen(self, stream: Stream, requests: Requests) -> None:
        async for request in requests:
            stream.received.append(request)
            match request.WhichOneof("body"):
                case "heartbeat":
                    beat = workers_pb2.HeartbeatAck(renewed=self.renews, lost=self.lost)
                    stream.send(heartbeat_ack=beat)
                case "log" if self.takes_logs:
                    ack = workers_pb2.LogAck(ref=request.log.ref, sequence=request.log.sequence)
                    stream.send(log_ack=ack)
                case "result" if self.acknowledges:
                    stream.send(result_ack=workers_pb2.ResultAck(refs=[request.result.ref]))
                case "results" if self.acknowledges:
                    refs = [result.ref for result in request.results.results]
                    stream.send(result_ack=workers_pb2.ResultAck(refs=refs))
            stream.changed.set()

    async def ResolveSecrets(
        self, request: workers_pb2.ResolveSecretsRequest, context: Any
    ) -> workers_pb2.ResolveSecretsResponse:
        self.resolved.append(request)
        if self.refuses_secrets:
            raise LeaseLost("the lease is lost")
        return workers_pb2.ResolveSecretsResponse(connections=self.connections)

    async def next_stream(self, within: float = 30.0) -> Stream:
        """Wait for a worker to connect."""
        async with asyncio.timeout(within):
            return await self.connected.get()

    @property
    def service(self) -> Service:
        """As the chassis serves it."""
        return stand_in(workers_pb2.DESCRIPTOR.services_by_name["WorkerService"], self)


def stage(payload: bytes, *, fence: int = 1, **fields: Any) -> workers_pb2.Assignment:
    """An assignment to run a stage; a run of its own unless told otherwise."""
    for name in ("run_id", "tenant", "pipeline_id"):
        fields.setdefault(name, str(uuid.uuid4()))
    fields.setdefault("kind", workers_pb2.ASSIGNMENT_KIND_STAGE)
    ref = workers_pb2.AssignmentRef(assignment_id=fields.pop("id", str(uuid.uuid4())), fence=fence)
    return workers_pb2.Assignment(ref=ref, payload=payload, attempt=1, **fields)
