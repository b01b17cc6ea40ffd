"""Tables of many times the memory: they go through it, keep their order, and have bounds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from headrace_connectors import gate
from headrace_connectors.api import (
    ConnectorError,
    Environment,
    Scratch,
    SourceSpec,
    export_parquet,
    open_source,
)
from pyarrow import parquet

ROWS = 1_000_000
COLUMNS = 40
NEXT = f"c{COLUMNS}"
MEBIBYTE = 1 << 20


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of few bytes a row, but of more NULL masks than the memory below."""
    numbers = pa.arange(0, ROWS)
    small = pa.array([None, 1] * (ROWS // 2), pa.int8())
    path = tmp_path_factory.mktemp("wide") / "wide.parquet"
    table = pa.table([numbers, *[small] * (COLUMNS - 1)], names=[f"c{i}" for i in range(COLUMNS)])
    parquet.write_table(table, path)
    return path


@pytest.fixture
def small(environment: Environment, wide: Path) -> Environment:
    """Less memory than two such tables would hold, whatever of them is moved to disk."""
    return replace(environment, memory_limit_bytes=28 * MEBIBYTE, file_roots=(wide.parent,))


async def test_rows_beyond_the_memory_are_read_computed_and_written_in_their_order(
    wide: Path, small: Environment
) -> None:
    async with await Scratch.open(small) as scratch:
        source = await open_source(SourceSpec(path=wide.name), None, small)
        assert (await source.load(scratch, "wide")).rows == ROWS
        await scratch.compute("more", "SELECT *, c1 + 1 AS next FROM wide -- a comment")
        await scratch.drop("wide")
        await export_parquet(scratch, "more", str(scratch.folder / "out.parquet"))
        back = parquet.read_table(scratch.folder / "out.parquet", columns=["c0", "c5", NEXT])
    assert back["c0"].combine_chunks().equals(pa.arange(0, ROWS))
    assert back["c5"].null_count == back[NEXT].null_count == ROWS // 2


async def test_what_a_stage_may_spill_bounds_its_tables_too(wide: Path, small: Environment) -> None:
    bounded = replace(small, max_temp_bytes=8 * MEBIBYTE)
    async with await Scratch.open(bounded) as scratch:
        source = await open_source(SourceSpec(path=wide.name), None, bounded)
        with pytest.raises(ConnectorError) as read:
            await source.load(scratch, "wide")
        await scratch.drop("wide")
        with pytest.raises(ConnectorError) as computed:
            await scratch.compute("endless", "SELECT range AS n FROM range(100_000_000_000)")
    assert (read.value.code, computed.value.code) == ("DISK_FULL", "DISK_FULL")


@pytest.mark.long
async def test_keys_that_do_not_fit_into_memory_are_looked_at_in_parts(environment: Environment) -> None:
    tiny = replace(environment, memory_limit_bytes=16 * MEBIBYTE)
    async with await Scratch.open(tiny) as scratch:
        await scratch.compute("keys", f"SELECT range AS id, md5(range::VARCHAR) AS text FROM range({ROWS})")
        await gate.require_unique(scratch, "keys", ["id", "text"])
        await scratch.execute("INSERT INTO keys VALUES (77, md5('77'))")
        with pytest.raises(ConnectorError) as refused:
            await gate.require_unique(scratch, "keys", ["id", "text"])
    assert (refused.value.code, refused.value.details["key"][:6]) == ("DUPLICATE_KEY", "id=77,")
