"""Migrations: several replicas at once, and code that is older than the schema."""

import asyncio

import pytest
import sqlalchemy as sa
from headrace_chassis import migrations
from headrace_chassis.database import Database
from headrace_chassis.errors import Unavailable

from .conftest import SAMPLE


async def test_replicas_that_start_together_migrate_once(database_url: str) -> None:
    await asyncio.gather(*(migrations.upgrade(database_url, SAMPLE) for _ in range(4)))
    db = Database(database_url, pool_size=1)
    async with db.read() as conn:
        assert await conn.scalar(sa.text("SELECT version_num FROM alembic_version")) == "0001"
        assert await conn.scalar(sa.text("SELECT count(*) FROM outbox_head")) == 1
        assert await conn.scalar(sa.text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")) == 0
    await db.close()


async def test_older_code_leaves_a_newer_schema_alone(db: Database, database_url: str) -> None:
    async with db.transaction() as conn:
        await conn.execute(sa.text("UPDATE alembic_version SET version_num = '0099'"))
    await migrations.upgrade(database_url, SAMPLE)
    async with db.read() as conn:
        assert await conn.scalar(sa.text("SELECT version_num FROM alembic_version")) == "0099"


async def test_patience_ends() -> None:
    now = [0.0]

    async def sleep(seconds: float) -> None:
        now[0] += seconds

    with pytest.raises(Unavailable):
        await migrations.upgrade(
            "postgresql://u@127.0.0.1:1/d", SAMPLE, patience=3, monotonic=lambda: now[0], sleep=sleep
        )
    assert now[0] >= 3
