"""Outputs: rows kept as a file with the run."""

import csv
import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from headrace.execution.v1 import workers_pb2
from headrace_artifacts.local import LocalStore
from headrace_artifacts.store import ArtifactError, ArtifactStoreFull, Stored, read_all
from headrace_chassis.testing.waiting import eventually
from headrace_worker.output_keeper import OutputKeeper
from headrace_worker.wiring import Worker

from .engine_bench import EngineBench, failure, outcome
from .scripted_server import Stream, stage
from .stages import payload

ROWS = "sources: [{id: rows, values: [{x: 1, name: 'a'}, {x: 2, name: null}]}]\n"
ENDLESS_OUTPUT = """
sources: [{id: one, values: [{x: 1.5}]}]
transformations:
  - {id: many, type: sql_transform, inputs: [one], sql: "SELECT a.range AS n FROM one, range(100000000000) a"}
sinks: [{id: out, input: many, output: csv}]
"""


def definition(form: str) -> str:
    return ROWS + f"sinks: [{{id: out, input: rows, output: {form}}}]"


def read(form: str, content: bytes) -> list[dict[str, Any]]:
    if form == "csv":
        return [
            {"x": int(row["x"]), "name": row["name"] or None}
            for row in csv.DictReader(io.StringIO(content.decode()))
        ]
    if form == "json":
        return [json.loads(line) for line in content.splitlines()]
    return list(pyarrow.parquet.read_table(io.BytesIO(content)).to_pylist())


def stored(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("form", ["csv", "json", "parquet"])
async def test_rows_are_kept_with_size_checksum_and_columns(bench: EngineBench, form: str) -> None:
    work = bench.assignment(definition(form))
    result = await bench.work_off(work)

    assert outcome(result) == "COMPLETED", result.error
    (receipt,) = result.receipts
    content = read_all(bench.artifacts, receipt.output.key, 10**6)
    assert (receipt.sink, receipt.rows, receipt.output.format) == ("out", 2, form)
    assert receipt.output.bytes == receipt.bytes == len(content)
    assert receipt.output.sha256 == hashlib.sha256(content).hexdigest()
    assert [(column.name, column.type) for column in receipt.output.columns] == [
        ("x", "BIGINT"),
        ("name", "VARCHAR"),
    ]
    assert receipt.output.key.startswith(f"{work.tenant}/{work.pipeline_id}/{work.run_id}/outputs/out-")
    assert read(form, content) == [{"x": 1, "name": "a"}, {"x": 2, "name": None}]


async def test_what_has_landed_is_not_written_again(bench: EngineBench) -> None:
    first = await bench.run(definition("csv"))

    again = await bench.run(definition("csv"), landed=first.receipts, fence=2)

    assert outcome(again) == "COMPLETED"
    assert again.receipts[0].output == first.receipts[0].output
    assert again.receipts[0].fence == 1
    settled = await bench.run(
        definition("csv"), landed=first.receipts, fence=3, kind=workers_pb2.ASSIGNMENT_KIND_SETTLE
    )
    assert settled.receipts[0].output == first.receipts[0].output
    unknown = await bench.run(definition("csv"), kind=workers_pb2.ASSIGNMENT_KIND_SETTLE)
    assert not unknown.receipts


async def test_an_output_that_is_too_large_fails_as_a_quota(bench: EngineBench) -> None:
    bench.options = replace(bench.options, max_output_bytes=100_000)
    result = await bench.run(
        """
sources: [{id: one, values: [{x: 1.5}]}]
transformations:
  - {id: many, type: sql_transform, inputs: [one], sql: "SELECT a.range AS n FROM one, range(1000000) a"}
sinks: [{id: out, input: many, output: csv}]
"""
    )
    assert failure(result) == ("OUTPUT_TOO_LARGE", "QUOTA", "out")
    assert "100000 bytes" in result.error.message


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ArtifactStoreFull("full"), ("ARTIFACT_STORE_FULL", "QUOTA", "out")),
        (ArtifactError("away"), ("ARTIFACT_STORE_UNAVAILABLE", "TRANSIENT", "out")),
    ],
)
async def test_a_store_that_refuses_is_told_precisely(
    bench: EngineBench, monkeypatch: pytest.MonkeyPatch, error: ArtifactError, told: tuple[str, str, str]
) -> None:
    def refuse(*_: Any) -> Stored:
        raise error

    monkeypatch.setattr(bench.artifacts, "put", refuse)
    assert failure(await bench.run(definition("json"))) == told


async def test_a_value_that_does_not_fit_the_format_is_told_before_anything_is_kept(
    bench: EngineBench, tmp_path: Path
) -> None:
    result = await bench.run(
        """
sources: [{id: one, values: [{x: 1.5}]}]
transformations: [{id: odd, type: sql_transform, inputs: [one], sql: "SELECT 'NaN'::DOUBLE AS n FROM one"}]
sinks: [{id: out, input: odd, output: json}]
"""
    )
    assert failure(result) == ("VALUE_DOES_NOT_FIT", "DATA", "out")
    assert stored(tmp_path / "store") == []


async def test_the_worker_keeps_what_a_stage_has_written(
    stream: Stream, worker: Worker, tmp_path: Path
) -> None:
    work = stage(payload(definition("csv")))
    stream.assign(work)

    result = await stream.result_of(work)

    assert outcome(result) == "COMPLETED", result.error
    (receipt,) = result.receipts
    assert read_all(LocalStore(tmp_path / "store"), receipt.output.key, 1000) == b'"x","name"\n1,"a"\n2,\n'
    assert stored(tmp_path / "store") == [receipt.output.key.rpartition("/")[2]]


async def test_an_output_of_a_stage_that_failed_is_removed(
    stream: Stream, worker: Worker, tmp_path: Path
) -> None:
    text = """
sources: [{id: one, values: [{x: 1.5}]}]
transformations: [{id: odd, type: sql_transform, inputs: [one], sql: "SELECT 'NaN'::DOUBLE AS n FROM one"}]
sinks: [{id: good, input: odd, output: csv}, {id: bad, input: odd, output: json}]
"""
    work = stage(payload(text))
    stream.assign(work)

    result = await stream.result_of(work)

    assert failure(result) == ("VALUE_DOES_NOT_FIT", "DATA", "bad")
    kept = [line.message for chunk in stream.bodies("log") for line in chunk.lines if line.task == "good"]
    assert "started" in kept
    assert not result.receipts

    async def removed() -> bool:
        return stored(tmp_path / "store") == []

    await eventually(removed)


async def test_a_cancelled_stage_leaves_no_output(stream: Stream, worker: Worker, tmp_path: Path) -> None:
    work = stage(payload(ENDLESS_OUTPUT))
    stream.assign(work)
    await stream.until(lambda: stream.bodies("progress"))
    stream.cancel(work)

    result = await stream.result_of(work)

    assert outcome(result) == "CANCELLED"
    assert not result.receipts
    assert stored(tmp_path / "store") == []


async def test_what_no_result_names_is_removed(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    keeper = OutputKeeper(store)
    source = tmp_path / "a.csv"
    source.write_bytes(b"x")
    kept = await keeper.keep(stage(payload(definition("csv"))), "out", source)
    assert not hasattr(kept, "code")
    await keeper.remove([kept.key])
    assert stored(tmp_path / "store") == []
