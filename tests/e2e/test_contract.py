"""Every operation that is served, over real HTTP: its status, its shape, who may call it, nothing besides."""

import csv
import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from headrace_local.testing import StackUnderTest, create_pipeline, demand, until, wait_for_end

with (Path(__file__).parent / "contract.tsv").open(newline="") as _file:
    CONTRACT = list(csv.DictReader(_file, delimiter="\t"))
REQUESTS = [row for row in CONTRACT if row["success"] != "101"]
"""Those that are answered over HTTP; WebSockets are in test_watching.py."""

NOOP = "version: 1\nsources:\n  - id: noop\n    values: [{x: 1}]\nsinks:\n  - discard: true\n"
WAITING = NOOP.replace("sinks:", "transformations:\n  - {id: go, type: wait_for_signal}\nsinks:")
# It would take hours, so that there is something to cancel.
SLOW = """
version: 1
sources:
  - {id: ten, values: [{x: 0}, {x: 1}, {x: 2}, {x: 3}, {x: 4}, {x: 5}, {x: 6}, {x: 7}, {x: 8}, {x: 9}]}
transformations:
  - id: many
    type: sql_transform
    inputs: [ten]
    sql: |
      SELECT count(*) AS n
      FROM ten a, ten b, ten c, ten d, ten e, ten f, ten g, ten h, ten i, ten j, ten k, ten l, ten m
      WHERE hash(a.x + b.x * c.x + d.x * e.x + f.x * g.x + h.x * i.x + j.x * k.x + l.x * m.x) = 1
sinks:
  - {id: out, input: many, discard: true}
"""
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True)
class World:
    """Something of each kind, for paths to name."""

    workspace: str
    connection: str
    pipeline: str
    run: str
    api_key: str
    schedule: str
    backfill: str
    dependency: str
    alert: str

    def path(self, template: str) -> str:
        """The template with ids that exist."""
        ids = {
            "workspaces": self.workspace,
            "connections": self.connection,
            "pipelines": self.pipeline,
            "api-keys": self.api_key,
            "schedules": self.schedule,
            "backfill": self.backfill,
            "dependencies": self.dependency,
            "alerts": self.alert,
        }
        filled = template.replace("{version}", "1").replace("{runId}", self.run)
        filled = filled.replace("{industry}/{name}", "retail/daily_sales")
        filled = filled.replace("{pipelineId}", self.pipeline)
        return re.sub(r"/([\w-]+)/\{id\}", lambda found: f"/{found[1]}/{ids[found[1]]}", filled)


@pytest.fixture(scope="module")
def world(admin: httpx.Client, warehouse: str) -> World:
    """Made once for all operations."""
    pipeline = create_pipeline(admin, NOOP)
    run = demand(admin.post(f"pipelines/{pipeline['id']}/run", json={}), 202)
    wait_for_end(admin, run["runId"])
    connection = next(c for c in _data(admin, "connections") if c["name"] == warehouse)
    key = demand(admin.post("api-keys", json={"name": "contract", "role": "VIEWER"}), 201)
    schedule = demand(admin.post("scheduler/schedules", json=_yearly(pipeline["id"])), 201)
    backfill = demand(admin.post("scheduler/backfill", json=_days(pipeline["id"])), 201)
    ends = {"upstreamPipelineId": create_pipeline(admin, NOOP)["id"], "downstreamPipelineId": pipeline["id"]}
    dependency = demand(admin.post("scheduler/dependencies", json=ends), 201)
    return World(
        workspace=pipeline["workspaceId"],
        connection=connection["id"],
        pipeline=pipeline["id"],
        run=run["runId"],
        api_key=key["id"],
        schedule=schedule["id"],
        backfill=backfill["id"],
        dependency=dependency["id"],
        alert=_alert(admin),
    )


def test_the_table_holds_all_that_is_served_and_nothing_else(stack: StackUnderTest) -> None:
    document = yaml.safe_load(httpx.get(f"{stack.running.url}/openapi-pipeline-engine.yaml").text)
    served = {
        (method.upper(), path, operation["operationId"])
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if method in ("get", "post", "put", "delete", "patch")
    }
    assert served == {(row["method"], row["path"], row["operation"]) for row in CONTRACT}


