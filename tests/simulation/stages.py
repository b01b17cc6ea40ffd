"""Stage processes: what they say to the worker's supervisor and do to targets, without doing the work."""

import asyncio
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast
from uuid import UUID

from headrace.execution.v1 import runs_pb2, workers_pb2
from headrace_connectors.errors import FencedOut
from headrace_connectors.model import LoadKey, Receipt, Series
from headrace_execution.domain.run import Run
from headrace_worker.processes.frames import ALL_LANDED, Frame, StopReason
from headrace_worker.processes.pool import ProcessListener, ProcessPool, StageProcess

from .scripts import Manner, Pipeline, Request, StageScript, number_of
from .target import Target
from .virtual_loop import NOBODY, VirtualLoop

Result = workers_pb2.AssignmentResult
SOURCE_ROWS_PER_SECOND = 10
PROBE_ANSWER = b'{"success": true}'


class _TargetAway(Exception):  # noqa: N818
    """The target could not be reached: nothing happened."""


class _NobodyKnows(Exception):  # noqa: N818
    """The connection broke after COMMIT was sent, and the ledger could not be asked."""


class _LeaseLost(Exception):  # noqa: N818
    """The supervisor does not let it commit."""


@dataclass(slots=True)
class Surroundings:
    """What stages find around them."""

    loop: VirtualLoop
    chance: random.Random
    target: Target
    requests: dict[int, Request]
    run_of: Callable[[UUID], Run | None]
    note: Callable[[str], None]
    unsteady: bool = True
    """Whether targets fail now and then."""
    blamed: dict[tuple[int, int], int] | None = None
    """How often a stage of a request was made to fail by what its script does not say."""
    cut_off: set[str] = field(default_factory=set)
    """The roots of runs that nobody can settle: their target is away whenever it is tried."""

    def can_settle(self, assignment: workers_pb2.Assignment) -> bool:
        """Whether a run can be settled. Often it never can where the next one has to go on from it."""
        incremental = self.requests[number_of(assignment.parameters)].pipeline.incremental
        if self.unsteady and incremental and self.chance.random() < 0.3:
            self.cut_off.add(assignment.root_run_id)
        return assignment.root_run_id not in self.cut_off

    def blame(self, request: int, stage: int) -> None:
        """Counts a failure that its script does not say."""
        if self.blamed is not None:
            self.blamed[request, stage] = self.blamed.get((request, stage), 0) + 1


