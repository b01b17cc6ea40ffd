"""One assignment in a stage process: from its message to its result."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import logging
import os
import shutil
import socket
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from headrace.execution.v1 import runs_pb2, workers_pb2
from headrace_connectors.api import Environment, FencedOut
from headrace_definition.plan import Plan
from pydantic import ValidationError

from headrace_worker.engine.artifact_store import ArtifactStore
from headrace_worker.engine.binding import Binding
from headrace_worker.engine.channel import SupervisorChannel
from headrace_worker.engine.connections import Connections
from headrace_worker.engine.convert import (
    context_of,
    progress_message,
    receipt_messages,
    warning_message,
)
from headrace_worker.engine.dry_run import DryRunner, answer_of
from headrace_worker.engine.failure import (
    INTERNAL,
    Failure,
    LeaseLost,
    TaskFailed,
    attempt_timeout,
    failure_of,
    worker_shutdown,
)
from headrace_worker.engine.logs import StageLogFormatter
from headrace_worker.engine.options import EngineOptions
from headrace_worker.engine.outputs import Outputs, StoredFile
from headrace_worker.engine.probes import answer_tables, answer_test
from headrace_worker.engine.program import Program, program_of
from headrace_worker.engine.progress import CANCELLED, PENDING, TaskBoard
from headrace_worker.engine.redaction import Redactor
from headrace_worker.engine.run_context import RunContext
from headrace_worker.engine.run_log import RunLog
from headrace_worker.engine.settlement import Settlement, settle
from headrace_worker.engine.stage import StageRunner, Warned
from headrace_worker.engine.task_error import error_message, failure_from
from headrace_worker.processes.frames import ALL_LANDED, Frame, StopReason

_log = logging.getLogger(__name__)

_PROGRESS_SECONDS = 0.2
_RECEIPT_SECONDS = 5.0
_FIRST_TELL_SECONDS = 2.0
_LONGEST_TELL_SECONDS = 60.0
_DRY_RUN_SECONDS = 20.0
_UNREADABLE = Failure(
    "PAYLOAD_UNREADABLE",
    INTERNAL,
    "this worker cannot read the assignment: server and worker are of versions that do not fit",
)
"""How often the log says how far tasks are: the longer they take, the more rarely."""

_TOLD_BY_ITSELF = (StopReason.TIMED_OUT, StopReason.SHUTDOWN)

_Result = workers_pb2.AssignmentResult
_LOGGED = (workers_pb2.ASSIGNMENT_KIND_STAGE, workers_pb2.ASSIGNMENT_KIND_SETTLE)


class Session:
    """Works one assignment off and says how it went. `run` is called once."""

    _channel: SupervisorChannel

    def __init__(
        self, assignment: workers_pb2.Assignment, options: EngineOptions, logs: StageLogFormatter
    ) -> None:
        self._assignment = assignment
        self._logs = logs
        logs.assignment = assignment.ref.assignment_id
        logs.trace_id = assignment.traceparent[3:35]
        self._options = options
        self._redactor = Redactor()
        self._log = RunLog(_now, time.monotonic, assignment.attempt)
        self._board = TaskBoard((), _now, self._log)
        self._stop: StopReason | None = None
        self._work: asyncio.Task[_Result | None] | None = None

    async def run(self, connection: socket.socket) -> None:
        """Work, report progress meanwhile, and send the result, unless nobody waits for it."""
        self._channel = await SupervisorChannel.open(connection, self._stopped)
        self._work = asyncio.create_task(self._result())
        timeout = self._assignment.timeout_ms / 1000
        if timeout and self._assignment.kind == workers_pb2.ASSIGNMENT_KIND_STAGE:
            asyncio.get_running_loop().call_later(timeout, self._stopped, StopReason.TIMED_OUT)
        reporter = asyncio.create_task(self._report_progress())
        try:
            result = await self._work
        finally:
            reporter.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reporter
        self._tell_end(result)
        self._send_log()
        if result is not None:
            self._channel.send(Frame.LAST_RESULT, result.SerializeToString())
        await self._channel.close()

    def _stopped(self, reason: StopReason) -> None:
        # The first reason stands, but for the loss of the lease: then no other one matters any more.
        if self._stop is None or reason is StopReason.LEASE_LOST:
            first = self._stop is None
            self._stop = reason
            if self._work is not None and (first or reason is StopReason.LEASE_LOST):
                self._work.cancel()

    async def _result(self) -> _Result | None:
        folder = f"{self._assignment.ref.assignment_id}-{self._assignment.ref.fence}"
        try:
            environment = self._options.environment(folder, self._application_name())
            return await self._carry_out(replace(environment, notice=self._heard))
        except asyncio.CancelledError:
            # Before the stage had begun. A cancelled one is settled by the supervisor, like one that was
            # killed.
            return self._stopped_short(None) if self._stop in _TOLD_BY_ITSELF else None
        except Exception as error:  # noqa: BLE001 - whatever it was, the server must hear of it
            _log.exception("assignment %s", self._assignment.ref.assignment_id)
            return self._failed("", failure_of(error))
        finally:
            shutil.rmtree(Path(self._options.temp_dir) / folder, ignore_errors=True)

    def _heard(self, connection: str, severity: str, message: str) -> None:
        write = self._log.warning if severity == "WARNING" else self._log.debug
        write("", f"{connection}: {message}", severity=severity)

    async def _carry_out(self, environment: Environment) -> _Result | None:
        kind = self._assignment.kind
        if kind in (workers_pb2.ASSIGNMENT_KIND_STAGE, workers_pb2.ASSIGNMENT_KIND_SETTLE):
            try:
                program, context = program_of(self._assignment.payload), context_of(self._assignment)
            except (ValidationError, ValueError) as error:
                _log.error("assignment %s: %s", self._assignment.ref.assignment_id, error)
                return self._failed("", _UNREADABLE)
            return await self._stage_or_settle(program, context, environment)
        if kind in (workers_pb2.ASSIGNMENT_KIND_TEST_CONNECTION, workers_pb2.ASSIGNMENT_KIND_LIST_TABLES):
            return await self._probe(environment)
        if kind == workers_pb2.ASSIGNMENT_KIND_DRY_RUN:
            return await self._dry_run(environment)
        why = f"this worker does not know assignments of kind {kind}"
        return self._failed("", Failure("ASSIGNMENT_KIND_UNKNOWN", INTERNAL, why))

    async def _probe(self, environment: Environment) -> _Result:
        connections = await self._connections()
        answer = answer_tables
        if self._assignment.kind == workers_pb2.ASSIGNMENT_KIND_TEST_CONNECTION:
            answer = answer_test
        text = await answer(self._assignment.payload, connections, environment, self._redactor)
        return _Result(ref=self._assignment.ref, outcome=workers_pb2.OUTCOME_COMPLETED, answer=text)

    async def _dry_run(self, environment: Environment) -> _Result:
        try:
            plan, context = Plan.from_json(self._assignment.payload), context_of(self._assignment)
        except (ValidationError, ValueError) as error:
            _log.error("assignment %s: %s", self._assignment.ref.assignment_id, error)
            return self._failed("", _UNREADABLE)
        try:
            environment_values = self._options.definition_environment
            binding = Binding(context, plan.parameters, environment_values, plan.declared_signals())
            connections = await self._connections() if plan.connections else Connections({})
        except TaskFailed as error:
            return self._failed(error.task, error.failure)
        seconds = context.timeout_seconds or _DRY_RUN_SECONDS
        runner = DryRunner(plan, context, binding, connections, environment, seconds)
        answer = answer_of(await runner.report(), self._redactor)
        return _Result(ref=self._assignment.ref, outcome=workers_pb2.OUTCOME_COMPLETED, answer=answer)

    async def _stage_or_settle(
        self, program: Program, context: RunContext, environment: Environment
    ) -> _Result | None:
        stage = self._assignment.kind == workers_pb2.ASSIGNMENT_KIND_STAGE
        self._board = TaskBoard(program.keys, _now, self._log)
        self._tell_begin(program.payload.stage.key)
        try:
            binding = Binding(
                context,
                program.payload.parameters,
                self._options.definition_environment,
                program.payload.signals,
            )
            needed = bool(program.payload.stage.connections)
            connections = await self._connections() if needed else Connections({})
        except TaskFailed as error:
            return self._failed(error.task, error.failure)
        except LeaseLost:
            return None
        outputs = Outputs(
            environment.temp_dir, self._keep_output, self._options.max_output_bytes, context.landed
        )
        settling = partial(settle, program, binding, connections, environment, outputs, context.fence)
        if not stage:
            return self._settled(await settling())
        if self._stop is StopReason.CANCELLED:
            return self._cancelled(await settling())
        runner = StageRunner(
            program,
            context,
            binding,
            connections,
            environment,
            outputs,
            ArtifactStore(Path(self._options.artifacts_dir)),
            self._board,
            self._log,
            self._may_commit,
        )
        try:
            return await self._run_stage(runner)
        except asyncio.CancelledError:
            match self._stop:
                case StopReason.CANCELLED:
                    return self._cancelled(await settling())
                case StopReason.TIMED_OUT | StopReason.SHUTDOWN:
                    return await self._interrupted(runner, program)
                case _:
                    return None

    async def _run_stage(self, runner: StageRunner) -> _Result | None:
        try:
            try:
                await runner.run()
            finally:
                await runner.close()
        except TaskFailed as error:
            return self._failed(error.task, error.failure, runner)
        except FencedOut as error:
            self._board.stop(PENDING)
            result = self._conclude(workers_pb2.OUTCOME_FENCED, runner)
            result.error.CopyFrom(error_message(failure_of(error).redacted(self._redactor)))
            return result
        except LeaseLost:
            return None
        return self._conclude(workers_pb2.OUTCOME_COMPLETED, runner)

    async def _interrupted(self, runner: StageRunner, program: Program) -> _Result:
        """The attempt took too long, or the worker goes down. What has landed has landed nevertheless."""
        await runner.settle_unknown_commits(_RECEIPT_SECONDS)
        if program.sinks and len(runner.landed) == len(program.sinks):
            return self._conclude(workers_pb2.OUTCOME_COMPLETED, runner)
        return self._stopped_short(runner)

    def _stopped_short(self, runner: StageRunner | None) -> _Result:
        if self._stop is StopReason.SHUTDOWN:
            return self._failed("", worker_shutdown(), runner)
        return self._failed("", attempt_timeout(self._assignment.timeout_ms), runner)

    async def _connections(self) -> Connections:
        kind, body = await self._channel.ask(Frame.NEED_SECRETS)
        if kind is Frame.SECRETS_REFUSED:
            if not body:
                raise LeaseLost
            raise TaskFailed("", failure_from(runs_pb2.TaskError.FromString(body)))
        connections = Connections.of(workers_pb2.ResolveSecretsResponse.FromString(body))
        self._redactor = Redactor(connections.secrets)
        self._logs.redactor = self._redactor
        self._log.redactor = self._redactor
        return connections

    async def _keep_output(self, task: str, file: str) -> StoredFile:
        question = json.dumps({"task": task, "file": file}).encode()
        kind, body = await self._channel.ask(Frame.STORE_OUTPUT, question)
        if kind is Frame.OUTPUT_REFUSED:
            raise TaskFailed(task, failure_from(runs_pb2.TaskError.FromString(body)))
        return StoredFile(**json.loads(body))

    async def _may_commit(self) -> bool:
        _, body = await self._channel.ask(Frame.MAY_COMMIT)
        return body == b"\x01"

    async def _report_progress(self) -> None:
        tell_at, pause = time.monotonic() + _FIRST_TELL_SECONDS, _FIRST_TELL_SECONDS
        while True:
            await asyncio.sleep(_PROGRESS_SECONDS)
            if time.monotonic() >= tell_at:
                self._board.tell()
                pause = min(2 * pause, _LONGEST_TELL_SECONDS)
                tell_at = time.monotonic() + pause
            self._send_log()
            if self._board.changed:
                self._board.changed = False
                report = workers_pb2.AssignmentProgress(ref=self._assignment.ref, tasks=self._tasks())
                self._channel.send(Frame.PROGRESS, report.SerializeToString())

    def _tasks(self) -> list[workers_pb2.TaskProgress]:
        return [progress_message(record, self._redactor) for record in self._board.records.values()]

    def _send_log(self) -> None:
        lines = self._log.take()
        if lines:
            self._channel.send(Frame.LOG, workers_pb2.LogChunk(lines=lines).SerializeToString())

    def _tell_begin(self, stage: str) -> None:
        where = {"stage": stage, "worker": self._options.worker_name, "pid": os.getpid()}
        if self._assignment.kind == workers_pb2.ASSIGNMENT_KIND_SETTLE:
            self._log.info("", f"stage {stage} is settled: its targets are asked what has landed", **where)
        else:
            on = f" on worker {self._options.worker_name}" if self._options.worker_name else ""
            self._log.info("", f"attempt {self._assignment.attempt} of stage {stage} begins{on}", **where)

    def _tell_end(self, result: _Result | None) -> None:
        if self._assignment.kind not in _LOGGED:
            return
        if result is None:
            self._log.warning("", "stopped: the attempt is not this worker's any more")
            return
        for warning in result.warnings:
            about = {"code": warning.code, **warning.details}
            self._log.warning(warning.task, warning.message, **about)
        for receipt in result.receipts:
            landed = {"rows": receipt.rows, "bytes": receipt.bytes, "checksum": receipt.checksum}
            self._log.info(receipt.sink, "landed", **landed, fence=receipt.fence)
        word = workers_pb2.Outcome.Name(result.outcome).removeprefix("OUTCOME_")
        if result.outcome == workers_pb2.OUTCOME_COMPLETED:
            self._log.info("", "the attempt is COMPLETED")
        elif result.HasField("error"):
            why = "" if result.failed_task else f": {result.error.message}"
            self._log.error(
                "", f"the attempt is {word}{why}", code=result.error.code, task=result.failed_task or None
            )
        else:
            self._log.warning("", f"the attempt is {word}")

    def _conclude(self, outcome: workers_pb2.Outcome.ValueType, runner: StageRunner | None) -> _Result:
        result = _Result(ref=self._assignment.ref, outcome=outcome, tasks=self._tasks())
        if runner is not None:
            result.receipts.extend(receipt_messages(runner.landed))
            result.warnings.extend(warning_message(each, self._redactor) for each in runner.warnings)
        return result

    def _failed(self, task: str, failure: Failure, runner: StageRunner | None = None) -> _Result:
        failed = task or next((r.key for r in self._board.records.values() if r.state == "RUNNING"), "")
        self._board.fail(failed, failure)
        self._board.stop(PENDING)
        result = self._conclude(workers_pb2.OUTCOME_FAILED, runner)
        result.error.CopyFrom(error_message(failure.redacted(self._redactor)))
        result.failed_task = failed
        return result

    def _cancelled(self, settlement: Settlement) -> _Result:
        """A cancel is done when nothing can land any more; a load that had landed before wins."""
        if settlement.complete and not settlement.unsettled:
            for key in self._board.records:
                self._board.complete(key)
            outcome = workers_pb2.OUTCOME_COMPLETED
        else:
            self._board.stop(CANCELLED)
            outcome = workers_pb2.OUTCOME_CANCELLED
        result = self._conclude(outcome, None)
        result.receipts.extend(receipt_messages(settlement.landed))
        result.warnings.extend(
            warning_message(
                Warned(
                    task,
                    "CANCEL_UNSETTLED",
                    f"{task}: the stage was stopped, but its target could not be told that nothing of it may "
                    f"land any more: {failure.message}",
                    failure.details,
                ),
                self._redactor,
            )
            for task, failure in settlement.unsettled
        )
        return result

    def _settled(self, settlement: Settlement) -> _Result:
        receipts = receipt_messages(settlement.landed)
        if not settlement.unsettled:
            outcome = workers_pb2.OUTCOME_COMPLETED
            answer = ALL_LANDED if settlement.complete else b""
            return _Result(ref=self._assignment.ref, outcome=outcome, receipts=receipts, answer=answer)
        task, failure = settlement.unsettled[0]
        result = _Result(
            ref=self._assignment.ref,
            outcome=workers_pb2.OUTCOME_FAILED,
            receipts=receipts,
            failed_task=task,
        )
        result.error.CopyFrom(error_message(failure.redacted(self._redactor)))
        return result

    def _application_name(self) -> str:
        run = self._assignment.run_id or self._assignment.ref.assignment_id
        return f"headrace/{run}"


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
