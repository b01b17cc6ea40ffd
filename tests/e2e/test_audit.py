"""The audit trail over real HTTP."""

import uuid

import httpx
from headrace_local.testing import StackUnderTest, create_pipeline, demand

NOOP = "version: 1\nsources:\n  - id: noop\n    values: [{x: 1}]\nsinks:\n  - discard: true\n"


def test_a_change_is_found_by_its_request_and_leads_to_its_actor(
    stack: StackUnderTest, admin: httpx.Client, canary: str
) -> None:
    key = demand(admin.post("api-keys", json={"name": "auditor", "role": "ADMIN"}), 201)
    request_id = f"audit-{uuid.uuid4()}"
    with httpx.Client(
        base_url=f"{stack.running.url}/api/v1/",
        headers={"Authorization": f"Bearer {key['key']}", "X-Request-Id": request_id},
        timeout=60,
    ) as program:
        pipeline = create_pipeline(program, NOOP, tags=["a"])
        body = {
            "name": f"audited-{uuid.uuid4()}",
            "type": "POSTGRESQL",
            "host": "h",
            "database": "d",
            "username": "u",
            "secret": canary,
        }
        connection = demand(program.post("connections", json=body), 201)
        demand(program.delete(f"connections/{connection['id']}"), 204)
        demand(program.delete(f"pipelines/{pipeline['id']}"), 204)

    actor = f"apikey:{key['id']}"
    seen = demand(admin.get("audit", params={"actor": actor, "includeTotal": True}), 200)
    assert seen["meta"]["total"] == 5
    assert [(event["action"], event["requestId"]) for event in seen["data"][::-1]] == [
        ("pipeline.created", request_id),
        ("connection.created", request_id),
        ("connection.deleted", request_id),
        ("pipeline.deleting", request_id),
        ("pipeline.deleted", request_id),
    ]
    assert seen["data"][-1]["fields"] == ["name", "yamlDefinition", "tags"]
    assert canary not in str(seen)
    of_pipeline = demand(admin.get("audit", params={"objectId": pipeline["id"], "limit": 2}), 200)
    assert [event["action"] for event in of_pipeline["data"]] == ["pipeline.deleted", "pipeline.deleting"]
    assert "nextCursor" in of_pipeline["meta"]
