"""Runs one stage: claims its loads, reads its sources, computes, judges, stages and commits.

A load lands once, whatever happens in between: each attempt first commits its fence in the target's ledger,
and the transaction that makes the rows visible demands that fence and writes the receipt. A stage that is run
again finds the receipts of what has landed and does the rest.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from headrace_chassis import faults
from headrace_connectors.api import (
    Column,
    ConnectorError,
    Environment,
    ErrorClass,
    FencedOut,
    Receipt,
    Scratch,
    Source,
    copy_through,
    open_source,
)
from headrace_definition.plan import SinkTask, SourceTask, TransformTask
from headrace_definition.sql import check_sql, quote

from headrace_worker.engine.artifact_store import ArtifactStore
from headrace_worker.engine.at_once import at_once
from headrace_worker.engine.binding import Binding
from headrace_worker.engine.connections import Connections
from headrace_worker.engine.cursor_values import pack_cursors
from headrace_worker.engine.cursors import bounds_for_others, lower_bounds, share_readings
from headrace_worker.engine.failure import (
    CONFIGURATION,
    INTERNAL,
    TRANSIENT,
    Failure,
    LeaseLost,
    TaskFailed,
    failure_of,
)
from headrace_worker.engine.loads import LandedLoad, Load, close_all, open_load
from headrace_worker.engine.log_facts import source_facts
from headrace_worker.engine.native_types import carry_native_types
from headrace_worker.engine.outputs import Outputs
from headrace_worker.engine.places import require_rows, source_place, transformation_text
from headrace_worker.engine.program import Program
from headrace_worker.engine.progress import TaskBoard
from headrace_worker.engine.quality import CHECK_FAILED, Finding, judge
from headrace_worker.engine.run_context import RunContext
from headrace_worker.engine.run_log import RunLog
from headrace_worker.engine.shapes import LoadShape, exact
from headrace_worker.engine.turns import Turns
from headrace_worker.engine.views import can_wait

_log = logging.getLogger(__name__)

_AMPLE_MEMORY = 128 * 2**20
"""Bytes from which on two sources are read at once: most of reading one is a single thread's work."""

_LEDGER_SECONDS = 10.0
"""How long it is tried to learn from a target that went away whether a load has landed."""


@dataclass(frozen=True)
class Warned:
    """Something questionable that did not fail the stage."""

    task: str
    code: str
    message: str
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass
class _Reading:
    """What one reading of the sources has brought so far."""

    bounds: Mapping[str, bytes]
    columns: dict[str, Sequence[Column]] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    cursors: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """The new upper bounds, by the task that brought them and the source that they belong to."""
    unread: dict[str, int] = field(default_factory=dict)
    """How many tasks have yet to read a relation before it can be dropped."""
    views: dict[str, Sequence[str]] = field(default_factory=dict)
    """The relations that are computed by their reader only, with the inputs that they hold until then."""


