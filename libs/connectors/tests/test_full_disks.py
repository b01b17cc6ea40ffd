"""Targets whose disk is full: a precise error of the quota's class, the target as it was, and the next load
lands once there is room again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from headrace_connectors import transfer
from headrace_connectors.api import (
    Connection,
    ConnectorError,
    Environment,
    ErrorClass,
    LoadKey,
    Scratch,
    SinkSpec,
    SourceSpec,
    export_parquet,
    open_sink,
    open_source,
)
from headrace_connectors.blocking import in_thread

Sql = Callable[..., Awaitable[list[tuple[Any, ...]]]]
Mode = Literal["append", "replace", "merge"]
MEBIBYTE = 1 << 20
LARGEST_FILE = 3 * MEBIBYTE
"""What a server that starts within it can write: several times its own files, and a segment of its log."""


@contextlib.contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """Bounds the files of this process, and of those that it starts, as a full disk or a quota does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="module")
def server(another_server: Callable[..., contextlib.AbstractContextManager[Any]]) -> Iterator[Any]:
    """A server that can write no large file."""
    with contextlib.ExitStack() as stack:
        with no_file_larger_than(LARGEST_FILE):
            running = stack.enter_context(another_server("--wal-segsize=1"))
        yield running


@pytest.fixture
def small_disk(tmp_path: Path, server: Any) -> Iterator[Path]:
    """A disk of 5 MiB, which only the superuser of the machine can make."""
    place = server.folder.parent / f"disk-{tmp_path.name}"
    place.mkdir()
    owner = server.folder.stat().st_uid
    options = f"size=5m,uid={owner},mode=0700"
    mount = [shutil.which("mount") or "false", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        place.rmdir()
        pytest.skip("a small disk can be mounted by the superuser only")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)
    place.rmdir()


@pytest.fixture
async def rows(scratch: Scratch) -> str:
    """A relation of about two mebibytes; a target that is filled has half of its keys."""
    text = "repeat(md5(i::VARCHAR), 30)"
    await scratch.execute(
        f"CREATE TABLE rows AS SELECT i::INTEGER AS id, {text} AS text FROM range(1000, 3000) x(i)"
    )
    return "rows"


@pytest.fixture
async def filled(sql: Sql) -> str:
    """A target of about two mebibytes: as much again does not fit."""
    await sql("CREATE TABLE target (id integer, text varchar); CREATE UNIQUE INDEX once ON target (id);")
    await sql("INSERT INTO target SELECT i, repeat(md5('o' || i), 30) FROM generate_series(1, 2000) AS g(i)")
    return "target"


async def digest(sql: Sql, table: str) -> tuple[Any, ...]:
    return (await sql(f"SELECT count(*), md5(string_agg(md5(t::text), '' ORDER BY id)) FROM {table} t"))[0]


async def staging(sql: Sql) -> int:
    return int((await sql("SELECT count(*) FROM pg_class WHERE starts_with(relname, '_stg_')"))[0][0])


@dataclass
class Load:
    """A load whose attempts end as those of a stage do: what failed is abandoned."""

    spec: SinkSpec
    connection: Connection | None
    environment: Environment
    key: LoadKey = LoadKey("run-1", "load")  # noqa: RUF009 - it is frozen

    async def lands(self, scratch: Scratch, relation: str, fence: int) -> int:
        sink = await open_sink(self.spec, self.connection, self.environment)
        landed = False
        try:
            assert await sink.claim(self.key, fence) is None
            await sink.stage(scratch, relation)
            receipt = await sink.commit(self.key, fence)
            landed = True
        finally:
            if not landed:
                await sink.abandon()
            await sink.close()
        return receipt.rows

    async def fails(self, scratch: Scratch, relation: str, fence: int) -> ConnectorError:
        with pytest.raises(ConnectorError) as caught:
            await self.lands(scratch, relation, fence)
        assert caught.value.error_class is ErrorClass.QUOTA, caught.value
        assert "correct-horse" not in f"{caught.value!r}{caught.value.details}"
        return caught.value


def spec(table: str, mode: Mode) -> SinkSpec:
    return SinkSpec(table=table, mode=mode, keys=("id",) if mode == "merge" else ())


