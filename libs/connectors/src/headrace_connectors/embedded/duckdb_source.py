"""Reading DuckDB files: types as they are, user queries locked in like everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from headrace_connectors import canonical, cursors
from headrace_connectors.blocking import in_thread
from headrace_connectors.embedded.duckdb_target import open_file
from headrace_connectors.errors import configuration
from headrace_connectors.identifiers import literal, quote, split_table
from headrace_connectors.model import (
    Column,
    Connection,
    Environment,
    Incremental,
    ProgressListener,
    SourceResult,
    SourceSpec,
    no_progress,
)
from headrace_connectors.previews import ReadPreview
from headrace_connectors.roots import readable_file
from headrace_connectors.scratch import Scratch
from headrace_connectors.transfer import Meter, insert, translate

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_BATCH_ROWS = 65_536


class DuckdbSource:
    """A table or a query of one DuckDB file."""

    def __init__(self, spec: SourceSpec, database: duckdb.DuckDBPyConnection, columns: list[Column]) -> None:
        self.spec = spec
        self._database: duckdb.DuckDBPyConnection | None = database
        self._columns = columns

    @classmethod
    async def open(cls, spec: SourceSpec, connection: Connection, environment: Environment) -> DuckdbSource:
        """Open the file and look the columns up; it stays open (and locked to other processes) until closed.

        :raises ConnectorError: FILE_NOT_FOUND, PATH_NOT_ALLOWED, LOCK_TIMEOUT, TABLE_NOT_FOUND,
            COLUMN_NOT_FOUND.
        """
        path: Path = readable_file(connection.path or "", None, environment)

        def begin() -> DuckdbSource:
            database = open_file(path, environment)
            try:
                columns = _describe(database, spec)
            except BaseException as error:
                database.close()
                if isinstance(error, Exception):
                    raise translate(error, f"reading {spec.table or 'the query'}") from error
                raise
            return cls(spec, database, columns)

        return await in_thread(begin)

    async def columns(self) -> list[Column]:
        """The columns in the order they are read."""
        return list(self._columns)

    async def load(
        self, scratch: Scratch, relation: str, progress: ProgressListener = no_progress
    ) -> SourceResult:
        """Stream everything into ``relation``."""
        database = self._database
        if database is None:
            raise RuntimeError("the source is closed")
        await scratch.make(relation, self._columns)
        cursor, condition, warnings = await self._look(database)
        parts = [
            f"{canonical.through_arrow(quote(column.name), column.type, column.name)} AS c{index}"
            for index, column in enumerate(self._columns)
        ]
        sql = self._select(parts, condition)
        meter = Meter(progress)

        def reader() -> pa.RecordBatchReader:
            return database.sql(sql).to_arrow_reader(_BATCH_ROWS)

        await insert(
            scratch,
            relation,
            [f"CAST(c{index} AS {column.type})" for index, column in enumerate(self._columns)],
            reader,
            meter,
            what=f"reading {self.spec.table or 'the query'}",
            stop=database.interrupt,
        )
        return SourceResult(meter.rows, meter.bytes, cursor, warnings)

    async def preview(self, scratch: Scratch) -> ReadPreview:
        """The query, with the bounds that the file has now."""
        database = self._database
        if database is None:
            raise RuntimeError("the source is closed")
        cursor, condition, warnings = await self._look(database)
        return ReadPreview(
            columns=tuple(self._columns),
            query=self._select([quote(column.name) for column in self._columns], condition),
            lower=cursors.begins_at(self.spec.incremental),
            upper=cursors.value_of(cursor),
            warnings=warnings,
        )

    async def close(self) -> None:
        """Close the file; safe to call again."""
        database, self._database = self._database, None
        if database is not None:
            await in_thread(database.close)

    def _select(self, parts: Sequence[str], condition: str) -> str:
        where = f" WHERE {condition}" if condition else ""
        return f"SELECT {', '.join(parts)} FROM {_origin(self.spec)}{where}"

    async def _look(self, database: duckdb.DuckDBPyConnection) -> tuple[bytes | None, str, tuple[str, ...]]:
        def look() -> tuple[bytes | None, str, tuple[str, ...]]:
            try:
                return self._bounds(database)
            except Exception as error:
                raise translate(error, f"reading {self.spec.table or 'the query'}") from error

        return await in_thread(look, database.interrupt)

    def _bounds(self, database: duckdb.DuckDBPyConnection) -> tuple[bytes | None, str, tuple[str, ...]]:
        incremental = self.spec.incremental
        if incremental is None:
            return None, "", ()
        kind = next((column.type for column in self._columns if column.name == incremental.cursor), None)
        if kind is None:
            raise configuration(
                "COLUMN_NOT_FOUND",
                f"the cursor column {incremental.cursor} is not among the columns read",
                column=incremental.cursor,
            )
        if incremental.lag is not None and not _takes_lag(kind):
            raise cursors.lag_unsupported(incremental, kind)
        column, origin = quote(incremental.cursor), _origin(self.spec)
        stored = cursors.stored_cursor(incremental)
        lower = stored.value if stored else incremental.initial
        if lower is not None:
            _require_type(database, incremental, lower, kind)
        largest = f"max({column})"
        if stored is not None:  # rows may have been taken away: the cursor does not move back
            largest = f"greatest({largest}, {_typed(stored.value, kind)})"
        elif lower is not None:  # below it nothing is read: the next reading begins there, too
            largest = f"CASE WHEN {largest} >= {_typed(lower, kind)} THEN {largest} END"
        top, nulls = database.execute(
            f"SELECT CAST({largest} AS VARCHAR), count(*) > count({column}) FROM {origin}"
        ).fetchall()[0]
        parts = [] if lower is None else [_from(column, lower, kind, incremental, stored is not None)]
        warnings = cursors.repeat_warnings(incremental)
        if nulls and lower is not None:
            warnings = cursors.null_warnings(incremental.cursor) + warnings
        if top is None:
            return incremental.lower, " AND ".join(parts), warnings
        upper = f"{column} <= {_typed(str(top), kind)}"
        parts.append(upper if parts else f"({upper} OR {column} IS NULL)")
        cursor = cursors.reached(incremental, str(top), lower)
        return cursor.encode(), " AND ".join(parts), warnings


def _typed(value: str, kind: str) -> str:
    return f"CAST({literal(value)} AS {kind})"


def _require_type(
    database: duckdb.DuckDBPyConnection, incremental: Incremental, lower: str, kind: str
) -> None:
    if not database.execute(f"SELECT TRY_CAST({literal(lower)} AS {kind}) IS NOT NULL").fetchall()[0][0]:
        raise cursors.misfit(incremental, kind)


def _takes_lag(kind: str) -> bool:
    return canonical.is_number(kind) or kind.startswith(("DATE", "TIME"))


def _from(column: str, lower: str, kind: str, incremental: Incremental, later: bool) -> str:
    start = _typed(lower, kind)
    if incremental.lag is None:
        # Where rows may come again, those with an equal value are read: they may have come later.
        return f"{column} {'>' if later and not incremental.repeats else '>='} {start}"
    step = str(cursors.lag_number(incremental))
    if kind.startswith(("DATE", "TIME")):
        step = f"to_microseconds({int(cursors.lag_interval(incremental).total_seconds() * 1_000_000)})"
    return f"{column} >= {start} - {step}"


def _describe(database: duckdb.DuckDBPyConnection, spec: SourceSpec) -> list[Column]:
    if spec.query:
        _require_query(database, spec.query)
    else:
        schema, name = split_table(spec.table or "")
        found = database.execute(
            "SELECT 1 FROM (SELECT schema_name, table_name AS name FROM duckdb_tables() WHERE NOT "
            "internal UNION ALL "
            "SELECT schema_name, view_name FROM duckdb_views()) WHERE schema_name = coalesce(?, 'main') "
            "AND name = ?",
            [schema, name],
        ).fetchall()
        if not found:
            raise configuration("TABLE_NOT_FOUND", f"there is no table {spec.table}", table=spec.table or "")
    rows = database.execute(f"DESCRIBE SELECT * FROM {_origin(spec)}").fetchall()
    columns = {str(row[0]): Column(str(row[0]), str(row[1]), True, str(row[1]), "duckdb") for row in rows}
    for name in spec.columns:
        if name not in columns:
            raise configuration(
                "COLUMN_NOT_FOUND", f"there is no column {name}; there are {', '.join(columns)}", column=name
            )
    return [columns[name] for name in spec.columns or columns]


def _require_query(database: duckdb.DuckDBPyConnection, query: str) -> None:
    """One reading statement: nothing that could change the file, which is open for writing too."""
    import duckdb

    statements = database.extract_statements(query)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise configuration("QUERY_NOT_SUPPORTED", "the query must be one SELECT")


def _origin(spec: SourceSpec) -> str:
    if spec.query:
        return f"({spec.query.strip().rstrip(';')}\n)"
    schema, name = split_table(spec.table or "")
    return f"{quote(schema)}.{quote(name)}" if schema else quote(name)