@pytest.mark.parametrize("row", REQUESTS, ids=lambda row: row["operation"])
def test_an_operation_answers_as_the_contract_says(
    admin: httpx.Client, world: World, row: dict[str, str]
) -> None:
    path, body = _prepare(admin, world, row["operation"], world.path(row["path"]))
    answer = admin.request(row["method"], admin.base_url.join(path), json=body)
    assert answer.status_code == int(row["success"]), answer.text
    assert answer.headers["x-request-id"]
    if answer.status_code == 204:
        assert answer.content == b""
        return
    media_type = answer.headers["content-type"].split(";")[0]
    if row["operation"] == "downloadRunOutput":
        assert (media_type, answer.text) == ("text/csv", '"x"\n1\n')
        return
    assert media_type == "application/json"
    _check_shape(row["operation"], answer.json())
    # Keys and tickets have no address of their own to be read at.
    if answer.status_code in (201, 202) and row["operation"] not in ("createApiKey", "createStreamTicket"):
        location = answer.headers["location"]
        assert admin.get(admin.base_url.join(location)).status_code == 200, location


@pytest.mark.parametrize("row", REQUESTS, ids=lambda row: row["operation"])
def test_an_operation_demands_its_role(stack: StackUnderTest, world: World, row: dict[str, str]) -> None:
    path = world.path(row["path"])
    lesser = {"viewer": None, "editor": "viewer", "admin": "editor"}[row["role"]]
    anonymous = httpx.request(row["method"], stack.running.url + path, json=_body(row["method"]))
    assert (anonymous.status_code, anonymous.json()["code"]) == (401, "UNAUTHENTICATED")
    assert anonymous.headers["www-authenticate"].startswith("Bearer")
    if lesser is not None:
        with stack.client(lesser) as client:
            refused = client.request(row["method"], client.base_url.join(path), json=_body(row["method"]))
        assert (refused.status_code, refused.json()["code"]) == (403, "ROLE_REQUIRED")


@pytest.mark.parametrize(
    "row",
    # Templates belong to no tenant: everybody sees the same.
    [row for row in REQUESTS if "{" in row["path"] and "/templates/" not in row["path"]],
    ids=lambda row: row["operation"],
)
def test_another_tenant_sees_nothing(stack: StackUnderTest, world: World, row: dict[str, str]) -> None:
    with stack.client("admin", tenant=uuid.uuid4()) as stranger:
        path = stranger.base_url.join(world.path(row["path"]))
        # What is looked at before it is known whose the object is must be in order.
        body = {"signalName": "go"} if row["operation"] == "signalWorkflow" else _body(row["method"])
        answer = stranger.request(row["method"], path, json=body)
    assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")
    assert answer.headers["content-type"] == "application/problem+json"


ABSENT = [
    ("POST", "/api/v1/orchestrator/trigger"),
    ("GET", "/api/v1/git/repos"),
    ("POST", "/api/v1/git/webhooks"),
    ("GET", "/api/v1/flink/jobs"),
    ("GET", "/v1/pipelines"),
    ("GET", "/canvas/api/v1/pipelines"),
    ("GET", "/named/api/v1/pipelines"),
    ("GET", "/api/organizations"),
    ("GET", "/api/v1/nothing"),
]


@pytest.mark.parametrize(("method", "path"), ABSENT, ids=lambda value: value.strip("/"))
def test_what_is_not_built_is_a_plain_404(admin: httpx.Client, method: str, path: str) -> None:
    answer = admin.request(method, admin.base_url.join(path), json=_body(method))
    assert (answer.status_code, answer.json()["code"]) == (404, "NO_SUCH_ROUTE")
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_wrong_method_names_the_right_ones(admin: httpx.Client) -> None:
    answer = admin.patch("pipelines", json={})
    assert (answer.status_code, answer.json()["code"]) == (405, "METHOD_NOT_ALLOWED")
    assert {"GET", "POST"} <= {method.strip() for method in answer.headers["allow"].split(",")}


