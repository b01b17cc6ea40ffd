"""Schema migrations: alembic, run by each replica at its start, one at a time.

A service keeps its revisions in `<package>/versions`; the environment lives here once. Released code runs
against a newer schema (migrations only add), so a database that is ahead of this code is left as it is.
"""

import asyncio
import importlib.resources
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import sqlalchemy as sa
import structlog
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from headrace_chassis import database
from headrace_chassis.errors import Unavailable

_log = structlog.get_logger(__name__)

LOCK = 0x4845_4144_5241_4345
"""The advisory lock that migrating replicas take, one after the other ("HEADRACE" in ASCII)."""

LOCK_TIMEOUT_SECONDS = 10
"""How long a migration waits for a table that running calls use, before it gives up and is tried again."""


async def upgrade(
    url: str,
    package: str,
    *,
    patience: float = 60.0,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Brings the schema to the newest revision that `package` ("headrace_metadata.migrations") has.

    Any number of replicas may do so at once. A database that is not there yet is waited for, up to `patience`
    seconds; then raises Unavailable. A failed migration is rolled back and raises.
    """
    deadline = monotonic() + patience
    while True:
        try:
            with database.translated():
                await _upgrade_once(url, package)
            return
        except Unavailable as error:
            if monotonic() >= deadline:
                raise
            _log.info("waiting for the database", error=error.message)
            await sleep(0.25)


async def _upgrade_once(url: str, package: str) -> None:
    engine = create_async_engine(database.driver_url(url), poolclass=NullPool, connect_args={"timeout": 5.0})
    try:
        async with _connection(engine) as conn:
            # Session-level, since each revision is a transaction of its own; a replica that dies lets go of
            # it.
            await conn.execute(sa.text("SELECT pg_advisory_lock(:lock)"), {"lock": LOCK})
            await conn.execute(sa.text(f"SET lock_timeout = '{LOCK_TIMEOUT_SECONDS}s'"))
            await conn.commit()
            await conn.run_sync(_migrate, package)
            await conn.commit()
    finally:
        await engine.dispose()


@asynccontextmanager
async def _connection(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    conn = engine.connect()
    try:
        await conn.start()
    except OSError as error:
        raise Unavailable("the database") from error
    try:
        yield conn
    finally:
        await conn.close()


def _migrate(conn: sa.Connection, package: str) -> None:
    config = _config(package)
    scripts = ScriptDirectory.from_config(config)
    known = {revision.revision for revision in scripts.walk_revisions()}
    current = MigrationContext.configure(conn).get_current_heads()
    conn.rollback()
    ahead = [revision for revision in current if revision not in known]
    if ahead:
        _log.warning("the schema is newer than this code", package=package, revisions=ahead)
        return
    if set(current) == set(scripts.get_heads()):
        return
    config.attributes["connection"] = conn
    command.upgrade(config, "head")
    _log.info("schema migrated", package=package, revision=scripts.get_current_head())


def _config(package: str) -> Config:
    config = Config()
    config.set_main_option("script_location", _escaped(_folder("headrace_chassis") / "migration_environment"))
    config.set_main_option("version_locations", _escaped(_folder(package) / "versions"))
    config.set_main_option("path_separator", "newline")
    return config


def _folder(package: str) -> Path:
    return Path(str(importlib.resources.files(package)))


def _escaped(path: Path) -> str:
    return str(path).replace("%", "%%")  # alembic's options are interpolated
