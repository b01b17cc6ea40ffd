"""Writing SQLite and DuckDB files: staging first, then swap and receipt in one transaction of the file.

The file is open only while something is done with it, so that other processes get their turn.
"""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from headrace_connectors import duck, gate, ledger, shape
from headrace_connectors.blocking import in_thread
from headrace_connectors.embedded import ledger as entries
from headrace_connectors.embedded.target import FileColumn, Target
from headrace_connectors.errors import ConnectorError, configuration, transient
from headrace_connectors.files.errors import from_os
from headrace_connectors.identifiers import quote, quote_all, split_table
from headrace_connectors.ledger import Entry
from headrace_connectors.model import (
    Column,
    Connection,
    Environment,
    Guarantee,
    LoadKey,
    ProgressListener,
    Receipt,
    Series,
    SinkSpec,
    Staged,
    no_progress,
)
from headrace_connectors.previews import LoadPreview, load_preview
from headrace_connectors.roots import writable_file
from headrace_connectors.scratch import Scratch
from headrace_connectors.shape import Shape, TargetColumn
from headrace_connectors.swap import Swap
from headrace_connectors.transfer import Meter, batches

T = TypeVar("T")

_NOWHERE = Path(":memory:")
"""What SQLite and DuckDB take for a database without a file."""


@dataclass(frozen=True)
class Plan:
    """What a stage has prepared for its commit."""

    existing: tuple[FileColumn, ...] | None
    shape: Shape
    declared: tuple[str, ...]
    staging: str


async def open_embedded_sink(
    spec: SinkSpec, connection: Connection, environment: Environment
) -> EmbeddedSink:
    """Check the paths and names; the file is made when it is first written.

    :raises ConnectorError: PATH_NOT_ALLOWED, TABLE_MISSING, TABLE_NAME_INVALID.
    """
    if not spec.table:
        raise configuration("TABLE_MISSING", f"a sink of connection {connection.name} needs a table")
    path = writable_file(connection.path or "", None, environment)

    def open_target(file: Path) -> Target:
        if connection.type == "sqlite":
            from headrace_connectors.embedded.sqlite import SqliteTarget

            return SqliteTarget(file, environment.temp_dir, environment.lock_timeout)
        from headrace_connectors.embedded.duckdb_target import DuckdbTarget

        return DuckdbTarget(file, environment)

    return EmbeddedSink(spec, path, open_target)