def test_versions_etags_and_lost_updates(admin: httpx.Client) -> None:
    pipeline = create_pipeline(admin, NOOP, tags=["a"])
    path = f"pipelines/{pipeline['id']}"
    assert admin.get(path).headers["etag"] == '"1"'
    changed = admin.put(path, json={"tags": ["b"]}, headers={"If-Match": '"1"'})
    assert (changed.status_code, changed.json()["version"], changed.headers["etag"]) == (200, 2, '"2"')
    lost = admin.put(path, json={"tags": ["c"]}, headers={"If-Match": '"1"'})
    assert (lost.status_code, lost.json()["code"]) == (412, "VERSION_MISMATCH")
    same = demand(admin.put(path, json={"tags": ["b"]}), 200)
    assert same["version"] == 2, "no real change makes no version"
    assert demand(admin.get(f"{path}/versions/1"), 200)["tags"] == ["a"]


def test_a_repeated_request_with_a_key_has_one_effect(admin: httpx.Client) -> None:
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    body = {"name": f"once-{uuid.uuid4()}", "yamlDefinition": NOOP}
    first = admin.post("pipelines", json=body, headers=headers)
    second = admin.post("pipelines", json=body, headers=headers)
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    other = admin.post("pipelines", json={**body, "tags": ["x"]}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")


def test_lists_page_by_cursor_without_gaps(admin: httpx.Client) -> None:
    tag = uuid.uuid4().hex
    made = {create_pipeline(admin, NOOP, tags=[tag])["id"] for _ in range(5)}
    seen: list[str] = []
    query: dict[str, Any] = {"tags": tag, "limit": 2, "includeTotal": True}
    while True:
        page = demand(admin.get("pipelines", params=query), 200)
        seen += [entry["id"] for entry in page["data"]]
        assert page["meta"]["total"] == 5
        if "nextCursor" not in page["meta"]:
            break
        query["cursor"] = page["meta"]["nextCursor"]
    assert (len(seen), set(seen)) == (5, made)
    altered = admin.get("pipelines", params={**query, "cursor": query["cursor"][:-2] + "xx"})
    assert (altered.status_code, altered.json()["code"]) == (400, "INVALID_CURSOR")


@pytest.mark.parametrize("limit", [0, 201, -1])
@pytest.mark.parametrize("collection", ["pipelines", "runs", "connections", "workspaces", "api-keys"])
def test_a_page_holds_1_to_200_items(admin: httpx.Client, collection: str, limit: int) -> None:
    answer = admin.get(collection, params={"limit": limit})
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (400, "limit")


def test_a_pipeline_can_be_given_in_yaml(admin: httpx.Client) -> None:
    body = yaml.safe_dump({"name": f"yaml-{uuid.uuid4()}", "yamlDefinition": NOOP})
    answer = admin.post("pipelines", content=body, headers={"Content-Type": "application/yaml"})
    assert demand(answer, 201)["status"] == "DRAFT"


def test_a_pipelines_status_follows_its_runs(admin: httpx.Client) -> None:
    pipeline = create_pipeline(admin, NOOP)
    assert pipeline["status"] == "DRAFT"
    run = demand(admin.post(f"pipelines/{pipeline['id']}/run", json={}), 202)
    assert run["taskCount"] == 1
    assert wait_for_end(admin, run["runId"])["overallStatus"] == "COMPLETED"
    shown = until(
        lambda: demand(admin.get(f"pipelines/{pipeline['id']}"), 200), lambda p: p["status"] == "SUCCESS"
    )
    assert shown["lastRun"]["runId"] == run["runId"]


def test_a_running_run_can_be_cancelled_and_stays_so(admin: httpx.Client) -> None:
    pipeline = create_pipeline(admin, SLOW)
    run = demand(admin.post(f"pipelines/{pipeline['id']}/run", json={}), 202)["runId"]
    until(lambda: demand(admin.get(f"runs/{run}"), 200), lambda s: s["taskStatuses"]["many"] == "RUNNING")
    cancelled = demand(admin.post(f"runs/{run}/cancel", json={"reason": "test"}), 200)
    assert cancelled["status"] == "CANCELLED"
    assert demand(admin.post(f"runs/{run}/cancel", json={}), 200)["status"] == "CANCELLED"
    status = demand(admin.get(f"runs/{run}"), 200)
    assert (status["overallStatus"], status["taskStatuses"]["out"]) == ("CANCELLED", "CANCELLED")


def test_a_finished_run_is_not_cancelled(admin: httpx.Client, world: World) -> None:
    answer = admin.post(f"runs/{world.run}/cancel", json={})
    assert (answer.status_code, answer.json()["code"]) == (409, "RUN_FINISHED")


def test_a_deleted_pipeline_is_gone_for_everybody_and_its_name_is_free(admin: httpx.Client) -> None:
    pipeline = create_pipeline(admin, NOOP)
    run = demand(admin.post(f"pipelines/{pipeline['id']}/run", json={}), 202)["runId"]
    wait_for_end(admin, run)
    demand(admin.delete(f"pipelines/{pipeline['id']}"), 204)
    assert admin.get(f"pipelines/{pipeline['id']}").status_code == 404
    assert admin.post(f"pipelines/{pipeline['id']}/run", json={}).status_code == 404
    until(
        lambda: {"status": admin.get(f"runs/{run}").status_code}, lambda seen: seen["status"] == 404
    )  # its runs are purged
    again = admin.post("pipelines", json={"name": pipeline["name"], "yamlDefinition": NOOP})
    assert again.status_code == 201


def test_a_pipeline_with_live_runs_is_deleted_only_by_force(admin: httpx.Client) -> None:
    pipeline = create_pipeline(admin, SLOW)
    run = demand(admin.post(f"pipelines/{pipeline['id']}/run", json={}), 202)["runId"]
    refused = admin.delete(f"pipelines/{pipeline['id']}")
    assert (refused.status_code, refused.json()["code"]) == (409, "PIPELINE_HAS_LIVE_RUNS")
    assert run in refused.text
    demand(admin.delete(f"pipelines/{pipeline['id']}", params={"force": True}), 204)
    assert admin.get(f"pipelines/{pipeline['id']}").status_code == 404


def test_workspaces_keep_apart_what_is_in_them(stack: StackUnderTest, admin: httpx.Client) -> None:
    slug = f"team-{uuid.uuid4().hex[:8]}"
    workspace = demand(admin.post("workspaces", json={"slug": slug}), 201)["id"]
    inside = create_pipeline(admin, NOOP, workspaceId=workspace)
    outside = create_pipeline(admin, NOOP)
    with stack.client("editor", workspaces=[workspace]) as member:
        assert [p["id"] for p in _data(member, "pipelines")] == [inside["id"]]
        assert member.get(f"pipelines/{outside['id']}").status_code == 404
        forbidden = member.get("pipelines", params={"workspaceId": outside["workspaceId"]})
        assert (forbidden.status_code, forbidden.json()["code"]) == (403, "WORKSPACE_FORBIDDEN")
        assert create_pipeline(member, NOOP)["workspaceId"] == workspace


def _prepare(
    admin: httpx.Client, world: World, operation: str, path: str
) -> tuple[str, dict[str, Any] | None]:
    """The path and body of a call; what it destroys or ends is made first."""
    name = f"contract-{uuid.uuid4()}"
    bodies: dict[str, dict[str, Any]] = {
        "createPipeline": {"name": name, "yamlDefinition": NOOP},
        "validatePipeline": {"yamlDefinition": NOOP},
        "updatePipeline": {"description": name},
        "duplicatePipeline": {"name": name},
        "runPipeline": {},
        "createConnection": {"name": name, "type": "SQLITE", "path": "/nowhere/x.db"},
        "updateConnection": {"description": name},
        "testConnection": {},
        "createWorkspace": {"slug": f"w-{uuid.uuid4().hex[:12]}"},
        "updateWorkspace": {"name": name},
        "createApiKey": {"name": name, "role": "EDITOR"},
        "createSchedule": _yearly(world.pipeline),
        "updateSchedule": {"overlapStrategy": "QUEUE", "queueLimit": 5},
        "pauseSchedule": {},
        "resumeSchedule": {},
        "createBackfill": _days(world.pipeline),
        "triggerSchedule": {},
        "acknowledgeAlert": {"note": name},
        "createPipelineFromTemplate": {"pipelineName": name},
    }
    if operation in ("pauseBackfill", "resumeBackfill", "cancelBackfill", "retryBackfill"):
        made = demand(admin.post("scheduler/backfill", json=_days(world.pipeline, "2025-12-31")), 201)
        return f"scheduler/backfill/{made['id']}/{operation.removesuffix('Backfill')}", {}
    if operation in ("addDependency", "removeDependency"):
        ends = {
            end: create_pipeline(admin, NOOP)["id"] for end in ("upstreamPipelineId", "downstreamPipelineId")
        }
        if operation == "addDependency":
            return path, ends
        made = demand(admin.post("scheduler/dependencies", json=ends), 201)
        return f"scheduler/dependencies/{made['id']}", None
    if operation == "deleteSchedule":
        made = demand(admin.post("scheduler/schedules", json=_yearly(world.pipeline)), 201)
        return f"scheduler/schedules/{made['id']}", None
    if operation == "deletePipeline":
        return f"pipelines/{create_pipeline(admin, NOOP)['id']}", None
    if operation == "deleteConnection":
        made = demand(admin.post("connections", json=bodies["createConnection"]), 201)
        return f"connections/{made['id']}", None
    if operation == "revokeApiKey":
        made = demand(admin.post("api-keys", json=bodies["createApiKey"]), 201)
        return f"api-keys/{made['id']}", None
    if operation == "signalWorkflow":
        run = demand(admin.post(f"pipelines/{create_pipeline(admin, WAITING)['id']}/run", json={}), 202)
        return f"runs/{run['runId']}/signal", {"signalName": "go", "data": {"by": "hand"}}
    if operation == "retryRun":  # the other run is left behind, and must not keep a processor busy
        run = demand(admin.post(f"pipelines/{create_pipeline(admin, WAITING)['id']}/run", json={}), 202)
        demand(admin.post(f"runs/{run['runId']}/cancel", json={}), 200)
        until(
            lambda: demand(admin.get(f"runs/{run['runId']}"), 200),
            lambda shown: shown["overallStatus"] == "CANCELLED",
        )
        return f"runs/{run['runId']}/retry", {}
    if operation == "downloadRunOutput":
        pipeline = create_pipeline(admin, NOOP.replace("discard: true", "output: csv"))
        run = demand(admin.post(f"pipelines/{pipeline['id']}/run", json={}), 202)
        assert wait_for_end(admin, run["runId"])["overallStatus"] == "COMPLETED"
        return f"runs/{run['runId']}/output", None
    if operation == "cancelRun":
        run = demand(admin.post(f"pipelines/{create_pipeline(admin, SLOW)['id']}/run", json={}), 202)
        return f"runs/{run['runId']}/cancel", {}
    return path, bodies.get(operation)


def _check_shape(operation: str, answer: dict[str, Any]) -> None:
    if operation.startswith("list"):
        assert set(answer) == {"data", "meta"}
        assert answer["meta"]["limit"] == 20
        assert isinstance(answer["data"], list)
    for key in ("id", "runId", "pipelineId", "workspaceId"):
        if operation == "getTemplate":
            continue  # the id of a template is its path in the catalogue
        assert key not in answer or UUID.fullmatch(answer[key])
    for key, value in answer.items():
        assert not key.endswith("At") or value.endswith("Z")
    assert "secret" not in answer


def _alert(admin: httpx.Client) -> str:
    """An alert of a pipeline whose quality check is not met."""
    check = "quality_checks:\n  - {id: many, type: row_count, input: noop, min: 2}\n"
    pipeline = create_pipeline(admin, NOOP.replace("sinks:", f"{check}sinks:"))
    run = demand(admin.post(f"pipelines/{pipeline['id']}/run", json={}), 202)
    assert wait_for_end(admin, run["runId"])["overallStatus"] == "FAILED"
    narrow = {"pipelineId": pipeline["id"]}
    found = until(
        lambda: demand(admin.get("monitoring/alerts", params=narrow), 200), lambda page: bool(page["data"])
    )
    return str(found["data"][0]["id"])


def _yearly(pipeline: str) -> dict[str, Any]:
    """A schedule that does not tick while tests run."""
    return {"pipelineId": pipeline, "cronExpression": "0 0 29 2 *"}


def _days(pipeline: str, last: str = "2025-11-02") -> dict[str, Any]:
    """A backfill of days, from 1 November."""
    return {"pipelineId": pipeline, "from": "2025-11-01", "to": last, "granularity": "DAILY"}


def _body(method: str) -> dict[str, Any] | None:
    return {} if method in ("POST", "PUT") else None


def _data(client: httpx.Client, collection: str) -> list[dict[str, Any]]:
    return list(demand(client.get(collection, params={"limit": 200}), 200)["data"])
