"""Reading SQLite: one snapshot, in batches, every value held to its column's declared type."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace_connectors import canonical, cursors
from headrace_connectors.blocking import in_thread
from headrace_connectors.embedded.sqlite import canonical_of, translate
from headrace_connectors.errors import ConnectorError, configuration, data
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
from headrace_connectors.transfer import Meter, insert

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH_ROWS = 10_000
_SYSTEM = "sqlite"
_READS = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, 33})
"""What a user's query may do; 33 is SQLITE_RECURSIVE, which the module does not name."""


class SqliteSource:
    """A table or a query of one SQLite file."""

    def __init__(
        self,
        spec: SourceSpec,
        path: Path,
        database: sqlite3.Connection,
        columns: list[Column],
        numbered: bool,
    ) -> None:
        self.spec = spec
        self._path = path
        self._database: sqlite3.Connection | None = database
        self._columns = columns
        self._rowid = numbered

    @classmethod
    async def open(cls, spec: SourceSpec, connection: Connection, environment: Environment) -> SqliteSource:
        """Open the file for reading and look the columns up.

        :raises ConnectorError: FILE_NOT_FOUND, PATH_NOT_ALLOWED, TABLE_NOT_FOUND, COLUMN_NOT_FOUND,
            TYPES_MIXED.
        """
        path = readable_file(connection.path or "", None, environment)

        def begin() -> SqliteSource:
            database = open_read_only(path, environment.lock_timeout)
            try:
                database.execute("BEGIN")
                columns, numbered = _describe(database, spec)
            except BaseException:
                database.close()
                raise
            return cls(spec, path, database, columns, numbered)

        return await in_thread(_guarded(begin, f"opening {path.name}"))

    async def columns(self) -> list[Column]:
        """The columns in the order they are read."""
        return list(self._columns)

    async def load(
        self, scratch: Scratch, relation: str, progress: ProgressListener = no_progress
    ) -> SourceResult:
        """Read everything of the snapshot the source was opened on."""
        await scratch.make(relation, self._columns)
        database = self._open_database()
        what = f"reading {self.spec.table or 'the query'}"
        cursor, condition, warnings = await self._look(database, what)
        on_unrepresentable = str(self.spec.options.get("on_unrepresentable", "fail"))
        row = f"'{'rowid' if self._rowid else 'row'} ' || r"
        expressions = [
            f"c{index}"
            if column.type in _DIRECT
            else canonical.converting(f"c{index}", column.type, column.name, row, on_unrepresentable)
            for index, column in enumerate(self._columns)
        ]
        meter = Meter(progress)
        try:
            await insert(
                scratch,
                relation,
                expressions,
                lambda: self._reader(database, condition),
                meter,
                what=what,
                stop=database.interrupt,
            )
        finally:
            await in_thread(lambda: _let_go(database, bool(self.spec.query)))
        return SourceResult(meter.rows, meter.bytes, cursor, warnings)

    async def preview(self, scratch: Scratch) -> ReadPreview:
        """The query, with the bounds that the snapshot has."""
        database = self._open_database()
        cursor, condition, warnings = await self._look(database, f"reading {self.spec.table or 'the query'}")
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

    def _open_database(self) -> sqlite3.Connection:
        if self._database is None:
            raise RuntimeError("the source is closed")
        return self._database

    async def _look(
        self, database: sqlite3.Connection, what: str
    ) -> tuple[bytes | None, str, tuple[str, ...]]:
        bounds: tuple[bytes | None, str, tuple[str, ...]] = await in_thread(
            _guarded(lambda: self._bounds(database), what), database.interrupt
        )
        return bounds

    def _bounds(self, database: sqlite3.Connection) -> tuple[bytes | None, str, tuple[str, ...]]:
        incremental = self.spec.incremental
        if incremental is None:
            return None, "", ()
        names = [column.name for column in self._columns]
        if incremental.cursor not in names:
            raise configuration(
                "COLUMN_NOT_FOUND",
                f"the cursor column {incremental.cursor} is not among the columns read",
                column=incremental.cursor,
            )
        kind = self._columns[names.index(incremental.cursor)].type
        numeric = kind in canonical.INTEGER_RANGES
        if incremental.lag is not None and not numeric and kind not in canonical.FLOATS:
            raise configuration(
                "LAG_NOT_SUPPORTED",
                f"SQLite keeps times as text, from which no lag can be taken: the cursor column "
                f"{incremental.cursor} would have to hold numbers",
                column=incremental.cursor,
            )
        column = quote(incremental.cursor)
        origin = _origin(self.spec)

        def holds(condition: str) -> bool:
            return bool(
                database.execute(f"SELECT EXISTS (SELECT 1 FROM {origin} WHERE {condition})").fetchone()[0]
            )

        stored = cursors.stored_cursor(incremental)
        lower = stored.value if stored else incremental.initial
        top = database.execute(f"SELECT max({column}) FROM {origin}").fetchone()[0]
        condition = ""
        warnings = cursors.repeat_warnings(incremental)
        if lower is not None:
            start = _start(incremental, lower, kind)
            # Where rows may come again, those with an equal value are read: they may have come later.
            sign = ">" if stored is not None and not incremental.repeats else ">="
            if incremental.lag is not None:
                sign = f"+ {cursors.lag_number(incremental)} >="
            condition = f"{column} {sign} {start}"
            if not holds(f"{column} >= {start}"):
                top = None  # rows were taken away, or none is there yet: the cursor does not move back
            if holds(f"{column} IS NULL"):
                warnings = cursors.null_warnings(incremental.cursor) + warnings
        if top is None:
            return incremental.lower, condition, warnings
        return cursors.reached(incremental, str(top), lower).encode(), condition, warnings

    def _select(self, parts: Sequence[str], condition: str) -> str:
        where = f" WHERE {condition}" if condition else ""
        return f"SELECT {', '.join(parts)} FROM {_origin(self.spec)}{where}"

    def _reader(self, database: sqlite3.Connection, condition: str) -> pa.RecordBatchReader:
        import pyarrow as pa

        fields = [pa.field(f"c{index}", _arrow(column.type)) for index, column in enumerate(self._columns)]
        schema = pa.schema([*fields, pa.field("r", pa.int64())])
        number = "rowid" if self._rowid else "row_number() OVER ()"
        sql = self._select([*(quote(column.name) for column in self._columns), number], condition)

        def read() -> Iterator[pa.RecordBatch]:
            try:
                cursor = database.execute(sql)
                while rows := cursor.fetchmany(_BATCH_ROWS):
                    yield self._batch(rows, schema)
            except sqlite3.Error as error:
                raise translate(error, f"reading {self.spec.table or 'the query'}") from error

        return pa.RecordBatchReader.from_batches(schema, read())

    def _batch(self, rows: Sequence[Sequence[Any]], schema: pa.Schema) -> pa.RecordBatch:
        import pyarrow as pa

        *values, numbers = zip(*rows, strict=True)
        arrays = [
            self._array(column, held, numbers, schema.field(index).type)
            for index, (column, held) in enumerate(zip(self._columns, values, strict=True))
        ]
        return pa.RecordBatch.from_arrays([*arrays, pa.array(numbers, pa.int64())], schema=schema)

    def _array(
        self, column: Column, values: Sequence[Any], numbers: Sequence[int], kind: pa.DataType
    ) -> pa.Array:
        """The values of a column, each of a storage class its declared type allows."""
        import pyarrow as pa

        allowed = _STORED.get(column.type, (int, float, str))
        if not set(map(type, values)) <= {*allowed, type(None)}:
            for value, number in zip(values, numbers, strict=True):
                if value is not None and type(value) not in allowed:
                    raise self._misfit(column, _CLASSES.get(type(value), "a value"), number)
        try:
            if column.type == "BOOLEAN":
                return pa.array([None if v is None else _truth(v) for v in values], pa.bool_())
            if column.type in _DIRECT:
                return pa.array(values, kind)
        except (pa.ArrowException, ValueError, OverflowError) as error:
            raise self._misfit(column, "a number out of range", numbers[0], "at or after ") from error
        return pa.array(
            [None if v is None else v if type(v) is str else repr(v) for v in values], pa.string()
        )

    def _misfit(self, column: Column, value_class: str, number: int, place: str = "") -> ConnectorError:
        label = "rowid" if self._rowid else "row"
        return data(
            "VALUE_NOT_REPRESENTABLE",
            f"{self.spec.table or 'the query'}: column {column.name}, {place}{label} {number}: {value_class} "
            f"in a column declared {column.native or column.type}",
            column=column.name,
            row=f"{label} {number}",
            value_class=value_class,
        )