class EmbeddedSink:
    """One table of a database file."""

    guarantee: Guarantee = "EXACTLY_ONCE"

    def __init__(self, spec: SinkSpec, path: Path, open_target: Callable[[Path], Target]) -> None:
        self.spec = spec
        self.path = path
        self._open_file = open_target
        self._schema, self._name = split_table(spec.table or "")
        self._target: Target | None = None
        self._claimed: tuple[LoadKey, int] | None = None
        self._plan: Plan | None = None
        self._staged: Staged | None = None

    async def preview(self, columns: Sequence[Column]) -> LoadPreview:
        """What loading rows of these columns would do; a file that is not there is not made.

        :raises ConnectorError: what matching columns and types meets, as :meth:`stage` would.
        """

        def look() -> LoadPreview:
            target = self._open_file(self.path if self.path.exists() else _NOWHERE)
            try:
                plan = self._prepare(target, list(columns), "")
                self._checks(target, plan)
            finally:
                target.close()
            existing = None if plan.existing is None else (column.name for column in plan.existing)
            return load_preview(plan.shape, plan.declared, existing)

        return await self._blocking(look)

    async def claim(self, key: LoadKey, fence: int) -> Receipt | None:
        """Commit ``fence`` in the file's ledger; what an older attempt has staged there goes away."""
        name = ledger.staging_name(key, fence)

        def work(target: Target) -> Receipt | None:
            entries.ensure(target)
            entry = entries.read(target, key)
            receipt = ledger.check_claim(key, fence, entry)
            if receipt is not None:
                return receipt
            old = entries.staging_of(target, key)
            entries.write(target, key, Entry(fence, False, None), self.spec.table or "", name)
            if old is not None and old != name:
                target.forget_staging(old)
            return None

        receipt = await self._in_transaction(work)
        if receipt is None:
            self._claimed = (key, fence)
        return receipt

    async def stage(
        self,
        scratch: Scratch,
        relation: str,
        columns: Sequence[Column] = (),
        progress: ProgressListener = no_progress,
    ) -> Staged:
        """Check every row, then fill the staging table; see :class:`headrace_connectors.ports.Sink`."""
        if self._claimed is None:
            raise configuration("NOT_CLAIMED", f"table {self.spec.table}: stage comes after claim")
        await self._shut()
        incoming = await scratch.columns(relation)
        staging = ledger.staging_name(*self._claimed)
        source = await gate.materialised(scratch, relation)
        meter = Meter(progress)
        try:
            target = await self._blocking(self._open)
            self._target = target
            plan = await self._blocking(lambda: self._prepare(target, incoming, staging))
            passed = await gate.inspect(
                scratch, source, plan.shape.loaded, self._checks(target, plan), self.spec.keys
            )
            if self.spec.mode == "merge":
                await gate.require_unique(scratch, source, self.spec.keys)
            named = list(zip((c.name for c in plan.shape.loaded), plan.declared, strict=True))
            await self._blocking(lambda: target.make_staging(staging, named))
            await self._fill(scratch, source, target, plan, passed.row_bytes, meter)
        except BaseException:
            await self._shut()
            raise
        finally:
            await gate.release(scratch, relation, source)
        added = tuple(column.name for column in plan.shape.added)
        self._plan = plan
        self._staged = Staged(passed.rows, meter.bytes, passed.checksum, added, plan.shape.dropped)
        return self._staged

    async def take_turn(self, series: Series, fence: int) -> Receipt | None:
        """Raise the fence of the series; the write lock makes a commit under way come first."""
        key = ledger.series_key(series)

        def work(target: Target) -> Receipt | None:
            entries.ensure(target)
            after = ledger.after_turn(entries.read(target, key), fence)
            entries.write(target, key, after, self.spec.table or "", None)
            return after.receipt

        return await self._in_transaction(work)

    async def commit(
        self, key: LoadKey, fence: int, cursor: bytes | None = None, series: Series | None = None
    ) -> Receipt:
        """Check, swap, write the receipt, commit: one transaction under the file's write lock."""
        plan, staged = self._plan, self._staged
        if plan is None or staged is None or self._claimed != (key, fence):
            raise configuration(
                "NOT_STAGED", f"task {key.task}: commit comes after claim and stage of the same attempt"
            )

        def work(target: Target) -> Receipt:
            receipt = ledger.check_commit(key, fence, entries.read(target, key))
            if receipt is not None:
                return receipt
            if series is not None:
                ledger.check_turn(series, fence, entries.read(target, ledger.series_key(series)))
            self._swap(target, plan, staged)
            receipt = Receipt(
                staged.rows, staged.bytes, staged.checksum, cursor, fence, dt.datetime.now(dt.UTC)
            )
            entries.settle(target, key, receipt)
            if series is not None:
                entries.settle(target, ledger.series_key(series), receipt)
            return receipt

        receipt = await self._in_transaction(work)
        await self._drop_staging(plan.staging)
        return receipt

    async def receipt(self, key: LoadKey) -> Receipt | None:
        """The receipt of ``key``, if it landed."""
        if not self.path.exists():
            return None

        def work(target: Target) -> Entry | None:
            return entries.read(target, key) if entries.exists(target) else None

        entry = await self._in_transaction(work)
        return entry.receipt if entry else None

    async def tombstone(self, key: LoadKey, fence: int | None = None) -> Receipt | None:
        """Raise the fence; the write lock makes a commit under way come first."""

        def work(target: Target) -> Receipt | None:
            entries.ensure(target)
            entry = entries.read(target, key)
            if entry is not None and entry.receipt is not None:
                return entry.receipt
            staging = entries.staging_of(target, key) if entry else None
            after = ledger.buried(entry, fence)
            if after.tombstoned and staging is not None:
                target.forget_staging(staging)  # whoever filled it may be dead, and nobody comes after
                staging = None
            entries.write(target, key, after, self.spec.table or "", staging)
            return None

        return await self._in_transaction(work)

    async def abandon(self) -> None:
        """Drop the staging table."""
        if self._claimed is not None:
            await self._drop_staging(ledger.staging_name(*self._claimed))
        self._plan = self._staged = None

    async def close(self) -> None:
        """Close the file; safe to call again."""
        await self._shut()

    def _prepare(self, target: Target, incoming: list[Column], staging: str) -> Plan:
        found = target.table(self._schema, self._name)
        known = None if found is None else [_matchable(column) for column in found]
        matched = shape.match(incoming, known, self.spec, f"table {self.spec.table}")
        declared = {column.name: column.declared for column in found or ()}
        types = tuple(declared.get(column.name) or target.declared_type(column) for column in matched.loaded)
        return Plan(None if found is None else tuple(found), matched, types, staging)

    def _checks(self, target: Target, plan: Plan) -> list[gate.Check]:
        required = {column.name for column in plan.existing or () if column.not_null}
        checks: list[gate.Check] = []
        for column, declared in zip(plan.shape.loaded, plan.declared, strict=True):
            checks += target.checks(column, declared, column.name in required)
        if self.spec.mode == "merge":
            checks += gate.key_checks(self.spec.keys)
        if self.spec.mode == "replace_partition" and self.spec.partition is not None:
            kind = next(c.type for c in plan.shape.loaded if c.name == self.spec.partition.column)
            checks += gate.partition_checks(self.spec.partition, kind)
        return checks

    async def _fill(
        self, scratch: Scratch, source: str, target: Target, plan: Plan, row_bytes: int, meter: Meter
    ) -> None:
        parts = [
            f"{target.outgoing(column, declared)} AS c{index}"
            for index, (column, declared) in enumerate(zip(plan.shape.loaded, plan.declared, strict=True))
        ]
        sql = f"SELECT {', '.join(parts)} FROM {quote(source)}"
        async with aclosing(batches(scratch, sql, row_bytes, f"loading {self.spec.table}")) as rows:
            async for batch in rows:
                await self._blocking(lambda: target.fill(plan.staging, batch, plan.declared))  # noqa: B023
                meter.add(batch.num_rows, batch.nbytes)

    def _swap(self, target: Target, plan: Plan, staged: Staged) -> None:
        staging = target.staging_sql(plan.staging)
        rows = target.run(f"SELECT count(*) FROM {staging}")[0][0]
        if rows != staged.rows:
            raise transient("STAGING_LOST", f"the staged rows of {self.spec.table} are gone")
        found = target.table(self._schema, self._name)
        if (None if found is None else tuple(found)) != plan.existing:
            raise transient(
                "TARGET_CHANGED", f"table {self.spec.table} was changed by somebody else meanwhile"
            )
        name = f"{quote(self._schema)}.{quote(self._name)}" if self._schema else quote(self._name)
        typed = list(zip(plan.shape.loaded, plan.declared, strict=True))
        if found is None:
            if self._schema:
                target.run(f"CREATE SCHEMA IF NOT EXISTS {quote(self._schema)}")
            key = f", PRIMARY KEY ({quote_all(tuple(self.spec.keys))})" if self.spec.mode == "merge" else ""
            body = ", ".join(f"{quote(column.name)} {declared}" for column, declared in typed)
            target.run(f"CREATE TABLE {name} ({body}{key})")
        for column, declared in typed:
            if column in plan.shape.added:
                target.run(f"ALTER TABLE {name} ADD COLUMN {quote(column.name)} {declared}")
        unique = frozenset(self.spec.keys) in target.unique_keys(self._schema, self._name)
        names = [column.name for column in plan.shape.loaded]
        swap = Swap(
            self.spec.mode, name, staging, names, tuple(self.spec.keys), unique, self._partition(target, plan)
        )
        for statement in swap.statements():
            target.run(statement)

    def _partition(self, target: Target, plan: Plan) -> str:
        """SQL for the target's rows that a replace_partition load replaces."""
        partition = self.spec.partition
        if partition is None:
            return ""
        column = quote(partition.column)
        kind = next(c.type for c in plan.shape.loaded if c.name == partition.column)
        low, high = (target.bound(value, kind) for value in (partition.start, partition.end))
        return f"{column} >= {low} AND {column} < {high}"

    async def _in_transaction(self, work: Callable[[Target], T]) -> T:
        """Run ``work`` in one writing transaction, on the open file or on a fresh opening of it."""
        keep = self._target is not None
        target = await self._opened()

        def call() -> T:
            target.begin()
            try:
                result = work(target)
                target.run("COMMIT")
            except BaseException:
                _undo(target)
                raise
            return result

        try:
            return await self._blocking(call)
        finally:
            if not keep:
                await self._shut()

    async def _drop_staging(self, staging: str) -> None:
        target = await self._opened()
        try:
            await self._blocking(lambda: target.drop_staging(staging))
        finally:
            await self._shut()

    async def _opened(self) -> Target:
        """The open file, or a fresh opening of it, which the caller then shuts."""
        target = self._target
        if target is None:
            target = await self._blocking(self._open)
            self._target = target
        return target

    def _open(self) -> Target:
        return self._open_file(self.path)

    async def _blocking(self, call: Callable[[], T]) -> T:
        def guarded() -> T:
            try:
                return call()
            except ConnectorError:
                raise
            except Exception as error:
                raise _translate(error, f"table {self.spec.table}") from error

        return await in_thread(guarded, self._interrupt)

    def _interrupt(self) -> None:
        if self._target is not None:
            self._target.interrupt()

    async def _shut(self) -> None:
        target, self._target = self._target, None
        if target is not None:
            await in_thread(target.close)


def _matchable(column: FileColumn) -> TargetColumn:
    required = column.not_null and not column.has_default and not column.generated
    filled = column.has_default or column.generated
    return TargetColumn(column.name, required, not column.generated, filled)


def _undo(target: Target) -> None:
    """Roll back, unless the statement that failed has done so already."""
    try:
        target.run("ROLLBACK")
    except Exception as error:
        if "no transaction is active" not in str(error):
            raise


def _translate(error: Exception, what: str) -> ConnectorError:
    if isinstance(error, sqlite3.Error):
        from headrace_connectors.embedded.sqlite import translate

        return translate(error, what)
    if isinstance(error, OSError):
        return from_os(error, what)
    return duck.translate(error, what)
