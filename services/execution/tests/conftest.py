"""Fixtures: a migrated database that each test finds empty, and a cluster over it."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from headrace_chassis.database import Database, driver
from headrace_chassis.testing.authority import Authority
from headrace_chassis.testing.postgres import PostgresServer, migrated_database
from headrace_execution.store.sql import SqlStore
from headrace_execution.testing.memory import MemoryStore
from headrace_execution.wiring import MIGRATIONS

from .support import Cluster, Replica, cluster

_TABLES = (
    "runs, stages, tasks, workers, cursors, probes, closed_pipelines, refused_closings, recipes, "
    "outbox_event, idempotency, consumer_position, inbox, starts, log_chunks, run_notes, "
    "outputs, stream_tickets, alerts, usual_runs, pipeline_days, forwarder, parked_event, "
    "deliveries"
)


@pytest.fixture(scope="session")
def migrated_url(postgres_server: PostgresServer) -> Iterator[str]:
    """One migrated database for all tests of this suite."""
    with migrated_database(postgres_server, MIGRATIONS) as url:
        yield url


@pytest_asyncio.fixture
async def db(migrated_url: str) -> AsyncIterator[Database]:
    """The empty database."""
    database = Database(migrated_url, pool_size=8)
    async with database.transaction() as conn:
        await driver(conn).execute(f"TRUNCATE {_TABLES}")
    yield database
    await database.close()


@pytest.fixture
def store(db: Database) -> SqlStore:
    """The store over the empty database."""
    return SqlStore(db)


@pytest.fixture(params=["sql", "memory"])
def any_store(request: pytest.FixtureRequest) -> Any:
    """Each store that there is; `skew` moves its clock."""
    return MemoryStore() if request.param == "memory" else request.getfixturevalue("store")


@pytest_asyncio.fixture
async def mesh(db: Database, authority: Authority, migrated_url: str) -> AsyncIterator[Cluster]:
    """A cluster over the empty database, without replicas yet."""
    async with cluster(authority, migrated_url) as made:
        yield made


@pytest_asyncio.fixture
async def replica(mesh: Cluster) -> Replica:
    """One replica."""
    return await mesh.replica()
