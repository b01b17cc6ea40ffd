"""What clients of the native contract were promised: fields, words, parameters, and requests as printed."""

import uuid
from typing import Any

import httpx
import pytest
import yaml
from headrace_local.testing import StackUnderTest, create_pipeline, demand

NOOP = "version: 1\nsources:\n  - {id: noop, values: [{x: 1}]}\nsinks:\n  - {id: load, discard: true}\n"

FIELDS = {
    "Pipeline": "id workspaceId name description yamlDefinition version status scheduleCron tags "
    "sourceConnectionId targetConnectionId maxRetries retryDelaySeconds timeoutSeconds notifications "
    "isActive createdAt updatedAt createdBy",
    "CreatePipelineRequest": "name description yamlDefinition scheduleCron tags sourceConnectionId "
    "targetConnectionId",
    "RunPipelineRequest": "yamlDefinition triggeredBy parameters variables engine priority fullRefresh "
    "dryRun",
    "RunResponse": "runId pipelineId status taskCount engine",
    "RunStatusResponse": "runId pipelineId overallStatus taskStatuses errors startedAt finishedAt progress "
    "metrics warnings attempt retryOf",
    "CancelRunResponse": "runId status message",
    "CreateScheduleRequest": "pipelineId cronExpression timezone businessDaysOnly skipHolidays "
    "maintenanceWindows overlapStrategy catchupStrategy catchupLimit parameters",
    "Schedule": "id pipelineId cronExpression timezone status nextRunAt",
    "CreateBackfillRequest": "pipelineId from to granularity concurrency priority dryRun parameterOverrides "
    "timezone",
    "Backfill": "id pipelineId status totalIntervals completedIntervals failedIntervals",
    "AddDependencyRequest": "upstreamPipelineId downstreamPipelineId type",
}
WORDS = {
    "PipelineStatus": "DRAFT SCHEDULED RUNNING SUCCESS FAILED WARNING CANCELLED",
    "RunState": "PENDING RUNNING COMPLETED FAILED CANCELLED",
    "TaskState": "PENDING WAITING RUNNING COMPLETED FAILED SKIPPED CANCELLED",
    "Engine": "SPARK FLINK JDBC",
    "OverlapStrategy": "SKIP QUEUE CANCEL_RUNNING",
    "CatchupStrategy": "SKIP_TO_CURRENT RUN_ALL RUN_LATEST_N",
    "Granularity": "HOURLY DAILY WEEKLY MONTHLY",
    "BackfillPriority": "LOW MEDIUM HIGH",
    "DependencyType": "STRONG WEAK",
}
PARAMETERS = {
    "listPipelines": "workspaceId search name tags status limit cursor offset includeTotal",
    "getNextRuns": "limit pipelineId scheduleId",
    "deletePipeline": "force",
    "getRunLogs": "task lines follow",
}


@pytest.fixture(scope="module")
def document(stack: StackUnderTest) -> dict[str, Any]:
    """The OpenAPI document, as it is served."""
    found: dict[str, Any] = yaml.safe_load(
        httpx.get(f"{stack.running.url}/openapi-pipeline-engine.yaml").text
    )
    return found


def test_no_promised_field_word_or_parameter_is_missing(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    asked = {
        operation["operationId"]: {each.get("name") for each in operation.get("parameters", [])}
        for operations in document["paths"].values()
        for operation in operations.values()
        if isinstance(operation, dict)
    }
    missing = [
        *(
            f"{name}.{f}"
            for name, all_ in FIELDS.items()
            for f in all_.split()
            if f not in schemas[name]["properties"]
        ),
        *(
            f"{name} {w}"
            for name, all_ in WORDS.items()
            for w in all_.split()
            if w not in schemas[name]["enum"]
        ),
        *(f"{name}?{p}" for name, all_ in PARAMETERS.items() for p in all_.split() if p not in asked[name]),
    ]
    assert missing == []


def test_a_pipeline_is_created_as_printed_though_its_connections_are_not_there(admin: httpx.Client) -> None:
    text = "version: 1\nsource:\n  connection: teradata-prod\ntarget:\n  connection: snowflake-dwh\n"
    printed = {
        "name": f"billing-daily-load-{uuid.uuid4()}",
        "description": "Daily Teradata → Snowflake billing extract",
        "yamlDefinition": text,
        "scheduleCron": "0 2 * * *",
        "tags": ["billing", "daily"],
        "sourceConnectionId": "a1b2c3d4-0000-0000-0000-000000000001",
        "targetConnectionId": "a1b2c3d4-0000-0000-0000-000000000002",
    }
    made = demand(admin.post("pipelines", json=printed), 201)
    assert {name: made[name] for name in printed} == printed
    assert (made["version"], made["status"], made["isActive"]) == (1, "DRAFT", True)
    assert (made["maxRetries"], made["retryDelaySeconds"], made["timeoutSeconds"]) == (3, 60, 3600)
    assert made["warnings"]
    demand(admin.delete(f"pipelines/{made['id']}"), 204)


def test_runs_schedules_and_backfills_answer_as_printed(admin: httpx.Client) -> None:
    pipeline, upstream = create_pipeline(admin, NOOP)["id"], create_pipeline(admin, NOOP)["id"]
    run = demand(admin.post(f"pipelines/{pipeline}/run", json={"triggeredBy": "u-1001"}), 202)
    assert (run["pipelineId"], run["taskCount"], run["engine"]) == (pipeline, 2, "JDBC")
    assert run["status"] in ("RUNNING", "PENDING")
    status = demand(admin.get(f"runs/{run['runId']}"), 200)
    assert (set(status["taskStatuses"]), status["errors"]) == ({"noop", "load"}, {})

    schedule = {
        "pipelineId": pipeline,
        "cronExpression": "0 2 * * *",
        "timezone": "Europe/Warsaw",
        "businessDaysOnly": False,
        "skipHolidays": True,
        "overlapStrategy": "SKIP",
        "catchupStrategy": "SKIP_TO_CURRENT",
    }
    scheduled = demand(admin.post("scheduler/schedules", json=schedule), 201)
    assert {name: scheduled[name] for name in schedule} == schedule
    assert scheduled["status"] == "ACTIVE"
    assert scheduled["nextRunAt"].endswith(("T00:00:00Z", "T01:00:00Z"))

    days = {
        "pipelineId": pipeline,
        "from": "2025-11-01",
        "to": "2025-11-30",
        "granularity": "DAILY",
        "concurrency": 4,
        "priority": "MEDIUM",
        "dryRun": False,
    }
    backfill = demand(admin.post("scheduler/backfill", json=days), 201)
    assert (backfill["totalIntervals"], backfill["failedIntervals"]) == (30, 0)
    demand(admin.post(f"scheduler/backfill/{backfill['id']}/cancel", json={}), 200)

    edge = {"upstreamPipelineId": upstream, "downstreamPipelineId": pipeline, "type": "STRONG"}
    added = demand(admin.post("scheduler/dependencies", json=edge), 201)
    assert {name: added[name] for name in edge} == edge
