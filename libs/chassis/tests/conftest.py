"""What the chassis' own tests share: a migrated database, and the Database on it."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from headrace_chassis import migrations
from headrace_chassis.database import Database

sys.path.insert(0, str(Path(__file__).parent))  # for the sample service's package

SAMPLE = "sample_service.migrations"


@pytest_asyncio.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    """A migrated database of this test's own."""
    await migrations.upgrade(database_url, SAMPLE)
    database = Database(database_url, pool_size=8)
    yield database
    await database.close()
