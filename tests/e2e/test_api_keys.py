"""API keys over real HTTP: what they open, where they stop, and that they are gone when they are revoked."""

import uuid
from typing import Any

import httpx
from headrace_local.testing import StackUnderTest, create_pipeline, demand, until, wait_for_end

NOOP = "version: 1\nsources:\n  - id: noop\n    values: [{x: 1}]\nsinks:\n  - discard: true\n"


def _make(admin: httpx.Client, role: str, **fields: Any) -> dict[str, Any]:
    return demand(admin.post("api-keys", json={"name": "e2e", "role": role, **fields}), 201)


def _with(stack: StackUnderTest, key: str) -> httpx.Client:
    return httpx.Client(
        base_url=f"{stack.running.url}/api/v1/", headers={"Authorization": f"Bearer {key}"}, timeout=60
    )


def test_a_key_creates_and_runs_a_pipeline_in_its_workspace_and_nowhere_else(
    stack: StackUnderTest, admin: httpx.Client
) -> None:
    slug = f"key-{uuid.uuid4().hex[:8]}"
    workspace = demand(admin.post("workspaces", json={"slug": slug}), 201)["id"]
    outside = create_pipeline(admin, NOOP)
    made = _make(admin, "EDITOR", workspaceIds=[workspace])
    with _with(stack, made["key"]) as client:
        pipeline = create_pipeline(client, NOOP)
        assert (pipeline["workspaceId"], pipeline["createdBy"]) == (workspace, f"apikey:{made['id']}")
        run = demand(client.post(f"pipelines/{pipeline['id']}/run", json={}), 202)
        assert wait_for_end(client, run["runId"])["overallStatus"] == "COMPLETED"
        assert client.get(f"pipelines/{outside['id']}").status_code == 404
        refused = client.post("workspaces", json={"slug": f"{slug}-2"})
        assert (refused.status_code, refused.json()["code"]) == (403, "ROLE_REQUIRED")


def test_a_key_is_shown_once(admin: httpx.Client) -> None:
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    body = {"name": "once", "role": "VIEWER", "expiresAt": "2999-01-01T00:00:00Z"}
    first = demand(admin.post("api-keys", json=body, headers=headers), 201)
    again = demand(admin.post("api-keys", json=body, headers=headers), 201)
    shown = demand(admin.get("api-keys", params={"limit": 200}), 200)["data"]
    assert first["key"].startswith(first["prefix"] + "_")
    assert (again["id"], "key" in again) == (first["id"], False)
    assert all("key" not in key for key in shown)
    assert next(key for key in shown if key["id"] == first["id"])["expiresAt"] == body["expiresAt"]


def test_a_revoked_key_soon_opens_nothing(stack: StackUnderTest, admin: httpx.Client) -> None:
    made = _make(admin, "VIEWER")
    with _with(stack, made["key"]) as client:
        demand(client.get("pipelines"), 200)
        demand(admin.delete(f"api-keys/{made['id']}"), 204)
        gone = until(
            lambda: {"answer": client.get("pipelines")}, lambda seen: seen["answer"].status_code == 401
        )["answer"]
    unknown = httpx.get(
        f"{stack.running.url}/api/v1/pipelines", headers={"Authorization": "Bearer hr_unknown"}
    )
    for answer in (gone, unknown):
        assert answer.json()["detail"] == "the API key is not valid"
        assert answer.headers["www-authenticate"].startswith("Bearer")


def test_a_key_that_ended_before_it_began_is_refused(admin: httpx.Client) -> None:
    body = {"name": "late", "role": "VIEWER", "expiresAt": "2001-01-01T00:00:00Z"}
    answer = admin.post("api-keys", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (400, "expiresAt")
