"""Replicas of execution: the real parts, over the store in memory and simulated streams."""

import asyncio
import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

import grpc
from headrace.execution.v1 import workers_pb2
from headrace.metadata.v1 import definitions_pb2_grpc
from headrace_artifacts.store import ArtifactStore
from headrace_chassis.agents import Agent, AgentRunner
from headrace_chassis.bus import Bus
from headrace_chassis.errors import HeadraceError, OutcomeUnknown, Unavailable
from headrace_chassis.identity import Principal, Role, ServiceTokens, set_principal
from headrace_chassis.outbox import EventLog, OutboxPublisher, OutboxSequencer
from headrace_execution.acceptance.acceptor import Acceptor
from headrace_execution.acceptance.start_orders import StartOrders
from headrace_execution.acceptance.starting import Starter
from headrace_execution.cancels import RunCanceller
from headrace_execution.clock import Moments
from headrace_execution.domain.logs import LogLimits
from headrace_execution.domain.moment import Patience
from headrace_execution.loops.dispatcher import Dispatcher
from headrace_execution.loops.due_timer import DueTimer, HeldReleaser
from headrace_execution.loops.lease_reaper import LeaseReaper
from headrace_execution.loops.log_keeper import Logged, LogKeeper
from headrace_execution.loops.progress_folder import ProgressFolder
from headrace_execution.loops.result_folder import ResultFolder
from headrace_execution.loops.stop_courier import StopCourier
from headrace_execution.probing import Prober
from headrace_execution.servicers.internal import InternalServicer
from headrace_execution.servicers.workers import WorkerServicer
from headrace_execution.signalling import SignalReceiver
from headrace_execution.signals import SUBJECT, Signals
from headrace_execution.testing.memory import Data, Link, MemoryStore
from headrace_execution.testing.memory.data import Transaction
from headrace_execution.workers.leases import LeaseBook, LeaseTerms
from headrace_execution.workers.pool import WorkerPool

from .chassis_database import MemoryDatabase
from .network import Broker, SimulatedBus, Stream
from .scripts import TENANT
from .virtual_loop import NOBODY, Process, VirtualLoop

TERMS = LeaseTerms(lease=timedelta(seconds=6), heartbeat=timedelta(seconds=2))
PATIENCE = Patience(
    stop_grace=timedelta(seconds=2),
    stop_limit=timedelta(seconds=4),
    timeout_slack=timedelta(seconds=2),
    settle_limit=timedelta(seconds=40),
    settle_retry=timedelta(seconds=1),
)
POLLS = {
    "dispatcher": 3.0,
    "result_folder": 6.0,
    "progress_folder": 6.0,
    "stop_courier": 3.0,
    "lease_reaper": 3.0,
    "due_timer": 2.0,
    "held_releaser": 6.0,
    "outbox_sequencer": 4.0,
    "outbox_publisher": 6.0,
}
"""How often agents look by themselves, in seconds: the less often, the more seeds a minute."""


class Faults:
    """The chance of what can go wrong between a process and its database."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.active = True
        self.crash = 0.0
        """The chance that a process dies right before or right after a commit."""
        self.unknown = 0.004
        self.away = 0.001
        self.is_down = False
        """Whether the database is away altogether."""


class SimulatedLink(Link):
    """A process's connections to its database."""

    def __init__(self, data: Data, faults: Faults, process: Process, die: Callable[[str], None]) -> None:
        self._data = data
        self._faults = faults
        self._process = process
        self._die = die

    async def statement(self, tx: Transaction) -> None:
        """Takes a moment, and now and then a long one."""
        fate = self._faults.chance.random()
        if fate < 0.25:
            await asyncio.sleep(fate * 0.02)
        elif self._faults.active and fate > 0.9985:
            await asyncio.sleep((fate - 0.9985) * 2000)
        self._check(tx)
        if self._faults.active and self._faults.chance.random() < self._faults.away:
            raise Unavailable("the database")

    def _check(self, tx: Transaction) -> None:
        # A dead process says nothing any more; its server side has rolled back.
        if not self._process.alive or self._faults.is_down or tx not in self._data.open:
            raise Unavailable("the database")

    async def commit(self, tx: Transaction, apply: Callable[[], None]) -> None:
        """Commits, unless something comes between."""
        await self.statement(tx)
        faults = self._faults
        fate = faults.chance.random() if faults.active else 1.0
        if fate < faults.crash:
            self._die("before a commit")
            raise asyncio.CancelledError
        fate -= faults.crash
        if fate < faults.unknown:
            if fate < faults.unknown / 2:
                apply()
            raise OutcomeUnknown("the database")
        apply()
        fate -= faults.unknown
        if fate < faults.crash:
            self._die("after a commit")
            raise asyncio.CancelledError
        await asyncio.sleep(0.0005 + faults.chance.random() * 0.002)

    async def back_off(self, attempt: int) -> None:
        """Waits longer and longer."""
        await asyncio.sleep(self._faults.chance.uniform(0, min(0.02 * 2**attempt, 1.0)))


class WatchedRunner(AgentRunner):
    """Tells of rounds that failed for a reason that is not "something is away"."""

    def __init__(self, agents: list[Agent], chance: random.Random, told: Callable[[str], None]) -> None:
        super().__init__(agents, jitter=chance.uniform)
        self._told = told

    def _tell(self, agent: Agent, error: Exception, failures: int) -> None:
        if not isinstance(error, HeadraceError):
            self._told(f"{agent.name} failed: {type(error).__name__}: {error}")