class SimulatedStage:
    """One stage process. What it says reaches the supervisor at once, as over a socket pair."""

    def __init__(self, around: Surroundings, kill_worker: Callable[[], None]) -> None:
        self._around = around
        self._kill_worker = kill_worker
        self.listener: ProcessListener | None = None
        self._task: asyncio.Task[None] | None = None
        self._stop: StopReason | None = None
        self._is_killed = False
        self._obeys = True
        self._answer: asyncio.Future[bool] | None = None
        self._committed: dict[str, Receipt] = {}

    def send(self, kind: Frame, body: bytes = b"") -> None:
        """What the supervisor says."""
        match kind:
            case Frame.ASSIGN:
                self._stop, self._obeys, self._committed = None, True, {}
                assignment = workers_pb2.Assignment.FromString(body)
                self._task = asyncio.get_running_loop().create_task(self._carry_out(assignment))
            case Frame.STOP:
                reason = StopReason(body.decode())
                if self._stop is None or reason is StopReason.LEASE_LOST:
                    self._stop = reason
                    self._interrupt()
            case Frame.COMMIT_ANSWER:
                if self._answer is not None and not self._answer.done():
                    self._answer.set_result(body == b"\x01")
            case _:
                raise AssertionError(f"a stage process is told {kind!r}")

    def kill(self) -> None:
        """Ends it at once."""
        if not self._is_killed:
            self._is_killed = True
            if self._task is not None:
                self._task.cancel()

    def _interrupt(self) -> None:
        if self._task is not None and self._obeys:
            self._task.cancel()

    async def _carry_out(self, assignment: workers_pb2.Assignment) -> None:
        how = "it stopped"
        result: Result | None = None
        try:
            result = await self._result(assignment)
        except asyncio.CancelledError:
            how = "SIGKILL"
        except MemoryError:
            how = "SIGSEGV"
        if result is None or self._is_killed:
            self._said().process_ended(cast("StageProcess", self), how)
        else:
            result.ref.CopyFrom(assignment.ref)
            self._said().frame_received(cast("StageProcess", self), Frame.RESULT, result.SerializeToString())

    def _said(self) -> ProcessListener:
        if self.listener is None:
            raise AssertionError("nobody listens to this stage process")
        return self.listener

    async def _result(self, assignment: workers_pb2.Assignment) -> Result | None:
        if assignment.kind == workers_pb2.ASSIGNMENT_KIND_SETTLE:
            return await self._settle(assignment)
        if assignment.kind != workers_pb2.ASSIGNMENT_KIND_STAGE:
            await asyncio.sleep(self._around.chance.uniform(0, 0.5))
            return Result(outcome=workers_pb2.OUTCOME_COMPLETED, answer=PROBE_ANSWER)
        limit = asyncio.get_running_loop().call_later(assignment.timeout_ms / 1000, self._time_out)
        try:
            return await _Attempt(self, assignment).run()
        except asyncio.CancelledError:
            if self._is_killed or self._stop is None:
                raise
            _uncancel()
            return await self._stopped(assignment, self._stop)
        finally:
            limit.cancel()

    def _time_out(self) -> None:
        self._stop = self._stop or StopReason.TIMED_OUT
        self._interrupt()

    async def _stopped(self, assignment: workers_pb2.Assignment, why: StopReason) -> Result | None:
        if why is StopReason.CANCELLED:
            settled = await self._settle(assignment)
            if settled.outcome == workers_pb2.OUTCOME_COMPLETED and settled.answer == ALL_LANDED:
                return Result(outcome=workers_pb2.OUTCOME_COMPLETED, receipts=settled.receipts)
            result = Result(outcome=workers_pb2.OUTCOME_CANCELLED, receipts=settled.receipts)
            if settled.outcome != workers_pb2.OUTCOME_COMPLETED:
                result.warnings.add(task=settled.failed_task, code="CANCEL_UNSETTLED", message="it is away")
            return result
        if why is StopReason.LEASE_LOST:
            return None
        loads = loads_of(assignment)
        receipts = [message for key in loads if (message := self._receipt(assignment, key)) is not None]
        if loads and len(receipts) == len(loads):
            return Result(outcome=workers_pb2.OUTCOME_COMPLETED, receipts=receipts)
        code = "WORKER_SHUTDOWN" if why is StopReason.SHUTDOWN else "ATTEMPT_TIMEOUT"
        return failed(code, "TRANSIENT", receipts=receipts)

    def _receipt(self, assignment: workers_pb2.Assignment, load: str) -> workers_pb2.Receipt | None:
        found = self._around.target.receipt(LoadKey(assignment.root_run_id, load))
        return None if found is None else receipt_message(load, found)

    async def _settle(self, assignment: workers_pb2.Assignment) -> Result:
        around = self._around
        receipts: list[workers_pb2.Receipt] = []
        loads = loads_of(assignment)
        can_settle = around.can_settle(assignment)
        for load in loads:
            await asyncio.sleep(around.chance.uniform(0, 0.05))
            if not can_settle or (around.unsteady and around.chance.random() < 0.05):
                return failed("CONNECTION_FAILED", "TRANSIENT", task=load, receipts=receipts)
            found = around.target.tombstone(LoadKey(assignment.root_run_id, load), assignment.ref.fence)
            if found is not None:
                receipts.append(receipt_message(load, found))
        answer = ALL_LANDED if loads and len(receipts) == len(loads) else b""
        return Result(outcome=workers_pb2.OUTCOME_COMPLETED, receipts=receipts, answer=answer)

    async def may_commit(self) -> bool:
        """Asks the supervisor whether the lease is still believed valid."""
        self._answer = asyncio.get_running_loop().create_future()
        self._said().frame_received(cast("StageProcess", self), Frame.MAY_COMMIT, b"")
        return await self._answer

    def report(self, progress: workers_pb2.AssignmentProgress) -> None:
        """Tells how far it is."""
        self._said().frame_received(cast("StageProcess", self), Frame.PROGRESS, progress.SerializeToString())

    def end_worker(self) -> None:
        """Takes the whole worker down with it."""
        self._kill_worker()

    def disobey(self) -> None:
        """From now on it has to be killed."""
        self._obeys = False

    @property
    def around(self) -> Surroundings:
        """What it finds around it."""
        return self._around


