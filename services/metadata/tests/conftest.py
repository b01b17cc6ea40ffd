"""Fixtures: the service under test over a real PostgreSQL and a real gRPC server."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from headrace.common.v1 import event_log_pb2
from headrace.execution.v1 import internal_pb2
from headrace_chassis.service import Foundation
from headrace_chassis.testing.authority import Authority
from headrace_chassis.testing.postgres import PostgresServer, migrated_database
from headrace_chassis.testing.serving import serve
from headrace_chassis.testing.stand_ins import stand_in
from headrace_metadata.config import MetadataSettings
from headrace_metadata.wiring import MIGRATIONS, SERVICE, Parts
from pydantic import SecretStr

from .support import ExecutionStandIn, Service, keyring_json


@pytest.fixture(scope="session")
def migrated_url(postgres_server: PostgresServer) -> Iterator[str]:
    """One migrated database for all tests: each has a tenant of its own."""
    with migrated_database(postgres_server, MIGRATIONS) as url:
        yield url


@pytest.fixture
def settings(authority: Authority, migrated_url: str) -> MetadataSettings:
    """The settings of the service under test."""
    return MetadataSettings(
        **authority.service_values("metadata", migrated_url),
        execution_target="127.0.0.1:1",
        scheduler_target="127.0.0.1:1",
        encryption_keys=SecretStr(keyring_json("k1", "k1")),
        secret_file_roots=(Path("/run/secrets"),),
        definition_max_bytes=64 * 1024,
    )


@pytest_asyncio.fixture
async def service(settings: MetadataSettings, authority: Authority) -> AsyncIterator[Service]:
    """The service under test, served in process beside its execution."""
    authority.service_key_file("execution")
    behind = ExecutionStandIn()
    async with AsyncExitStack() as stack:
        execution = await stack.enter_async_context(
            serve(
                authority,
                [
                    stand_in(internal_pb2.DESCRIPTOR.services_by_name["ExecutionInternalService"], behind),
                    stand_in(event_log_pb2.DESCRIPTOR.services_by_name["EventLogService"], behind),
                ],
            )
        )
        base = Foundation(SERVICE, settings, stack)
        parts = Parts(settings, base, execution.channel, execution.channel)
        stack.callback(parts.checker.close)
        served = await stack.enter_async_context(serve(authority, parts.services()))
        yield Service(base, parts, behind, authority, served.channel)
