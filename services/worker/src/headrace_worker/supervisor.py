"""Hands assignments to stage processes and takes their results; knows nothing of how the server is
reached.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

import structlog
from headrace.execution.v1 import runs_pb2, workers_pb2
from headrace_chassis import faults

from headrace_worker import metrics
from headrace_worker.engine.failure import Failure, attempt_timeout, stage_crashed, worker_shutdown
from headrace_worker.engine.run_log import ERROR, WARNING
from headrace_worker.engine.task_error import error_message
from headrace_worker.holdings import Holding, Holdings, Phase
from headrace_worker.lease import Lease
from headrace_worker.log_courier import LogCourier
from headrace_worker.output_keeper import OutputKeeper
from headrace_worker.processes.frames import ALL_LANDED, Frame, StopReason
from headrace_worker.processes.pool import ProcessPool, StageProcess

_log = structlog.get_logger(__name__)

LONGEST_WAIT_SECONDS = 0.5
"""How long an assignment waits for a slot before all that wait are given back."""

LOG_SECONDS = 2.0
"""How long a worker that goes down waits for its logs to be taken."""

GRACE_SECONDS = 5.0
"""How long a stage may take to stop where the server does not say, before its process is killed."""

_STOP_REASONS = {
    workers_pb2.CANCEL_REASON_CANCELLED: StopReason.CANCELLED,
    workers_pb2.CANCEL_REASON_TIMED_OUT: StopReason.TIMED_OUT,
    workers_pb2.CANCEL_REASON_LEASE_LOST: StopReason.LEASE_LOST,
}


class Outbox(Protocol):
    """Where messages to the server go. What cannot be sent now may be lost: results are repeated."""

    def send(self, request: workers_pb2.ConnectRequest) -> None:
        """Send as soon as there is a stream."""


class SecretSource(Protocol):
    """Who knows the connections of an assignment."""

    async def connections(
        self, ref: workers_pb2.AssignmentRef
    ) -> workers_pb2.ResolveSecretsResponse | Failure | None:
        """The connections with their secrets, why there are none, or None where the lease is lost."""


class Supervisor:
    """Runs what the server hands out. All methods but `drain` and `close` return at once."""

    def __init__(
        self,
        pool: ProcessPool,
        *,
        slots: int,
        lease: Lease,
        outbox: Outbox,
        secrets: SecretSource,
        outputs: OutputKeeper,
        temp_dir: Path,
        clock: Callable[[], float],
    ) -> None:
        self._pool = pool
        self._slots = slots
        self._lease = lease
        self._outbox = outbox
        self._secrets = secrets
        self._outputs = outputs
        self._temp_dir = temp_dir
        self._clock = clock
        self._working: dict[StageProcess, Holding] = {}
        self._queue: deque[Holding] = deque()
        self._active: set[Holding] = set()
        self._unreported: dict[str, Holding] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self.draining = False
        self.holdings = Holdings()
        self.logs = LogCourier(outbox, clock)

    @property
    def free_slots(self) -> int:
        """How many assignments could be started now."""
        if self.draining:
            return 0
        return max(0, self._slots - len(self._active) - len(self._queue))

    @property
    def active(self) -> int:
        """How many assignments are being worked off."""
        return len(self._active)

    def accept(self, assignments: Iterable[workers_pb2.Assignment]) -> None:
        """Start work. While the worker goes down, it is given back."""
        for assignment in assignments:
            held = self.holdings.get(assignment.ref.assignment_id)
            if held is not None and held.ref.fence >= assignment.ref.fence:
                continue  # the message came twice, or late
            if self.draining:
                self._release([assignment.ref])
                continue
            if held is not None:
                self._abandon(held)
            holding = Holding(assignment, accepted_at=self._clock())
            self.holdings.add(holding)
            self._queue.append(holding)
            faults.point("worker.assignment.received")
        self._fill_slots()

    def cancel(self, order: workers_pb2.CancelAssignment) -> None:
        """Stop an assignment, for a reason of the server's."""
        holding = self.holdings.find(order.ref)
        reason = _STOP_REASONS.get(order.reason)
        if holding is None or reason is None:
            return
        if reason is StopReason.LEASE_LOST:
            self._abandon(holding)
        else:
            self._stop(holding, reason, order.grace_ms / 1000 or GRACE_SECONDS)

    def lost(self, refs: Iterable[workers_pb2.AssignmentRef]) -> None:
        """These are not the worker's own any more."""
        for ref in refs:
            holding = self.holdings.find(ref)
            if holding is not None:
                self._abandon(holding)

    def acknowledged(self, refs: Iterable[workers_pb2.AssignmentRef]) -> None:
        """These results are durable, or refused for good."""
        for ref in refs:
            holding = self.holdings.find(ref)
            if holding is not None and holding.phase is Phase.FINISHED:
                self.holdings.drop(holding)
        self._changed.set()

    def fence_itself(self) -> None:
        """Stop everything that runs where the lease has run out: by now, others may have been given it."""
        if self._lease.valid:
            return
        live = [holding for holding in self.holdings if holding.phase is not Phase.FINISHED]
        if live:
            _log.warning("the lease could not be renewed in time: stopping what runs", assignments=len(live))
        for holding in live:
            self._abandon(holding)

    def repeat_results(self, sent_before: float) -> None:
        """Send the results again that were last sent before a time, by the supervisor's clock."""
        for holding in self.holdings.in_phase(Phase.FINISHED):
            if holding.sent_at <= sent_before:
                self._send_result(holding)

    def report_progress(self) -> None:
        """Tell how far assignments are that have moved since the last time."""
        reports = [h.progress for h in self._unreported.values() if h.progress is not None]
        self._unreported.clear()
        if reports:
            report = workers_pb2.ProgressReport(assignments=reports)
            self._outbox.send(workers_pb2.ConnectRequest(progress=report))

    def give_back_waiting(self) -> None:
        """Give back what could not be started soon after it came: others may be able to. The server sends
        more than there are slots for, as long as stages are short.
        """
        overdue = self._clock() - LONGEST_WAIT_SECONDS
        if not any(holding.accepted_at < overdue for holding in self._queue):
            return
        waiting = [holding for holding in self._queue if self._is_waiting(holding)]
        self._queue.clear()
        self._give_back(waiting)

    async def drain(self, seconds: float) -> None:
        """Take nothing new, give back what was not started, and wait for the rest; what takes longer is
        stopped.
        """
        self.draining = True
        self._give_back(self.holdings.in_phase(Phase.WAITING))
        if not await self._until(lambda: not self._working, seconds):
            for holding in self.holdings.in_phase(Phase.RUNNING):
                self._stop(holding, StopReason.SHUTDOWN, GRACE_SECONDS)
            await self._until(lambda: not self._working, 2 * GRACE_SECONDS)
        if not await self._until(lambda: not len(self.holdings), GRACE_SECONDS):
            _log.warning("results were not taken by the server", results=len(self.holdings))
        await self._until(lambda: self.logs.is_idle, LOG_SECONDS)

    async def close(self) -> None:
        """End all that runs."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._pool.close()

    def frame_received(self, process: StageProcess, kind: Frame, body: bytes) -> None:
        """A stage process said something."""
        holding = self._working.get(process)
        if holding is None:
            return
        if kind is Frame.RESULT or kind is Frame.LAST_RESULT:
            self._finished(process, holding, workers_pb2.AssignmentResult.FromString(body))
            if kind is Frame.RESULT:
                self._free(process)
                self._pool.release(process)
            self._fill_slots()
        elif kind is Frame.PROGRESS:
            holding.progress = workers_pb2.AssignmentProgress.FromString(body)
            self._unreported[holding.ref.assignment_id] = holding
        elif kind is Frame.LOG:
            self.logs.take(holding.assignment, workers_pb2.LogChunk.FromString(body).lines)
        elif kind is Frame.NEED_SECRETS:
            self._spawn(self._answer_secrets(process, holding))
        elif kind is Frame.STORE_OUTPUT:
            holding.keeping = self._spawn(self._keep_output(process, holding, **json.loads(body)))
        elif kind is Frame.MAY_COMMIT:
            mine = self._lease.valid and self.holdings.find(holding.ref) is holding
            process.send(Frame.COMMIT_ANSWER, b"\x01" if mine else b"\x00")
            if not mine:
                self._abandon(holding)

    def log_acknowledged(self, ack: workers_pb2.LogAck) -> None:
        """A part of a log need not be sent again."""
        self.logs.acknowledged(ack)
        self._changed.set()

    def process_ended(self, process: StageProcess, reason: str) -> None:
        """A stage process is gone, by itself after its result, or otherwise."""
        holding = self._free(process)
        self._spawn(self._pool.replenish())
        if holding is None:
            return
        holding.cancel_kill()
        if holding.keeping is not None:
            holding.keeping.cancel()
        if holding.phase is Phase.FINISHED or self.holdings.find(holding.ref) is not holding:
            self._changed.set()
            if holding.phase is not Phase.FINISHED:
                self._remove_outputs(holding)  # abandoned: it never had a result
        else:
            self._died(holding, reason)
        if not holding.settling:
            self.logs.ended(holding.ref)
        self._fill_slots()
        self._spawn(self._remove_scratch(holding))

    def _fill_slots(self) -> None:
        """Begin what waits, as far as there are slots: the server may hand out more than it was told."""
        while self._queue and len(self._active) < self._slots:
            holding = self._queue.popleft()
            if self._is_waiting(holding):
                self._start(holding)

    def _is_waiting(self, holding: Holding) -> bool:
        return holding.phase is Phase.WAITING and self.holdings.find(holding.ref) is holding

    def _start(self, holding: Holding) -> None:
        self._active.add(holding)
        process = self._pool.try_acquire()
        if process is not None:
            self._begin(holding, process)
        else:
            self._spawn(self._begin_later(holding))

    def _begin(self, holding: Holding, process: StageProcess) -> None:
        assignment = holding.assignment
        holding.phase, holding.process = Phase.RUNNING, process
        process.listener = self
        self._working[process] = holding
        if holding.settling:
            assignment = workers_pb2.Assignment()
            assignment.CopyFrom(holding.assignment)
            assignment.kind = workers_pb2.ASSIGNMENT_KIND_SETTLE
        process.send(Frame.ASSIGN, assignment.SerializeToString())
        if holding.stop is not None and not holding.settling:
            process.send(Frame.STOP, holding.stop.encode())
            self._kill_after(holding, GRACE_SECONDS, holding.stop)
        elif assignment.timeout_ms and assignment.kind == workers_pb2.ASSIGNMENT_KIND_STAGE:
            # The process stops by itself in time; one that cannot any more is killed a little later.
            self._kill_after(holding, assignment.timeout_ms / 1000 + GRACE_SECONDS, StopReason.TIMED_OUT)

    async def _begin_later(self, holding: Holding) -> None:
        process = await self._pool.acquire()
        if self._is_waiting(holding):
            self._begin(holding, process)
        else:
            self._pool.release(process)

    def _stop(self, holding: Holding, reason: StopReason, grace: float) -> None:
        if holding.stop is not None or holding.phase is Phase.FINISHED:
            return
        holding.stop = reason
        if holding.phase is Phase.RUNNING and holding.process is not None:
            holding.process.send(Frame.STOP, reason.encode())
            self._kill_after(holding, grace, reason)

    def _abandon(self, holding: Holding) -> None:
        """Nobody waits for it any more: stop it, and forget it at once."""
        self.holdings.drop(holding)
        self._active.discard(holding)
        self._unreported.pop(holding.ref.assignment_id, None)
        if holding.phase is Phase.RUNNING and holding.process is not None:
            holding.stop = StopReason.LEASE_LOST
            holding.process.send(Frame.STOP, StopReason.LEASE_LOST.encode())
            self._kill_after(holding, GRACE_SECONDS, StopReason.LEASE_LOST)
        self._fill_slots()
        self._changed.set()

    def _kill_after(self, holding: Holding, seconds: float, reason: StopReason) -> None:
        def kill() -> None:
            if holding.process is not None and self._working.get(holding.process) is holding:
                _log.warning("a stage did not stop in time: killed", assignment=holding.ref.assignment_id)
                holding.stop = holding.stop or reason
                holding.process.kill()

        holding.cancel_kill()
        holding.kill_timer = asyncio.get_running_loop().call_later(seconds, kill)

    def _died(self, holding: Holding, reason: str) -> None:
        if holding.stop is StopReason.CANCELLED and not holding.settling:
            self.logs.write(
                holding.assignment, WARNING, f"its process did not stop by itself and died: {reason}"
            )
            holding.settling, holding.phase, holding.process = True, Phase.WAITING, None
            self._start(holding)
            return
        _log.warning("a stage process died", assignment=holding.ref.assignment_id, reason=reason)
        self.logs.write(holding.assignment, ERROR, f"the process that ran the attempt died: {reason}")
        failure = stage_crashed(reason)
        if holding.stop is StopReason.TIMED_OUT:
            failure = attempt_timeout(holding.assignment.timeout_ms)
        elif holding.stop is StopReason.SHUTDOWN:
            failure = worker_shutdown()
        result = workers_pb2.AssignmentResult(ref=holding.ref, outcome=workers_pb2.OUTCOME_FAILED)
        result.error.CopyFrom(error_message(failure))
        if holding.progress is not None:
            result.tasks.extend(holding.progress.tasks)
        for task in result.tasks:
            if task.state == runs_pb2.TASK_STATE_RUNNING:
                task.state = runs_pb2.TASK_STATE_FAILED
                task.error.CopyFrom(result.error)
                result.failed_task = result.failed_task or task.task
        self._record(holding, result)

    def _finished(
        self, process: StageProcess, holding: Holding, result: workers_pb2.AssignmentResult
    ) -> None:
        holding.cancel_kill()
        if self.holdings.find(holding.ref) is not holding:
            return  # abandoned meanwhile
        if holding.settling:
            result = _cancelled_after_kill(holding, result)
        self._record(holding, result)

    def _record(self, holding: Holding, result: workers_pb2.AssignmentResult) -> None:
        holding.result, holding.phase, holding.process = result, Phase.FINISHED, None
        metrics.ended(holding.assignment.kind, result.outcome, self._clock() - holding.accepted_at)
        self._active.discard(holding)
        self._unreported.pop(holding.ref.assignment_id, None)
        self._remove_outputs(holding, (receipt.output.key for receipt in result.receipts))
        self.logs.ended(holding.ref)  # before the result, so that a log is whole when its run has ended
        self._send_result(holding)

    def _send_result(self, holding: Holding) -> None:
        holding.sent_at = self._clock()
        faults.point("worker.result.before_send")
        self._outbox.send(workers_pb2.ConnectRequest(result=holding.result))
        faults.point("worker.result.sent")

    def _give_back(self, waiting: list[Holding]) -> None:
        for holding in waiting:
            self.holdings.drop(holding)
        self._release([holding.ref for holding in waiting])
        # Says at once whether there is room.
        beat = workers_pb2.Heartbeat(free_slots=self.free_slots, held=self.holdings.refs())
        self._outbox.send(workers_pb2.ConnectRequest(heartbeat=beat))

    def _release(self, refs: list[workers_pb2.AssignmentRef]) -> None:
        if refs:
            release = workers_pb2.ReleaseAssignments(refs=refs)
            self._outbox.send(workers_pb2.ConnectRequest(release=release))

    def _free(self, process: StageProcess) -> Holding | None:
        holding = self._working.pop(process, None)
        self._changed.set()
        return holding

    async def _answer_secrets(self, process: StageProcess, holding: Holding) -> None:
        answer = await self._secrets.connections(holding.ref)
        if isinstance(answer, workers_pb2.ResolveSecretsResponse):
            process.send(Frame.SECRETS, answer.SerializeToString())
        elif isinstance(answer, Failure):
            process.send(Frame.SECRETS_REFUSED, error_message(answer).SerializeToString())
        else:
            self._abandon(holding)

    async def _keep_output(self, process: StageProcess, holding: Holding, task: str, file: str) -> None:
        # By its name alone: a stage process has no say about files elsewhere.
        path = self._scratch(holding) / Path(file).name
        kept = await self._outputs.keep(holding.assignment, task, path)
        if isinstance(kept, Failure):
            process.send(Frame.OUTPUT_REFUSED, error_message(kept).SerializeToString())
            return
        holding.outputs.add(kept.key)
        process.send(Frame.OUTPUT_STORED, json.dumps(asdict(kept)).encode())

    def _remove_outputs(self, holding: Holding, named: Iterable[str] = ()) -> None:
        """Remove what it has had kept and no result will name."""
        nobodys = sorted(holding.outputs.difference(named))
        holding.outputs.clear()
        if nobodys:
            self._spawn(self._outputs.remove(nobodys))

    def _scratch(self, holding: Holding) -> Path:
        return self._temp_dir / f"{holding.ref.assignment_id}-{holding.ref.fence}"

    async def _remove_scratch(self, holding: Holding) -> None:
        # The process removes it by itself, unless it died.
        folder = self._scratch(holding)
        if folder.exists():
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _until(self, condition: Callable[[], bool], seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return condition()
        return True

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("a task of the supervisor failed", exc_info=task.exception())


def _cancelled_after_kill(
    holding: Holding, settled: workers_pb2.AssignmentResult
) -> workers_pb2.AssignmentResult:
    """What came of an assignment that was cancelled, had to be killed, and was settled by another process."""
    sinks = {receipt.sink for receipt in settled.receipts}
    outcome = workers_pb2.OUTCOME_CANCELLED
    if settled.outcome == workers_pb2.OUTCOME_COMPLETED and settled.answer == ALL_LANDED:
        outcome = workers_pb2.OUTCOME_COMPLETED
    result = workers_pb2.AssignmentResult(ref=holding.ref, outcome=outcome, receipts=settled.receipts)
    if holding.progress is not None:
        result.tasks.extend(holding.progress.tasks)
    for task in result.tasks:
        if task.state in (runs_pb2.TASK_STATE_RUNNING, runs_pb2.TASK_STATE_PENDING):
            landed = task.task in sinks
            task.state = runs_pb2.TASK_STATE_COMPLETED if landed else runs_pb2.TASK_STATE_CANCELLED
    if settled.outcome != workers_pb2.OUTCOME_COMPLETED:
        result.warnings.add(
            task=settled.failed_task,
            code="CANCEL_UNSETTLED",
            message="the stage was stopped, but its target could not be told that nothing may land: "
            + settled.error.message,
        )
    return result