class _Attempt:
    """One attempt at a stage, as the engine makes one: claim, read, stage, commit."""

    def __init__(self, process: SimulatedStage, assignment: workers_pb2.Assignment) -> None:
        self._process = process
        self._around = process.around
        self._assignment = assignment
        self._request = self._around.requests[number_of(assignment.parameters)]
        self._number: int = json.loads(assignment.payload)["stage"]
        self._receipts: dict[str, Receipt] = {}
        self._turns: dict[str, Receipt | None] = {}
        """The last load that landed before this one, by the sinks whose turn this attempt has taken."""

    async def run(self) -> Result | None:
        script = self._pipeline.stages[self._number]
        if not script.obeys:
            self._process.disobey()
        try:
            await self._claim()
            failure = await self._work(script)
            if failure is not None:
                return failure
            await self._commit()
        except FencedOut:
            return Result(outcome=workers_pb2.OUTCOME_FENCED, receipts=self._messages())
        except _TargetAway:
            self._around.blame(self._request.number, self._number)
            return failed("CONNECTION_FAILED", "TRANSIENT", receipts=self._messages())
        except _NobodyKnows:
            self._around.blame(self._request.number, self._number)
            return failed("COMMIT_UNKNOWN", "TRANSIENT", receipts=self._messages())
        except _LeaseLost:
            return None
        return Result(outcome=workers_pb2.OUTCOME_COMPLETED, receipts=self._messages())

    @property
    def _pipeline(self) -> Pipeline:
        return self._request.pipeline

    def _messages(self) -> list[workers_pb2.Receipt]:
        return [receipt_message(load, receipt) for load, receipt in self._receipts.items()]

    def _key(self, load: str) -> LoadKey:
        return LoadKey(self._assignment.root_run_id, load)

    async def _reach_target(self) -> None:
        chance = self._around.chance
        await asyncio.sleep(chance.uniform(0, 0.02))
        if self._around.unsteady and chance.random() < 0.01:
            raise _TargetAway

    async def _claim(self) -> None:
        for load in loads_of(self._assignment):
            await self._reach_target()
            receipt = self._around.target.claim(self._key(load), self._assignment.ref.fence)
            if receipt is not None:
                self._receipts[load] = receipt
            elif self._pipeline.incremental:
                await self._reach_target()
                self._turns[load] = self._around.target.take_turn(
                    self._series(load), self._assignment.ref.fence
                )

    def _series(self, load: str) -> Series:
        return Series(self._assignment.pipeline_id, load)

    async def _work(self, script: StageScript) -> Result | None:
        half = script.seconds / 2
        await asyncio.sleep(half)
        self._report()
        match script.manner:
            case Manner.BROKEN:
                return failed("CHECK_FAILED", "DATA")
            case Manner.POISON:
                raise MemoryError
            case Manner.DEADLY:
                self._process.end_worker()
                await asyncio.sleep(3600)
            case Manner.FLAKY if self._failures() < script.times:
                return failed("CONNECTION_RESET", "TRANSIENT")
            case Manner.SLOW if self._failures() < script.times:
                await asyncio.sleep(3600)
            case _:
                pass
        await asyncio.sleep(half)
        return None

    def _failures(self) -> int:
        run = self._around.run_of(UUID(self._assignment.run_id))
        return run.stages[self._number].failures if run is not None else 0

    def _report(self) -> None:
        tasks = [
            workers_pb2.TaskProgress(
                task=f"rows{self._number}", state=runs_pb2.TASK_STATE_RUNNING, rows_out=1
            )
        ]
        self._process.report(workers_pb2.AssignmentProgress(ref=self._assignment.ref, tasks=tasks))

    async def _commit(self) -> None:
        for load in loads_of(self._assignment):
            if load in self._receipts:
                continue
            if not await self._process.may_commit():
                raise _LeaseLost
            await self._reach_target()
            rows, checksum, cursor = self._rows(load)
            await self._land(load, rows, checksum, cursor)

    async def _land(self, load: str, rows: int, checksum: str, cursor: bytes | None) -> None:
        """Sends the commit, and waits for the answer. Once it is sent, it happens without this process."""
        around = self._around
        key, fence = self._key(load), self._assignment.ref.fence
        series = self._series(load) if load in self._turns else None
        answer: asyncio.Future[Receipt] = around.loop.create_future()
        answer.add_done_callback(_look_at)  # nobody may be left to hear it

        def commit() -> None:
            try:
                landed = around.target.commit(key, fence, rows, checksum, cursor, series)
            except FencedOut as error:
                if not answer.done():
                    answer.set_exception(error)
            else:
                if not answer.done():
                    answer.set_result(landed)

        fate = around.chance.random() if around.unsteady else 1.0
        if fate < 0.02:
            longest = 1.0 if fate < 0.015 else 120.0
            around.loop.call_later(around.chance.uniform(0, longest), commit, context=NOBODY)
        if fate < 0.03:
            self._receipts[load] = await self._ask_ledger(key)
            return
        seconds = around.chance.uniform(0.5, 9.0) if fate < 0.15 else around.chance.uniform(0, 0.02)
        around.loop.call_later(seconds, commit, context=NOBODY)
        self._receipts[load] = await answer

    async def _ask_ledger(self, key: LoadKey) -> Receipt:
        """The connection broke after COMMIT was sent: the ledger knows, if it can be asked."""
        await asyncio.sleep(self._around.chance.uniform(0, 1.0))
        if self._around.chance.random() < 0.5:
            raise _NobodyKnows
        receipt = self._around.target.receipt(key)
        if receipt is None:
            raise _NobodyKnows
        return receipt

    def _rows(self, load: str) -> tuple[int, str, bytes | None]:
        """What the stage would load: the same each time, but for what an incremental source has got since."""
        if not self._pipeline.incremental:
            return 10, f"{self._request.number}/{load}", None
        (known,) = (cursor for cursor in self._assignment.cursors if cursor.sink == load)
        last = self._turns[load]
        value = last.cursor if last is not None and last.fence > known.fence else known.value
        begun = int(value) if value else 0
        reached = max(begun, int(self._around.loop.time() * SOURCE_ROWS_PER_SECOND))
        return reached - begun, f"{begun}-{reached}", str(reached).encode()