@pytest.mark.parametrize("mode", ["append", "replace", "merge"])
async def test_a_table_that_cannot_grow_stays_as_it_was(
    mode: Mode, filled: str, rows: str, database: Connection, environment: Environment, scratch: Scratch,
    sql: Sql,
) -> None:  # fmt: skip
    await sql("DROP INDEX once" if mode == "append" else "SELECT 1")
    before = await digest(sql, filled)
    load = Load(spec(filled, mode), database, environment)

    error = await load.fails(scratch, rows, 1)

    assert error.code == "TARGET_DISK_FULL"
    assert await digest(sql, filled) == before
    assert await staging(sql) == 0
    await sql(f"TRUNCATE {filled}")
    assert await load.lands(scratch, rows, 2) == 2_000
    assert (await digest(sql, filled))[0] == 2_000


async def test_a_new_table_that_does_not_fit_is_not_made(
    rows: str, database: Connection, environment: Environment, scratch: Scratch, sql: Sql
) -> None:
    await scratch.execute("CREATE TABLE twice AS SELECT id * 2 + t AS id, text FROM rows, range(2) r(t)")
    load = Load(SinkSpec(table="fresh"), database, environment)

    error = await load.fails(scratch, "twice", 1)

    assert error.code == "TARGET_DISK_FULL"
    assert await sql("SELECT to_regclass('fresh')::text") == [(None,)]
    assert await staging(sql) == 0
    assert await load.lands(scratch, rows, 2) == 2_000


@pytest.mark.parametrize("mode", ["append", "replace"])
async def test_a_disk_without_room_leaves_the_table_as_it_was(
    mode: Mode, small_disk: Path, filled: str, rows: str, database: Connection, environment: Environment,
    scratch: Scratch, sql: Sql,
) -> None:  # fmt: skip
    space = f"space_{database.database}"
    await sql(f"CREATE TABLESPACE {space} LOCATION '{small_disk}'")
    await sql(f"ALTER DATABASE {database.database} SET default_tablespace = {space}")
    await sql(f"ALTER TABLE {filled} SET TABLESPACE {space}")
    await sql(f"CREATE TABLE ballast TABLESPACE {space} AS SELECT repeat(md5(i::text), 30) FROM "
              "generate_series(1, 2700) AS g(i)")  # fmt: skip
    await scratch.execute("UPDATE rows SET id = id + 100000; DELETE FROM rows WHERE id >= 101800")
    before = await digest(sql, filled)
    load = Load(spec(filled, mode), database, environment)

    error = await load.fails(scratch, rows, 1)

    assert (error.code, error.details["sqlstate"]) == ("TARGET_DISK_FULL", "53100")
    assert await digest(sql, filled) == before
    assert await staging(sql) == 0
    await sql("DROP TABLE ballast; TRUNCATE target;")
    assert await load.lands(scratch, rows, 2) == 800
    await sql("DROP TABLE target; DROP TABLE headrace._headrace_loads;")
    await sql(f"DROP TABLESPACE {space}")


async def test_a_query_that_needs_more_temporary_files_than_it_may_is_a_quota(
    database: Connection, environment: Environment, scratch: Scratch, sql: Sql
) -> None:
    await sql(f"ALTER DATABASE {database.database} SET temp_file_limit = '1MB'")
    await sql(f"ALTER DATABASE {database.database} SET work_mem = '64kB'")
    sorting = "SELECT id FROM generate_series(1, 100000) AS g(id) ORDER BY md5(id::text)"
    source = await open_source(SourceSpec(query=sorting), database, environment)
    with pytest.raises(ConnectorError) as caught:
        await source.load(scratch, "sorted")
    await source.close()
    assert caught.value.error_class is ErrorClass.QUOTA, caught.value


@pytest.mark.parametrize("mode", ["append", "replace", "merge"])
@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
async def test_a_database_file_that_cannot_grow_stays_as_it_was(
    kind: Literal["sqlite", "duckdb"], mode: Mode, rows: str, root: Path, environment: Environment,
    scratch: Scratch,
) -> None:  # fmt: skip
    connection = Connection("f", "file base", kind, path=str(root / f"base.{kind}"))
    await scratch.execute("CREATE TABLE few AS SELECT * FROM rows WHERE id % 10 = 0")
    first = Load(SinkSpec(table="target"), connection, environment, LoadKey("run-0", "load"))
    assert await first.lands(scratch, "few", 1) == 200
    before = await contents(connection, environment, scratch, "before")
    load = Load(spec("target", mode), connection, environment)

    with no_file_larger_than(MEBIBYTE):
        error = await load.fails(scratch, rows, 1)

    assert error.code in ("TARGET_DISK_FULL", "DISK_FULL")
    assert await contents(connection, environment, scratch, "after") == before
    assert await load.lands(scratch, rows, 2) == 2_000
    expected = 2_200 if mode == "append" else 2_000
    assert (await contents(connection, environment, scratch, "last"))[0] == expected