class ForgetfulLogs(LogKeeper):
    """Takes what workers log and keeps nothing of it: storing it takes threads, which are not simulated."""

    def submit(self, logged: Logged) -> None:
        """Acknowledges it."""
        logged.acknowledge()


class Replica:
    """One execution process, put together as its wiring does."""

    def __init__(
        self,
        process: Process,
        loop: VirtualLoop,
        data: Data,
        faults: Faults,
        broker: Broker,
        die: Callable[["Replica", str], None],
        wrong: Callable[[str], None],
    ) -> None:
        chance = faults.chance
        self.process = process
        self.serves = True
        self.streams: list[Stream[Any]] = []
        self._loop = loop
        self._wrong = wrong
        link = SimulatedLink(data, faults, process, lambda when: die(self, when))
        self.store = MemoryStore(data, link)
        self.bus = SimulatedBus(broker, chance, lambda: process.alive)
        bus = cast("Bus", self.bus)
        self.pool = WorkerPool()
        self.signals = Signals(bus)
        moments = Moments(PATIENCE, chance.random)
        database = MemoryDatabase(data, link).as_database()
        publisher = OutboxPublisher(database, "execution", bus, EventLog(database))
        sequencer = OutboxSequencer(database, assigned=publisher.wake)
        self.signals.on_events(sequencer.wake)
        self.bus.subscribe(SUBJECT, self.signals.heard)
        self.acceptor = Acceptor(self.store, self.pool, self.signals, moments)
        self.canceller = RunCanceller(self.store, self.signals, moments)
        self.receiver = SignalReceiver(self.store, self.signals, moments)
        self.prober = Prober(self.store, self.signals)
        self.starter = Starter(self.store, self.pool, self.signals, moments)
        self.internal = InternalServicer(
            store=self.store,
            prober=self.prober,
            canceller=self.canceller,
            orders=cast("StartOrders", None),
            starter=self.starter,
        )
        results = ResultFolder(self.store, self.pool, self.signals, moments)
        progress = ProgressFolder(self.store, self.signals)
        stops = StopCourier(self.store, self.pool, self.signals, moments)
        self.workers = WorkerServicer(
            store=self.store,
            pool=self.pool,
            leases=LeaseBook(self.store, self.pool, self.signals, moments, TERMS),
            results=results,
            progress=progress,
            logs=ForgetfulLogs(self.store, cast("ArtifactStore", None), self.signals, LogLimits(1, 1)),
            stops=stops,
            signals=self.signals,
            metadata=cast("definitions_pb2_grpc.DefinitionServiceAsyncStub", None),
            tokens=cast("ServiceTokens", None),
        )
        agents: list[Agent] = [
            Dispatcher(self.store, self.pool, self.signals, moments),
            results,
            progress,
            stops,
            LeaseReaper(self.store, self.signals, moments),
            DueTimer(self.store, self.signals, moments),
            HeldReleaser(self.store, self.signals),
            sequencer,
            publisher,
        ]
        for agent in agents:
            agent.interval_seconds = POLLS[agent.name] * chance.uniform(0.8, 1.2)
        self._runner = WatchedRunner(agents, chance, wrong)

    def start(self) -> None:
        """Begins to work."""
        self.process.start(self._runner.start())

    async def drain(self) -> None:
        """Goes down as SIGTERM asks it to: no new calls, workers elsewhere, what they reported is folded."""
        self.serves = False
        await self.workers.drain()
        await self.acceptor.drain()
        await asyncio.sleep(0.2)
        await self._runner.stop()

    def serve_worker(self, stream: Stream[Any], sent: Callable[[workers_pb2.ConnectResponse], None]) -> None:
        """Handles a stream, as the server would."""
        handler = self.process.start(self._handle(stream, sent))
        self.streams.append(stream)

        def hung_up() -> None:
            self._loop.call_later(0.001, handler.cancel, context=NOBODY)

        stream.on_cut.append(hung_up)

    async def _handle(self, stream: Stream[Any], sent: Callable[[workers_pb2.ConnectResponse], None]) -> None:
        set_principal(Principal("worker:worker-1", TENANT, None, Role.WORKER, "worker"))
        try:
            await self.workers.Connect(stream, cast("Any", _Context(self.process, stream, sent)))
            stream.down.send(None)
        except (HeadraceError, grpc.aio.AioRpcError):
            stream.cut()
        except Exception as error:  # noqa: BLE001 - it is told
            self._wrong(f"a worker's stream failed: {type(error).__name__}: {error}")
            stream.cut()
        finally:
            if stream in self.streams:
                self.streams.remove(stream)

    def check_slots(self) -> str | None:
        """What is wrong with the slots of its workers, when all is quiet."""
        for session in self.pool.all():
            if session.reserved or session.busy:
                return f"{session.reserved} slots reserved, {len(session.busy)} busy, and nothing runs"
        return None


class _Context:
    """What the servicer writes its answers to."""

    def __init__(
        self,
        process: Process,
        stream: Stream[Any],
        sent: Callable[[workers_pb2.ConnectResponse], None],
    ) -> None:
        self._process = process
        self._stream = stream
        self._sent = sent

    async def write(self, message: workers_pb2.ConnectResponse) -> None:
        """Sends a message."""
        if self._process.alive and not self._stream.is_cut:
            self._sent(message)
            self._stream.down.send(message)
