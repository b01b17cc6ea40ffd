"""What the ledger in PostgreSQL promises, under races, cut connections, kills, restarts and cancellations."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import asyncpg
import pytest
from headrace_connectors.api import (
    Connection,
    ConnectorError,
    Environment,
    ErrorClass,
    FencedOut,
    LoadKey,
    Receipt,
    Scratch,
    SinkSpec,
    SourceSpec,
    copy_through,
    open_sink,
    open_source,
)
from headrace_connectors.ledger import staging_name
from headrace_connectors.postgres.errors import from_server

Sql = Callable[..., Awaitable[list[tuple[Any, ...]]]]
KEY = LoadKey("run-1", "load")
MODES = [SinkSpec(table="target"), SinkSpec(table="target", mode="replace"), SinkSpec(table="fresh")]


@pytest.fixture
async def target(sql: Sql, scratch: Scratch) -> None:
    await sql("CREATE TABLE target (a integer); ")
    await scratch.execute("CREATE TABLE rows AS SELECT i::INTEGER AS a FROM range(1000) x(i)")


async def staged(
    spec: SinkSpec, connection: Connection, environment: Environment, scratch: Scratch, fence: int
) -> Any:
    sink = await open_sink(spec, connection, environment)
    assert await sink.claim(KEY, fence) is None
    await sink.stage(scratch, "rows")
    return sink


async def count(sql: Sql, table: str | None) -> int:
    return int((await sql(f"SELECT count(*) FROM {table}"))[0][0])


@pytest.mark.parametrize("spec", MODES, ids=["append", "replace", "create"])
async def test_an_attempt_overtaken_by_another_lands_nothing(
    spec: SinkSpec, target: None, database: Connection, environment: Environment, scratch: Scratch, sql: Sql
) -> None:
    paused = await staged(spec, database, environment, scratch, 1)
    other = await staged(spec, database, environment, scratch, 2)
    receipt = await other.commit(KEY, 2, b"here")
    assert await paused.commit(KEY, 1) == receipt  # its process was ended; the ledger tells what landed
    await other.close()
    await paused.close()
    assert await count(sql, spec.table) == 1000


async def test_a_claim_with_an_older_fence_is_refused(
    target: None, database: Connection, environment: Environment, sql: Sql
) -> None:
    first = await open_sink(MODES[0], database, environment)
    await first.claim(KEY, 5)
    second = await open_sink(MODES[0], database, environment)
    with pytest.raises(FencedOut) as caught:
        await second.claim(KEY, 4)
    assert caught.value.details["standing_fence"] == "5"
    assert await second.claim(KEY, 5) is None  # the same attempt asks again
    await first.close()
    await second.close()


@pytest.mark.parametrize("spec", MODES, ids=["append", "replace", "create"])
async def test_a_tombstone_is_final_until_a_newer_attempt(
    spec: SinkSpec, target: None, database: Connection, environment: Environment, scratch: Scratch, sql: Sql
) -> None:
    sink = await staged(spec, database, environment, scratch, 1)
    assert await sink.tombstone(KEY, 1) is None
    with pytest.raises(FencedOut):
        await sink.commit(KEY, 1)
    await sink.abandon()
    await sink.close()
    assert await sql("SELECT count(*) FROM pg_class WHERE starts_with(relname, '_stg_')") == [(0,)]
    retried = await staged(spec, database, environment, scratch, 2)
    assert (await retried.commit(KEY, 2)).rows == 1000
    assert (await retried.tombstone(KEY)) is not None
    await retried.close()
    assert await count(sql, spec.table) == 1000


async def test_a_tombstone_clears_away_what_a_dead_attempt_has_left(
    target: None, database: Connection, environment: Environment, scratch: Scratch, sql: Sql
) -> None:
    """Its process can end nothing by itself any more: neither its session nor its staging table."""
    named = replace(environment, application_name="headrace/dead")
    dead = await staged(MODES[1], database, named, scratch, 1)
    settling = await open_sink(MODES[1], database, environment)
    assert await settling.tombstone(KEY, 1) is None
    await settling.close()
    assert await running(sql, "headrace/dead") == 0
    assert await sql("SELECT count(*) FROM pg_class WHERE starts_with(relname, '_stg_')") == [(0,)]
    await dead.close()


async def test_what_a_lost_load_has_staged_is_cleared_away_by_the_next_one(
    target: None, database: Connection, environment: Environment, scratch: Scratch, sql: Sql
) -> None:
    """Nobody could reach the target when its run ended, and no attempt at that load comes after."""
    lost = await staged(MODES[1], database, environment, scratch, 1)
    await sql("SELECT pg_terminate_backend($1)", lost.session.backend.pid)
    await lost.close()
    key = LoadKey("run-2", "load")
    alive = await open_sink(MODES[1], database, environment)
    await alive.claim(key, 2)
    await alive.stage(scratch, "rows")

    third = await open_sink(MODES[2], database, environment)
    await third.claim(LoadKey("run-3", "load"), 3)

    left = await sql("SELECT relname FROM pg_class WHERE starts_with(relname, '_stg_') AND relkind = 'r'")
    assert left == [(staging_name(key, 2),)]
    await third.stage(scratch, "rows")
    await third.commit(LoadKey("run-3", "load"), 3)
    assert await sql("SELECT obj_description('fresh'::regclass, 'pg_class')") == [(None,)]
    assert (await alive.commit(key, 2)).rows == 1000
    await alive.close()
    await third.close()


async def test_a_tombstone_of_an_older_attempt_leaves_the_newer_one_alone(
    target: None, database: Connection, environment: Environment, scratch: Scratch, sql: Sql
) -> None:
    newer = await staged(MODES[1], database, environment, scratch, 2)
    settling = await open_sink(MODES[1], database, environment)
    assert await settling.tombstone(KEY, 1) is None
    await settling.close()
    assert (await newer.commit(KEY, 2)).rows == 1000
    await newer.close()


async def test_commit_and_tombstone_at_once_agree(
    target: None, database: Connection, environment: Environment, scratch: Scratch, sql: Sql
) -> None:
    for number in range(8):
        key = LoadKey("race", str(number))
        before = await count(sql, "target")
        sink = await open_sink(MODES[0], database, environment)
        canceller = await open_sink(MODES[0], database, environment)
        await sink.claim(key, 1)
        await sink.stage(scratch, "rows")
        commit, tombstone = await asyncio.gather(
            sink.commit(key, 1), canceller.tombstone(key, 1), return_exceptions=True
        )
        landed = isinstance(commit, Receipt)
        assert landed or isinstance(commit, FencedOut)
        assert isinstance(tombstone, Receipt) is landed
        await sink.close()
        await canceller.close()
        assert await count(sql, "target") == before + (1000 if landed else 0)


@contextlib.asynccontextmanager
async def proxy(port: int) -> AsyncIterator[tuple[int, dict[str, Any]]]:
    """A TCP proxy that can cut: ``rule["cut"]`` says of each message "before", "after" or None."""
    rule: dict[str, Any] = {"cut": lambda data: None, "tasks": set()}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, sender = await asyncio.open_connection("127.0.0.1", port)

        async def back() -> None:
            while data := await upstream.read(65536):
                if not rule.get("mute"):
                    writer.write(data)
            writer.close()

        answering = asyncio.ensure_future(back())
        rule["tasks"].add(answering)
        while data := await reader.read(65536):
            when = rule["cut"](data)
            if when == "after":
                rule["mute"] = True
                sender.write(data)
                await sender.drain()
                await rule["landed"]()
            if when:
                writer.transport.abort()
                break
            sender.write(data)
        rule["mute"] = False
        sender.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield listening.sockets[0].getsockname()[1], rule
    listening.close()


@pytest.mark.parametrize("spec", MODES, ids=["append", "replace", "create"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_connection_cut_at_commit_is_settled_by_the_receipt(
    when: str,
    spec: SinkSpec,
    target: None,
    database: Connection,
    environment: Environment,
    scratch: Scratch,
    sql: Sql,
) -> None:
    async with proxy(database.port or 0) as (port, rule):
        through = replace(database, port=port)
        sink = await staged(spec, through, environment, scratch, 1)

        async def landed() -> None:
            while not await sql("SELECT 1 FROM headrace._headrace_loads WHERE committed_at IS NOT NULL"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)

        rule["landed"] = landed
        seen: list[bytes] = []

        def cut(data: bytes) -> str | None:
            if b"COMMIT" in data and not seen:
                seen.append(data)
                return when
            return None

        rule["cut"] = cut
        if when == "after":
            receipt = await sink.commit(KEY, 1, b"cursor")
            assert (receipt.rows, receipt.cursor) == (1000, b"cursor")
        else:
            with pytest.raises(ConnectorError) as caught:
                await sink.commit(KEY, 1)
            assert (caught.value.code, caught.value.error_class) == ("CONNECTION_LOST", ErrorClass.TRANSIENT)
            again = await staged(spec, database, environment, scratch, 2)
            assert (await again.commit(KEY, 2)).rows == 1000
            await again.close()
        await sink.close()
        assert seen
    assert await count(sql, spec.table) == 1000


CHILD = """
    import asyncio, sys
    from pathlib import Path
    from headrace_connectors.api import *

    async def main(port, name, point, mode, temp):
        environment = Environment(Path(temp), AddressGuard(allow_loopback=True))
        secret = Secret(sys.stdin.readline().strip())
        connection = Connection("c", "w", "postgresql", "127.0.0.1", port, name, "postgres", secret)
        async with await Scratch.open(environment) as scratch:
            await scratch.execute("CREATE TABLE rows AS SELECT i::INTEGER AS a FROM range(1000) x(i)")
            sink = await open_sink(SinkSpec(table="target", mode=mode), connection, environment)
            key = LoadKey("run-1", "load")
            async def here(name):
                if name == point:
                    print(name, flush=True)
                    await asyncio.sleep(600)
            await here("opened")
            await sink.claim(key, 1)
            await here("claimed")
            await sink.stage(scratch, "rows")
            await here("staged")
            await sink.commit(key, 1)
            await here("committed")

    asyncio.run(main(int(sys.argv[1]), *sys.argv[2:]))