_DIRECT = ("BIGINT", "DOUBLE", "VARCHAR", "BLOB", "BOOLEAN")
_STORED: dict[str, tuple[type, ...]] = {
    "BIGINT": (int,),
    "BOOLEAN": (int,),
    "DOUBLE": (float, int),
    "VARCHAR": (str,),
    "BLOB": (bytes,),
}
_CLASSES: dict[type, str] = {str: "text", bytes: "a blob", int: "an integer", float: "a real number"}


def open_read_only(path: Path, lock_timeout: float) -> sqlite3.Connection:
    """A connection that can only read, and only this file, whatever a query says."""
    database = sqlite3.connect(
        path.resolve().as_uri() + "?mode=ro",
        uri=True,
        timeout=lock_timeout,
        isolation_level=None,
        check_same_thread=False,
    )
    database.execute("PRAGMA query_only = ON")
    return database


def _restrict(database: sqlite3.Connection) -> None:
    """Let the statements that follow only read: they hold what a user wrote."""
    database.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in _READS else sqlite3.SQLITE_DENY)


def _let_go(database: sqlite3.Connection, restricted: bool) -> None:
    """End the snapshot: while it lasts no writer can commit, not even the sink of the same stage."""
    database.set_authorizer(None)
    if database.in_transaction:
        database.execute("COMMIT")
    if restricted:
        _restrict(database)


