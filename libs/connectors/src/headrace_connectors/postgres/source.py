"""Reading PostgreSQL: COPY out of one snapshot, in blocks, into the scratch.

Columns have the types the catalogue declares.  What has no exact canonical type travels as text (see
:mod:`headrace_connectors.postgres.types`).  The bounds of incremental reads come from the snapshot that is
read.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headrace_connectors import cursors
from headrace_connectors.errors import ConnectorError, configuration
from headrace_connectors.identifiers import literal, quote, split_table
from headrace_connectors.model import (
    Column,
    Connection,
    Environment,
    ProgressListener,
    SourceResult,
    SourceSpec,
    no_progress,
)
from headrace_connectors.postgres import catalog, types
from headrace_connectors.postgres.catalog import NativeColumn
from headrace_connectors.postgres.increments import Bounds, Increment
from headrace_connectors.postgres.ranges import conditions
from headrace_connectors.postgres.session import Backend, Session, connect
from headrace_connectors.previews import ReadPreview
from headrace_connectors.rows import ROW, open_csv, with_growing_blocks, with_row_numbers
from headrace_connectors.scratch import Scratch
from headrace_connectors.transfer import BlockFeed, Meter, insert

if TYPE_CHECKING:
    import pyarrow as pa


class PostgresSource:
    """A table or a query of one database."""

    def __init__(
        self,
        spec: SourceSpec,
        session: Session,
        natives: Sequence[NativeColumn],
        key: Sequence[str],
        sampled: bool,
    ) -> None:
        self.spec = spec
        self.session = session
        self.natives = tuple(natives)
        self._key = tuple(key)
        self._sampled = sampled

    @classmethod
    async def open(cls, spec: SourceSpec, connection: Connection, environment: Environment) -> PostgresSource:
        """Connect and look the columns up.

        :raises ConnectorError: what connecting can meet; TABLE_NOT_FOUND, COLUMN_NOT_FOUND, SQL_INVALID.
        """
        session = await connect(connection, environment)
        try:
            async with session.transaction("write" if spec.query else "read") as raw:
                key: tuple[str, ...] = ()
                sampled = False
                if spec.query:
                    natives = await catalog.describe_query(raw, _statement(spec.query))
                else:
                    table = await catalog.require_table(raw, spec.table or "")
                    natives, key = list(table.columns), table.primary_key
                    sampled = table.kind in ("r", "p", "m")
        except BaseException:
            await asyncio.shield(session.close())
            raise
        return cls(spec, session, _projected(natives, spec), key, sampled)

    async def columns(self) -> list[Column]:
        """The columns in the order they are read."""
        return [native.as_column() for native in self.natives]

    async def load(
        self, scratch: Scratch, relation: str, progress: ProgressListener = no_progress
    ) -> SourceResult:
        """Copy everything into ``relation``; see :class:`headrace_connectors.ports.Source`."""
        columns = await self.columns()

        async def attempt(block: int) -> SourceResult:
            # Ranges are written at the same time, and a table that is written cannot be moved.
            await scratch.make(relation, columns, filed=self.spec.split is not None)
            meter = Meter(progress)

            async def one(session: Session, raw: Any, query: str) -> None:
                await self._copy(scratch, relation, columns, meter, raw, query, block)

            cursor, warnings = await self.read(one)
            return SourceResult(meter.rows, meter.bytes, cursor, warnings)

        return await with_growing_blocks(self.spec, attempt)

    async def read(self, one: Any, own: Backend | None = None) -> tuple[bytes | None, tuple[str, ...]]:
        """Run ``one(session, raw, query)`` for each key range, all on one snapshot; give the cursor and
        warnings.  ``own`` is a server process that writes what is read."""
        increment = Increment.of(self.spec, self.natives, self._from())
        noted = None if increment is None else await increment.note(self.session, own)
        async with self.session.transaction("read") as raw:
            bounds = Bounds()
            if increment is not None and noted is not None:
                bounds = await increment.bounds(raw, noted)
            ranges = await conditions(
                raw, self._from(), bounds.condition, self.spec.split, self.natives, self._sampled
            )
            queries = [self._select(part) for part in ranges]
            if len(queries) == 1:
                await one(self.session, raw, queries[0])
            else:
                await self._in_parallel(raw, queries, one)
        return bounds.cursor, bounds.warnings

    async def preview(self, scratch: Scratch) -> ReadPreview:
        """The query, with the bounds that a snapshot of now has."""
        bounds = Bounds()
        increment = Increment.of(self.spec, self.natives, self._from())
        if increment is not None:
            try:
                noted = await increment.note(self.session)
                async with self.session.transaction("read") as raw:
                    bounds = await increment.bounds(raw, noted)
            except ConnectorError as error:
                if error.code != "STATEMENT_TIMEOUT":
                    raise
                bounds = Bounds(warnings=("finding the bounds takes too long: the query is told without",))
        query = self._select(bounds.condition)
        async with self.session.transaction("read") as raw:
            # Planned and not run: it checks permissions, too.
            plan = json.loads(await raw.fetchval(f"EXPLAIN (FORMAT JSON) {query}"))
        return ReadPreview(
            columns=tuple(await self.columns()),
            query=query,
            lower=cursors.begins_at(self.spec.incremental),
            upper=cursors.value_of(bounds.cursor),
            estimated_rows=int(plan[0]["Plan"]["Plan Rows"]),
            warnings=bounds.warnings,
        )

    async def close(self) -> None:
        """Let go of the connection; safe to call again."""
        await self.session.close()

    async def _in_parallel(self, raw: Any, queries: list[str], one: Any) -> None:
        snapshot = str(await raw.fetchval("SELECT pg_export_snapshot()"))

        async def other(query: str) -> None:
            session = await connect(self.session.connection, self.session.environment, "/range")
            try:
                async with session.transaction("read", snapshot) as second:
                    await one(session, second, query)
            finally:
                await asyncio.shield(session.close())

        async with asyncio.TaskGroup() as group:
            for query in queries[1:]:
                group.create_task(other(query))
            await one(self.session, raw, queries[0])

    async def _copy(
        self,
        scratch: Scratch,
        relation: str,
        columns: list[Column],
        meter: Meter,
        raw: Any,
        query: str,
        block: int,
    ) -> None:
        feed = BlockFeed()
        numbered = any(column.type not in _TYPED and column.type != "VARCHAR" for column in columns)
        on_unrepresentable = str(self.spec.options.get("on_unrepresentable", "fail"))
        row = self._row_sql(columns)
        expressions = [
            types.from_text(f"c{index}", column, row, on_unrepresentable)
            for index, column in enumerate(columns)
        ]

        async def pump() -> None:
            try:
                await raw.copy_from_query(query, output=feed.put, format="csv")
                feed.end()
            except BaseException:
                feed.abort()
                raise

        pumping = asyncio.ensure_future(pump())
        inserting = asyncio.ensure_future(
            insert(
                scratch,
                relation,
                expressions,
                lambda: _csv_reader(feed, columns, numbered, block),
                meter,
                what=f"reading {self._label()}",
                stop=feed.abort,
            )
        )
        try:
            await _both(pumping, inserting, feed)
        except asyncio.CancelledError:
            feed.abort()
            for task in (pumping, inserting):
                task.cancel()
            await asyncio.gather(pumping, inserting, return_exceptions=True)
            raise

    def _from(self) -> str:
        if self.spec.query:
            return f"({_statement(self.spec.query)}\n) AS source"
        schema, name = split_table(self.spec.table or "")
        return f"{quote(schema)}.{quote(name)}" if schema else quote(name)

    def _select(self, condition: str) -> str:
        names = ", ".join(quote(native.name) for native in self.natives)
        where = f" WHERE {condition}" if condition else ""
        return f"SELECT {names} FROM {self._from()}{where}"

    def _label(self) -> str:
        return self.spec.table or "the query"

    def _row_sql(self, columns: list[Column]) -> str:
        """SQL for what finds a row again: its primary key when that is read, else its number."""
        names = [column.name for column in columns]
        if not self._key or not set(self._key) <= set(names):
            return f"'row ' || ({ROW} + 1)"
        parts = [
            f"{literal(name + '=')} || coalesce(CAST(c{names.index(name)} AS VARCHAR), 'NULL')"
            for name in self._key
        ]
        return " || ', ' || ".join(parts)


_TYPED = ("BOOLEAN", "SMALLINT", "INTEGER", "BIGINT", "FLOAT", "DOUBLE")


async def _both(pumping: asyncio.Future[None], inserting: asyncio.Future[None], feed: BlockFeed) -> None:
    """Wait for both ends; the first error wins, and the other end is made to stop."""
    await asyncio.wait({pumping, inserting}, return_when=asyncio.FIRST_COMPLETED)
    if inserting.done():
        feed.abort()
        results = await asyncio.gather(inserting, pumping, return_exceptions=True)
    else:
        results = await asyncio.gather(pumping, inserting, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


def _csv_reader(feed: BlockFeed, columns: list[Column], numbered: bool, block: int) -> pa.RecordBatchReader:
    """COPY's CSV as batches with columns c0, c1, … (and the number of the row): NULL is bare, '' is
    quoted."""
    import pyarrow as pa
    from pyarrow import csv

    arrow = {"BOOLEAN": pa.bool_(), "SMALLINT": pa.int16(), "INTEGER": pa.int32(), "BIGINT": pa.int64(),
             "FLOAT": pa.float32(), "DOUBLE": pa.float64()}  # fmt: skip
    schema = pa.schema(
        [(f"c{index}", arrow.get(column.type, pa.string())) for index, column in enumerate(columns)]
    )
    reader = open_csv(
        feed,
        schema,
        read_options=csv.ReadOptions(column_names=schema.names, block_size=block, use_threads=False),
        parse_options=csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        convert_options=csv.ConvertOptions(
            column_types=schema,
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            true_values=["t"],
            false_values=["f"],
        ),
    )
    return with_row_numbers(reader) if numbered else reader


def _statement(query: str) -> str:
    """The query without the semicolon people end it with."""
    return query.strip().rstrip(";").rstrip()


def _projected(natives: Sequence[NativeColumn], spec: SourceSpec) -> list[NativeColumn]:
    if not natives:
        raise configuration("NO_COLUMNS", "the source has no columns")
    if not spec.columns:
        return list(natives)
    by_name = {native.name: native for native in natives}
    for name in spec.columns:
        if name not in by_name:
            raise configuration(
                "COLUMN_NOT_FOUND",
                f"{spec.table or 'the query'} has no column {name}; it has {', '.join(by_name)}",
                column=name,
            )
    return [by_name[name] for name in spec.columns]
