"""WorkerService: the streams of workers, and the secrets of what is leased to them."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from typing import Any
from uuid import UUID

import grpc
import structlog
from headrace.execution.v1 import workers_pb2, workers_pb2_grpc
from headrace.metadata.v1 import definitions_pb2, definitions_pb2_grpc
from headrace_chassis.channels import service_metadata
from headrace_chassis.errors import HeadraceError, InvalidRequest, Problem
from headrace_chassis.identity import ServiceTokens, current_principal

from headrace_execution import convert_workers
from headrace_execution.errors import LeaseLost
from headrace_execution.loops.log_keeper import Logged, LogKeeper
from headrace_execution.loops.progress_folder import ProgressFolder, ProgressSeen
from headrace_execution.loops.result_folder import Reported, ResultFolder
from headrace_execution.loops.stop_courier import StopCourier
from headrace_execution.signals import Signals
from headrace_execution.store.port import SecretHolder, Store, Tx, WorkerRecord
from headrace_execution.workers.leases import LeaseBook, Ref
from headrace_execution.workers.pool import Session, WorkerPool, engines_of

_log = structlog.get_logger(__name__)

LARGEST_SLOTS = 1000
LARGEST_LOG_CHUNK = 1024 * 1024
RESOLVE_SECONDS = 10.0
HELLO_SECONDS = 10.0
Context = grpc.aio.ServicerContext[object, object]


class WorkerServicer(workers_pb2_grpc.WorkerServiceServicer):
    """Keeps a session a worker: what it says goes to the loops, what they have for it goes down its
    stream.
    """

    def __init__(
        self,
        *,
        store: Store,
        pool: WorkerPool,
        leases: LeaseBook,
        results: ResultFolder,
        progress: ProgressFolder,
        logs: LogKeeper,
        stops: StopCourier,
        signals: Signals,
        metadata: "definitions_pb2_grpc.DefinitionServiceAsyncStub",
        tokens: ServiceTokens,
    ) -> None:
        self._store = store
        self._pool = pool
        self._leases = leases
        self._results = results
        self._progress = progress
        self._logs = logs
        self._stops = stops
        self._signals = signals
        self._metadata = metadata
        self._tokens = tokens
        self._background: set[asyncio.Task[None]] = set()

    async def Connect(  # type: ignore[override]  # gRPC takes a coroutine that writes, too: it ends in one place
        self, requests: AsyncIterator[workers_pb2.ConnectRequest], context: Context
    ) -> None:
        """See the contract."""
        session, held = await _hello(requests, self._leases.terms.grace.total_seconds())
        standing = await self._leases.hello(session, held)
        terms = self._leases.terms
        welcome = workers_pb2.WorkerWelcome(
            lease_ms=_milliseconds(terms.lease.total_seconds()),
            heartbeat_ms=_milliseconds(terms.heartbeat.total_seconds()),
            lost=_refs(standing.lost),
            takes_result_batches=True,
        )
        session.send(workers_pb2.ConnectResponse(welcome=welcome))
        self._pool.add(session)
        _log.info("worker connected", worker=session.worker.name, slots=session.worker.slots, held=len(held))
        self._stops.wake()
        self._signals.slots_opened()
        listening = asyncio.create_task(self._listen(session, requests))
        try:
            while (message := await session.next()) is not None:
                await context.write(message)
        finally:
            self._pool.remove(session)
            listening.cancel()
            (ended,) = await asyncio.gather(listening, return_exceptions=True)
            _log.info("worker disconnected", worker=session.worker.name)
        if isinstance(ended, HeadraceError):
            raise ended

    async def drain(self) -> None:
        """Sends all workers to another replica."""
        for session in self._pool.all():
            session.send(workers_pb2.ConnectResponse(reconnect=workers_pb2.Reconnect()))
            session.close()

    async def _listen(self, session: Session, requests: AsyncIterator[workers_pb2.ConnectRequest]) -> None:
        try:
            async for request in requests:
                self._take(session, request)
        finally:
            session.close()

    def _take(self, session: Session, request: workers_pb2.ConnectRequest) -> None:
        worker = session.worker.id
        match request.WhichOneof("body"):
            case "result":
                self._take_result(worker, request.result)
            case "results":
                for result in request.results.results:
                    self._take_result(worker, result)
            case "progress":
                for item in request.progress.assignments:
                    assignment, fence = _ref(item.ref)
                    tasks = convert_workers.task_reports(item.tasks)
                    self._progress.submit(ProgressSeen(worker, assignment, fence, tasks))
            case "log":
                self._logs.submit(_logged(session, request.log))
            case "heartbeat":
                if request.heartbeat.free_slots > 0:
                    session.has_room()
                self._spawn(self._heartbeat(session, frozenset(map(_ref, request.heartbeat.held))))
            case "release":
                session.overran()
                self._spawn(self._leases.release(worker, [_ref(ref) for ref in request.release.refs]))
            case "hello":
                problem = Problem("SECOND_HELLO", "hello", "a stream begins with its only hello")
                raise InvalidRequest([problem])
            case _:
                return  # a newer worker's word

    def _take_result(self, worker: UUID, result: workers_pb2.AssignmentResult) -> None:
        assignment, fence = _ref(result.ref)
        self._results.submit(
            Reported(worker, assignment, fence, convert_workers.stage_result(result), result.answer)
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(_told(work))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _heartbeat(self, session: Session, held: frozenset[Ref]) -> None:
        try:
            standing = await self._leases.heartbeat(session, held)
        except HeadraceError as error:
            _log.warning("leases could not be renewed", worker=session.worker.name, error=error.message)
            ack = workers_pb2.HeartbeatAck(renewed=False)
        else:
            ack = workers_pb2.HeartbeatAck(renewed=True, lost=_refs(standing.lost))
            # Cancels that may have been lost are sent again.
            session.told_to_stop.clear()
            self._stops.wake()
        session.send(workers_pb2.ConnectResponse(heartbeat_ack=ack))

    async def ResolveSecrets(
        self, request: workers_pb2.ResolveSecretsRequest, context: Context
    ) -> workers_pb2.ResolveSecretsResponse:
        """See the contract."""
        assignment, fence = _ref(request.ref)
        worker, name = UUID(request.worker_id), current_principal().name

        async def look(tx: Tx) -> SecretHolder | None:
            return await tx.workers.secrets_of(worker, name, assignment, fence)

        holder = await self._store.run(look)
        if holder is None:
            raise LeaseLost
        if not holder.connections:
            return workers_pb2.ResolveSecretsResponse()
        answer = await self._metadata.ResolveConnections(
            definitions_pb2.ResolveConnectionsRequest(
                workspace_id=str(holder.workspace), connections=holder.connections
            ),
            metadata=service_metadata(self._tokens, holder.tenant, holder.on_behalf_of),
            timeout=RESOLVE_SECONDS,
        )
        return workers_pb2.ResolveSecretsResponse(
            connections=[_connection(item) for item in answer.connections]
        )


async def _told(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except HeadraceError as error:
        # What was not released is found by the next heartbeat, or by the end of the lease.
        _log.warning("a worker's message could not be handled", error=error.message)


async def _hello(
    requests: AsyncIterator[workers_pb2.ConnectRequest], silence_limit: float
) -> tuple[Session, frozenset[Ref]]:
    try:
        async with asyncio.timeout(HELLO_SECONDS):
            first = await anext(aiter(requests), None)
    except TimeoutError:
        first = None
    if first is None or first.WhichOneof("body") != "hello":
        raise InvalidRequest([Problem("HELLO_EXPECTED", "hello", "a stream begins with a hello")])
    hello = first.hello
    principal = current_principal()
    if hello.name != principal.name:
        told = f"the token is of worker {principal.name!r}"
        raise InvalidRequest([Problem("INVALID_VALUE", "hello.name", told)])
    if not 0 < hello.slots <= LARGEST_SLOTS:
        told = f"a number from 1 to {LARGEST_SLOTS} was expected"
        raise InvalidRequest([Problem("INVALID_VALUE", "hello.slots", told)])
    worker = WorkerRecord(
        id=_uuid(hello.worker_id, "hello.workerId"),
        name=hello.name,
        slots=hello.slots,
        version=hello.version[:100],
        engines=engines_of(hello.engines),
    )
    held = frozenset(map(_ref, hello.held))
    session = Session(worker, silence_limit=silence_limit, monotonic=asyncio.get_running_loop().time)
    session.busy.update(held)
    return session, held


def _logged(session: Session, chunk: workers_pb2.LogChunk) -> Logged:
    assignment, fence = _ref(chunk.ref)
    lines = (
        chunk.lines if chunk.ByteSize() <= LARGEST_LOG_CHUNK else ()
    )  # refused: no worker sends such a one
    ack = workers_pb2.LogAck(ref=chunk.ref, sequence=chunk.sequence)

    def acknowledge() -> None:
        session.send(workers_pb2.ConnectResponse(log_ack=ack))

    return Logged(
        assignment, fence, chunk.attempt, chunk.sequence, convert_workers.log_lines(lines), acknowledge
    )


def _ref(ref: workers_pb2.AssignmentRef) -> Ref:
    return _uuid(ref.assignment_id, "ref.assignmentId"), ref.fence


def _refs(refs: Iterable[Ref]) -> list[workers_pb2.AssignmentRef]:
    return [
        workers_pb2.AssignmentRef(assignment_id=str(assignment), fence=fence) for assignment, fence in refs
    ]


def _uuid(text: str, path: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise InvalidRequest([Problem("INVALID_VALUE", path, "a UUID was expected")]) from None


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)


def _connection(found: definitions_pb2.ResolvedConnection) -> workers_pb2.WorkerConnection:
    return workers_pb2.WorkerConnection(
        reference=found.reference,
        id=found.id,
        name=found.name,
        type=found.type,
        host=found.host,
        port=found.port,
        database=found.database,
        username=found.username,
        secret=found.secret,
        secret_ref=found.secret_ref,
        path=found.path,
        options=dict(found.options),
    )
