"""The words sources and sinks are described in: plain values without I/O."""

from __future__ import annotations

import builtins
import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from headrace_connectors.guard import AddressGuard

ConnectionType = Literal["postgresql", "sqlite", "duckdb", "file"]
FileFormat = Literal["csv", "json", "parquet"]
SinkMode = Literal["append", "replace", "merge", "replace_partition"]
SchemaDrift = Literal["fail", "ignore", "evolve"]
MissingColumns = Literal["allow", "fail"]
Guarantee = Literal["EXACTLY_ONCE", "AT_LEAST_ONCE"]

ProgressListener = Callable[[int, int], None]
"""Called on the event loop with the rows and bytes moved so far (totals, not steps)."""


def no_progress(rows: int, size: int) -> None:
    """The listener of those who do not want to know."""


NoticeListener = Callable[[str, str, str], None]
"""Called on the event loop with what a server says unasked: the connection's name, the severity (WARNING,
NOTICE, INFO, …) and the message."""


def no_notice(connection: str, severity: str, message: str) -> None:
    """The listener of those who do not want to know."""


class Secret:
    """A value that shows itself only when asked by name."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The secret itself: hand it to a driver, never to a message."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


@dataclass(frozen=True)
class Connection:
    """How to reach a system: host and database for servers, path for files.

    ``options`` is checked against the list of options its type allows (PostgreSQL: ``sslmode``,
    ``sslrootcert``, ``application_name``, ``connect_timeout``, ``search_path``, ``ledger_schema``); any other
    is refused. ``path`` is the database file of SQLite and DuckDB, and the base folder of type ``file``.
    """

    id: str
    name: str
    type: ConnectionType
    host: str | None = None
    port: int | None = None
    database: str | None = None
    username: str | None = None
    password: Secret | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    path: str | None = None


@dataclass(frozen=True)
class Environment:
    """What the operator gives to the work of one stage.

    ``file_roots`` are the only folders user paths may lead into (none: no files at all).
    ``memory_limit_bytes`` is for all the DuckDB instances of the stage together.  Timeouts are seconds; a
    ``statement_timeout`` of 0 is none.
    """

    temp_dir: Path
    guard: AddressGuard
    file_roots: tuple[Path, ...] = ()
    memory_limit_bytes: int = 512 * 1024 * 1024
    max_temp_bytes: int = 64 * 1024 * 1024 * 1024
    threads: int = 2
    connect_timeout: float = 10.0
    statement_timeout: float = 0.0
    lock_timeout: float = 30.0
    application_name: str = "headrace"
    max_files: int = 10_000
    notice: NoticeListener = no_notice


@dataclass(frozen=True)
class Column:
    """A column of a relation.

    ``type`` is a DuckDB type name (``BIGINT``, ``DECIMAL(10,2)``, ``VARCHAR``, …), the canonical form.  A
    type with no exact DuckDB counterpart travels as VARCHAR, its text kept exactly; ``native`` (the type's
    name in ``system``) says what it is, so that a sink of the same system can put it back.
    """

    name: str
    type: str
    nullable: bool = True
    native: str = ""
    system: str = ""


@dataclass(frozen=True)
class Incremental:
    """Read only what is new: rows whose ``cursor`` column lies above ``lower``.

    ``lower`` is the opaque value an earlier ``SourceResult.cursor`` held (None: read everything, or from
    ``initial`` on). ``lag`` reads that much further below, for values that are not given out in the order in
    which they grow: seconds for dates and times, a number for numbers. With ``repeats`` rows may come again,
    since all that they go to merges them by key: the read then includes whatever could have been committed
    late or with an equal value. Without it no row that was read comes again, as far as the system can tell.
    ``table`` names what is read as the definition does, with its placeholders: a cursor is of no use for
    another one. It is None of a query, whose text may change and still read the same.
    """

    cursor: str
    lower: bytes | None = None
    lag: dt.timedelta | int | None = None
    initial: str | None = None
    repeats: bool = False
    table: str | None = None


@dataclass(frozen=True)
class Split:
    """Read a table in ``ranges`` key ranges of ``column`` at the same time, all on one snapshot."""

    column: str
    ranges: int = 2


@dataclass(frozen=True)
class SourceSpec:
    """What to read: exactly one of ``table``, ``query``, ``path`` and ``values``."""

    table: str | None = None
    query: str | None = None
    path: str | None = None
    values: Sequence[Mapping[str, object]] | None = None
    format: FileFormat | None = None
    columns: Sequence[str] = ()
    schema: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, object] = field(default_factory=dict)
    incremental: Incremental | None = None
    split: Split | None = None


@dataclass(frozen=True)
class SourceResult:
    """What a read brought: ``cursor`` is how far it came, to be committed with the load."""

    rows: int
    bytes: int
    cursor: builtins.bytes | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class PartitionRange:
    """The half-open range [start, end) of ``column`` that a replace_partition load replaces."""

    column: str
    start: dt.datetime | dt.date | int
    end: dt.datetime | dt.date | int


@dataclass(frozen=True)
class SinkSpec:
    """Where rows go and how they meet what is there."""

    table: str | None = None
    path: str | None = None
    format: FileFormat | None = None
    discard: bool = False
    mode: SinkMode = "append"
    keys: Sequence[str] = ()
    partition: PartitionRange | None = None
    schema_drift: SchemaDrift = "fail"
    missing_columns: MissingColumns = "allow"
    options: Mapping[str, object] = field(default_factory=dict)
    goes_on: bool = False
    """The rows are what is new since earlier loads: a table that is not there has lost what those landed."""


@dataclass(frozen=True)
class LoadKey:
    """The identity of a load: it lands once however often it is tried.  ``partition`` is "" when there is
    one."""

    root_run_id: str
    task: str
    partition: str = ""


@dataclass(frozen=True)
class Series:
    """The loads of one sink task of a pipeline, run after run, of which each goes on where the one before it
    came to: so only one may land at a time."""

    pipeline: str
    task: str


@dataclass(frozen=True)
class Staged:
    """What stands ready to be committed."""

    rows: int
    bytes: int
    checksum: str
    added: tuple[str, ...] = ()
    """Columns that the commit adds to the table."""
    left_out: tuple[str, ...] = ()
    """Columns of the rows that the table lacks, and that are not written."""


@dataclass(frozen=True)
class Exported:
    """A file that was written for the worker to keep."""

    rows: int
    bytes: int
    checksum: str
    columns: tuple[Column, ...]


@dataclass(frozen=True)
class Receipt:
    """The target's own record that a load landed, written in the transaction of the load."""

    rows: int
    bytes: int
    checksum: str
    cursor: builtins.bytes | None
    fence: int
    committed_at: dt.datetime


@dataclass(frozen=True)
class Catalogue:
    """What a server offers to the user of a connection."""

    schemas: tuple[str, ...]
    """The names of its schemas, sorted; those of the server itself and of Headrace's ledger left out."""
    tables: int
    """How many tables and views there are in them."""


@dataclass(frozen=True)
class ConnectionReport:
    """The outcome of a connection test; a failure is a report, not an exception."""

    ok: bool
    latency_ms: float
    server_version: str = ""
    code: str = ""
    message: str = ""
    transient: bool = False
    """A failure that may go away by itself."""
    catalogue: Catalogue | None = None
    """None where the system has none: files, and databases that are files."""


@dataclass(frozen=True)
class TableInfo:
    """A table, view or file that a connection offers.  ``estimated_rows`` is None where nobody knows."""

    schema: str
    name: str
    kind: Literal["table", "view", "file"]
    columns: tuple[Column, ...]
    estimated_rows: int | None = None


@dataclass(frozen=True)
class TablePage:
    """Tables in the order of (schema, name); ``next_after`` goes into the next call, "" at the end."""

    tables: tuple[TableInfo, ...]
    next_after: str = ""
