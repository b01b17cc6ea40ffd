"""Incremental reads of PostgreSQL: nothing that is committed late is lost, and nothing comes twice where it
must not."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any, Literal

import asyncpg
import pytest
from headrace_connectors.api import (
    Connection,
    ConnectorError,
    Environment,
    Incremental,
    Scratch,
    Secret,
    SourceResult,
    SourceSpec,
    Split,
    open_source,
)
from headrace_connectors.cursors import Cursor
from headrace_connectors.postgres.increments import Increment
from headrace_connectors.postgres.source import PostgresSource

Sql = Callable[..., Awaitable[list[tuple[Any, ...]]]]
Mode = Literal["again", "once"]
"""Whether rows may come again (their sinks merge them), or must not (their sinks append)."""


class Reader:
    """Reads one relation again and again, each time from where it came to."""

    def __init__(self, database: Connection, environment: Environment, scratch: Scratch) -> None:
        self._database, self._environment, self._scratch = database, environment, scratch
        self.cursor: bytes | None = None

    async def read(self, spec: SourceSpec | None = None, **options: Any) -> list[int]:
        """The ids of the rows of a reading, in order."""
        return (await self.result(spec, **options))[0]

    async def result(
        self, spec: SourceSpec | None = None, mode: Mode = "once", on: str = "at", **options: Any
    ) -> tuple[list[int], SourceResult]:
        """The ids of a reading, and what it says of itself."""
        given = spec or SourceSpec(table="t")
        incremental = Incremental(on, self.cursor, repeats=mode == "again", **options)
        spec = replace(given, incremental=incremental)
        source = await open_source(spec, self._database, self._environment)
        try:
            result = await source.load(self._scratch, "rows")
        finally:
            await source.close()
        self.cursor = result.cursor
        rows = await self._scratch.fetch("SELECT id FROM rows ORDER BY id")
        return [int(str(row[0])) for row in rows], result

    @property
    def value(self) -> str:
        """How far it has come."""
        assert self.cursor is not None
        return Cursor.decode(self.cursor).value


@pytest.fixture
def reader(database: Connection, environment: Environment, scratch: Scratch) -> Reader:
    return Reader(database, environment, scratch)


@pytest.fixture
async def writer(database: Connection) -> AsyncIterator[asyncpg.Connection]:
    """A connection whose transactions stay open for as long as a test wants."""
    async with writing(database) as raw:
        yield raw


@contextlib.asynccontextmanager
async def writing(database: Connection) -> AsyncIterator[asyncpg.Connection]:
    raw = await asyncpg.connect(
        host=database.host,
        port=database.port,
        user=database.username,
        password=database.password.reveal() if database.password else "",
        database=database.database,
    )
    try:
        yield raw
    finally:
        await raw.close()


TABLE = "CREATE TABLE t (id bigint PRIMARY KEY, at timestamptz NOT NULL); CREATE INDEX ON t (at);"


@pytest.mark.parametrize("mode", ["again", "once"])
@pytest.mark.parametrize("work", ["", "SAVEPOINT s;"], ids=["plain", "in a subtransaction"])
async def test_a_row_that_is_committed_late_is_read(
    reader: Reader, sql: Sql, writer: asyncpg.Connection, mode: Mode, work: str
) -> None:
    await sql(TABLE + "INSERT INTO t VALUES (1, '2024-01-01Z');")
    await writer.execute(f"BEGIN; SELECT txid_current(); {work} INSERT INTO t VALUES (2, '2024-01-02Z')")
    await sql("INSERT INTO t VALUES (3, '2024-01-03Z');")
    first = await reader.read(mode=mode)
    await writer.execute("COMMIT")

    second = await reader.read(mode=mode)
    third = await reader.read(mode=mode)

    if mode == "once":
        assert sorted(first + second) == [1, 2, 3]
        assert third == []
    else:
        assert (first, set(second) >= {2, 3}) == ([1, 3], True)


@pytest.mark.parametrize("mode", ["again", "once"])
async def test_a_value_given_out_before_its_transaction_wrote_anything_is_read(
    reader: Reader, sql: Sql, writer: asyncpg.Connection, mode: Mode
) -> None:
    await sql(TABLE)
    await writer.execute("BEGIN; SELECT now()")  # its rows will bear this time, which is before all others
    await sql("INSERT INTO t VALUES (1, clock_timestamp());")
    await reader.read(mode=mode)
    await sql("INSERT INTO t VALUES (2, clock_timestamp());")
    await reader.read(mode=mode)
    await writer.execute("INSERT INTO t VALUES (3, now()); COMMIT")

    assert 3 in await reader.read(mode=mode)
    await reader.read(mode=mode)
    assert 3 not in await reader.read(mode=mode)  # the floor has moved on


@pytest.mark.parametrize("mode", ["again", "once"])
async def test_a_row_with_the_value_that_was_reached_is_read(reader: Reader, sql: Sql, mode: Mode) -> None:
    await sql("CREATE TABLE t (id bigint, at date NOT NULL); INSERT INTO t VALUES (1, '2024-01-01');")
    await reader.read(mode=mode)
    await reader.read(mode=mode)
    await sql("INSERT INTO t VALUES (2, '2024-01-01');")

    assert await reader.read(mode=mode) == ([1, 2] if mode == "again" else [2])


async def test_what_is_committed_between_the_note_and_the_snapshot_is_not_lost(
    database: Connection, environment: Environment, sql: Sql, writer: asyncpg.Connection
) -> None:
    await sql(TABLE + "INSERT INTO t VALUES (1, '2024-01-01Z');")
    await writer.execute("BEGIN; INSERT INTO t VALUES (2, '2024-01-02Z')")
    spec = SourceSpec(table="t", incremental=Incremental("at", repeats=True))
    source = await PostgresSource.open(spec, database, environment)
    increment = Increment.of(spec, source.natives, '"t"')
    assert increment is not None
    noted = await increment.note(source.session)
    await writer.execute("COMMIT")
    async with source.session.transaction("read") as raw:
        bounds = await increment.bounds(raw, noted)
    await source.close()

    assert bounds.cursor is not None
    cursor = Cursor.decode(bounds.cursor)
    assert (bounds.condition, cursor.value[:10]) == ("", "2024-01-01")
    assert cursor.pending is not None
    assert len(cursor.pending.running) == 1


async def test_rows_of_transactions_newer_than_one_that_runs_wait_where_they_must_not_come_twice(
    reader: Reader, sql: Sql, writer: asyncpg.Connection
) -> None:
    await sql(TABLE + "CREATE TABLE other (id int); INSERT INTO t VALUES (1, '2024-01-01Z');")
    await writer.execute("BEGIN; INSERT INTO other VALUES (1)")
    await sql("INSERT INTO t VALUES (2, '2024-01-02Z');")
    assert await reader.read() == [1]
    await sql("INSERT INTO t VALUES (3, '2024-01-03Z');")
    assert await reader.read() == []
    await writer.execute("COMMIT")

    assert await reader.read() == [2, 3]
    assert await reader.read() == []


@pytest.mark.parametrize("split", [None, Split("id", 2)])
async def test_a_cursor_moves_on_and_never_back(reader: Reader, sql: Sql, split: Split | None) -> None:
    spec = SourceSpec(table="t", split=split)
    await sql(TABLE + "INSERT INTO t SELECT i, '2024-01-01Z'::timestamptz + i * interval '1d' FROM "
              "generate_series(1, 9) AS i;")  # fmt: skip
    assert await reader.read(spec) == list(range(1, 10))
    reached = reader.value
    await sql("DELETE FROM t WHERE id > 5;")
    assert (await reader.read(spec), reader.value) == ([], reached)
    await sql("DELETE FROM t;")
    assert (await reader.read(spec), reader.value) == ([], reached)
    assert Cursor.decode(reader.cursor or b"").before == reached


async def test_what_lies_below_the_floor_takes_a_lag(reader: Reader, sql: Sql) -> None:
    """Values that are not given out in order: a clock that goes wrong, a sequence that hands out blocks."""
    await sql("CREATE TABLE t (id bigint PRIMARY KEY, at int NOT NULL); INSERT INTO t VALUES (100, 100);")
    await reader.read()
    await reader.read()
    await sql("INSERT INTO t VALUES (90, 90), (70, 70), (101, 101);")

    assert await reader.read(lag=20) == [90, 101]


async def test_rows_without_a_cursor_value_have_a_rule(reader: Reader, sql: Sql) -> None:
    await sql("CREATE TABLE t (id bigint, at date); INSERT INTO t VALUES (1, NULL);")
    rows, result = await reader.result()
    assert (rows, result.cursor, "NULL" in result.warnings[0]) == ([], None, True)
    await sql("INSERT INTO t VALUES (2, '2024-01-01');")
    rows, result = await reader.result()
    assert (rows, result.warnings) == ([1, 2], ())
    await sql("INSERT INTO t VALUES (3, NULL);")
    rows, result = await reader.result()
    assert (rows, len(result.warnings)) == ([], 1)


@pytest.mark.parametrize(
    ("kind", "value"), [("timestamptz", "infinity"), ("double precision", "NaN"), ("date", "infinity")]
)
async def test_a_value_that_nothing_can_exceed_is_refused(
    reader: Reader, sql: Sql, kind: str, value: str
) -> None:
    await sql(f"CREATE TABLE t (id bigint, at {kind}); INSERT INTO t VALUES (1, '{value}');")
    with pytest.raises(ConnectorError, match="nothing new can lie") as caught:
        await reader.read()
    assert caught.value.code == "CURSOR_UNBOUNDED"


@pytest.mark.parametrize("mode", ["again", "once"])
async def test_the_first_run_begins_with_the_initial_value(reader: Reader, sql: Sql, mode: Mode) -> None:
    await sql("CREATE TABLE t (id bigint, at int); INSERT INTO t VALUES (1, 1), (2, 2), (3, 3);")
    assert await reader.read(mode=mode, initial="2") == [2, 3]
    assert Cursor.decode(reader.cursor or b"").before == "2"


@pytest.mark.parametrize("mode", ["again", "once"])
async def test_nothing_below_the_initial_value_is_read_by_later_runs_either(
    reader: Reader, sql: Sql, writer: asyncpg.Connection, mode: Mode
) -> None:
    await sql("CREATE TABLE t (id bigint, at int); INSERT INTO t VALUES (1, 1);")
    assert await reader.read(mode=mode, initial="9") == []
    assert reader.cursor is None
    await writer.execute("BEGIN; SELECT txid_current()")
    await sql("INSERT INTO t VALUES (5, 5), (9, 9);")
    seen = await reader.read(
        mode=mode, initial="9"
    )  # what stands above the open transaction is left for later
    await writer.execute("COMMIT")

    assert {*seen, *await reader.read(mode=mode, initial="9")} == {9}


@pytest.mark.parametrize(
    ("kind", "options", "code", "words"),
    [
        ("uuid", {}, "CURSOR_UNORDERED", "of type uuid"),
        ("text", {"lag": 5}, "LAG_NOT_SUPPORTED", "from text"),
        ("date", {"initial": "abc"}, "CURSOR_INVALID", "initial is no date"),
        ("smallint", {"initial": "99999"}, "CURSOR_INVALID", "initial is no smallint"),
    ],
)
async def test_what_cannot_be_gone_on_from_is_said(
    reader: Reader, sql: Sql, kind: str, options: dict[str, Any], code: str, words: str
) -> None:
    await sql(f"CREATE TABLE t (id bigint, at {kind}); INSERT INTO t VALUES (1, NULL);")
    with pytest.raises(ConnectorError, match=words) as caught:
        await reader.read(**options)
    assert caught.value.code == code


async def test_a_column_that_has_got_another_type_asks_for_a_full_refresh(reader: Reader, sql: Sql) -> None:
    await sql("CREATE TABLE t (id bigint, at int); INSERT INTO t VALUES (1, 1);")
    await reader.read()
    await sql("ALTER TABLE t ALTER at TYPE date USING '2024-01-01';")
    with pytest.raises(ConnectorError, match=r"no date.*; run a full refresh"):
        await reader.read()


async def test_of_a_query_only_what_lies_above_comes_where_rows_must_not_come_twice(
    reader: Reader, sql: Sql
) -> None:
    spec = SourceSpec(query="SELECT id, at FROM t")
    await sql("CREATE TABLE t (id bigint, at int); INSERT INTO t VALUES (1, 1), (2, 2);")
    assert await reader.read(spec) == [1, 2]
    await sql("INSERT INTO t VALUES (3, 2), (4, 3);")
    assert await reader.read(spec) == [4]
    rows, result = await reader.result(spec, lag=0)
    assert (rows, len(result.warnings)) == ([4], 1)
    assert "loaded again" in result.warnings[0]
    assert await reader.read(spec, mode="again") == [4]


async def test_who_may_read_some_columns_only_reads_what_lies_above(
    database: Connection, environment: Environment, scratch: Scratch, sql: Sql
) -> None:
    await sql(
        "CREATE TABLE t (id bigint, at int, secret text); INSERT INTO t VALUES (1, 1);"
        f"CREATE ROLE {database.database} LOGIN PASSWORD 'p';"
        f"GRANT SELECT (id, at) ON t TO {database.database};"
    )
    narrow = replace(database, username=database.database, password=Secret("p"))
    reader = Reader(narrow, environment, scratch)
    assert await reader.read(SourceSpec(table="t", columns=("id", "at"))) == [1]
    await sql("INSERT INTO t VALUES (2, 1), (3, 2);")
    assert await reader.read(SourceSpec(table="t", columns=("id", "at"))) == [3]


async def test_a_cursor_of_an_earlier_release_is_gone_on_from(reader: Reader, sql: Sql) -> None:
    await sql("CREATE TABLE t (id bigint, at int); INSERT INTO t VALUES (1, 1), (2, 2), (3, 3);")
    reader.cursor = b'{"column": "at", "snapshot": "1:1:", "value": "2"}'
    assert await reader.read() == [3]
    reader.cursor = b'{"column": "at", "value": "2"}'
    assert await reader.read(mode="again") == [2, 3]
    reader.cursor = b'{"column": "at"}'
    with pytest.raises(ConnectorError, match="cannot be read"):
        await reader.read()


@pytest.mark.parametrize("mode", ["again", "once"])
@pytest.mark.parametrize("readings", [25, pytest.param(200, marks=pytest.mark.long)])
async def test_writers_that_commit_out_of_order_lose_nothing(
    reader: Reader, sql: Sql, database: Connection, mode: Mode, readings: int
) -> None:
    await sql(TABLE + "CREATE SEQUENCE numbers;")
    chance = random.Random(readings)
    done = asyncio.Event()
    read: list[int] = []

    async def write() -> None:
        async with writing(database) as raw:
            while not done.is_set():
                await raw.execute("BEGIN")  # now() is the time of this
                for _ in range(chance.randrange(1, 4)):
                    await asyncio.sleep(chance.random() * 0.01)
                    nested = chance.random() < 0.3
                    await raw.execute("SAVEPOINT s" if nested else "SELECT 1")
                    await raw.execute(
                        "INSERT INTO t VALUES (nextval('numbers'), date_trunc('second', now()))"
                    )
                await asyncio.sleep(chance.random() * 0.03)
                await raw.execute("COMMIT" if chance.random() < 0.9 else "ROLLBACK")

    writers = [asyncio.create_task(write()) for _ in range(6)]
    try:
        for _ in range(readings):
            read += await reader.read(mode=mode)
    finally:
        done.set()
        await asyncio.gather(*writers)
    read += await reader.read(mode=mode)

    there = [row[0] for row in await sql("SELECT id FROM t ORDER BY id")]
    assert len(there) > readings
    assert (sorted(read) if mode == "once" else sorted(set(read))) == there
