"""Fixtures: the service under test over a real PostgreSQL and a real gRPC server, under the test's clock."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio
from headrace_chassis.service import Foundation
from headrace_chassis.testing.authority import Authority
from headrace_chassis.testing.postgres import PostgresServer, migrated_database
from headrace_chassis.testing.serving import serve
from headrace_scheduler.config import SchedulerSettings
from headrace_scheduler.wiring import MIGRATIONS, SERVICE, Parts

from .backfill_support import Backfills, backfills_of
from .support import Clock, ExecutionStandIn, MetadataStandIn, Service, execution_services, metadata_services


@pytest.fixture(scope="session")
def migrated_url(postgres_server: PostgresServer) -> Iterator[str]:
    """One migrated database for all tests: each has a tenant of its own."""
    with migrated_database(postgres_server, MIGRATIONS) as url:
        yield url


@pytest.fixture
def settings(authority: Authority, migrated_url: str) -> SchedulerSettings:
    """The settings of the service under test."""
    return SchedulerSettings(
        **authority.service_values("scheduler", migrated_url),
        metadata_target="127.0.0.1:1",
        execution_target="127.0.0.1:1",
    )


@pytest_asyncio.fixture
async def service(settings: SchedulerSettings, authority: Authority) -> AsyncIterator[Service]:
    """The service under test, served in process beside its metadata and execution."""
    metadata, execution, clock = MetadataStandIn(), ExecutionStandIn(), Clock()
    async with AsyncExitStack() as stack:
        beside = await stack.enter_async_context(
            serve(authority, [*metadata_services(metadata), *execution_services(execution)])
        )
        base = Foundation(SERVICE, settings, stack)
        parts = Parts(settings, base, beside.channel, beside.channel, clock=clock)
        served = await stack.enter_async_context(serve(authority, parts.services()))
        yield Service(base, parts, metadata, execution, clock, authority, served.channel)


@pytest_asyncio.fixture
async def backfills(settings: SchedulerSettings, authority: Authority) -> AsyncIterator[Backfills]:
    """The service under test, beside an execution whose runs a test ends."""
    async with backfills_of(settings, authority) as made:
        yield made
