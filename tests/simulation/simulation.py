"""One seed, from its beginning until all is quiet."""

import asyncio
import hashlib
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from headrace.common.v1 import event_log_pb2
from headrace.execution.v1 import internal_pb2, runs_pb2
from headrace_chassis.errors import HeadraceError, Unavailable
from headrace_chassis.idempotency import IdempotencyKey
from headrace_chassis.identity import Principal, Role, set_principal
from headrace_execution.acceptance.acceptor import Asked
from headrace_execution.domain.lifecycle import RunFinished
from headrace_execution.domain.retrying import RETRYABLE, retry_order
from headrace_execution.domain.run import Run
from headrace_execution.domain.states import RunState
from headrace_execution.signalling import Said
from headrace_execution.store.port import Probe, ProbeKind
from headrace_execution.testing.memory import Data
from headrace_execution.testing.memory.outbox import OUTBOX
from headrace_execution.testing.memory.tables import RUNS

from .chassis_database import HEAD, HeadRow
from .clocks import simulated_clocks
from .judge import Judge
from .mischief import Mischief
from .network import Broker, Network
from .observer import EFFECTS, Observer
from .oracle import findings, longest
from .replicas import Faults, Replica
from .scripts import TENANT, WORKSPACE, IdMaker, Pipeline, Request, Word, make_plan
from .stages import PROBE_ANSWER, Surroundings
from .target import Target
from .virtual_loop import Process, VirtualLoop
from .workers import Worker, wait_done

