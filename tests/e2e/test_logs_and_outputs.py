"""Logs and outputs of runs over real HTTP."""

import hashlib
import io
import json
import uuid
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet
import pytest
from headrace_chassis.testing.files import files_below
from headrace_local.testing import StackUnderTest, create_pipeline, demand, secret_forms, until, wait_for_end

OUTPUTS = """
version: 1
sources:
  - {id: rows, values: [{x: 1}, {x: 2}, {x: 3}]}
transformations:
  - {id: many, type: sql_transform, inputs: [rows], sql: "SELECT a.range AS n FROM range(100000) AS a"}
sinks:
  - {id: table, input: many, output: parquet}
  - {id: text, input: many, output: csv}
"""

# It would take hours, so that there is something to follow.
SLOW = """
version: 1
sources: [{id: one, values: [{x: 1.5}]}]
transformations:
  - {id: endless, type: sql_transform, inputs: [one],
     sql: "SELECT sum(a.range * b.range % 7) AS s FROM one, range(100000) a, range(100000) b"}
sinks: [{id: out, input: endless, output: csv}]
"""


def start(admin: httpx.Client, definition: str) -> str:
    """Starts a run and returns its id."""
    pipeline = create_pipeline(admin, definition, maxRetries=0)
    run: str = demand(admin.post(f"pipelines/{pipeline['id']}/run", json={}), 202)["runId"]
    return run


@pytest.fixture(scope="module")
def done(admin: httpx.Client) -> dict[str, Any]:
    """The status of a run that has left two outputs."""
    status = wait_for_end(admin, start(admin, OUTPUTS))
    assert status["overallStatus"] == "COMPLETED", status
    return status


def test_outputs_are_shown_and_are_what_they_say(admin: httpx.Client, done: dict[str, Any]) -> None:
    shown = {output["sink"]: output for output in done["outputs"]}
    for sink in ("table", "text"):
        answer = admin.get(admin.base_url.join(shown[sink]["href"]))
        assert answer.status_code == 200
        assert answer.headers["content-type"] == shown[sink]["contentType"]
        assert len(answer.content) == shown[sink]["bytes"] == int(answer.headers["content-length"])
        assert hashlib.sha256(answer.content).hexdigest() == shown[sink]["sha256"]
        assert (shown[sink]["rows"], shown[sink]["columns"]) == (100_000, [{"name": "n", "type": "BIGINT"}])
        assert f"{sink}-{done['runId']}." in answer.headers["content-disposition"]
    table = admin.get(admin.base_url.join(shown["table"]["href"]))
    assert pyarrow.parquet.read_table(io.BytesIO(table.content)).num_rows == 100_000


