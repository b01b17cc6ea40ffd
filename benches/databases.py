"""Connections to the databases of a stack's services, past the services."""

import asyncpg
from headrace_local import postgres
from headrace_local.testing import StackUnderTest


async def connect(stack: StackUnderTest, service: str) -> "asyncpg.Connection[asyncpg.Record]":
    """A connection to the database of a service, with the service's own rights; the caller closes it."""
    running = stack.running
    return await asyncpg.connect(
        postgres.service_url(stack.home, running.ports, running.credentials, service)
    )
