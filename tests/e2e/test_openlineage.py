"""What a catalogue of lineage is told of runs, over real HTTP and a real worker, as JSON lines."""

import json
from pathlib import Path
from typing import Any

import httpx
from headrace_execution.testing.openlineage import demand_valid
from headrace_local.testing import StackUnderTest, create_pipeline, demand, until, wait_for_end


def events_file(stack: StackUnderTest) -> Path:
    """The file that the stack tells its runs to."""
    return stack.home.root / "openlineage.jsonl"


def told(stack: StackUnderTest) -> list[dict[str, Any]]:
    """All events so far; a line that is being written is not there yet, nor is the file before the first."""
    if not events_file(stack).exists():
        return []
    lines = events_file(stack).read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]


def told_of(stack: StackUnderTest, run: str) -> list[dict[str, Any]]:
    """Both events of a run."""

    def events() -> list[dict[str, Any]]:
        return [event for event in told(stack) if event["run"]["runId"] == run]

    return until(events, lambda found: len(found) == 2)


def test_a_load_between_databases_is_told_column_by_column(
    stack: StackUnderTest, admin: httpx.Client, files: str, folder: Path, warehouse: str, canary: str
) -> None:
    (folder / "orders.csv").write_text("id,price\n1,2.50\n2,4\n")
    first, second = f"lineage_{folder.name}_a", f"lineage_{folder.name}_b"
    landing = create_pipeline(
        admin,
        f"""
sources:
  - {{id: orders, connection: {files}, path: orders.csv, schema: {{id: BIGINT, price: "DECIMAL(10,2)"}}}}
sinks:
  - {{id: load, input: orders, connection: {warehouse}, table: {first}, mode: replace}}
""",
    )
    copying = create_pipeline(
        admin,
        f"""
sources:
  - {{id: orders, connection: {warehouse}, query: "SELECT id, price * 2 AS twice FROM {first}"}}
sinks:
  - {{id: load, input: orders, connection: {warehouse}, table: {second}, mode: replace}}
""",
    )
    runs = []
    for pipeline in (landing, copying):
        runs.append(demand(admin.post(f"pipelines/{pipeline['id']}/run", json={}), 202)["runId"])
        wait_for_end(admin, runs[-1])

    start, end = told_of(stack, runs[1])

    login = stack.warehouse_login()
    namespace = f"postgres://{login['host']}:{login['port']}"
    assert (start["eventType"], end["eventType"]) == ("START", "COMPLETE")
    (read,), (written,) = end["inputs"], end["outputs"]
    assert (read["namespace"], read["name"]) == (namespace, f"{login['database']}.public.{first}")
    assert (written["namespace"], written["name"]) == (namespace, f"{login['database']}.public.{second}")
    assert written["facets"]["columnLineage"]["fields"]["twice"]["inputFields"] == [
        {"namespace": namespace, "name": read["name"], "field": "price"}
    ]
    assert [each["name"] for each in written["facets"]["schema"]["fields"]] == ["id", "twice"]
    assert written["outputFacets"]["outputStatistics"]["rowCount"] == 2
    assert read["inputFacets"]["inputStatistics"]["rowCount"] == 2
    (landed,) = told_of(stack, runs[0])[1]["outputs"]
    assert (landed["namespace"], landed["name"]) == (read["namespace"], read["name"])

    for event in told(stack):
        demand_valid(event)
    text = json.dumps([told_of(stack, run) for run in runs])  # another test may have its SQL hold a secret
    assert canary not in text
    assert login["password"] not in text
    assert events_file(stack).stat().st_mode & 0o077 == 0
