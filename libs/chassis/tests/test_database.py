"""Transactions: what certainly did not happen is tried again, what is unknown is told, and nothing leaks."""

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import sqlalchemy as sa
from headrace_chassis import database, migrations
from headrace_chassis.database import Database, driver
from headrace_chassis.errors import DeadlineExceeded, OutcomeUnknown, Unavailable
from headrace_chassis.testing import postgres
from headrace_chassis.testing.postgres import PostgresServer
from headrace_chassis.testing.waiting import eventually
from sqlalchemy.ext.asyncio import AsyncConnection

from .conftest import SAMPLE

INSERT = sa.text("INSERT INTO effect (name) VALUES (:name)")


async def names(db: Database) -> list[str]:
    async with db.read() as conn:
        return list((await conn.execute(sa.text("SELECT name FROM effect ORDER BY id"))).scalars())


async def test_sql_through_either_way_is_one_transaction(db: Database) -> None:
    async def both(fails: bool) -> None:
        async with db.transaction() as conn:
            await conn.execute(INSERT, {"name": "sqlalchemy"})
            await driver(conn).execute("INSERT INTO effect (name) VALUES ($1)", "asyncpg")
            if fails:
                raise RuntimeError

    with pytest.raises(RuntimeError):
        await both(fails=True)
    assert await names(db) == []
    await both(fails=False)
    assert await names(db) == ["sqlalchemy", "asyncpg"]


async def test_the_text_of_an_error_shows_no_values(db: Database) -> None:
    with pytest.raises(sa.exc.DBAPIError) as failed:
        async with db.transaction() as conn:
            await conn.execute(
                sa.text("SELECT 1 / :zero, CAST(:name AS text)"), {"zero": 0, "name": "hunter2"}
            )
    assert "division by zero" in str(failed.value)
    assert "hunter2" not in str(failed.value)


async def test_serialization_failures_are_tried_again(db: Database) -> None:
    async with db.transaction() as conn:
        await conn.execute(sa.text("CREATE TABLE counter (n int)"))
        await conn.execute(sa.text("INSERT INTO counter VALUES (0)"))

    async def increment(conn: AsyncConnection) -> None:
        seen = await conn.scalar(sa.text("SELECT n FROM counter"))
        await conn.execute(sa.text("UPDATE counter SET n = :n"), {"n": seen + 1})

    await asyncio.gather(*(db.run(increment, isolation="serializable") for _ in range(4)))
    async with db.read() as conn:
        assert await conn.scalar(sa.text("SELECT n FROM counter")) == 4


async def test_deadlocks_are_tried_again(db: Database) -> None:
    async with db.transaction() as conn:
        await conn.execute(sa.text("CREATE TABLE pair (id int PRIMARY KEY, n int DEFAULT 0)"))
        await conn.execute(sa.text("INSERT INTO pair VALUES (1), (2)"))
    met = asyncio.Barrier(2)
    tries = 0

    async def update(first: int, second: int) -> None:
        async def work(conn: AsyncConnection) -> None:
            nonlocal tries
            tries += 1
            raw = driver(conn)
            await raw.execute("SET LOCAL deadlock_timeout = '20ms'")
            await raw.execute("UPDATE pair SET n = n + 1 WHERE id = $1", first)
            if tries <= 2:
                await met.wait()
            await raw.execute("UPDATE pair SET n = n + 1 WHERE id = $1", second)

        await db.run(work)

    await asyncio.gather(update(1, 2), update(2, 1))
    async with db.read() as conn:
        assert list((await conn.execute(sa.text("SELECT n FROM pair"))).scalars()) == [2, 2]
    assert tries >= 3


async def test_other_errors_are_not_tried_again(db: Database) -> None:
    tries = 0

    async def work(conn: AsyncConnection) -> None:
        nonlocal tries
        tries += 1
        await driver(conn).execute("INSERT INTO effect (name) VALUES (NULL)")

    with pytest.raises(asyncpg.NotNullViolationError):
        await db.run(work)
    assert tries == 1