"""


@pytest.mark.parametrize("mode", ["append", "replace"])
@pytest.mark.parametrize("point", ["opened", "claimed", "staged", "committed"])
async def test_killed_anywhere_the_load_lands_once(
    point: str,
    mode: Any,
    target: None,
    database: Connection,
    environment: Environment,
    scratch: Scratch,
    sql: Sql,
) -> None:
    arguments = (str(database.port), database.database or "", point, mode, str(environment.temp_dir))
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(CHILD), *arguments, stdin=pipe, stdout=pipe
    )
    assert child.stdin is not None
    assert child.stdout is not None
    assert database.password is not None
    child.stdin.write((database.password.reveal() + "\n").encode())
    async with asyncio.timeout(30):
        assert (await child.stdout.readline()).decode().strip() == point
    os.kill(child.pid, signal.SIGKILL)
    await child.wait()
    sink = await open_sink(SinkSpec(table="target", mode=mode), database, environment)
    found = await sink.claim(KEY, 2)
    assert (found is not None) is (point == "committed")
    if found is None:
        await sink.stage(scratch, "rows")
        await sink.commit(KEY, 2)
    await sink.close()
    assert await count(sql, "target") == 1000
    assert await sql("SELECT count(*) FROM pg_class WHERE starts_with(relname, '_stg_')") == [(0,)]


async def test_a_crash_of_the_server_loses_staging_but_never_loads_less(
    target: None, database: Connection, environment: Environment, scratch: Scratch, sql: Sql, server: Any
) -> None:
    sink = await staged(MODES[1], database, environment, scratch, 1)
    await asyncio.to_thread(server.restart, "immediate")
    with pytest.raises(ConnectorError) as caught:
        await sink.commit(KEY, 1)
    assert caught.value.error_class is ErrorClass.TRANSIENT
    await sink.close()
    retried = await staged(MODES[1], database, environment, scratch, 2)
    assert (await retried.commit(KEY, 2)).rows == 1000
    check = await open_sink(MODES[1], database, environment)
    assert (await check.receipt(KEY)) is not None
    await retried.close()
    await check.close()


async def running(sql: Sql, name: str) -> int:
    await sql("SELECT pg_stat_clear_snapshot()")  # inside a transaction, what was seen once is kept
    rows = await sql("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE $1", f"{name}%")
    return int(rows[0][0])


async def cancelled_once_running(work: Awaitable[Any], sql: Sql, name: str) -> None:
    task = asyncio.ensure_future(work)
    async with asyncio.timeout(20):
        while not await sql(  # noqa: ASYNC110
            "SELECT 1 FROM pg_stat_activity "
            "WHERE application_name LIKE $1 AND state = 'active' AND query ~ 'pg_sleep|COPY'",
            f"{name}%",
        ):
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancelled_read_is_gone_at_the_server(
    database: Connection, environment: Environment, scratch: Scratch, sql: Sql
) -> None:
    named = replace(environment, application_name="headrace/read")
    query = "SELECT i, pg_sleep(0.001)::text AS s FROM generate_series(1, 1000000) i"
    source = await open_source(SourceSpec(query=query), database, named)
    await cancelled_once_running(source.load(scratch, "rows"), sql, "headrace/read")
    assert await running(sql, "headrace/read") == 0
    await source.close()


async def test_a_cancelled_copy_through_is_gone_at_both_ends(
    target: None, database: Connection, environment: Environment, sql: Sql
) -> None:
    named = replace(environment, application_name="headrace/copy")
    query = "SELECT i::integer AS a FROM generate_series(1, 100000000) i WHERE pg_sleep(0.0001) IS NOT NULL"
    source = await open_source(SourceSpec(query=query), database, named)
    sink = await open_sink(MODES[0], database, named)
    await sink.claim(KEY, 1)
    await cancelled_once_running(copy_through(source, sink), sql, "headrace/copy")
    await source.close()
    await sink.close()
    assert await running(sql, "headrace/copy") == 0
    assert await count(sql, "target") == 0


@pytest.mark.parametrize("spec", MODES, ids=["append", "replace", "create"])
async def test_a_cancelled_stage_leaves_the_target_and_no_query(
    spec: SinkSpec, target: None, database: Connection, environment: Environment, scratch: Scratch, sql: Sql
) -> None:
    named = replace(environment, application_name="headrace/stage")
    await scratch.execute("CREATE TABLE many AS SELECT i::INTEGER AS a FROM range(3000000) x(i)")
    sink = await open_sink(spec, database, named)
    await sink.claim(KEY, 1)
    await cancelled_once_running(sink.stage(scratch, "many"), sql, "headrace/stage")
    assert await running(sql, "headrace/stage") == 0
    await sink.abandon()
    await sink.close()
    assert await count(sql, "target") == 0


async def test_a_cancelled_commit_is_undone_when_it_waits(
    target: None, database: Connection, environment: Environment, scratch: Scratch, sql: Sql
) -> None:
    named = replace(environment, application_name="headrace/commit")
    sink = await staged(MODES[1], database, named, scratch, 1)
    await sql("BEGIN; LOCK TABLE target IN ACCESS EXCLUSIVE MODE;")
    task = asyncio.ensure_future(sink.commit(KEY, 1))
    async with asyncio.timeout(10):
        while not await sql(  # noqa: ASYNC110
            "SELECT 1 FROM pg_stat_activity "
            "WHERE application_name LIKE 'headrace/commit%' AND wait_event_type = 'Lock'"
        ):
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await running(sql, "headrace/commit") == 0
    await sql("ROLLBACK;")
    assert await sink.tombstone(KEY, 1) is None
    await sink.close()
    assert await count(sql, "target") == 0


async def test_a_lock_held_by_others_is_a_timeout_not_a_hang(
    target: None, database: Connection, environment: Environment, scratch: Scratch, sql: Sql
) -> None:
    sink = await staged(MODES[1], database, replace(environment, lock_timeout=0.2), scratch, 1)
    await sql("BEGIN; LOCK TABLE target IN ACCESS EXCLUSIVE MODE;")
    with pytest.raises(ConnectorError) as caught:
        await sink.commit(KEY, 1)
    assert (caught.value.code, caught.value.error_class) == ("LOCK_TIMEOUT", ErrorClass.TRANSIENT)
    await sql("ROLLBACK;")
    assert (await sink.commit(KEY, 1)).rows == 1000
    await sink.close()


async def test_a_source_that_dies_while_read_is_transient(
    database: Connection, environment: Environment, scratch: Scratch, sql: Sql
) -> None:
    named = replace(environment, application_name="headrace/dying")
    query = "SELECT i, pg_sleep(0.001)::text AS s FROM generate_series(1, 1000000) i"
    source = await open_source(SourceSpec(query=query), database, named)
    task = asyncio.ensure_future(source.load(scratch, "rows"))
    async with asyncio.timeout(10):
        while not await sql(  # noqa: ASYNC110
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name LIKE 'headrace/dying%' AND query LIKE 'COPY%'"
        ):
            await asyncio.sleep(0.01)
    with pytest.raises(ConnectorError) as caught:
        await task
    assert caught.value.error_class is ErrorClass.TRANSIENT
    await source.close()


async def test_two_loads_make_the_ledger_at_once(
    target: None, database: Connection, environment: Environment, sql: Sql
) -> None:
    sinks = await asyncio.gather(*(open_sink(MODES[0], database, environment) for _ in range(6)))
    claims = await asyncio.gather(*(sink.claim(LoadKey("r", str(i)), 1) for i, sink in enumerate(sinks)))
    assert claims == [None] * 6
    for sink in sinks:
        await sink.close()
    assert await count(sql, "headrace._headrace_loads") == 6


async def test_a_ledger_that_is_not_permitted_says_what_to_do(
    target: None, database: Connection, environment: Environment, sql: Sql
) -> None:
    role = f"guest_{database.database}"
    assert database.password is not None
    await sql(
        f"CREATE ROLE {role} LOGIN PASSWORD '{database.password.reveal()}'; GRANT ALL ON target TO {role};"
    )
    guest = replace(database, username=role)
    with pytest.raises(ConnectorError, match="CREATE SCHEMA") as caught:
        await open_sink(MODES[0], guest, environment)
    assert caught.value.code == "LEDGER_NOT_PERMITTED"
    await sql(f"CREATE SCHEMA loads AUTHORIZATION {role};")
    sink = await open_sink(MODES[0], replace(guest, options={"ledger_schema": "loads"}), environment)
    assert await sink.claim(KEY, 1) is None
    await sink.close()
    await sql(f"DROP OWNED BY {role}; DROP ROLE {role};")


async def test_a_full_scratch_disk_is_a_quota_and_nothing_lands(
    target: None, database: Connection, environment: Environment, sql: Sql
) -> None:
    program = """
        import asyncio, resource, sys
        from pathlib import Path
        from headrace_connectors.api import *

        async def main(temp):
            environment = Environment(Path(temp) / "t", AddressGuard(), (Path(temp),))
            async with await Scratch.open(environment) as scratch:
                await scratch.execute(
                    "CREATE TABLE rows AS SELECT i AS a, md5(i::VARCHAR) AS b FROM range(200000) x(i)"
                )
                base = Connection("c", "w", "sqlite", path=temp + "/base.sqlite")
                for spec, connection in (
                    (SinkSpec(path="out.csv", mode="replace"), None),
                    (SinkSpec(path="out.parquet", mode="replace"), None),
                    (SinkSpec(path="out.json", mode="replace"), None),
                    (SinkSpec(table="t"), base),
                ):
                    sink = await open_sink(spec, connection, environment)
                    await sink.claim(LoadKey("r", str(spec)), 1)
                    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
                    try:
                        await sink.stage(scratch, "rows")
                    except ConnectorError as error:
                        print(error.code, error.error_class.value)
                    else:
                        print("landed")
                    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
                    await sink.abandon()
                    await sink.close()
            print(sorted(path.name for path in Path(temp).iterdir() if path.name.startswith("out")))

        asyncio.run(main(sys.argv[1]))
    """
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        textwrap.dedent(program),
        str(environment.file_roots[0]),
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        told = (await child.communicate())[0].decode().splitlines()
    assert told == ["DISK_FULL QUOTA"] * 3 + ["TARGET_DISK_FULL QUOTA", "[]"]


@pytest.mark.parametrize(
    "lost",
    [
        asyncpg.InternalClientError("got result for unknown protocol state 0"),
        asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
        asyncpg.InterfaceError("connection is closed"),
        RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed"),
        ConnectionResetError(104, "Connection reset by peer"),
    ],
    ids=lambda lost: type(lost).__name__,
)
def test_a_connection_that_breaks_off_is_a_transient_failure_however_the_driver_tells_it(
    lost: Exception,
) -> None:
    assert from_server(lost, "reading").error_class is ErrorClass.TRANSIENT


def test_a_defect_is_not_taken_for_a_broken_connection() -> None:
    with pytest.raises(RuntimeError, match="a defect"):
        from_server(RuntimeError("a defect"), "reading")
