"""Rows whose columns are not those of the table: added, left out or refused, in each system and mode."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal, cast

import pytest
from headrace_connectors.api import (
    Connection,
    ConnectorError,
    Environment,
    ErrorClass,
    LoadKey,
    PartitionRange,
    Scratch,
    Sink,
    SinkSpec,
    SourceSpec,
    open_sink,
    open_source,
)
from headrace_connectors.model import MissingColumns, SchemaDrift, SinkMode

Sql = Callable[..., Awaitable[list[tuple[Any, ...]]]]
Kind = Literal["postgresql", "sqlite", "duckdb"]
KINDS: list[Kind] = ["postgresql", "sqlite", "duckdb"]
MODES: list[SinkMode] = ["append", "replace", "merge", "replace_partition"]


@pytest.fixture(params=KINDS)
def target(request: pytest.FixtureRequest, root: Path) -> Connection:
    """An empty database of each system."""
    if request.param == "postgresql":
        return cast("Connection", request.getfixturevalue("database"))
    return Connection("f", "file base", request.param, path=str(root / f"base.{request.param}"))


class Bench:
    """Loads SELECTs into table t of a database, each as a run of its own."""

    def __init__(self, target: Connection, environment: Environment, scratch: Scratch) -> None:
        self.target, self.environment, self.scratch = target, environment, scratch
        self.loads = 0

    async def staged(self, select: str, spec: SinkSpec) -> tuple[Sink, LoadKey]:
        self.loads += 1
        key, relation = LoadKey(f"run-{self.loads}", "load"), f"rows{self.loads}"
        await self.scratch.execute(f"CREATE TABLE {relation} AS {select}")
        sink = await open_sink(spec, self.target, self.environment)
        await sink.claim(key, 1)
        await sink.stage(self.scratch, relation)
        return sink, key

    async def load(
        self,
        select: str,
        mode: SinkMode = "append",
        drift: SchemaDrift = "fail",
        missing: MissingColumns = "allow",
    ) -> None:
        partition = PartitionRange("id", 1, 100) if mode == "replace_partition" else None
        keys = ("id",) if mode == "merge" else ()
        spec = SinkSpec(
            table="t", mode=mode, keys=keys, partition=partition, schema_drift=drift, missing_columns=missing
        )
        sink, key = await self.staged(select, spec)
        await sink.commit(key, 1)
        await sink.close()

    async def refusal(self, select: str, **how: Any) -> ConnectorError:
        with pytest.raises(ConnectorError) as caught:
            await self.load(select, **how)
        return caught.value

    async def rows(self) -> tuple[list[str], set[tuple[object, ...]]]:
        source = await open_source(SourceSpec(table="t"), self.target, self.environment)
        await source.load(self.scratch, "seen")
        names = [column.name for column in await source.columns()]
        await source.close()
        return names, set(await self.scratch.fetch("SELECT * FROM seen"))


@pytest.fixture
def bench(target: Connection, environment: Environment, scratch: Scratch) -> Bench:
    return Bench(target, environment, scratch)


@pytest.mark.parametrize("mode", MODES)
async def test_evolve_adds_a_column_with_the_load_and_ignore_leaves_it_out(
    bench: Bench, mode: SinkMode
) -> None:
    await bench.load("SELECT 1::BIGINT AS id, 'a' AS v UNION ALL SELECT 2, 'b'")
    await bench.load("SELECT 2::BIGINT AS id, 'c' AS v, 1.5::DECIMAL(4,2) AS price", mode, "ignore")
    columns, _ = await bench.rows()
    assert columns == ["id", "v"]

    await bench.load("SELECT 3::BIGINT AS id, 'd' AS v, DATE '2024-02-29' AS day", mode, "evolve")

    columns, rows = await bench.rows()
    assert columns == ["id", "v", "day"]
    assert {row[0] for row in rows} == ({3} if mode in ("replace", "replace_partition") else {1, 2, 3})
    assert [str(row[2]) for row in rows if row[2] is not None] == ["2024-02-29"]


async def test_an_added_column_may_be_null_and_does_not_stay_without_its_load(bench: Bench) -> None:
    await bench.load("SELECT 1::BIGINT AS id")
    spec = SinkSpec(table="t", schema_drift="evolve")
    sink, key = await bench.staged("SELECT 2::BIGINT AS id, 'x' AS late", spec)
    await sink.tombstone(key, 1)
    with pytest.raises(ConnectorError, match="may not write"):
        await sink.commit(key, 1)
    await sink.close()

    assert await bench.rows() == (["id"], {(1,)})


REFUSED: list[tuple[str, dict[str, str], str, str]] = [
    ("SELECT 1::BIGINT AS id, 'a' AS v, 1 AS w", {}, "COLUMN_NOT_IN_TARGET", "w"),
    ("SELECT 1::BIGINT AS id", {"missing": "fail"}, "COLUMN_MISSING", "v"),
    ("SELECT 1::BIGINT AS id, 'a' AS V", {"drift": "ignore"}, "COLUMN_NAME_DIFFERS", "V"),
    ("SELECT 1::BIGINT AS id, 'a' AS V", {"drift": "evolve"}, "COLUMN_NAME_DIFFERS", "V"),
    ("SELECT DATE '2024-01-01' AS id, 'a' AS v", {}, "TYPE_MISMATCH", "id"),
    ("SELECT 'one' AS id, 'a' AS v", {"drift": "evolve"}, "VALUE_DOES_NOT_FIT", "id"),
]


async def test_what_does_not_meet_the_table_is_named(bench: Bench) -> None:
    await bench.load("SELECT 7::BIGINT AS id, 'z' AS v")
    for select, how, code, column in REFUSED:
        error = await bench.refusal(select, **how)
        assert (error.code, error.details["column"]) == (code, column)
        assert error.error_class in (ErrorClass.CONFIGURATION, ErrorClass.DATA)
        assert column in error.message
    assert await bench.rows() == (["id", "v"], {(7, "z")})


async def test_a_column_that_the_rows_lack_is_null_and_a_merge_keeps_it(bench: Bench) -> None:
    await bench.load("SELECT 1::BIGINT AS id, 'a' AS v", "merge")
    await bench.load("SELECT 1::BIGINT AS id UNION ALL SELECT 2", "merge")
    assert (await bench.rows())[1] == {(1, "a"), (2, None)}


async def test_columns_that_the_system_fills_are_not_missed(
    database: Connection, environment: Environment, scratch: Scratch, sql: Sql
) -> None:
    await sql(
        "CREATE TABLE t (id bigint, at timestamptz DEFAULT now(), n bigint GENERATED ALWAYS AS IDENTITY);"
    )
    await Bench(database, environment, scratch).load("SELECT 1::BIGINT AS id", missing="fail")
    assert await sql("SELECT id, n, at IS NOT NULL FROM t") == [(1, 1, True)]


async def test_two_loads_that_add_the_same_column_agree_on_its_type(
    database: Connection, environment: Environment, scratch: Scratch, sql: Sql
) -> None:
    bench = Bench(database, environment, scratch)
    await bench.load("SELECT 1::BIGINT AS id")
    spec = SinkSpec(table="t", schema_drift="evolve")
    first = await bench.staged("SELECT 2::BIGINT AS id, 1.5::DECIMAL(4,2) AS price", spec)
    same = await bench.staged("SELECT 3::BIGINT AS id, 2.5::DECIMAL(4,2) AS price", spec)
    other = await bench.staged("SELECT 4::BIGINT AS id, 3::INTEGER AS price", spec)

    async def commit(sink: Sink, key: LoadKey) -> str:
        try:
            await sink.commit(key, 1)
            return "landed"
        except ConnectorError as error:
            return f"{error.error_class.value} {error.code}"
        finally:
            await sink.abandon()
            await sink.close()

    assert await commit(*first) == "landed"
    ends = await asyncio.gather(commit(*same), commit(*other))
    assert list(ends) == ["landed", "TRANSIENT TARGET_CHANGED"]
    assert await sql("SELECT id, price::text FROM t ORDER BY id") == [(1, None), (2, "1.50"), (3, "2.50")]


@pytest.mark.parametrize(
    ("select", "told"),
    [
        ("SELECT 1::BIGINT AS id", "has no column v, and part-1.parquet has v string"),
        ("SELECT 1::BIGINT AS id, 'a' AS v, 1 AS w", "has w int32, and part-1.parquet has no column w"),
        ("SELECT 1::INTEGER AS id, 'a' AS v", "has id int32, and part-1.parquet has id int64"),
        ("SELECT 'a' AS v, 1::BIGINT AS id", "in another order than part-1.parquet: v, id"),
    ],
)
async def test_parts_of_a_folder_that_do_not_agree_are_told_apart(
    root: Path, environment: Environment, scratch: Scratch, select: str, told: str
) -> None:
    for number, rows in enumerate(("SELECT 1::BIGINT AS id, 'a' AS v", select), 1):
        await scratch.execute(f"CREATE OR REPLACE TABLE part AS {rows}")
        spec = SinkSpec(path=str(root / f"part-{number}.parquet"), mode="replace")
        sink, key = await open_sink(spec, None, environment), LoadKey("run", "load")
        await sink.claim(key, 1)
        await sink.stage(scratch, "part")
        await sink.commit(key, 1)
    with pytest.raises(ConnectorError, match=told) as caught:
        await open_source(SourceSpec(path=str(root / "part-*.parquet")), None, environment)
    assert caught.value.code == "SCHEMA_DIFFERS"
    assert caught.value.details["path"] == "part-2.parquet"
