"""Real parts for the connectors' tests: one PostgreSQL a session, one database a test, folders that go
away."""

from __future__ import annotations

import shutil
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from headrace_connectors.api import AddressGuard, Connection, Environment, Scratch, Secret

sys.path.insert(0, str(Path(__file__).parent))
from server import PASSWORD, USER, PostgresServer


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    folder = Path(tempfile.mkdtemp(prefix="connectors-pg-"))
    running = PostgresServer(folder / "data")
    yield running
    running.stop()
    shutil.rmtree(folder, ignore_errors=True)


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
