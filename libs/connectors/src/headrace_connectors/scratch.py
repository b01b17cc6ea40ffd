"""The scratch: a stage's own DuckDB, within its memory, spilling to its own folder, and locked in.

User SQL runs here and nowhere else.  It sees the tables that sources have loaded and nothing of the machine:
no files, no network, no extensions, no settings.  Rows come in and go out as Arrow batches through this
package's own code.

Tables lie in memory as long as they are small, which is the quickest.  But DuckDB never moves the NULL masks
of such a table to disk: 32 KiB for each 122,880 values of a column stay, so that twenty million rows of ten
columns hold 53 MiB whatever the limit is.  What grows beyond half of the memory therefore goes into a
database file in the scratch's own folder.  Nothing of it outlives the stage, so it is neither synced nor
compressed.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from headrace_connectors import duck
from headrace_connectors.blocking import finish, in_thread
from headrace_connectors.errors import ConnectorError, configuration, quota
from headrace_connectors.identifiers import literal, quote
from headrace_connectors.model import Column, Environment

if TYPE_CHECKING:
    import duckdb

_SCRATCH_SHARE = 0.7
"""The part of the stage's memory the scratch may take; the rest is for readers, writers and Arrow batches."""

_TABLES_SHARE = 0.5
"""The part of that which tables may fill before they go into the file; queries need the rest."""

_FILE = "headrace_file"
"""What the database file is called in SQL."""

_SETTINGS = {"fsync_mode": "NONE", "force_compression": "uncompressed", "checkpoint_on_detach": "DISABLED"}
_FILE_LOOK_SECONDS = 0.1

_ROW_GROUP = 30_720
"""Rows that each thread gathers before it writes them: a quarter of the usual, or writing forty columns alone
takes 100 MiB."""