def test_parts_of_an_output_make_the_whole(admin: httpx.Client, done: dict[str, Any]) -> None:
    path = f"runs/{done['runId']}/output?sink=text"
    whole = admin.get(path)
    tag, size = whole.headers["etag"], len(whole.content)
    assert whole.headers["accept-ranges"] == "bytes"
    parts = b""
    while len(parts) < size:
        wanted = f"bytes={len(parts)}-{len(parts) + 199_999}"
        part = admin.get(path, headers={"Range": wanted, "If-Range": tag})
        assert part.status_code == 206
        assert part.headers["content-range"].endswith(f"/{size}")
        parts += part.content
    assert parts == whole.content
    beyond = admin.get(path, headers={"Range": f"bytes={size}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{size}")
    assert admin.get(path, headers={"If-None-Match": tag}).status_code == 304


def test_what_is_not_there_is_told_apart(admin: httpx.Client, done: dict[str, Any]) -> None:
    unnamed = admin.get(f"runs/{done['runId']}/output")
    assert (unnamed.status_code, unnamed.json()["errors"][0]["path"]) == (400, "sink")
    unknown = admin.get(f"runs/{done['runId']}/output", params={"sink": "rows"})
    assert (unknown.status_code, unknown.json()["code"]) == (404, "NOT_FOUND")
    run = start(admin, SLOW)
    early = admin.get(f"runs/{run}/output")
    assert (early.status_code, early.json()["code"]) == (409, "OUTPUT_NOT_LANDED")
    demand(admin.post(f"runs/{run}/cancel", json={}), 200)
    assert wait_for_end(admin, run)["outputs"] == []
    late = admin.get(f"runs/{run}/output")
    assert (late.status_code, late.json()["code"]) == (409, "OUTPUT_NOT_LANDED")


def test_a_log_tells_what_a_run_did(admin: httpx.Client, done: dict[str, Any]) -> None:
    def log() -> dict[str, Any]:
        shown: dict[str, Any] = demand(admin.get(f"runs/{done['runId']}/logs"), 200)
        return shown

    shown = until(log, lambda log: any("attempt is" in line["message"] for line in log["lines"]))
    assert (shown["runId"], shown["status"], shown["hasEarlier"]) == (done["runId"], "COMPLETED", False)
    lines = {(line["task"], line["message"]): line for line in shown["lines"]}
    assert "SELECT a.range" in lines["many", "computing"]["fields"]["sql"]
    assert lines["text", "landed"]["fields"]["rows"] == "100000"
    assert lines["", "attempt 1 of stage s1 begins on worker local"]["attempt"] == 1
    times = [line["time"] for line in shown["lines"]]
    assert times == sorted(times)
    few = demand(admin.get(f"runs/{done['runId']}/logs", params={"task": "many", "lines": 1}), 200)
    assert [line["task"] for line in few["lines"]] == ["many"]
    assert few["hasEarlier"]
    refused = admin.get(f"runs/{done['runId']}/logs", params={"lines": 10_001})
    assert (refused.status_code, refused.json()["errors"][0]["path"]) == (400, "lines")


def test_a_log_is_followed_until_the_run_has_ended(admin: httpx.Client) -> None:
    run = start(admin, SLOW)
    seen: list[dict[str, Any]] = []
    with admin.stream("GET", f"runs/{run}/logs", params={"follow": True}, timeout=60) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/x-ndjson"
        for text in answer.iter_lines():
            seen.append(json.loads(text))
            if seen[-1]["message"] == "computing":
                demand(admin.post(f"runs/{run}/cancel", json={"reason": "seen enough"}), 200)
    messages = [line["message"] for line in seen]
    assert messages[0].startswith("accepted")
    assert "a cancel was asked for: seen enough" in messages
    assert "the attempt is CANCELLED" in messages
    assert messages[-1] == "the run is CANCELLED"
    assert len(messages) == len({(line["time"], line["task"], line["message"]) for line in seen})


def test_no_secret_is_in_a_log_or_in_the_store(
    stack: StackUnderTest, admin: httpx.Client, warehouse: str
) -> None:
    login = stack.warehouse_login()
    password = login["password"]
    run = start(
        admin,
        f"""
version: 1
sources:
  - {{id: rows, connection: {warehouse}, query: "SELECT 1 AS x"}}
transformations:
  - {{id: echo, type: sql_transform, inputs: [rows], sql: "SELECT CAST('{password}' AS integer) FROM rows"}}
sinks: [{{id: out, input: echo, output: csv}}]
""",
    )
    assert wait_for_end(admin, run)["overallStatus"] == "FAILED"

    def log() -> dict[str, Any]:
        return {"text": admin.get(f"runs/{run}/logs").text}

    told = until(log, lambda shown: "the attempt is FAILED" in shown["text"])["text"]

    assert "***" in told
    logs = [path for path in files_below(stack.home.data / "store") if path.suffix == ".ndjson"]
    stored = [path.read_bytes() for path in logs]
    assert any(b"the attempt is FAILED" in content for content in stored), (
        "the search does find what is there"
    )
    for form, text in secret_forms(password).items():
        assert text not in told.encode(), form
        assert not any(text in content for content in stored), form


def test_logs_and_outputs_go_with_their_pipeline(stack: StackUnderTest, admin: httpx.Client) -> None:
    pipeline = create_pipeline(admin, OUTPUTS)
    run = demand(admin.post(f"pipelines/{pipeline['id']}/run", json={}), 202)["runId"]
    wait_for_end(admin, run)
    store = stack.home.data / "store"

    def kept() -> list[Path]:
        return [path for path in files_below(store) if pipeline["id"] in path.parts]

    assert kept()
    demand(admin.delete(f"pipelines/{pipeline['id']}"), 204)
    until(lambda: {"files": len(kept())}, lambda seen: seen["files"] == 0)
    assert admin.get(f"runs/{run}/logs").status_code == 404


def test_an_unknown_run_has_no_log(admin: httpx.Client) -> None:
    for params in ({}, {"follow": True}):
        answer = admin.get(f"runs/{uuid.uuid4()}/logs", params=params)
        assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")