def loads_of(assignment: workers_pb2.Assignment) -> list[str]:
    """The sinks of a stage that have a ledger."""
    loads: list[str] = json.loads(assignment.payload)["loads"]
    return loads


def receipt_message(load: str, receipt: Receipt) -> workers_pb2.Receipt:
    """A receipt as a worker reports it."""
    message = workers_pb2.Receipt(
        sink=load, fence=receipt.fence, rows=receipt.rows, bytes=receipt.bytes, checksum=receipt.checksum
    )
    message.landed_at.FromDatetime(receipt.committed_at)
    if receipt.cursor is not None:
        message.cursors.add(sink=load, source=f"rows{load[4]}", value=receipt.cursor)
    return message


def failed(
    code: str, kind: str, *, task: str = "", receipts: list[workers_pb2.Receipt] | None = None
) -> Result:
    """A failure as a worker reports it."""
    result = Result(outcome=workers_pb2.OUTCOME_FAILED, failed_task=task, receipts=receipts or ())
    result.error.code = code
    result.error.message = "simulated"
    setattr(result.error, "class", runs_pb2.ErrorClass.Value(f"ERROR_CLASS_{kind}"))
    return result


def _look_at(answer: "asyncio.Future[Receipt]") -> None:
    if not answer.cancelled():
        answer.exception()


def _uncancel() -> None:
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()


class SimulatedPool:
    """As many stage processes as are asked for."""

    def __init__(self, around: Surroundings, kill_worker: Callable[[], None]) -> None:
        self._around = around
        self._kill_worker = kill_worker

    def as_pool(self) -> ProcessPool:
        """The same, for those who say that they want the worker's own."""
        return cast("ProcessPool", self)

    def try_acquire(self) -> SimulatedStage | None:
        """A process that is warm; now and then there is none."""
        if self._around.chance.random() < 0.2:
            return None
        return SimulatedStage(self._around, self._kill_worker)

    async def acquire(self) -> SimulatedStage:
        """A process that has to be made."""
        await asyncio.sleep(0.01)
        return SimulatedStage(self._around, self._kill_worker)

    def release(self, process: SimulatedStage) -> None:
        """One that is not needed any more."""

    async def replenish(self) -> None:
        """There are always enough."""

    async def close(self) -> None:
        """Ends all."""