async def contents(
    connection: Connection, environment: Environment, scratch: Scratch, relation: str
) -> tuple[object, ...]:
    source = await open_source(SourceSpec(table="target"), connection, environment)
    await source.load(scratch, relation)
    await source.close()
    sql = f"SELECT count(*), md5(string_agg(id || text, '' ORDER BY id)) FROM {relation}"
    return (await scratch.fetch(sql))[0]


@pytest.mark.parametrize("ending", ["csv", "json", "parquet"])
async def test_a_file_for_which_there_is_no_room_stays_as_it_was_and_leaves_nothing(
    ending: str, small_disk: Path, environment: Environment, scratch: Scratch
) -> None:
    """The disk has not even room for the ledger's own words any more."""
    root = small_disk / "files"
    os.makedirs(root)
    roomy = Environment(environment.temp_dir, environment.guard, (root,), environment.memory_limit_bytes)
    load = Load(SinkSpec(path=str(root / f"out.{ending}"), mode="replace"), None, roomy)
    noise = "uuid()::VARCHAR || uuid()::VARCHAR || uuid()::VARCHAR"
    await scratch.execute(f"CREATE TABLE noise AS SELECT i, {noise} AS t FROM range(150000) x(i)")
    await scratch.execute("CREATE TABLE one AS SELECT 1 AS i")
    first = Load(load.spec, None, roomy, LoadKey("run-0", "load"))
    await first.lands(scratch, "one", 1)
    before = (root / f"out.{ending}").read_bytes()

    error = await load.fails(scratch, "noise", 1)

    assert error.code == "DISK_FULL"
    assert (root / f"out.{ending}").read_bytes() == before
    assert list((root / ".headrace").glob("_stg_*")) == []
    assert await load.lands(scratch, "one", 2) == 1


async def test_an_artifact_that_does_not_fit_leaves_nothing(scratch: Scratch, tmp_path: Path) -> None:
    noise = "SELECT uuid()::VARCHAR || uuid()::VARCHAR AS t FROM range(40000)"
    await scratch.execute(f"CREATE TABLE noise AS {noise}")
    path = tmp_path / "noise.parquet"
    with no_file_larger_than(MEBIBYTE), pytest.raises(ConnectorError) as caught:
        await export_parquet(scratch, "noise", str(path))
    assert (caught.value.code, caught.value.error_class) == ("DISK_FULL", ErrorClass.QUOTA)
    assert [name for name in os.listdir(tmp_path) if name.startswith("noise")] == []
    assert (await export_parquet(scratch, "noise", str(path))).rows == 40_000


async def test_a_scratch_without_room_to_spill_is_a_quota_and_goes_on(environment: Environment) -> None:
    small = Environment(environment.temp_dir, environment.guard, memory_limit_bytes=48 * MEBIBYTE)
    much = "SELECT i, uuid()::VARCHAR || uuid()::VARCHAR AS t FROM range(1500000) x(i)"
    async with await Scratch.open(small) as scratch:
        with no_file_larger_than(MEBIBYTE), pytest.raises(ConnectorError) as caught:
            await scratch.execute(f"CREATE TABLE much AS {much}")
        assert (caught.value.code, caught.value.error_class) == ("DISK_FULL", ErrorClass.QUOTA)
        assert await scratch.fetch("SELECT 1") == [(1,)]


@pytest.mark.parametrize("ending", ["csv", "json", "parquet"])
async def test_nothing_reads_on_once_a_file_is_told_to_have_no_room(
    ending: str, root: Path, environment: Environment, scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the stage's database could not be closed, which would hide what happened."""
    under_way: list[object] = []

    async def slow_to_stop(call: Callable[[], object], stop: Callable[[], object]) -> object:
        under_way.append(call)
        try:
            await asyncio.sleep(0.1)
            return await in_thread(call, stop)
        except asyncio.CancelledError:
            await asyncio.sleep(0.5)
            raise
        finally:
            under_way.remove(call)

    monkeypatch.setattr(transfer, "in_thread", slow_to_stop)
    await scratch.execute(
        "CREATE TABLE wide AS SELECT i, repeat(sha256(i::VARCHAR), 200) AS t FROM range(6000) x(i)"
    )
    load = Load(SinkSpec(path=str(root / f"out.{ending}"), mode="replace"), None, environment)

    with no_file_larger_than(65_536):
        await load.fails(scratch, "wide", 1)

    assert under_way == []