class Scratch:
    """The stage's own database.  Use :meth:`open`; :meth:`close` removes its files."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, folder: Path, environment: Environment) -> None:
        self._connection: duckdb.DuckDBPyConnection | None = connection
        self._guard = threading.Lock()
        self._filed: set[str] = set()
        self._held: dict[str, int] = {}
        self.folder = folder
        self.environment = environment

    @classmethod
    async def open(cls, environment: Environment) -> Scratch:
        """A fresh scratch in a new folder under the environment's temporary folder.

        :raises ConnectorError: DISK_FULL and the like, when the folder cannot be made.
        """

        def make() -> tuple[duckdb.DuckDBPyConnection, Path]:
            environment.temp_dir.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix="scratch-", dir=environment.temp_dir))
            try:
                connection = duck.connect(
                    ":memory:",
                    memory=_memory(environment),
                    threads=environment.threads,
                    temp=folder / "spill",
                    temp_bytes=environment.max_temp_bytes,
                    extra=_SETTINGS,
                )
                connection.execute(
                    f"ATTACH {literal(str(folder / _FILE))} AS {_FILE} (ROW_GROUP_SIZE {_ROW_GROUP})"
                )
                duck.lock(connection)
            except Exception as error:
                shutil.rmtree(folder, ignore_errors=True)
                raise duck.translate(error, "opening the scratch database") from error
            return connection, folder

        connection, folder = await in_thread(make)
        return cls(connection, folder, environment)

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection of its own on the scratch, for one thread; the caller closes it."""
        with self._guard:
            if self._connection is None:
                raise RuntimeError("the scratch is closed")
            cursor = self._connection.cursor()
        if self._filed:
            see_file(cursor)
        return cursor

    async def execute(self, sql: str, parameters: Sequence[object] = ()) -> None:
        """Run one or more statements; cancelling interrupts them.

        :raises ConnectorError: SQL_INVALID, VALUE_NOT_CONVERTIBLE, MEMORY_LIMIT, DISK_FULL, SQL_NOT_ALLOWED,
            …
        """
        await self._run(sql, parameters, 0)

    async def fetch(
        self, sql: str, parameters: Sequence[object] = (), limit: int = 10_000
    ) -> list[tuple[object, ...]]:
        """The first ``limit`` rows of a query; cancelling interrupts it.

        :raises ConnectorError: as :meth:`execute`.
        """
        return await self._run(sql, parameters, limit)

    async def columns(self, relation: str) -> list[Column]:
        """The columns of a table or view of the scratch."""
        rows = await self.fetch(
            f"SELECT column_name, column_type FROM (DESCRIBE SELECT * FROM {quote(relation)})"
        )
        return [Column(str(name), str(kind)) for name, kind in rows]

    async def count(self, relation: str) -> int:
        """The number of rows of a table or view of the scratch."""
        rows = await self.fetch(f"SELECT count(*) FROM {quote(relation)}")
        return int(str(rows[0][0]))

    async def drop(self, relation: str) -> None:
        """Remove a table and free its blocks; nothing happens when there is none."""
        await self.execute(f"DROP TABLE IF EXISTS {quote(relation)}")
        self._forget(relation)
        if relation in self._filed:
            self._filed.discard(relation)
            try:
                await self.execute(f"CHECKPOINT {_FILE}")
            except ConnectorError as error:
                if error.code != "ENGINE_IO":
                    raise
                # Somebody writes at this moment: the space is free from the next checkpoint on.

    async def make(self, relation: str, columns: Sequence[Column], *, filed: bool = False) -> None:
        """An empty table in place of the one, or the view, that an earlier try has left.

        ``filed`` puts it into the file whatever memory there is: for several writers at a time.

        :raises ConnectorError: DUPLICATE_COLUMN for names that differ in case alone.
        """
        refuse_alike([column.name for column in columns])
        if await self.fetch("SELECT 1 FROM duckdb_views() WHERE view_name = ?", [relation]):
            await self.execute(f"DROP VIEW {quote(relation)}")
        await self.drop(relation)
        body = ", ".join(f"{quote(column.name)} {column.type}" for column in columns)
        filed = filed or not self.has_room()
        await self.execute(f"CREATE TABLE {self._placed(relation, filed)} ({body})")

    async def compute(self, relation: str, sql: str) -> None:
        """A table of what a query gives; what an earlier try has left of that name goes away.

        :raises ConnectorError: as :meth:`execute`.
        """
        await self.drop(relation)
        if self.has_room():
            try:
                await self._create(relation, sql, filed=False)
                tables = int(str((await self.fetch(_TABLES))[0][0]))
                self.note_growth(relation, max(tables - self._held_by_all(), 0))
                return
            except ConnectorError as error:
                if error.code != "MEMORY_LIMIT":
                    raise
        await self._create(relation, sql, filed=True)

    async def _create(self, relation: str, sql: str, filed: bool) -> None:
        # On lines of its own: it may end in a comment.
        await self.execute(f"CREATE TABLE {self._placed(relation, filed)} AS\n{sql}\n")

    def has_room(self) -> bool:
        """Whether tables may still grow in memory; not once there is one in the file, since what comes of a
        large one is large.
        """
        return not self._filed and self._held_by_all() < _memory(self.environment) * _TABLES_SHARE

    def note_growth(self, relation: str, size: int) -> None:
        """A table in memory gets rows of so many bytes; from the thread that brings them."""
        with self._guard:
            self._held[relation] = self._held.get(relation, 0) + size

    def _forget(self, relation: str) -> None:
        with self._guard:
            self._held.pop(relation, None)

    def _held_by_all(self) -> int:
        with self._guard:
            return sum(self._held.values())

    def is_filed(self, relation: str) -> bool:
        """Whether a table lies in the file."""
        return relation in self._filed

    def move_to_file(self, relation: str, cursor: duckdb.DuckDBPyConnection) -> None:
        """Take a table that nobody else uses out of memory, on a cursor and in its thread."""
        name = quote(relation)
        cursor.execute(f"CREATE TABLE {self._placed(relation, filed=True)} AS SELECT * FROM {name}")
        cursor.execute(f"DROP TABLE {name}")
        self._forget(relation)
        see_file(cursor)

    def check_file(self) -> None:
        """Hold the file to what the stage may spill.

        :raises ConnectorError: DISK_FULL.
        """
        if (self.folder / _FILE).stat().st_size > self.environment.max_temp_bytes:
            raise quota("DISK_FULL", "the stage holds more rows than it may spill")

    def _placed(self, relation: str, filed: bool) -> str:
        """The name under which a table is created, noted where it lies."""
        if not filed:
            return quote(relation)
        self._filed.add(relation)
        return f"{_FILE}.main.{quote(relation)}"

    async def close(self) -> None:
        """Close the database and remove its folder; safe to call again."""

        def shut() -> None:
            with self._guard:
                connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()
            shutil.rmtree(self.folder, ignore_errors=True)

        await finish(shut)

    async def _run(self, sql: str, parameters: Sequence[object], limit: int) -> list[tuple[object, ...]]:
        cursor = self.cursor()

        def call() -> list[tuple[object, ...]]:
            try:
                result = cursor.execute(sql, list(parameters) or None)
                return result.fetchmany(limit) if limit else []
            except Exception as error:
                raise duck.translate(error, "SQL") from error

        watching = asyncio.ensure_future(self._watch_file(cursor)) if self._filed else None
        try:
            return await in_thread(call, cursor.interrupt)
        except ConnectorError:
            if watching is not None and watching.done():
                watching.result()  # what has interrupted it
            raise
        finally:
            if watching is not None:
                watching.cancel()
            cursor.close()

    async def _watch_file(self, cursor: duckdb.DuckDBPyConnection) -> None:
        """Interrupt a statement once the file is larger than it may be."""
        while True:
            await asyncio.sleep(_FILE_LOOK_SECONDS)
            try:
                self.check_file()
            except ConnectorError:
                cursor.interrupt()
                raise

    async def __aenter__(self) -> Scratch:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.shield(self.close())


_TABLES = (
    "SELECT coalesce(sum(memory_usage_bytes + temporary_storage_bytes), 0) FROM duckdb_memory() "
    "WHERE tag = 'IN_MEMORY_TABLE'"
)


def _memory(environment: Environment) -> int:
    return int(environment.memory_limit_bytes * _SCRATCH_SHARE)


def see_file(cursor: duckdb.DuckDBPyConnection) -> None:
    """Have names mean tables of the file too; each cursor has a search path of its own."""
    cursor.execute(f"SET search_path = 'memory.main,{_FILE}.main'")


def refuse_alike(names: Sequence[str]) -> None:
    """DuckDB's tables, unlike files and other databases, cannot tell ``id`` from ``ID``.

    :raises ConnectorError: DUPLICATE_COLUMN.
    """
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.lower(), name)
        if other is not name:
            raise configuration(
                "DUPLICATE_COLUMN",
                f"columns {other} and {name} differ in case at most: choose one with `columns`, or rename "
                "one where they come from",
                column=name,
            )