def _describe(database: sqlite3.Connection, spec: SourceSpec) -> tuple[list[Column], bool]:
    """The columns to read, and whether rows have a rowid."""
    declared: dict[str, str] = {}
    if spec.query:
        _restrict(database)
        found = database.execute(f"SELECT * FROM {_origin(spec)} LIMIT 0").description
        names = [str(entry[0]) for entry in found]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise configuration(
                "DUPLICATE_COLUMN", f"the query has more than one column {twice!r}", column=twice
            )
    else:
        name = split_table(spec.table or "")[1]
        rows = database.execute(
            "SELECT name, type FROM pragma_table_xinfo(?) WHERE hidden <> 1", [name]
        ).fetchall()
        if not rows:
            raise configuration("TABLE_NOT_FOUND", f"there is no table {spec.table}", table=spec.table or "")
        declared = {str(row[0]): str(row[1]) for row in rows}
        names = list(declared)
    for name in (*spec.columns, *spec.schema):
        if name not in names:
            raise configuration(
                "COLUMN_NOT_FOUND", f"there is no column {name}; there are {', '.join(names)}", column=name
            )
    columns = [_column(database, spec, name, declared.get(name, "")) for name in spec.columns or names]
    return columns, not spec.query and _has_rowid(database, split_table(spec.table or "")[1])


def _column(database: sqlite3.Connection, spec: SourceSpec, name: str, declared: str) -> Column:
    if name in spec.schema:
        return Column(name, canonical.normalise(spec.schema[name], name), True, declared, _SYSTEM)
    kind = canonical_of(declared) or _seen(database, spec, name)
    return Column(name, kind, True, declared, _SYSTEM)


def _seen(database: sqlite3.Connection, spec: SourceSpec, name: str) -> str:
    """The type of a column that declares none: what all of its values are, all of them looked at.

    :raises ConnectorError: TYPES_MIXED.
    """
    rows = database.execute(f"SELECT DISTINCT typeof({quote(name)}) FROM {_origin(spec)}").fetchall()
    kinds = {str(row[0]) for row in rows} - {"null"}
    if kinds == {"integer", "real"}:
        return "DOUBLE"
    if len(kinds) > 1:
        raise configuration(
            "TYPES_MIXED",
            f"column {name} has no declared type and holds {' and '.join(sorted(kinds))}; declare it in "
            "schema",
            column=name,
        )
    named = {"integer": "BIGINT", "real": "DOUBLE", "blob": "BLOB"}
    return named.get(kinds.pop() if kinds else "text", "VARCHAR")


def _has_rowid(database: sqlite3.Connection, name: str) -> bool:
    """Views and WITHOUT ROWID tables have none."""
    try:
        database.execute(f"SELECT rowid FROM {quote(name)} LIMIT 0")
    except sqlite3.OperationalError:
        return False
    kind = database.execute("SELECT type FROM sqlite_master WHERE name = ?", [name]).fetchone()
    return kind is not None and kind[0] == "table"


def _origin(spec: SourceSpec) -> str:
    if spec.query:
        return f"({spec.query.strip().rstrip(';')}\n)"
    return quote(split_table(spec.table or "")[1])


def _start(incremental: Incremental, lower: str, kind: str) -> str:
    """A value to go on from, as SQL. A number is told as one: what a query computes has no affinity, and is
    less than any text."""
    try:
        if kind in canonical.INTEGER_RANGES:
            return str(int(lower))
        if kind in canonical.FLOATS or kind.startswith("DECIMAL"):
            number = Decimal(lower)
            if not number.is_finite():
                raise cursors.misfit(incremental, kind)
            return str(number)
    except (ValueError, InvalidOperation) as error:
        raise cursors.misfit(incremental, kind) from error
    return literal(lower)


def _truth(value: int) -> bool:
    if value not in (0, 1):
        raise ValueError("neither 0 nor 1")
    return bool(value)


def _arrow(kind: str) -> pa.DataType:
    import pyarrow as pa

    known = {"BIGINT": pa.int64(), "DOUBLE": pa.float64(), "BLOB": pa.binary(), "BOOLEAN": pa.bool_()}
    return known.get(kind, pa.string())


def _guarded(call: Any, what: str) -> Any:
    def guarded() -> Any:
        try:
            return call()
        except sqlite3.Error as error:
            raise translate(error, what) from error

    return guarded
