"""The lineage of a pipeline over real HTTP, before and after a run."""

from pathlib import Path

import httpx
from headrace_local.testing import StackUnderTest, create_pipeline, demand, until, wait_for_end


def test_lineage_names_datasets_columns_and_the_last_run(
    stack: StackUnderTest, admin: httpx.Client, files: str, folder: Path, warehouse: str
) -> None:
    (folder / "orders.csv").write_text("id,amount\n1,2\n")
    table = f"public.lineage_{folder.name}"
    pipeline = create_pipeline(
        admin,
        f"""
sources:
  - {{id: orders, connection: {files}, path: orders.csv, columns: [id, amount]}}
transformations:
  - {{id: cents, type: select, columns: {{id: id, cents: amount * 100}}}}
sinks:
  - {{id: load, input: cents, connection: {warehouse}, table: {table}, mode: replace}}
""",
    )
    path = f"pipelines/{pipeline['id']}/lineage"
    before = demand(admin.get(path), 200)
    assert (before["pipelineId"], before["version"], "lastExecuted" in before) == (pipeline["id"], 1, False)
    assert before["sources"] == [
        {
            "task": "orders",
            "type": "FILE",
            "fqn": str(folder / "orders.csv"),
            "namespace": "file",
            "connection": files,
            "connectionId": before["sources"][0]["connectionId"],
        }
    ]
    login = stack.warehouse_login()
    (sink,) = before["sinks"]
    assert sink["fqn"] == f"{login['database']}.{table}"
    assert sink["namespace"] == f"postgres://{login['host']}:{login['port']}"
    assert before["transformations"] == [
        {"name": "cents", "type": "select", "inputs": ["orders"], "sources": ["orders"]}
    ]
    assert {
        "task": "load",
        "column": "cents",
        "origins": [{"task": "orders", "column": "amount"}],
    } in before["columns"]
    assert login["password"] not in str(before)

    run = demand(admin.post(f"pipelines/{pipeline['id']}/run", json={}), 202)["runId"]
    wait_for_end(admin, run)
    after = until(lambda: demand(admin.get(path), 200), lambda seen: "finishedAt" in seen.get("lastRun", {}))
    assert (after["lastRun"]["runId"], after["lastRun"]["status"]) == (run, "SUCCESS")
    assert after["lastExecuted"] == after["lastRun"]["startedAt"]
