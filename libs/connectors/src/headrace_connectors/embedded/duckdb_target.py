"""DuckDB files: every canonical type has its own place there."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from headrace_connectors import duck, fit
from headrace_connectors.canonical import through_arrow
from headrace_connectors.embedded.target import FileColumn
from headrace_connectors.errors import configuration, transient
from headrace_connectors.gate import Check, bound_literal
from headrace_connectors.identifiers import quote
from headrace_connectors.model import Column, Environment

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_POLL_SECONDS = 0.05
_SHARE = 4


def open_file(path: Path, environment: Environment) -> duckdb.DuckDBPyConnection:
    """Open a DuckDB file, locked in; waits for a process that holds it.

    :raises ConnectorError: LOCK_TIMEOUT, FILE_INVALID.
    """
    import duckdb

    deadline = time.monotonic() + environment.lock_timeout
    while True:
        try:
            connection = duck.connect(
                str(path),
                memory=environment.memory_limit_bytes // _SHARE,
                threads=environment.threads,
                temp=environment.temp_dir / f"spill-{os.getpid()}-{path.name}",
                temp_bytes=environment.max_temp_bytes,
            )
        except duckdb.IOException as error:
            if "lock" not in str(error).lower():
                raise configuration(
                    "FILE_INVALID", f"{path.name} is not a DuckDB database of this version"
                ) from error
            if time.monotonic() > deadline:
                raise transient("LOCK_TIMEOUT", f"{path.name}: another process holds the database") from error
            time.sleep(_POLL_SECONDS)
            continue
        except duckdb.Error as error:
            raise duck.translate(error, f"opening {path.name}") from error
        break
    duck.lock(connection)
    return connection


class DuckdbTarget:
    """An open DuckDB file for writing; staging is a table beside the target."""

    def __init__(self, path: Path, environment: Environment) -> None:
        self._connection = open_file(path, environment)

    def run(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[object, ...]]:
        """Execute one statement."""
        result = self._connection.execute(sql, list(parameters) or None)
        return list(result.fetchall()) if result.description else []

    def begin(self) -> None:
        """Open a transaction; the file's lock keeps other processes out already."""
        self._connection.execute("BEGIN TRANSACTION")

    def table(self, schema: str | None, name: str) -> list[FileColumn] | None:
        """The columns of a table, None when there is none."""
        rows = self.run(
            "SELECT column_name, data_type, NOT is_nullable, column_default FROM duckdb_columns() "
            "WHERE database_name = current_database() AND schema_name = coalesce(?, 'main') AND "
            "table_name = ? "
            "ORDER BY column_index",
            [schema, name],
        )
        return [FileColumn(str(r[0]), str(r[1]), bool(r[2]), r[3] is not None) for r in rows] or None

    def unique_keys(self, schema: str | None, name: str) -> list[frozenset[str]]:
        """The column sets of primary keys and unique constraints."""
        rows = self.run(
            "SELECT constraint_column_names FROM duckdb_constraints() WHERE database_name = "
            "current_database() "
            "AND schema_name = coalesce(?, 'main') AND table_name = ? AND constraint_type IN ('PRIMARY "
            "KEY', 'UNIQUE')",
            [schema, name],
        )
        return [frozenset(str(part) for part in row[0]) for row in rows if isinstance(row[0], list)]

    def declared_type(self, column: Column) -> str:
        """The canonical type itself."""
        return column.type

    def checks(self, column: Column, declared: str, not_null: bool) -> list[Check]:
        """Fit by canonical type."""
        return fit.checks(column, declared, not_null)

    def outgoing(self, column: Column, declared: str) -> str:
        """The value as the target's type, in a form that survives Arrow."""
        sql = quote(column.name)
        cast = sql if column.type == declared else f"CAST({sql} AS {declared})"
        return through_arrow(cast, declared, column.name)

    def make_staging(self, name: str, columns: Sequence[tuple[str, str]]) -> None:
        """An empty staging table in the target's file."""
        body = ", ".join(f"{quote(column)} {declared}" for column, declared in columns)
        self.run(f"CREATE OR REPLACE TABLE {quote(name)} ({body})")

    def staging_sql(self, name: str) -> str:
        """The staging table's name in statements."""
        return quote(name)

    def fill(self, name: str, batch: pa.RecordBatch, declared: Sequence[str]) -> None:
        """Add rows."""
        import pyarrow as pa

        values = ", ".join(
            f"CAST({quote(field.name)} AS {kind})" for field, kind in zip(batch.schema, declared, strict=True)
        )
        self._connection.register("__headrace_batch", pa.Table.from_batches([batch]))
        try:
            self._connection.execute(f"INSERT INTO {quote(name)} SELECT {values} FROM __headrace_batch")
        finally:
            self._connection.unregister("__headrace_batch")

    def drop_staging(self, name: str) -> None:
        """Drop the staging table."""
        self.run(f"DROP TABLE IF EXISTS {quote(name)}")

    def forget_staging(self, name: str) -> None:
        """Drop the staging table, within the transaction that shuts its attempt out."""
        self.drop_staging(name)

    def bound(self, value: object, kind: str) -> str:
        """A typed literal."""
        return bound_literal(value, kind)

    def interrupt(self) -> None:
        """Stop the running statement."""
        self._connection.interrupt()

    def close(self) -> None:
        """Close the file, which gives its lock back."""
        self._connection.close()
