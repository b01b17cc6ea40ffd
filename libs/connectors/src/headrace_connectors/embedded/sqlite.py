"""SQLite: its files, its types and what they can hold exactly.

A column's declared type is law here, though SQLite itself would store anything anywhere.  Types that SQLite's
numbers cannot hold exactly (decimals of more than 15 digits, integers beyond 64 bits) are declared with TEXT
affinity, which SQLite reads off the word TEXT in the type's name.
"""

from __future__ import annotations

import datetime as dt
import re
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from headrace_connectors import canonical, fit
from headrace_connectors.canonical import INTEGER_RANGES, TIMESTAMPTZ
from headrace_connectors.embedded.target import FileColumn
from headrace_connectors.errors import ConnectorError, configuration, data, quota, transient
from headrace_connectors.gate import Check
from headrace_connectors.identifiers import literal, quote
from headrace_connectors.model import Column

if TYPE_CHECKING:
    import pyarrow as pa

_DECIMAL = re.compile(r"(?:TEXT )?(?:DECIMAL|NUMERIC)\s*\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\)")
_EXACT_DIGITS = 15
"""Decimal digits that survive a trip through SQLite's 64-bit floats."""
_NAMED = {
    "DATE": "DATE", "TIME": "TIME", "DATETIME": "TIMESTAMP", "TIMESTAMP": "TIMESTAMP",
    "TIMESTAMPTZ": TIMESTAMPTZ,
    TIMESTAMPTZ: TIMESTAMPTZ, "UUID": "UUID", "JSON": "JSON", "TEXT JSON": "JSON", "INTERVAL": "INTERVAL",
    "BOOLEAN": "BOOLEAN", "BOOL": "BOOLEAN", "BLOB": "BLOB", "TEXT HUGE": "HUGEINT", "TEXT UHUGE": "UHUGEINT",
    "TEXT UBIG": "UBIGINT", "TEXT TIME WITH TIME ZONE": "TIME WITH TIME ZONE", "TEXT BIT": "BIT",
    "TIMESTAMP_NS": "TIMESTAMP_NS", "TIMESTAMP_MS": "TIMESTAMP_MS", "TIMESTAMP_S": "TIMESTAMP_S",
    "FLOAT4": "FLOAT",
}  # fmt: skip


def canonical_of(declared: str) -> str | None:
    """The canonical type of a declared one, by SQLite's own affinity rules where it is no name we know; None
    when it declares nothing (then the values decide)."""
    name = " ".join(declared.upper().split())
    decimal = _DECIMAL.fullmatch(name)
    if decimal and int(decimal[1]) <= 38:
        return f"DECIMAL({decimal[1]},{decimal[2] or 0})"
    if name in _NAMED:
        return _NAMED[name]
    if "INT" in name:
        return "BIGINT"
    if any(part in name for part in ("CHAR", "CLOB", "TEXT", "STRING")):
        return "VARCHAR"
    if "BLOB" in name or "BINARY" in name:
        return "BLOB"
    if any(part in name for part in ("REAL", "FLOA", "DOUB")):
        return "DOUBLE"
    return None


def declared_type(column: Column) -> str:
    """The declared type of a column we create.

    :raises ConnectorError: TYPE_NOT_SUPPORTED.
    """
    kind = column.type
    decimal = canonical.decimal_of(kind)
    if decimal is not None:
        name = f"DECIMAL({decimal[0]},{decimal[1]})"
        return name if decimal[0] <= _EXACT_DIGITS else f"TEXT {name}"
    if canonical.is_nested(kind):
        raise configuration(
            "TYPE_NOT_SUPPORTED",
            f"column {column.name}: SQLite has no place for {kind}; turn it into JSON (to_json) or "
            "scalar columns",
            column=column.name,
            type=kind,
        )
    if kind in ("HUGEINT", "UHUGEINT", "UBIGINT"):
        return f"TEXT {kind.removesuffix('INT')}"  # INT in a type's name would give it INTEGER affinity
    if kind in ("TIME WITH TIME ZONE", "BIT", "JSON"):
        return f"TEXT {kind}"
    if kind in INTEGER_RANGES:
        return "INTEGER"
    plain = {"VARCHAR": "TEXT", "DOUBLE": "REAL", "FLOAT": "FLOAT4"}
    return "TEXT" if kind.startswith("ENUM") else plain.get(kind, kind)


