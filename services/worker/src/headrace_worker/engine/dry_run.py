"""Finds out what a run would do: connects, asks the catalogues, and has SQL bound to tables without rows.

No row is moved and nothing is made in a target. What is wrong with a task is told of that task, and the
others are looked at all the same, so that one dry run tells all there is to mend; only what reads the rows of
a task that has an error cannot be known.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

import orjson
from google.protobuf import json_format
from headrace.execution.v1 import dry_runs_pb2
from headrace_connectors.api import (
    Column,
    Environment,
    LoadPreview,
    ReadPreview,
    Scratch,
    open_source,
    preview_export,
    preview_load,
    test_connection,
)
from headrace_definition.plan import CheckTask, Plan, SinkTask, SourceTask, Task, TransformTask
from headrace_definition.sql import check_sql, quote
from headrace_definition.substitution import references

from headrace_worker.engine.binding import Binding
from headrace_worker.engine.connections import Connections
from headrace_worker.engine.cursors import share_readings
from headrace_worker.engine.failure import INTERNAL, TRANSIENT, Failure, TaskFailed, failure_of
from headrace_worker.engine.native_types import carry_native_types
from headrace_worker.engine.places import require_rows, source_place, transformation_text
from headrace_worker.engine.redaction import Redactor
from headrace_worker.engine.run_context import RunContext

_log = logging.getLogger(__name__)

_NAMED_FILES = 100
_NAMED_COLUMNS = 100
"""How many columns of a task are shown where all of them would be too much for one message."""
_LARGEST_ANSWER = 4 * 2**20
_LOCK_SECONDS = 3.0
"""How long it waits for a database file that another process holds."""
_STATEMENT_SECONDS = 5.0
"""How long a server may look for the highest value of a cursor, which may take a look at every row."""
_MISSING = "FILE_NOT_FOUND"


class DryRunner:
    """Looks at one plan. `report` is called once."""

    def __init__(
        self,
        plan: Plan,
        context: RunContext,
        binding: Binding,
        connections: Connections,
        environment: Environment,
        seconds: float,
    ) -> None:
        self._plan = plan
        self._context = context
        self._binding = binding
        self._connections = connections
        self._environment = replace(
            environment,
            lock_timeout=min(environment.lock_timeout, _LOCK_SECONDS),
            connect_timeout=min(environment.connect_timeout, seconds),
            statement_timeout=_STATEMENT_SECONDS,
        )
        self._seconds = seconds
        self._deadline = 0.0
        self._broken: dict[str, Failure] = {}
        self._columns: dict[str, Sequence[Column]] = {}
        self._unknown: set[str] = set()

    async def report(self) -> dry_runs_pb2.DryRun:
        """What was found of the connections and tasks."""
        self._deadline = asyncio.get_running_loop().time() + self._seconds
        tested = await asyncio.gather(*(self._test(reference) for reference in self._plan.connections))
        report = dry_runs_pb2.DryRun(connections=tested)
        async with await Scratch.open(self._environment) as scratch:
            for task in self._plan.tasks:
                report.tasks.append(await self._look_at(task, scratch))
        return report

    async def _test(self, reference: str) -> dry_runs_pb2.DryRunConnection:
        told = dry_runs_pb2.DryRunConnection(reference=reference)

        async def test() -> None:
            connection = self._connections.get("", reference)
            told.type = connection.type
            answer = await test_connection(connection, self._environment)
            if answer.ok:
                told.message, told.latency_ms = answer.message, round(answer.latency_ms, 3)
            elif answer.code == _MISSING and not self._is_read(reference):
                told.message = "there is no such file yet; a load makes it"
            else:
                error_class = TRANSIENT if answer.transient else ""
                raise TaskFailed("", Failure(answer.code, error_class, answer.message))

        failure = await self._failure_of(test, f"connection {reference}")
        if failure is not None:
            self._broken[reference] = failure
            told.error.CopyFrom(error_of(failure))
        return told

    def _is_read(self, reference: str) -> bool:
        return any(
            isinstance(task, SourceTask) and task.config.connection == reference for task in self._plan.tasks
        )

    async def _look_at(self, task: Task, scratch: Scratch) -> dry_runs_pb2.DryRunTask:
        told = dry_runs_pb2.DryRunTask(id=task.key, kind=task.kind, type=task.type, inputs=task.inputs)
        unknown = next((key for key in task.inputs if key in self._unknown), None)
        if unknown is not None:
            told.unchecked = f"it reads the rows of {unknown}, of which the columns are not known"
            self._unknown.add(task.key)
            return told

        async def look() -> None:
            require_rows(task)
            match task:
                case SourceTask():
                    await self._source(task, told, scratch)
                case TransformTask() if task.wait is not None:
                    await self._wait(task, told, scratch)
                case TransformTask():
                    await self._transformation(task, told, scratch)
                case CheckTask():
                    await self._check(task, told, scratch)
                case SinkTask():
                    await self._sink(task, told)

        failure = await self._failure_of(look, f"task {task.key}")
        signals = sorted({name.partition(".")[0] for name in references(task.model_dump_json(), "signals")})
        if signals:
            told.warnings.append(
                f"what signal {', '.join(signals)} will say is not known: its defaults, or NULL, stand for it"
            )
        if failure is not None and signals and failure.code == "SUBSTITUTION_FAILED":
            told.unchecked = f"it cannot be made without what signal {', '.join(signals)} will say"
            self._unknown.add(task.key)
        elif failure is not None:
            told.error.CopyFrom(error_of(failure))
            self._unknown.add(task.key)
        return told

    async def _source(self, task: SourceTask, told: dry_runs_pb2.DryRunTask, scratch: Scratch) -> None:
        self._require(task.key, task.config.connection)
        repeats = any(task.key in stage.rereads for stage in self._plan.stages)
        for bounds, sinks in self._readings(task):
            lower = bounds.get(task.key)
            spec, connection = source_place(task, self._binding, self._connections, lower, repeats=repeats)
            source = await open_source(spec, connection, self._environment)
            try:
                preview = await source.preview(scratch)
            finally:
                await source.close()
            cursor = task.config.incremental.cursor if task.config.incremental else None
            told.readings.append(_reading(preview, sinks, cursor))
            told.warnings.extend(text for text in preview.warnings if text not in told.warnings)
            if not told.columns:
                await self._offer(task.key, preview.columns, told, scratch, frozenset(preview.guessed))

    async def _offer(
        self,
        key: str,
        columns: Sequence[Column],
        told: dry_runs_pb2.DryRunTask,
        scratch: Scratch,
        guessed: frozenset[str],
    ) -> None:
        """Let what comes after read a table without rows."""
        body = ", ".join(f"{quote(column.name)} {column.type}" for column in columns)
        await scratch.execute(f"CREATE TABLE {quote(key)} ({body})")
        self._columns[key] = columns
        told.columns.extend(
            dry_runs_pb2.DryRunColumn(name=c.name, type=c.type, guessed=c.name in guessed) for c in columns
        )

    def _readings(self, task: SourceTask) -> list[tuple[Mapping[str, bytes], list[str]]]:
        """From where the source is read, and for which sinks."""
        known = self._context.cursors
        sinks = [sink for sink, source in known if source == task.key]
        if task.config.incremental is None or not sinks:
            return [({}, [])]
        full = self._context.full_refresh
        bounds = {
            sink: {task.key: known[sink, task.key]} if known[sink, task.key] and not full else {}
            for sink in sinks
        }
        return share_readings(bounds)

    async def _transformation(
        self, task: TransformTask, told: dry_runs_pb2.DryRunTask, scratch: Scratch
    ) -> None:
        inputs = {key: self._columns[key] for key in task.inputs}
        told.query = self._binding.sql(task.key, transformation_text(task, inputs))
        # A view: its SQL is bound and not run.
        await scratch.execute(f"CREATE VIEW {quote(task.key)} AS\n{told.query}\n")
        columns = carry_native_types(task, inputs, await scratch.columns(task.key))
        self._columns[task.key] = columns
        told.columns.extend(dry_runs_pb2.DryRunColumn(name=c.name, type=c.type) for c in columns)

    async def _wait(self, task: TransformTask, told: dry_runs_pb2.DryRunTask, scratch: Scratch) -> None:
        """It offers the rows that it holds, if it holds any."""
        if task.inputs:
            await self._offer(task.key, self._columns[task.inputs[0]], told, scratch, frozenset())

    async def _check(self, task: CheckTask, told: dry_runs_pb2.DryRunTask, scratch: Scratch) -> None:
        told.query = self._binding.sql(task.key, check_sql(task.config))
        await scratch.execute(f"DESCRIBE\n{told.query}\n")

    async def _sink(self, task: SinkTask, told: dry_runs_pb2.DryRunTask) -> None:
        config = task.config
        if config.discard:
            return
        spec = self._binding.sink(task)
        load = told.load
        load.target = spec.table or spec.path or "output"
        load.mode, load.guarantee, load.guarantee_reason = spec.mode, task.guarantee, task.guarantee_reason
        load.keys.extend(spec.keys)
        if spec.format is not None:
            load.format = spec.format
        if spec.partition is not None:
            load.partition.column = spec.partition.column
            load.partition.start, load.partition.end = str(spec.partition.start), str(spec.partition.end)
        columns = self._columns[task.inputs[0]]
        if config.output is not None:
            _tell_load(load, preview_export(columns, config.output))
            return
        if config.connection is not None:
            load.connection = config.connection
        self._require(task.key, config.connection)
        connection = self._connections.get(task.key, config.connection) if config.connection else None
        _tell_load(load, await preview_load(spec, connection, self._environment, columns))

    def _require(self, task: str, reference: str | None) -> None:
        """Spare a system that does not answer from being asked again for each task."""
        failure = self._broken.get(reference or "")
        if failure is not None:
            raise TaskFailed(task, failure)

    async def _failure_of(self, look: Callable[[], Awaitable[None]], what: str) -> Failure | None:
        """What keeps something from working, if anything does."""
        try:
            async with asyncio.timeout_at(self._deadline):
                await look()
        except TimeoutError:
            why = f"{what}: it could not be found out within the {self._seconds:g} s that a dry run may take"
            return Failure("DRY_RUN_TIMEOUT", TRANSIENT, why)
        except Exception as error:  # noqa: BLE001 - each is told, and the rest is looked at all the same
            failure = failure_of(error)
            if failure.error_class == INTERNAL:
                _log.exception("dry run: %s", what)
            return failure
        return None


def answer_of(report: dry_runs_pb2.DryRun, redactor: Redactor) -> bytes:
    """The report as JSON, without secrets, and of bounded size."""
    answer = orjson.dumps(_redacted(json_format.MessageToDict(report), redactor))
    if len(answer) <= _LARGEST_ANSWER:
        return answer
    for task in report.tasks:
        if len(task.columns) > _NAMED_COLUMNS:
            task.warnings.append(f"of its {len(task.columns)} columns, the first {_NAMED_COLUMNS} are shown")
            del task.columns[_NAMED_COLUMNS:]
        if len(task.load.columns) > _NAMED_COLUMNS:
            del task.load.columns[_NAMED_COLUMNS:]
    return orjson.dumps(_redacted(json_format.MessageToDict(report), redactor))


def _redacted(value: object, redactor: Redactor) -> object:
    if isinstance(value, str):
        return redactor.text(value)
    if isinstance(value, dict):
        return {name: _redacted(each, redactor) for name, each in value.items()}
    return [_redacted(each, redactor) for each in value] if isinstance(value, list) else value


def error_of(failure: Failure) -> dry_runs_pb2.DryRunError:
    """A failure as a dry run tells it."""
    return dry_runs_pb2.DryRunError(
        code=failure.code,
        message=failure.message,
        details=failure.details,
        transient=failure.error_class == TRANSIENT,
    )


def _reading(preview: ReadPreview, sinks: Sequence[str], cursor: str | None) -> dry_runs_pb2.DryRunReading:
    return dry_runs_pb2.DryRunReading(
        sinks=sinks,
        query=preview.query or None,
        cursor=cursor,
        cursor_from=preview.lower,
        cursor_to=preview.upper,
        estimated_rows=preview.estimated_rows,
        files=preview.files[:_NAMED_FILES],
        file_count=len(preview.files),
    )


def _tell_load(load: dry_runs_pb2.DryRunLoad, preview: LoadPreview) -> None:
    load.creates = not preview.exists
    load.columns.extend(
        dry_runs_pb2.DryRunTargetColumn(name=name, type=kind) for name, kind in preview.columns
    )
    load.added.extend(name for name, _ in preview.added)
    load.left_out.extend(preview.left_out)
    load.not_given.extend(preview.not_given)
