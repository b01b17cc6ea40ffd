"""What the ledger of each target promises of loads that go on from one another, run after run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from headrace_connectors.api import (
    Connection,
    ConnectorError,
    Environment,
    FencedOut,
    LoadKey,
    Receipt,
    Scratch,
    Series,
    Sink,
    SinkSpec,
    SourceSpec,
    open_sink,
    open_source,
)

Sql = Callable[..., Awaitable[list[tuple[Any, ...]]]]
SERIES = Series("pipeline-1", "load")


def run(number: int) -> LoadKey:
    """The load of a run."""
    return LoadKey(f"run-{number}", "load")


@dataclass
class Appended:
    """A table, or a folder of files, that one row is appended to by each load."""

    spec: SinkSpec
    connection: Connection | None
    reading: SourceSpec
    environment: Environment
    scratch: Scratch

    async def staged(self, number: int, fence: int) -> Sink:
        """The sink of a run that has taken its turn, and stands before its commit."""
        sink = await open_sink(self.spec, self.connection, self.environment)
        assert await sink.claim(run(number), fence) is None
        await sink.take_turn(SERIES, fence)
        await self.scratch.execute("CREATE OR REPLACE TABLE rows AS SELECT 1 AS a")
        await sink.stage(self.scratch, "rows")
        return sink

    async def load(self, number: int, fence: int) -> Receipt:
        """A whole load."""
        sink = await self.staged(number, fence)
        try:
            return await sink.commit(run(number), fence, f"cursor {number}".encode(), SERIES)
        finally:
            await sink.close()

    async def last(self, fence: int) -> Receipt | None:
        """The last load of the series, as the next one is told of it."""
        sink = await open_sink(self.spec, self.connection, self.environment)
        try:
            return await sink.take_turn(SERIES, fence)
        finally:
            await sink.close()

    async def rows(self) -> int:
        """How many rows have landed."""
        source = await open_source(self.reading, self.connection, self.environment)
        try:
            return int((await source.load(self.scratch, "back")).rows)
        finally:
            await source.close()


@pytest.fixture(params=["postgresql", "sqlite", "duckdb", "file"])
def target(
    request: pytest.FixtureRequest, environment: Environment, scratch: Scratch, root: Path
) -> Appended:
    table = SinkSpec(table="t"), SourceSpec(table="t")
    match request.param:
        case "file":
            spec, reading = SinkSpec(path="parts", format="csv"), SourceSpec(path="parts/*.csv")
            return Appended(spec, None, reading, environment, scratch)
        case "postgresql":
            return Appended(table[0], request.getfixturevalue("database"), table[1], environment, scratch)
        case kind:
            base = Connection("f", "base", kind, path=str(root / f"base.{kind}"))
            return Appended(table[0], base, table[1], environment, scratch)


async def test_each_load_is_told_of_the_one_that_landed_last(target: Appended) -> None:
    assert await target.last(1) is None

    first = await target.load(1, fence=1)
    assert await target.last(2) == first
    second = await target.load(2, fence=3)

    assert await target.last(4) == second
    assert (second.fence, second.cursor) == (3, b"cursor 2")


async def test_a_load_that_did_not_land_is_not_told_of(target: Appended) -> None:
    landed = await target.load(1, fence=1)
    failed = await target.staged(2, fence=2)
    await failed.abandon()
    await failed.close()

    assert await target.last(3) == landed


async def test_what_a_run_before_has_staged_cannot_land_after_the_next_ones_turn(target: Appended) -> None:
    """Nobody had settled it: there is no tombstone."""
    before = await target.staged(1, fence=1)
    if target.connection is not None and target.connection.path is not None:
        await before.close()  # who has the file open may keep others from it
    landed = await target.load(2, fence=2)

    with pytest.raises(FencedOut):
        await before.commit(run(1), 1, b"cursor 1", SERIES)

    await before.close()
    assert await target.last(3) == landed
    assert await target.rows() == 1


async def test_who_comes_late_takes_nobodys_turn(target: Appended) -> None:
    sink = await target.staged(2, fence=2)

    assert await target.last(1) is None

    assert (await sink.commit(run(2), 2, None, SERIES)).fence == 2
    await sink.close()


@pytest.mark.parametrize("target", ["file"], indirect=True)
async def test_a_file_that_landed_with_the_last_breath_of_its_process_is_told_of(
    target: Appended, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = await target.staged(1, fence=1)
    real = Path.replace

    def dying(self: Path, onto: Path) -> Path:
        real(self, onto)
        if self.name.startswith("_stg_"):
            raise OSError(5, "the process dies here")
        return Path(onto)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", dying)
        with pytest.raises(ConnectorError):
            await sink.commit(run(1), 1, b"cursor 1", SERIES)

    last = await target.last(2)

    assert last is not None
    assert (last.fence, last.cursor) == (1, b"cursor 1")
