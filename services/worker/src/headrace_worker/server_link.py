"""The worker's line to the server: one stream at a time, to whichever replica answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import grpc
import structlog
from headrace.execution.v1 import runs_pb2, workers_pb2, workers_pb2_grpc
from headrace_chassis.agents import Agent
from headrace_chassis.errors import Unavailable, from_rpc_error

from headrace_worker.lease import Lease
from headrace_worker.outgoing import Outgoing
from headrace_worker.supervisor import Supervisor

_log = structlog.get_logger(__name__)

_PROGRESS_SECONDS = 0.2
_WELCOME_SECONDS = 10.0
_REPEAT_SECONDS = 10.0
"""How long an unacknowledged result waits on an open stream before it is sent again."""
_RESULTS_PAUSE_SECONDS = 0.003
"""After results were sent: those of the next short stages go together."""

_Request = workers_pb2.ConnectRequest
_Call = grpc.aio.StreamStreamCall[workers_pb2.ConnectRequest, workers_pb2.ConnectResponse]


@dataclass(frozen=True)
class WorkerIdentity:
    """Who the worker says it is. The id is new with every start of the process."""

    worker_id: str
    name: str
    version: str
    slots: int


class ServerLink(Agent):
    """Keeps the worker connected. A round is the life of one stream; one that could not be opened is a failed
    round.
    """

    name = "server_link"
    _supervisor: Supervisor
    interval_seconds = 0.1  # after a stream that stood and broke: another replica may be there already

    def __init__(
        self,
        stub: workers_pb2_grpc.WorkerServiceAsyncStub,
        identity: WorkerIdentity,
        lease: Lease,
        metadata: Callable[[], tuple[tuple[str, str], ...]],
        clock: Callable[[], float],
    ) -> None:
        """`clock` is in seconds, and that of the lease."""
        self._stub = stub
        self._identity = identity
        self._lease = lease
        self._metadata = metadata
        self._clock = clock
        self._outgoing: Outgoing | None = None
        self._heartbeats: deque[float] = deque()
        self._heartbeat_seconds = 1.0
        self.connected = False

    def serve(self, supervisor: Supervisor) -> None:
        """Say who works off what the server hands out; before the first round."""
        self._supervisor = supervisor

    async def flush(self, seconds: float) -> None:
        """Have everything written that was to be sent, as far as it takes no longer than this."""
        if self._outgoing is not None:
            with contextlib.suppress(TimeoutError):  # the server finds out by the lease
                async with asyncio.timeout(seconds):
                    await self._outgoing.flushed()

    async def check(self) -> None:
        """Raises Unavailable while there is no stream."""
        if not self.connected:
            raise Unavailable("execution")

    def send(self, request: _Request) -> None:
        """Send something as soon as possible; dropped while there is no stream (`Outbox`)."""
        if self._outgoing is not None:
            self._outgoing.put(request)

    def heartbeat(self, supervisor: Supervisor) -> None:
        """Renew the lease, and say what is held and what could be taken."""
        if self._outgoing is not None:
            beat = workers_pb2.Heartbeat(free_slots=supervisor.free_slots, held=supervisor.holdings.refs())
            self._outgoing.put(_Request(heartbeat=beat))

    async def run_once(self) -> bool:
        """One stream, from hello to its end. Returns whether the server asked for another one at once.

        Raises HeadraceError where the server did not welcome the worker.
        """
        call = self._stub.Connect(metadata=self._metadata())
        try:
            return await self._converse(call, self._supervisor)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            told = (
                from_rpc_error(error) if isinstance(error, grpc.aio.AioRpcError) else Unavailable("execution")
            )
            if not self.connected:
                raise told from error
            _log.warning("the stream to the server broke", error=told.message)
        finally:
            self.connected = False
            self._outgoing = None
            call.cancel()
        return False

    async def _converse(self, call: _Call, supervisor: Supervisor) -> bool:
        asked_at = self._clock()
        await call.write(_Request(hello=self._hello(supervisor)))
        async with asyncio.timeout(_WELCOME_SECONDS):
            first = await call.read()
        if not isinstance(first, workers_pb2.ConnectResponse) or not first.HasField("welcome"):
            raise Unavailable("execution")
        outgoing = self._welcomed(first.welcome, asked_at, supervisor)
        work = [
            self._read(call, supervisor),
            self._write(call, outgoing),
            self._beat(supervisor),
            self._report(supervisor),
        ]
        tasks = [asyncio.ensure_future(each) for each in work]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            again = [task.result() for task in done]  # each is looked at: one of them may have failed
            return any(again)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _hello(self, supervisor: Supervisor) -> workers_pb2.WorkerHello:
        return workers_pb2.WorkerHello(
            worker_id=self._identity.worker_id,
            name=self._identity.name,
            slots=self._identity.slots,
            version=self._identity.version,
            engines=[runs_pb2.ENGINE_JDBC],
            held=supervisor.holdings.refs(),
        )

    def _welcomed(
        self, welcome: workers_pb2.WorkerWelcome, asked_at: float, supervisor: Supervisor
    ) -> Outgoing:
        self._lease.granted(welcome.lease_ms / 1000)
        self._heartbeat_seconds = max(welcome.heartbeat_ms / 1000, 0.05)
        self._heartbeats.clear()
        outgoing = Outgoing(joins_results=welcome.takes_result_batches)
        self._outgoing = outgoing
        self.connected = True
        supervisor.lost(welcome.lost)
        # What the server welcomes it also leases: whatever is not among the lost is the worker's own.
        self._lease.renewed(asked_at)
        supervisor.repeat_results(self._clock())
        supervisor.logs.reconnected()
        _log.info("connected", worker=self._identity.name, worker_id=self._identity.worker_id)
        return outgoing

    async def _write(self, call: _Call, outgoing: Outgoing) -> bool:
        while True:
            request = await outgoing.take()
            body = request.WhichOneof("body")
            if body == "heartbeat":
                self._heartbeats.append(self._clock())
            await call.write(request)
            outgoing.sent()
            if outgoing.joins_results and body in ("result", "results"):
                await asyncio.sleep(_RESULTS_PAUSE_SECONDS)

    async def _beat(self, supervisor: Supervisor) -> bool:
        while True:
            self.heartbeat(supervisor)
            await asyncio.sleep(self._heartbeat_seconds)
            supervisor.repeat_results(self._clock() - _REPEAT_SECONDS)

    async def _report(self, supervisor: Supervisor) -> bool:
        while True:
            await asyncio.sleep(_PROGRESS_SECONDS)
            supervisor.report_progress()
            supervisor.logs.send_due()
            supervisor.give_back_waiting()

    async def _read(self, call: _Call, supervisor: Supervisor) -> bool:
        while True:
            response = await call.read()
            if not isinstance(response, workers_pb2.ConnectResponse):  # gRPC's mark for the end of the stream
                return False
            body = response.WhichOneof("body")
            if body == "assignments":
                supervisor.accept(response.assignments.assignments)
            elif body == "result_ack":
                supervisor.acknowledged(response.result_ack.refs)
            elif body == "log_ack":
                supervisor.log_acknowledged(response.log_ack)
            elif body == "heartbeat_ack":
                self._heartbeat_answered(response.heartbeat_ack, supervisor)
            elif body == "cancel":
                supervisor.cancel(response.cancel)
            elif body == "reconnect":
                return True

    def _heartbeat_answered(self, ack: workers_pb2.HeartbeatAck, supervisor: Supervisor) -> None:
        # Answers come in the order of the heartbeats. One that did not renew (the server's database was away)
        # takes nothing: the lease stands for as long as it was last renewed for.
        asked_at = self._heartbeats.popleft() if self._heartbeats else None
        if ack.renewed and asked_at is not None:
            self._lease.renewed(asked_at)
        supervisor.lost(ack.lost)
        supervisor.fence_itself()