async def test_a_violated_constraint_is_named(db: Database) -> None:
    async def twice() -> None:
        async with db.transaction() as conn:
            await conn.execute(sa.text("CREATE TABLE named (name text CONSTRAINT one_name UNIQUE)"))
            await conn.execute(sa.text("INSERT INTO named VALUES ('a'), ('a')"))

    with pytest.raises(sa.exc.IntegrityError) as violated:
        await twice()
    assert database.constraint_name(violated.value) == "one_name"
    assert database.sqlstate(violated.value) == "23505"


async def test_too_slow_a_statement_is_a_deadline(database_url: str) -> None:
    db = Database(database_url, pool_size=1, statement_timeout=0.05)
    try:
        with pytest.raises(DeadlineExceeded):
            async with db.read() as conn:
                await driver(conn).execute("SELECT pg_sleep(10)")
        await db.ping()
    finally:
        await db.close()


async def test_when_all_connections_are_in_use_the_caller_is_told(database_url: str) -> None:
    db = Database(database_url, pool_size=1, pool_wait=0.05)
    try:
        async with db.read():
            with pytest.raises(Unavailable, match="all are in use") as caught:
                await db.ping()
        assert not caught.value.may_repeat
        await db.ping()
    finally:
        await db.close()


async def test_too_many_connections_is_unavailable(db: Database, database_url: str) -> None:
    async with db.transaction() as conn:
        name = await conn.scalar(sa.text("SELECT quote_ident(current_database())"))
    # A role that is no superuser, with no connection of its own allowed.
    async with db.read() as conn:
        role = f"limited_{abs(hash(name))}"
        await driver(conn).execute(f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 0")
    limited = Database(database_url.replace("postgres@", f"{role}@"), pool_size=1)
    try:
        with pytest.raises(Unavailable) as refused:
            await limited.ping()
        assert refused.value.retry_after is not None
    finally:
        await limited.close()
        async with db.read() as conn:
            await driver(conn).execute(f"DROP ROLE {role}")


async def test_a_cancelled_call_gives_its_connection_back_clean(database_url: str) -> None:
    await migrations.upgrade(database_url, SAMPLE)
    db = Database(database_url, pool_size=1, pool_wait=5)
    begun = asyncio.Event()

    async def call() -> None:
        async with db.transaction() as conn:
            await conn.execute(INSERT, {"name": "cancelled"})
            begun.set()
            await driver(conn).execute("SELECT pg_sleep(30)")

    try:
        for _ in range(3):
            begun.clear()
            task = asyncio.create_task(call())
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        async with db.transaction() as conn:
            await conn.execute(INSERT, {"name": "next"})
        assert await names(db) == ["next"]
    finally:
        await db.close()


async def test_a_call_that_is_cancelled_at_any_moment_leaves_the_next_one_its_commit(
    database_url: str,
) -> None:
    """Also while BEGIN is on its way: the next call must not go on in that transaction, and never commit."""
    await migrations.upgrade(database_url, SAMPLE)
    db = Database(database_url, pool_size=1, pool_wait=5)

    async def write(name: str) -> None:
        async with db.transaction() as conn:
            await conn.execute(INSERT, {"name": name})

    try:
        for passes in range(60):
            task = asyncio.create_task(write("cancelled"))
            for _ in range(passes):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await write(f"kept {passes}")
        kept = [name for name in await names(db) if name != "cancelled"]
        assert kept == [f"kept {passes}" for passes in range(60)]
    finally:
        await db.close()


async def test_a_connection_that_breaks_while_it_commits_leaves_the_outcome_unknown(db: Database) -> None:
    async def commit_into_the_void() -> None:
        async with db.transaction() as conn:
            await conn.execute(INSERT, {"name": "perhaps"})
            raw: Any = driver(conn)
            asyncio.get_running_loop().call_soon(raw._transport.abort)

    with pytest.raises(OutcomeUnknown) as unknown:
        await commit_into_the_void()
    assert not unknown.value.may_repeat
    with pytest.raises(OutcomeUnknown):
        await db.run(_breaking)
    await db.ping()


async def _breaking(conn: AsyncConnection) -> None:
    raw: Any = driver(conn)
    await raw.execute("SELECT 1")
    asyncio.get_running_loop().call_soon(raw._transport.abort)


async def test_a_connection_that_breaks_before_commit_is_tried_again(db: Database) -> None:
    tries = 0

    async def work(conn: AsyncConnection) -> None:
        nonlocal tries
        tries += 1
        await conn.execute(INSERT, {"name": f"try {tries}"})
        if tries == 1:
            await driver(conn).execute("SELECT pg_terminate_backend(pg_backend_pid())")

    await db.run(work)
    assert await names(db) == ["try 2"]


@pytest.mark.parametrize("error", [FileNotFoundError("/x"), TimeoutError()])
async def test_an_error_of_something_else_is_not_blamed_on_the_database(db: Database, error: OSError) -> None:
    async def work(conn: AsyncConnection) -> None:
        raise error

    with pytest.raises(type(error)):
        await db.run(work)


async def test_the_clock_is_the_databases(db: Database) -> None:
    async with db.transaction() as conn:
        first = await database.now(conn)
        assert first.tzinfo is not None
        assert await database.now(conn) > first


def test_libpq_urls_are_taken() -> None:
    url = database.driver_url("postgresql://u:p@h:5432/d?sslmode=require")
    assert (url.drivername, dict(url.query)) == ("postgresql+asyncpg", {"ssl": "require"})


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    folder = Path(tempfile.mkdtemp(prefix="hr-pg-", dir="/tmp"))
    server = asyncio.run(postgres.started(folder / "data"))
    yield server
    server.remove()
    shutil.rmtree(folder, ignore_errors=True)


class TestRestart:
    """PostgreSQL goes down and comes back; nobody restarts the process."""

    @pytest.mark.parametrize("mode", ["fast", "immediate"])
    async def test_under_load(self, server: PostgresServer, mode: Any) -> None:
        url = await server.new_database()
        await migrations.upgrade(url, SAMPLE)
        db = Database(url, pool_size=4)
        stop = asyncio.Event()
        written: set[str] = set()
        unknown: set[str] = set()
        refused = 0

        async def writer(number: int) -> None:
            nonlocal refused
            index = 0
            while not stop.is_set():
                index += 1
                name = f"{number}.{index}"
                try:
                    await db.run(lambda conn, name=name: conn.execute(INSERT, {"name": name}))  # type: ignore[misc]
                    written.add(name)
                except OutcomeUnknown:
                    unknown.add(name)
                except Unavailable:
                    refused += 1
                await asyncio.sleep(0)

        writers = [asyncio.create_task(writer(number)) for number in range(4)]
        try:
            await _until(lambda: len(written) > 50)
            await asyncio.to_thread(server.stop, mode)
            await _until(lambda: refused > 0)
            await asyncio.to_thread(server.resume)
            after = len(written)
            await _until(lambda: len(written) > after + 50)
        finally:
            stop.set()
            await asyncio.gather(*writers)
        there = await names(db)
        await db.close()
        assert len(there) == len(set(there)), "a write happened twice"
        assert written <= set(there) <= written | unknown

    async def test_a_database_that_is_not_there_yet_is_waited_for(self, server: PostgresServer) -> None:
        url = await server.new_database()
        await asyncio.to_thread(server.stop)
        waiting = asyncio.create_task(migrations.upgrade(url, SAMPLE))
        db = Database(url, pool_size=1)
        with pytest.raises(Unavailable):
            await db.ping()
        await asyncio.to_thread(server.resume)
        await waiting
        assert await names(db) == []
        await db.close()


async def _until(check: Callable[[], bool]) -> None:
    async def probe() -> bool:
        return check()

    await eventually(probe, within=60)


async def test_many_share_few_connections_that_are_kept_between_calls(database_url: str) -> None:
    db = Database(database_url, pool_size=2)
    backends: set[int] = set()

    async def call(number: int) -> None:
        async with db.read() if number % 2 else db.transaction() as conn:
            if number % 3:
                await conn.execute(sa.text("SELECT 1"))
            backends.add(await driver(conn).fetchval("SELECT pg_backend_pid()"))
            await asyncio.sleep(0)

    try:
        for _ in range(3):
            await asyncio.gather(*map(call, range(20)))
    finally:
        await db.close()

    assert len(backends) == 2
