"""Dry runs over real HTTP: what a run would do, and nothing of it done."""

import uuid
from pathlib import Path
from typing import Any

import httpx
from headrace_local.testing import StackUnderTest, create_pipeline, demand, run_to_end, wait_for_end


def dry_run(client: httpx.Client, pipeline: dict[str, Any], **body: Any) -> dict[str, Any]:
    """The answer to a dry run, its tasks by id."""
    answer = client.post(f"pipelines/{pipeline['id']}/run", json={"dryRun": True, **body})
    told = demand(answer, 202)
    assert (told["runId"], "location" in answer.headers) == ("", False)
    report: dict[str, Any] = told["dryRun"]
    report["byId"] = {task["id"]: task for task in report["tasks"]}
    return report


def test_a_dry_run_tells_what_the_run_then_does(
    stack: StackUnderTest, admin: httpx.Client, warehouse: str, canary: str
) -> None:
    name = f"dr_{uuid.uuid4().hex[:12]}"
    stack.warehouse(f"CREATE TABLE {name} (id bigint PRIMARY KEY, v numeric(6,2))")
    stack.warehouse(f"INSERT INTO {name} VALUES (1, 1.50), (2, 2.50)")
    pipeline = create_pipeline(
        admin,
        f"""
version: 1
parameters: {{least: {{type: integer, default: 0}}}}
sources:
  - {{id: rows, connection: {warehouse}, table: {name}, incremental: {{cursor: id}}}}
transformations:
  - {{id: kept, type: filter, input: rows, condition: "v > ${{params.least}}"}}
sinks:
  - {{id: load, input: kept, connection: {warehouse}, table: public.{name}_copy, mode: merge, keys: [id]}}
""",
    )
    path = f"pipelines/{pipeline['id']}/runs"

    first = dry_run(admin, pipeline, parameters={"least": 1})

    assert first["ready"], first
    assert first["parameters"] == {"least": 1}
    assert [stage["tasks"] for stage in first["stages"]] == [["rows", "kept", "load"]]
    assert "cursorFrom" not in first["byId"]["rows"]["readings"][0]
    assert "> 1" in first["byId"]["kept"]["query"]
    load = first["byId"]["load"]["load"]
    assert load["creates"]
    assert load["columns"] == [{"name": "id", "type": "bigint"}, {"name": "v", "type": "numeric(6,2)"}]
    assert demand(admin.get(path), 200)["data"] == []
    assert stack.warehouse("SELECT to_regclass($1)::text", f"public.{name}_copy") == [(None,)]

    done = demand(admin.post(f"pipelines/{pipeline['id']}/run", json={"parameters": {"least": 1}}), 202)
    assert wait_for_end(admin, done["runId"])["overallStatus"] == "COMPLETED"
    second = dry_run(admin, pipeline)
    reading = second["byId"]["rows"]["readings"][0]
    assert (reading["cursorFrom"], reading["cursorTo"]) == ("2", "2")
    assert not second["byId"]["load"]["load"]["creates"]
    again = dry_run(admin, pipeline, fullRefresh=True)
    assert "cursorFrom" not in again["byId"]["rows"]["readings"][0]
    stack.warehouse(f"DROP TABLE {name}, {name}_copy")


def test_all_that_would_fail_is_told_and_nothing_secret(
    admin: httpx.Client, warehouse: str, folder: Path, files: str, canary: str
) -> None:
    away = f"away-{uuid.uuid4().hex[:12]}"
    body = {"name": away, "type": "POSTGRESQL", "host": "127.0.0.1", "port": 1, "database": "x"}
    demand(admin.post("connections", json={**body, "username": "u", "secret": canary}), 201)
    (folder / "people.csv").write_text("id,name\n1,Ada\n")
    pipeline = create_pipeline(
        admin,
        f"""
version: 1
sources:
  - {{id: people, connection: {files}, path: people.csv}}
  - {{id: gone, connection: {warehouse}, table: public.no_such_table}}
  - {{id: far, connection: {away}, table: t}}
transformations:
  - {{id: wrong, type: select, input: people, columns: [nmae]}}
sinks:
  - {{id: a, input: wrong, connection: {files}, path: out.json, mode: replace}}
  - {{id: b, input: gone, discard: true}}
  - {{id: c, input: far, discard: true}}
""",
    )

    answer = admin.post(f"pipelines/{pipeline['id']}/run", json={"dryRun": True})
    told = demand(answer, 202)["dryRun"]
    codes = {task["id"]: task["error"]["code"] for task in told["tasks"] if "error" in task}

    assert not told["ready"]
    assert codes == {"gone": "TABLE_NOT_FOUND", "wrong": "COLUMN_NOT_FOUND", "far": "UNREACHABLE"}
    assert "did you mean 'name'" in next(t["error"]["message"] for t in told["tasks"] if t["id"] == "wrong")
    assert canary not in answer.text
    assert [file.name for file in folder.iterdir()] == ["people.csv"]


def test_a_dry_run_needs_what_a_run_needs(stack: StackUnderTest, admin: httpx.Client) -> None:
    ended = run_to_end(admin, "sources: [{id: one, values: [{x: 1}]}]\nsinks: [{discard: true}]\n")
    path = f"pipelines/{ended['pipelineId']}/run"
    with stack.client("viewer") as viewer:
        assert viewer.post(path, json={"dryRun": True}).status_code == 403
    unknown = admin.post(path, json={"dryRun": True, "parameters": {"x": 1}})
    assert (unknown.status_code, unknown.json()["code"]) == (400, "INVALID_PARAMETERS")
