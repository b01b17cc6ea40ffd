"""The scratch: a stage's own DuckDB, within its memory, spilling to its own folder, and locked in.

User SQL runs here and nowhere else.  It sees the tables that sources have loaded and nothing of the machine:
no files, no network, no extensions, no settings.  Rows come in and go out as Arrow batches through this
package's own code.

It is an in-memory database whose tables move to the folder as the memory limit is met: nothing in it outlives
the stage, so it need not pay for a log, checkpoints and syncs (a quarter of the time of a database file,
measured on loads and joins of several times the memory).
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
from headrace_connectors.identifiers import quote
from headrace_connectors.model import Column, Environment

if TYPE_CHECKING:
    import duckdb

_SCRATCH_SHARE = 0.7
"""The part of the stage's memory the scratch may take; the rest is for readers, writers and Arrow batches."""


class Scratch:
    """The stage's own database.  Use :meth:`open`; :meth:`close` removes its files."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, folder: Path, environment: Environment) -> None:
        self._connection: duckdb.DuckDBPyConnection | None = connection
        self._guard = threading.Lock()
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
                    memory=int(environment.memory_limit_bytes * _SCRATCH_SHARE),
                    threads=environment.threads,
                    temp=folder / "spill",
                    temp_bytes=environment.max_temp_bytes,
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
            return self._connection.cursor()

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
            finally:
                cursor.close()

        return await in_thread(call, cursor.interrupt)

    async def __aenter__(self) -> Scratch:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.shield(self.close())
