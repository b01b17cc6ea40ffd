"""Pipelines that are not all there yet are stored and run all the same: the run says what they lack."""

import uuid
from typing import Any

import httpx
from headrace_local.testing import create_pipeline, demand, wait_for_end

BILLING: dict[str, Any] = {
    "description": "Daily Teradata → Snowflake billing extract",
    "yamlDefinition": "version: 1\nsource:\n  connection: teradata\ntarget:\n  connection: snowflake\n",
    "scheduleCron": "0 2 * * *",
    "tags": ["billing", "daily"],
    "sourceConnectionId": str(uuid.uuid4()),
    "targetConnectionId": str(uuid.uuid4()),
}


def test_connections_and_tables_may_come_later(admin: httpx.Client) -> None:
    body = {"name": f"billing {uuid.uuid4()}", **BILLING, "createdBy": "u-1001"}
    pipeline = demand(admin.post("pipelines", json=body), 201)
    assert (pipeline["createdBy"], pipeline["createdByLabel"]) == ("local-admin", "u-1001")
    told = {warning["path"]: warning["code"] for warning in pipeline["warnings"]}
    assert (told["source.table"], told["target.connection"]) == ("INCOMPLETE", "UNKNOWN_CONNECTION")
    assert {key: pipeline[key] for key in BILLING} == BILLING

    accepted = demand(admin.post(f"pipelines/{pipeline['id']}/run", json={"triggeredBy": "u-1001"}), 202)
    assert accepted["taskCount"] == 2
    assert {warning["path"] for warning in accepted["warnings"]} >= {"source.table", "target.table"}

    status = wait_for_end(admin, accepted["runId"])
    assert (status["overallStatus"], status["triggerLabel"]) == ("FAILED", "u-1001")
    (error,) = (task["error"] for task in status["tasks"] if "error" in task)
    assert error["code"] in ("CONNECTION_NOT_FOUND", "DEFINITION_INCOMPLETE")
    assert status["errors"] == {"load": error["message"]}
    demand(admin.put(f"pipelines/{pipeline['id']}", json={"scheduleCron": None}), 200)


def test_there_must_be_something_to_run(admin: httpx.Client) -> None:
    empty = create_pipeline(admin, "version: 1\nsources: []\n")
    refused = admin.post(f"pipelines/{empty['id']}/run", json={})
    assert (refused.status_code, refused.json()["code"]) == (400, "INVALID_DEFINITION")