class SqliteTarget:
    """An open SQLite file for writing; staging lives in a file of its own, attached while it is needed."""

    def __init__(self, path: Path, staging_folder: Path, lock_timeout: float) -> None:
        self._folder = staging_folder
        self._attached = False
        try:
            self._connection = sqlite3.connect(
                path, timeout=lock_timeout, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA foreign_keys = ON")
        except sqlite3.Error as error:
            raise translate(error, f"opening {path.name}") from error

    def run(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[object, ...]]:
        """Execute one statement."""
        return list(self._connection.execute(sql, tuple(parameters)).fetchall())

    def begin(self) -> None:
        """Take the write lock at once: a lock taken later could fail in the middle."""
        self._connection.execute("BEGIN IMMEDIATE")

    def table(self, schema: str | None, name: str) -> list[FileColumn] | None:
        """The columns of a table, None when there is none."""
        if schema not in (None, "main"):
            raise configuration(
                "TABLE_NOT_FOUND", "a SQLite file has one schema, main", table=f"{schema}.{name}"
            )
        rows = self.run(
            'SELECT name, type, "notnull", dflt_value, pk, hidden FROM pragma_table_xinfo(?)', [name]
        )
        keys = sum(1 for row in rows if row[4])
        return [
            FileColumn(
                str(row[0]),
                str(row[1]),
                bool(row[3 - 1]),
                row[3] is not None or (bool(row[4]) and keys == 1 and str(row[1]).upper() == "INTEGER"),
                row[5] in (2, 3),
            )
            for row in rows
        ] or None

    def unique_keys(self, schema: str | None, name: str) -> list[frozenset[str]]:
        """The column sets of unique indexes without conditions or expressions, and of a rowid key."""
        found = []
        for index, *_ in self.run(
            'SELECT name FROM pragma_index_list(?) WHERE "unique" AND NOT partial', [name]
        ):
            names = [row[0] for row in self.run("SELECT name FROM pragma_index_info(?)", [index])]
            if all(names):
                found.append(frozenset(str(column) for column in names))
        key = self.run("SELECT name FROM pragma_table_info(?) WHERE pk > 0", [name])
        return [*found, frozenset(str(row[0]) for row in key)] if key else found

    def declared_type(self, column: Column) -> str:
        """See :func:`declared_type`."""
        return declared_type(column)

    def checks(self, column: Column, declared: str, not_null: bool) -> list[Check]:
        """Fit by canonical type; and what SQLite would change: NaN becomes NULL, long decimals become
        floats."""
        target = canonical_of(declared) or column.type
        found = fit.checks(column, target, not_null)
        sql = quote(column.name)
        if column.type in canonical.FLOATS:
            found.append(
                Check(column.name, f"coalesce(isnan({sql}), false)", "SQLite, which has no NaN", "NaN")
            )
        decimal = canonical.decimal_of(target)
        if decimal and decimal[0] > _EXACT_DIGITS and "TEXT" not in declared.upper():
            text = f"CAST({sql} AS VARCHAR)"
            digits = f"length(ltrim(regexp_replace({text}, '[-.]', '', 'g'), '0')) > {_EXACT_DIGITS}"
            found.append(
                Check(column.name, f"coalesce({digits}, false)", "SQLite's numbers", "a number too precise")
            )
        return found

    def outgoing(self, column: Column, declared: str) -> str:
        """Integers, floats, text and bytes as they are; everything else as its text."""
        sql = quote(column.name)
        target = canonical_of(declared) or column.type
        if target == "BOOLEAN":
            return f"CAST(CAST({sql} AS BOOLEAN) AS TINYINT)"
        if target == "BIGINT" or (
            target in INTEGER_RANGES and target not in ("HUGEINT", "UHUGEINT", "UBIGINT")
        ):
            return f"CAST({sql} AS BIGINT)"
        if target in canonical.FLOATS:
            return f"CAST({sql} AS DOUBLE)"
        if target == "BLOB":
            return sql
        if target != column.type and target != "VARCHAR":
            return f"CAST(CAST({sql} AS {target}) AS VARCHAR)"
        return f"CAST({sql} AS VARCHAR)"

    def make_staging(self, name: str, columns: Sequence[tuple[str, str]]) -> None:
        """An empty staging table in an attached file that need not survive a crash."""
        self.drop_staging(name)
        self._folder.mkdir(parents=True, exist_ok=True)
        self.run(f"ATTACH DATABASE {literal(str(self._folder / (name + '.sqlite')))} AS staging")
        self._attached = True
        self.run("PRAGMA staging.journal_mode = OFF")
        self.run("PRAGMA staging.synchronous = OFF")
        body = ", ".join(f"{quote(column)} {declared}" for column, declared in columns)
        self.run(f"CREATE TABLE {self.staging_sql(name)} ({body})")

    def staging_sql(self, name: str) -> str:
        """The staging table's name in statements."""
        return f"staging.{quote(name)}"

    def fill(self, name: str, batch: pa.RecordBatch, declared: Sequence[str]) -> None:
        """Add rows, one transaction a batch."""
        marks = ", ".join("?" * batch.num_columns)
        rows = zip(*(column.to_pylist() for column in batch.columns), strict=True)
        self._connection.execute("BEGIN")
        try:
            self._connection.executemany(f"INSERT INTO {self.staging_sql(name)} VALUES ({marks})", rows)
        except BaseException:
            if self._connection.in_transaction:  # a failed write may have ended it already
                self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def drop_staging(self, name: str) -> None:
        """Detach and delete the staging file."""
        if self._attached:
            self.run("DETACH DATABASE staging")
            self._attached = False
        (self._folder / (name + ".sqlite")).unlink(missing_ok=True)

    def forget_staging(self, name: str) -> None:
        """Delete the staging file; a paused attempt that has it open keeps a file without a name."""
        (self._folder / (name + ".sqlite")).unlink(missing_ok=True)

    def bound(self, value: object, kind: str) -> str:
        """The text SQLite keeps of the value, which sorts as time does."""
        if isinstance(value, dt.datetime | dt.date):
            return literal(_stored(value, kind))
        return str(int(str(value)))

    def interrupt(self) -> None:
        """Stop the running statement."""
        self._connection.interrupt()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def _stored(value: dt.date, kind: str) -> str:
    """A date or time as the text that DuckDB writes of it, which is what our loads store."""
    if kind == "DATE":
        return value.isoformat()[:10]
    moment = value if isinstance(value, dt.datetime) else dt.datetime.combine(value, dt.time())
    if kind == TIMESTAMPTZ:
        aware = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
        return aware.astimezone(dt.UTC).isoformat(sep=" ").replace("+00:00", "+00")
    naive = moment.astimezone(dt.UTC).replace(tzinfo=None) if moment.tzinfo else moment
    return naive.isoformat(sep=" ")


def translate(error: Exception, what: str) -> ConnectorError:
    """An error of SQLite in our words."""
    code = getattr(error, "sqlite_errorname", "") or ""
    if isinstance(error, ConnectorError):
        return error
    if code.startswith("SQLITE_FULL") or (code.startswith("SQLITE_IOERR") and "WRITE" in code):
        return quota("TARGET_DISK_FULL", f"{what}: the disk or its quota is full")
    if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return transient("LOCK_TIMEOUT", f"{what}: another process holds the database")
    if code.startswith("SQLITE_CONSTRAINT"):
        return data("CONSTRAINT_VIOLATED", f"{what}: {error}")
    if code.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
        return configuration("FILE_INVALID", f"{what}: not a SQLite database, or a damaged one")
    if code.startswith(("SQLITE_READONLY", "SQLITE_PERM", "SQLITE_AUTH")):
        return configuration("PERMISSION_DENIED", f"{what}: not permitted")
    if code.startswith("SQLITE_CANTOPEN"):
        return configuration("FILE_NOT_FOUND", f"{what}: the file cannot be opened")
    if code.startswith("SQLITE_IOERR"):
        return transient("FILE_IO", f"{what}: reading or writing failed")
    if "decode to UTF-8" in str(error):
        return data("ENCODING_INVALID", f"{what}: text that is not UTF-8")
    if "no such column" in str(error):
        return configuration("COLUMN_NOT_FOUND", f"{what}: {error}")
    if "no such table" in str(error):
        return configuration("TABLE_NOT_FOUND", f"{what}: {error}")
    if isinstance(error, sqlite3.Error):
        return configuration("SQL_INVALID", f"{what}: {error}")
    raise error
