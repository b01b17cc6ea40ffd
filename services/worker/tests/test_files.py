"""Files as sources and sinks, rows handed from stage to stage, and what must not be reached."""

import glob
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from headrace_worker.engine.artifact_store import ArtifactStore

from .engine_bench import EngineBench, failure, outcome, rows
from .stages import plan


@pytest.fixture
def folder(bench: EngineBench) -> Path:
    """The folder that stages may use."""
    return Path(bench.options.file_roots[0])


@pytest.mark.parametrize("form", ["csv", "json", "parquet"])
async def test_rows_go_through_files_and_come_back_the_same(
    bench: EngineBench, folder: Path, form: str
) -> None:
    (folder / "in.csv").write_text('id,name,price\r\n1,"a ""b""\n,c",1.50\r\n2,,\r\n')
    there = f"""
sources: [{{id: a, path: in.csv, schema: {{id: BIGINT, name: VARCHAR, price: "DECIMAL(10,2)"}}}}]
sinks: [{{id: out, input: a, path: middle.{form}, mode: replace}}]
"""
    back = f"""
sources: [{{id: a, path: middle.{form}, schema: {{id: BIGINT, name: VARCHAR, price: "DECIMAL(10,2)"}}}}]
sinks: [{{id: out, input: a, path: out.json, mode: replace}}]
"""
    for text in (there, back):
        result = await bench.run(text)
        assert outcome(result) == "COMPLETED", result.error
    found = read_rows(folder / "out.json")
    assert [(row["id"], row["name"]) for row in found] == [(1, 'a "b"\n,c'), (2, None)]
    assert float(found[0]["price"]) == 1.5
    assert found[1]["price"] is None


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line]


async def test_a_path_may_name_a_parameter(bench: EngineBench, folder: Path) -> None:
    text = """
parameters: {day: {type: string, required: true}}
sources: [{id: a, values: [{x: 1}]}]
sinks: [{id: out, input: a, path: "out-${params.day}.json", mode: replace}]
"""
    result = await bench.run(text, parameters={"day": "monday"})
    assert outcome(result) == "COMPLETED", result.error
    assert read_rows(folder / "out-monday.json") == [{"x": 1}]


async def test_files_outside_the_roots_are_out_of_reach(
    bench: EngineBench, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret.csv").write_text("a\ncanary-9000\n")
    (folder / "link.csv").symlink_to(tmp_path / "secret.csv")
    for path in (str(tmp_path / "secret.csv"), "../secret.csv", "link.csv", "/etc/passwd"):
        text = f"sources: [{{id: a, path: {path}, format: csv}}]\nsinks: [{{id: o, input: a, discard: true}}]"
        result = await bench.run(text)
        assert failure(result)[1:] == ("CONFIGURATION", "a"), path
        assert "canary" not in str(result)


async def test_a_value_that_does_not_fit_its_declared_type_names_the_place(
    bench: EngineBench, folder: Path
) -> None:
    (folder / "in.csv").write_text("id,n\n1,10\n2,ten\n")
    text = """
sources: [{id: a, path: in.csv, schema: {id: BIGINT, n: INTEGER}}]
sinks: [{id: out, input: a, path: out.csv, mode: replace}]
"""
    result = await bench.run(text)
    assert failure(result)[1:] == ("DATA", "a")
    assert "n" in result.error.details.get("column", result.error.message)
    assert not (folder / "out.csv").exists()


async def test_a_file_that_is_missing_is_named(bench: EngineBench, folder: Path) -> None:
    text = "sources: [{id: a, path: nothing.csv}]\nsinks: [{id: o, input: a, discard: true}]"
    result = await bench.run(text)
    assert failure(result)[1:] == ("CONFIGURATION", "a")
    assert "nothing.csv" in result.error.message


TWO_STAGES = """
sources: [{id: raw, values: [{id: 1, n: 2.5}, {id: 2, n: null}]}]
transformations:
  - {id: kept, type: sql_transform, inputs: [raw], materialize: true,
     sql: "SELECT *, DATE '2025-01-01' AS d, 170141183460469231731687303715884105727::HUGEINT AS h FROM raw"}
  - {id: after, type: filter, input: kept, condition: n > 1 AND h > 0}
sinks: [{id: out, input: after, path: out.json, mode: replace}]
"""


async def test_materialised_rows_are_handed_to_the_next_stage(bench: EngineBench, folder: Path) -> None:
    run = "0192a000-0000-7000-8000-000000000001"
    first, second = (stage.key for stage in plan(TWO_STAGES).stages)

    assert outcome(await bench.run(TWO_STAGES, first, run_id=run)) == "COMPLETED"
    result = await bench.run(TWO_STAGES, second, run_id=run)

    assert outcome(result) == "COMPLETED", result.error
    assert rows(result) == {"after": (2, 1), "out": (1, 1)}
    (row,) = read_rows(folder / "out.json")
    assert (row["id"], row["d"]) == (1, "2025-01-01")
    assert str(row["h"]) == "170141183460469231731687303715884105727"


HELD = """
sources: [{id: raw, values: [{id: 1, n: 2.5}, {id: 2, n: null}]}]
transformations:
  - {id: go, type: wait_for_signal, timeout: 20d, data: {n: number, name: {default: it's}, note: string}}
  - {id: after, type: select,
     columns: {id: id, name: "${signals.go.name}", note: "${signals.go.note}", big: "n > ${signals.go.n}"}}
sinks: [{id: out, path: "${signals.go.name}.json", mode: replace}]
"""


async def test_rows_that_waited_go_on_with_what_the_signal_said(bench: EngineBench, folder: Path) -> None:
    run = "0192a000-0000-7000-8000-000000000001"
    first, _, last = (stage.key for stage in plan(HELD).stages)

    assert outcome(await bench.run(HELD, first, run_id=run)) == "COMPLETED"
    os.utime(f"{bench.options.artifacts_dir}/{run}", (0, 0))
    assert ArtifactStore(Path(bench.options.artifacts_dir)).sweep(500) == 0
    result = await bench.run(HELD, last, run_id=run, signals=b'{"go":{"n":1.5}}')

    assert outcome(result) == "COMPLETED", result.error
    assert read_rows(folder / "it's.json") == [
        {"id": 1, "name": "it's", "note": None, "big": True},
        {"id": 2, "name": "it's", "note": None, "big": None},
    ]


async def test_rows_that_no_worker_kept_are_missed_by_name(bench: EngineBench) -> None:
    result = await bench.run(TWO_STAGES, plan(TWO_STAGES).stages[1].key)
    assert failure(result) == ("ARTIFACT_MISSING", "TRANSIENT", "kept")
    assert "WORKER_ARTIFACTS_DIR" in result.error.message


async def test_old_artifacts_are_swept_and_new_ones_kept(bench: EngineBench, tmp_path: Path) -> None:
    old, new = "0192a000-0000-7000-8000-00000000000a", "0192a000-0000-7000-8000-00000000000b"
    for run in (old, new):
        await bench.run(TWO_STAGES, plan(TWO_STAGES).stages[0].key, run_id=run)
    root = bench.options.artifacts_dir
    long_ago = time.time() - 1000
    os.utime(f"{root}/{old}", (long_ago, long_ago))

    assert ArtifactStore(Path(root)).sweep(500) == 1

    assert os.listdir(root) == [new]


async def test_no_scratch_file_is_left(bench: EngineBench) -> None:
    await bench.run(TWO_STAGES)
    await bench.run(TWO_STAGES.replace("n > 1", "nothing > 1"))
    assert not glob.glob(f"{bench.options.temp_dir}/*")