T = TypeVar("T")

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
CALM = 0.1
"""The share of seeds in which nothing goes wrong."""
DEAF = frozenset({"SIGNAL_RECEIVED", "SIGNAL_TOO_LATE", "RUN_FINISHED"})
REFUSALS = frozenset({"PIPELINE_DELETING", "CONCURRENCY_LIMIT", "NOT_RETRYABLE"})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a seed."""

    seed: int
    wrong: str | None
    """What was not as it must be."""
    trace: tuple[str, ...]
    runs: int
    landings: int
    seconds: float
    """How much simulated time went by."""

    @property
    def fingerprint(self) -> str:
        """The same for equal histories."""
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()[:16]


class World:
    """Everything that there is in one seed."""

    def __init__(self, seed: int, loop: VirtualLoop) -> None:
        self.loop = loop
        self.chance = random.Random(seed)
        self.trace: list[str] = []
        self.new_id = IdMaker()
        self.plan = make_plan(self.chance, self.new_id)
        self.network = Network(loop, self.chance)
        self.broker = Broker(self.network)
        self.faults = Faults(self.chance)
        self.target = Target(self.now)
        self.data = Data(clock=self.now, new_id=self.new_id)
        self.observed = Data(clock=self.now, new_id=self.new_id)
        self.around = Surroundings(
            loop=loop,
            chance=self.chance,
            target=self.target,
            requests={request.number: request for request in self.plan.requests},
            run_of=lambda run_id: self.data.tables[RUNS.name].get(run_id),
            note=self.note,
            blamed={},
        )
        self.judge = Judge(self.data, self.target, self.plan, self.around)
        self.replicas: list[Replica] = []
        self.workers: list[Worker] = []
        self.observer: Observer | None = None
        self.over = False
        self._users: set[asyncio.Task[None]] = set()

    def now(self) -> datetime:
        """The clock of all databases."""
        return EPOCH + timedelta(seconds=self.loop.time())

    def note(self, what: str) -> None:
        """Adds to the trace."""
        self.trace.append(f"{self.loop.time():9.4f} {what}")

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        """Has something happen later, unless all is over by then."""
        self.loop.call_later(seconds, lambda: None if self.over else what())

    # What is started, and ended.

    def start_replica(self) -> None:
        """Starts a replica of execution."""
        process = Process(self.loop, f"replica {self.new_id().int >> 80}")
        replica = Replica(
            process,
            self.loop,
            self.data,
            self.faults,
            self.broker,
            lambda replica, when: self.kill_replica(replica, when),
            self.judge.wrong,
        )
        self.replicas.append(replica)
        replica.start()

    def kill_replica(self, replica: Replica, when: str = "") -> None:
        """Kills a replica; another one is started a little later."""
        if replica not in self.replicas:
            return
        self.note(f"{replica.process.name} is killed {when}")
        self.replicas.remove(replica)
        replica.serves = False
        replica.bus.close()
        replica.process.kill()
        for stream in list(replica.streams):
            stream.cut()
        for worker in self.workers:
            worker.disturb()
        self.after(self.chance.uniform(0.1, 4.0), self.start_replica)

    def start_worker(self, slots: int) -> None:
        """Starts a worker."""
        process = Process(self.loop, "worker")
        worker = Worker(
            process,
            self.network,
            self.around,
            slots,
            self.new_id,
            lambda: self.replicas,
            lambda worker: self.kill_worker(worker, "by what it ran"),
            self.judge.heard,
            self.judge.sent,
            self.judge.wrong,
        )
        process.name = f"worker {worker.id.int >> 80}"
        self.workers.append(worker)
        worker.start()

    def kill_worker(self, worker: Worker, when: str = "") -> None:
        """Kills a worker with all that it runs; another one is started a little later."""
        if worker not in self.workers:
            return
        self.note(f"{worker.process.name} is killed {when}")
        self.workers.remove(worker)
        worker.process.kill()
        if worker.stream is not None:
            worker.stream.cut()
        self.after(self.chance.uniform(0.1, 5.0), lambda: self.start_worker(worker.slots))

    def start_observer(self) -> None:
        """Starts the service that follows the events."""
        process = Process(self.loop, "observer")

        def died(observer: Observer, when: str) -> None:
            self.kill_observer()

        self.observer = Observer(
            process, self.data, self.observed, self.faults, self.broker, died, self.judge.wrong
        )
        self.observer.start()

    def kill_observer(self) -> None:
        """Kills it; it is started again a little later."""
        if self.observer is None:
            return
        self.note("the observer is killed")
        observer, self.observer = self.observer, None
        observer.bus.close()
        observer.process.kill()
        self.after(self.chance.uniform(0.1, 4.0), self.start_observer)

    # What users do.

    async def call(self, replica: Replica, work: Coroutine[Any, Any, T], seconds: float = 10.0) -> T:
        """A call to a replica. Raises Unavailable when no answer comes; it may have happened."""
        await asyncio.sleep(self.network.delay())
        if not replica.process.alive or not replica.serves:
            work.close()
            raise Unavailable("execution")
        task = replica.process.start(work)
        if not await wait_done(task, seconds) or task.cancelled():
            task.add_done_callback(_look_at)
            raise Unavailable("execution")
        try:
            return task.result()
        except (HeadraceError, RunFinished):
            raise
        except Exception as error:
            self.judge.wrong(f"a call failed: {type(error).__name__}: {error}")
            raise Unavailable("execution") from error

    async def _some_replica(self) -> Replica:
        while not self.replicas:  # noqa: ASYNC110 - users look again every so often
            await asyncio.sleep(0.2)
        return self.chance.choice(self.replicas)

    async def ask_for_run(self, request: Request) -> None:
        """A user who asks until there is an answer."""
        await asyncio.sleep(request.at)
        key = IdempotencyKey(TENANT, "ada", "RunPipeline", str(request.number), b"body")
        while request.run_id is None and request.refused is None:
            asked = [self._ask(request, key) for _ in range(1 + request.impatient)]
            await asyncio.gather(*asked)
            await asyncio.sleep(self.chance.uniform(0.05, 1.0))
        if request.run_id is not None:
            said = [(word, rival) for word in request.words for rival in range(word.rivals)]
            await asyncio.gather(
                self._afterwards(request, request.run_id),
                *(self._say(request, request.run_id, word, rival) for word, rival in said),
            )

    async def _afterwards(self, request: Request, run_id: UUID) -> None:
        """What users do about a run that was accepted."""
        if request.cancel_after is not None:
            await asyncio.sleep(request.cancel_after)
            await self._cancel(request, run_id)
        if request.rivals:
            run = await self._end_of(run_id)
            if run.state in RETRYABLE:
                rivals = range(request.rivals)
                await asyncio.gather(*(self._retry(request, run, rival) for rival in rivals))

    async def _say(self, request: Request, run_id: UUID, word: Word, rival: int) -> None:
        """A user who sends a signal until there is an answer."""
        await asyncio.sleep(word.after)
        who = f"user {rival}"
        key = IdempotencyKey(TENANT, who, "SignalWorkflow", f"{request.number} {word.signal}", b"body")
        said = Said(run_id, word.signal, b'{"ok":false}' if word.refuses else b"{}", who, key)
        while True:
            replica = await self._some_replica()
            try:
                await self.call(replica, replica.receiver.receive(said))
            except HeadraceError as error:
                if error.code in DEAF:
                    self.note(f"{word.signal} of {who} is refused: {error.code}")
                    return
                await asyncio.sleep(self.chance.uniform(0.05, 1.0))
                continue
            self.note(f"request {request.number}: {word.signal} of {who} is taken")
            word.taken_by.append(who)
            return

    async def _end_of(self, run_id: UUID) -> Run:
        while True:
            run = self.judge.run_of(run_id)
            if run is not None and run.is_final:
                return run
            await asyncio.sleep(0.5)

    async def _retry(self, request: Request, run: Run, rival: int) -> None:
        """A user who tries a run again until there is an answer."""
        key = IdempotencyKey(TENANT, f"user {rival}", "RetryRun", str(request.number), b"body")
        while True:
            replica = await self._some_replica()
            ids = [self.new_id() for _ in run.stages]
            order = retry_order(run, run_id=self.new_id(), stage_ids=ids, triggered_by=f"user {rival}")
            try:
                answer = await self.call(replica, replica.acceptor.accept(Asked(order, key)))
            except HeadraceError as error:
                if error.code in REFUSALS:
                    self.note(f"the retry of request {request.number} is refused: {error.code}")
                    return
                await asyncio.sleep(self.chance.uniform(0.05, 1.0))
                continue
            self.note(f"request {request.number} is tried again as run {UUID(answer.run_id).int >> 80}")
            request.retries.append(UUID(answer.run_id))
            if self.judge.run_of(UUID(answer.run_id)) is None:
                self.judge.wrong(f"run {answer.run_id} was accepted and is not durable")
            return

    async def _ask(self, request: Request, key: IdempotencyKey) -> None:
        if request.schedule is not None:
            await self._ask_start(request)
            return
        replica = await self._some_replica()
        order = request.order(self.new_id)
        try:
            answer = await self.call(replica, replica.acceptor.accept(Asked(order, key)))
        except HeadraceError as error:
            if error.code in REFUSALS and request.run_id is None:
                self.note(f"request {request.number} is refused: {error.code}")
                request.refused = error.code
            return
        self._answered(request, answer)

    def _answered(self, request: Request, answer: runs_pb2.RunResponse) -> None:
        run_id = UUID(answer.run_id)
        self.note(f"request {request.number} is run {run_id.int >> 80}")
        request.refused = None
        if request.run_id not in (None, run_id):
            self.judge.wrong(f"request {request.number} was answered with {request.run_id} and {run_id}")
        request.run_id = run_id
        if self.judge.run_of(run_id) is None:
            self.judge.wrong(f"run {run_id} was accepted and is not durable")

    async def _ask_start(self, request: Request) -> None:
        """A scheduler who asks, and believes what it is told for ever."""
        replica = await self._some_replica()
        start = request.start(self.new_id)
        try:
            (decision,) = await self.call(replica, replica.starter.start(TENANT, [start]))
        except HeadraceError:
            return
        known = (request.run_id, request.refused)
        answer = (decision.run, decision.reason if decision.run is None else None)
        if known not in ((None, None), answer):
            self.judge.wrong(f"tick {request.number} was answered with {known} and {answer}")
        if known == (None, None):
            told = f"run {decision.run.int >> 80}" if decision.run is not None else "no run"
            self.note(f"tick {request.number} is {decision.outcome}, {told} {decision.reason}".rstrip())
        request.run_id, request.refused = answer
        if decision.run is not None and self.judge.run_of(decision.run) is None:
            self.judge.wrong(f"run {decision.run} was started and is not durable")

    async def _cancel(self, request: Request, run_id: UUID) -> None:
        request.cancel_sent = True
        while True:
            replica = await self._some_replica()
            try:
                state = await self.call(replica, self._cancel_once(replica, run_id), 15.0)
            except HeadraceError:
                await asyncio.sleep(self.chance.uniform(0.1, 1.0))
                continue
            self.note(f"request {request.number}: the user who cancelled is told {state}")
            if state is not None:
                request.told_final = state
                return

    @staticmethod
    async def _cancel_once(replica: Replica, run_id: UUID) -> RunState | None:
        """The final state that the user is told; None while it has none."""
        try:
            run = await replica.canceller.request(run_id, "a user wants it")
        except RunFinished as finished:
            return finished.state
        if run is not None and not run.is_final:
            run = await replica.canceller.wait_for_end(TENANT, run_id, 10.0)
        return run.state if run is not None and run.is_final else None

    async def close_pipeline(self, at: float, pipeline: Pipeline) -> None:
        """A pipeline is deleted, despite its runs."""
        await asyncio.sleep(at)
        request = internal_pb2.ClosePipelineRequest(pipeline_id=str(pipeline.id), force=True)
        while True:
            replica = await self._some_replica()
            try:
                await self.call(replica, _as_service(replica, request), 60.0)
            except HeadraceError:
                await asyncio.sleep(1.0)
                continue
            break
        self.note(f"pipeline {pipeline.id.int >> 80} is closed")
        live = [run for run in self._runs().values() if run.pipeline == pipeline.id and not run.is_final]
        if live:
            self.judge.wrong(f"pipeline {pipeline.id} was closed with live runs")

    async def ask_about_connection(self, at: float) -> None:
        """Somebody tests a connection, once; any answer but a wrong one will do."""
        await asyncio.sleep(at)
        replica = await self._some_replica()
        probe = Probe(self.new_id(), TENANT, WORKSPACE, ProbeKind.TEST, (str(self.new_id()),), b"{}", "ada")
        try:
            answer = await self.call(replica, replica.prober.ask(probe, 8.0))
        except HeadraceError as error:
            self.note(f"a probe has no answer: {error.code}")
            return
        self.note("a probe is answered")
        if answer != PROBE_ANSWER:
            self.judge.wrong(f"a probe was answered with {answer!r}")

    # From beginning to end.

    async def play(self) -> None:
        """Plays everything, and judges how it ended."""
        for _ in range(2):
            self.start_replica()
        for slots in self.plan.worker_slots:
            self.start_worker(slots)
        self.start_observer()
        users = [asyncio.ensure_future(self.ask_for_run(request)) for request in self.plan.requests]
        users += [asyncio.ensure_future(self.close_pipeline(*close)) for close in self.plan.closes.items()]
        users += [asyncio.ensure_future(self.ask_about_connection(at)) for at in self.plan.probes]

        def is_over() -> bool:
            return all(user.done() for user in users) and self._unrest() is None

        await Mischief(self).play(calm=self.chance.random() < CALM, is_over=is_over)
        deadline = self.loop.time() + longest().total_seconds()
        why = "at the beginning"
        while self.loop.time() < deadline:
            await asyncio.sleep(2.0)
            found = None if all(user.done() for user in users) else "a user waits yet"
            found = found or self._unrest()
            if found is None:
                break
            why = found
        else:
            self.judge.wrong(f"it never came to rest: {why}")
        for user in users:
            if user.done():
                user.result()
        for finding in findings(self.plan, self._runs(), self.target, self.around.blamed or {}):
            self.judge.wrong(finding)
        self._check_events()

    def _runs(self) -> dict[UUID, Any]:
        return self.data.tables[RUNS.name]

    def _unrest(self) -> str | None:
        for run in self._runs().values():
            if not run.is_final:
                return f"run {run.id} is {run.state}"
        head = self.data.tables[HEAD.name].get(0, HeadRow())
        if any(row.position is None for row in self.data.tables[OUTBOX.name].values()):
            return "events have no position"
        if head.published < head.position:
            return "events are not published"
        if len(self.observed.tables[EFFECTS.name]) < head.position:
            return "events have not been followed"
        return next((found for replica in self.replicas if (found := replica.check_slots())), None)

    def _check_events(self) -> None:
        rows = sorted(self.data.tables[OUTBOX.name].values(), key=lambda row: row.position or 0)
        if [row.position for row in rows] != list(range(1, len(rows) + 1)):
            self.judge.wrong("positions of events have gaps")
        effects: list[event_log_pb2.Event] = [
            event for _, event in sorted(self.observed.tables[EFFECTS.name].items())
        ]
        if [event.id for event in effects] != [str(row.event_id) for row in rows]:
            self.judge.wrong("events have not had their effects once and in their order")
        for run_id, told in self.judge.told.items():
            kinds = [event.type.split(".")[-2] for event in effects if event.subject == str(run_id)]
            if kinds != [str(kind) for kind in told]:
                self.judge.wrong(f"run {run_id}: events {kinds}, expected {told}")


async def _as_service(replica: Replica, request: internal_pb2.ClosePipelineRequest) -> None:
    set_principal(Principal("service:metadata", TENANT, None, Role.SERVICE, "service"))
    await replica.internal.ClosePipeline(request, None)  # type: ignore[arg-type]  # it looks at no context


def _look_at(task: "asyncio.Task[Any]") -> None:
    if not task.cancelled():
        task.exception()


def simulate(seed: int) -> Verdict:
    """Plays one seed."""
    loop = VirtualLoop()
    with simulated_clocks(loop):
        try:
            world = World(seed, loop)
            loop.run_until_complete(_until_wrong(world))
        finally:
            loop.close()
    wrong = world.judge.wrong_is.result() if world.judge.wrong_is.done() else None
    return Verdict(
        seed, wrong, tuple(world.trace), len(world.judge.told), len(world.target.landings), loop.time()
    )


async def _until_wrong(world: World) -> None:
    loop = world.loop
    loop.set_exception_handler(lambda _, context: world.judge.wrong(f"unhandled: {context}"))
    main = Process(loop, "world")
    playing = main.start(world.play())
    try:
        either: list[asyncio.Future[Any]] = [playing, world.judge.wrong_is]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if playing.done() and not playing.cancelled() and (error := playing.exception()) is not None:
            world.judge.wrong(f"the simulation failed: {type(error).__name__}: {error}")
            raise error
    finally:
        world.over = True
        processes = [main, *(replica.process for replica in world.replicas)]
        processes += [worker.process for worker in world.workers]
        processes += [world.observer.process] if world.observer is not None else []
        loop.set_exception_handler(lambda _, context: None)
        left = [task for process in processes for task in process.tasks]
        for process in processes:
            process.kill()
        if left:
            await asyncio.wait(left, timeout=30)