class StageRunner:
    """One attempt at one stage. `run` is called once; `close` always."""

    def __init__(
        self,
        program: Program,
        context: RunContext,
        binding: Binding,
        connections: Connections,
        environment: Environment,
        outputs: Outputs,
        artifacts: ArtifactStore,
        board: TaskBoard,
        log: RunLog,
        may_commit: Callable[[], Awaitable[bool]],
    ) -> None:
        self._program = program
        self._context = context
        self._binding = binding
        self._connections = connections
        self._environment = environment
        self._outputs = outputs
        self._artifacts = artifacts
        self._board = board
        self._log = log
        self._may_commit = may_commit
        self._opening = asyncio.Lock()
        """Sources open one after the other: two of one DuckDB file share what is locked in as it opens."""
        self._turns = Turns(context, log)
        self.loads: list[Load] = []
        self.warnings: list[Warned] = []

    @property
    def landed(self) -> list[LandedLoad]:
        """The loads that have landed, in this attempt or an earlier one."""
        return [load.landed for load in self.loads if load.landed is not None]

    async def run(self) -> None:
        """Work the stage off.

        Raises:
            TaskFailed: naming the task and saying why.
            FencedOut: when another attempt, or a cancel, owns a load.
            LeaseLost: when the lease was not valid any more before a commit.
        """
        for task in self._program.payload.tasks:
            require_rows(task)
        await self._claim()
        faults.point("worker.stage.claimed")
        waiting = {load.task.key: load for load in self.loads if load.receipt is None}
        for bounds, sinks in self._readings(waiting):
            await self._read_and_load(bounds, [waiting[key] for key in sinks])
        for key, record in self._board.records.items():
            if record.finished_at is None:
                self._board.complete(key)

    async def close(self) -> None:
        """Stop what still runs at the targets, and let go of them."""
        for problem in await close_all(self.loads):
            _log.warning("closing a sink: %s", problem)

    async def settle_unknown_commits(self, seconds: float) -> None:
        """Ask the ledgers about commits that were interrupted. One that cannot be asked in time stays
        unknown: the next attempt asks it first of all.
        """
        for load in self.loads:
            if load.committing and load.receipt is None:
                await self._ask_ledger(load, seconds)

    async def _ask_ledger(self, load: Load, seconds: float) -> bool:
        """Look for the receipt of a load, on a connection of its own. Returns whether the ledger could be
        asked."""
        try:
            async with asyncio.timeout(seconds):
                fresh = await self._open(load.task)
                try:
                    load.receipt = await fresh.sink.receipt(load.key)
                finally:
                    await fresh.sink.close()
        except (TaskFailed, ConnectorError, TimeoutError) as error:
            _log.warning("task %s: whether it has landed is not known: %s", load.task.key, error)
            return False
        return True

    async def _open(self, task: SinkTask) -> Load:
        return await open_load(task, self._binding, self._connections, self._environment, self._outputs)

    async def _claim(self) -> None:
        for task in self._program.sinks:
            with self._blaming(task.key):
                load = await self._open(task)
                self.loads.append(load)
                load.receipt = await load.sink.claim(load.key, self._context.fence)
                if load.receipt is not None:
                    receipt = load.receipt
                    self._log.info(task.key, "has landed in an earlier attempt", fence=receipt.fence)
                    self._board.complete(
                        task.key, rows_in=receipt.rows, rows_out=receipt.rows, size=receipt.bytes
                    )
                elif self._program.is_incremental(task.key):
                    await self._take_turn(load)
        for task in self._program.payload.later_sinks:
            await self._take_turn_for_later(task)

    async def _take_turn(self, load: Load) -> None:
        await self._turns.take(load)
        if not load.caught_up:
            return
        # It goes on from rows of others after all, which must still be there.
        self._binding = self._binding.going_on_from(self._turns.cursors)
        await load.sink.close()
        fresh = await self._open(load.task)
        load.spec, load.sink = fresh.spec, fresh.sink
        await load.sink.claim(load.key, self._context.fence)

    async def _take_turn_for_later(self, task: SinkTask) -> None:
        """Ask a sink of a later stage from where its rows are read here."""
        reader = next(each for each in self._program.sources if each.config.incremental is not None)
        with self._blaming(reader.key):
            load = await self._open(task)
            try:
                await self._turns.take(load)
            finally:
                await load.sink.close()

    def _readings(self, waiting: Mapping[str, Load]) -> list[tuple[Mapping[str, bytes], list[str]]]:
        """From where the sources are read, and for which sinks: usually one reading for all of them."""
        program, known = self._program, self._turns.cursors
        full = self._context.full_refresh
        groups = share_readings({k: lower_bounds(program, k, known, full_refresh=full) for k in waiting})
        if program.payload.stage.artifacts_out:
            return self._readings_with_artifacts(groups)
        if not groups and not self.loads:
            return [({}, [])]
        return groups

    def _readings_with_artifacts(
        self, groups: list[tuple[Mapping[str, bytes], list[str]]]
    ) -> list[tuple[Mapping[str, bytes], list[str]]]:
        here = [task.key for task in self._program.sinks]
        full = self._context.full_refresh
        try:
            others = bounds_for_others(self._program, self._turns.cursors, here, full_refresh=full)
        except ValueError as error:
            why = (
                f"{error}: its rows are handed to several stages whose loads have come to different places; "
                "run the pipeline once with fullRefresh"
            )
            raise TaskFailed(str(error), Failure("CURSORS_DIVERGED", CONFIGURATION, why)) from None
        # The artifact's reading comes last: what it leaves must not be replaced by another reading's rows.
        rest = [group for group in groups if group[0] != others]
        return [*rest, (others, next((sinks for bounds, sinks in groups if bounds == others), []))]

    async def _read_and_load(self, bounds: Mapping[str, bytes], loads: Sequence[Load]) -> None:
        reading = _Reading(bounds)
        direct = [load for load in loads if await self._copy_directly(load, reading)]
        rest = [load for load in loads if load not in direct]
        done = {load.task.inputs[0] for load in direct}
        sources = [task for task in self._program.sources if task.key not in done]
        if not rest and not sources and not self._program.payload.stage.artifacts_in:
            await self._commit_all(loads, reading)
            return
        async with await Scratch.open(self._environment) as scratch:
            await self._fill(scratch, reading, sources)
            await self._judge_all(scratch, reading)
            await self._leave_artifacts(scratch, reading)
            for load in rest:
                await self._stage(scratch, reading, load)
            self._discard_all(reading)
            await self._commit_all(loads, reading)

    async def _copy_directly(self, load: Load, reading: _Reading) -> bool:
        """Hand a source's rows to a sink without decoding them, where nothing else looks at them."""
        key = load.task.inputs[0]
        task = next((task for task in self._program.sources if task.key == key), None)
        kept = key in self._program.payload.stage.artifacts_out
        if task is None or task.config.connection is None or kept or self._program.readers(key) != 1:
            return False
        async with self._source(task, reading) as source:
            self._board.start(key)
            read, write = self._board.reading(key), self._board.writing(load.task.key)

            def progress(rows: int, size: int) -> None:
                read(rows, size)
                write(rows, size)

            with self._blaming(load.task.key):
                result = await copy_through(source, load.sink, progress)
            if result is None:
                return False
            columns = await source.columns()
            load.shape = LoadShape(columns, {key: columns})
        self._board.start(load.task.key)
        self._note_source(task, reading, result.rows, result.bytes, result.cursor, result.warnings)
        self._board.moved(load.task.key, rows_in=result.rows, size=result.bytes)
        return True

    async def _fill(self, scratch: Scratch, reading: _Reading, sources: Sequence[SourceTask]) -> None:
        """Load the sources and artifacts into the scratch, and compute the transformations."""
        stage = self._program.payload.stage
        for key in (*stage.artifacts_in, *self._program.keys):
            kept = key in stage.artifacts_out
            reading.unread[key] = self._program.readers(key) + kept
        for key in stage.artifacts_in:
            origin = stage.held_rows.get(key, key)
            result, cursors = await self._artifacts.read(self._context.run_id, origin, scratch, key)
            reading.rows[key], reading.cursors[key] = result.rows, cursors
            reading.columns[key] = await scratch.columns(key)
        ample = self._environment.memory_limit_bytes >= _AMPLE_MEMORY
        await at_once(2 if ample else 1, lambda task: self._load(scratch, reading, task), sources)
        for transform in self._program.transforms:
            await self._transform(scratch, reading, transform)

    async def _load(self, scratch: Scratch, reading: _Reading, task: SourceTask) -> None:
        key = task.key
        async with self._source(task, reading) as source:
            self._board.start(key)
            with self._blaming(key):
                result = await source.load(scratch, key, self._board.reading(key))
                reading.columns[key] = await source.columns()
        self._note_source(task, reading, result.rows, result.bytes, result.cursor, result.warnings)
        if task.config.split is not None and task.config.split.column is None:
            why = f"{key}: `split` names no column, so the table was read in one range"
            self.warnings.append(Warned(key, "SPLIT_COLUMN_MISSING", why))
        await self._release(scratch, reading, key, readers=0)

    def _note_source(
        self,
        task: SourceTask,
        reading: _Reading,
        rows: int,
        size: int,
        cursor: bytes | None,
        warnings: Sequence[str],
    ) -> None:
        reading.rows[task.key] = rows
        reading.cursors[task.key] = {task.key: cursor} if cursor is not None else {}
        self.warnings += [Warned(task.key, "SOURCE_WARNING", text) for text in warnings]
        self._board.complete(task.key, rows_out=rows, size=size)

    async def _transform(self, scratch: Scratch, reading: _Reading, task: TransformTask) -> None:
        key = task.key
        rows_in = sum(reading.rows[each] for each in task.inputs)
        self._board.start(key)
        self._board.moved(key, rows_in=rows_in)
        view = False
        with self._blaming(key):
            sql = self._binding.sql(key, transformation_text(task, reading.columns))
            if reading.unread[key] == 1 and key not in self._program.payload.stage.artifacts_out:
                view = await can_wait(task.config, scratch, reading.rows)
            self._log.info(key, "computing", sql=sql)
            if view:
                await scratch.execute(f"CREATE VIEW {quote(key)} AS\n{sql}\n")
            else:
                await scratch.compute(key, sql)
            reading.rows[key] = reading.rows[task.inputs[0]] if view else await scratch.count(key)
            columns = await scratch.columns(key)
        inputs = {each: reading.columns.get(each, ()) for each in task.inputs}
        reading.columns[key] = carry_native_types(task, inputs, columns)
        self._board.complete(key, rows_out=reading.rows[key])
        if view:
            reading.views[key] = task.inputs
            return
        for each in task.inputs:
            await self._release(scratch, reading, each)
        await self._release(scratch, reading, key, readers=0)

    async def _judge_all(self, scratch: Scratch, reading: _Reading) -> None:
        """Run all checks before any target is touched, so that all that is wrong is told at once."""
        faults.point("worker.checks.before")
        failed: TaskFailed | None = None
        for task in self._program.checks:
            key = task.key
            self._board.start(key)
            with self._blaming(key):
                sql = self._binding.sql(key, check_sql(task.config))
                self._log.debug(key, "checking", sql=sql)
                row = (await scratch.fetch(sql))[0]
            finding = Finding(int(str(row[0])), int(str(row[1])), row[2])
            failure = judge(task, finding)
            self._log.info(
                key,
                "passed" if failure is None else "violated",
                violations=finding.violations,
                rows=finding.total,
            )
            self._board.moved(key, rows_in=finding.total)
            for each in task.inputs:
                await self._release(scratch, reading, each)
            if failure is None or task.severity == "warning":
                self._board.complete(key)
                if failure is not None:
                    self.warnings.append(Warned(key, CHECK_FAILED, failure.message, failure.details))
                continue
            self._board.fail(key, failure)
            failed = failed or TaskFailed(key, failure)
        faults.point("worker.checks.after")
        if failed is not None:
            raise failed

    async def _leave_artifacts(self, scratch: Scratch, reading: _Reading) -> None:
        stage = self._program.payload.stage
        if stage.artifacts_out and stage.keep_seconds:
            await asyncio.to_thread(self._artifacts.keep, self._context.run_id, stage.keep_seconds)
        for key in stage.artifacts_out:
            with self._blaming(key):
                cursors = self._cursors_of(key, reading)
                await self._artifacts.write(self._context.run_id, key, scratch, key, cursors)
            await self._release(scratch, reading, key)

    async def _stage(self, scratch: Scratch, reading: _Reading, load: Load) -> None:
        key, relation = load.task.key, load.task.inputs[0]
        self._board.start(key)
        with self._blaming(key):
            columns = reading.columns.get(relation, ())
            load.shape = self._shape(await scratch.columns(relation), relation, reading)
            staged = await load.stage(scratch, relation, columns, self._board.writing(key))
        if staged.added or staged.left_out:
            drift = {"added": ", ".join(staged.added), "left_out": ", ".join(staged.left_out)}
            self._log.info(key, "the table lacks columns", **{k: v for k, v in drift.items() if v})
        self._board.moved(key, rows_in=staged.rows)
        await self._release(scratch, reading, relation)

    def _shape(self, found: Sequence[Column], relation: str, reading: _Reading) -> LoadShape:
        origins = self._program.sources_of(relation)
        sources = (task.key for task in self._program.sources if task.key in origins)
        return LoadShape(
            exact(found, reading.columns.get(relation, ())), {key: reading.columns[key] for key in sources}
        )

    def _discard_all(self, reading: _Reading) -> None:
        for task in self._program.discards:
            rows = sum(reading.rows[each] for each in task.inputs)
            self._board.start(task.key)
            self._board.complete(task.key, rows_in=rows, rows_out=rows)

    async def _commit_all(self, loads: Sequence[Load], reading: _Reading) -> None:
        for load in loads:
            # The fence in the ledger is the real guard; asking first spares the target a vain transaction.
            if not await self._may_commit():
                raise LeaseLost
            cursors = self._cursors_of(load.task.key, reading)
            with self._blaming(load.task.key):
                if cursors and load.series is None:  # an artifact brought them
                    await self._turns.take(load)
                cursor = pack_cursors({**load.caught_up, **cursors})
                self._log.info(load.task.key, "committing")
                faults.point("worker.commit.before")
                receipt = await self._commit(load, cursor)
                faults.point("worker.commit.after")
            self._board.complete(load.task.key, rows_out=receipt.rows, size=receipt.bytes)

    async def _commit(self, load: Load, cursor: bytes | None) -> Receipt:
        try:
            return await load.commit(self._context.fence, cursor)
        except FencedOut:
            raise
        except ConnectorError as error:
            if error.error_class is not ErrorClass.TRANSIENT:
                raise
            # The target may have committed before it went away: only its ledger knows.
            known = await self._ask_ledger(load, _LEDGER_SECONDS)
            if load.receipt is not None:
                return load.receipt
            if known:
                raise
            why = f"whether the load has landed is not known, since its target went away: {error.message}"
            raise TaskFailed(load.task.key, Failure("COMMIT_UNKNOWN", TRANSIENT, why)) from error

    def _cursors_of(self, key: str, reading: _Reading) -> dict[str, bytes]:
        """The new upper bounds of all the sources that a task's rows come from."""
        cursors: dict[str, bytes] = {}
        for source in self._program.sources_of(key):
            cursors |= reading.cursors.get(source, {})
        return cursors

    async def _release(self, scratch: Scratch, reading: _Reading, key: str, *, readers: int = 1) -> None:
        """Note that a task has read a relation; the disk space of one that nobody will read is freed."""
        reading.unread[key] -= readers
        if reading.unread[key] > 0:
            return
        held = reading.views.pop(key, None)
        if held is None:
            await scratch.drop(key)
            return
        await scratch.execute(f"DROP VIEW {quote(key)}")
        for each in held:
            await self._release(scratch, reading, each)

    @asynccontextmanager
    async def _source(self, task: SourceTask, reading: _Reading) -> AsyncIterator[Source]:
        with self._blaming(task.key):
            lower, repeats = reading.bounds.get(task.key), task.key in self._program.payload.stage.rereads
            spec, connection = source_place(task, self._binding, self._connections, lower, repeats=repeats)
            self._log.info(task.key, "opening the source", **source_facts(spec, connection))
            async with self._opening:
                source = await open_source(spec, connection, self._environment)
        try:
            yield source
        finally:
            await source.close()

    @contextmanager
    def _blaming(self, task: str) -> Iterator[None]:
        """Say of any failure within which task it was."""
        try:
            yield
        except (TaskFailed, FencedOut, LeaseLost):
            raise
        except ConnectorError as error:
            raise TaskFailed(task, failure_of(error)) from error
        except Exception as error:
            failure = failure_of(error)
            if failure.error_class == INTERNAL:
                _log.exception("task %s", task)
            raise TaskFailed(task, failure) from error
