"""Alerts over real HTTP, with a real scheduler beside; the guide has the course of one and its webhooks."""

from typing import Any

import httpx
from headrace_local.testing import create_pipeline, demand, run_to_end, until

NOOP = "version: 1\nsources:\n  - id: noop\n    values: [{x: 1}]\nsinks:\n  - discard: true\n"
UNMET = NOOP.replace(
    "sinks:", "quality_checks:\n  - {id: many, type: row_count, input: noop, min: 2}\nsinks:"
)


def test_a_deleted_upstream_is_told_to_what_depended_on_it(admin: httpx.Client) -> None:
    upstream, downstream = create_pipeline(admin, NOOP), create_pipeline(admin, NOOP)
    ends = {"upstreamPipelineId": upstream["id"], "downstreamPipelineId": downstream["id"]}
    demand(admin.post("scheduler/dependencies", json=ends), 201)
    demand(admin.delete(f"pipelines/{upstream['id']}"), 204)

    narrow = {"pipelineId": downstream["id"], "severity": "WARNING", "includeTotal": True}
    page = until(
        lambda: demand(admin.get("monitoring/alerts", params=narrow), 200), lambda it: bool(it["data"])
    )

    (alert,) = page["data"]
    assert page["meta"] == {"limit": 20, "total": 1}
    assert (alert["rule"], alert["status"], alert["count"]) == ("UPSTREAM_DELETED", "OPEN", 1)
    assert alert["details"] == {"upstreamPipelineId": upstream["id"]}
    assert upstream["id"] in alert["message"]
    assert "runId" not in alert


def test_pages_of_alerts_have_no_gaps(admin: httpx.Client) -> None:
    runs = {run_to_end(admin, UNMET)["runId"] for _ in range(3)}

    def found() -> set[str]:
        seen: list[str] = []
        query: dict[str, Any] = {"rule": "QUALITY_FAILED", "limit": 2}
        while True:
            page = demand(admin.get("monitoring/alerts", params=query), 200)
            seen += [alert["runId"] for alert in page["data"]]
            if "nextCursor" not in page["meta"]:
                assert len(seen) == len(set(seen))
                return set(seen)
            query["cursor"] = page["meta"]["nextCursor"]

    until(found, runs.issubset)


def test_a_secret_alone_leads_to_no_system(admin: httpx.Client) -> None:
    refused = admin.post("connections", json={"name": "no-secret", "type": "SECRET"})
    assert (refused.status_code, refused.json()["errors"][0]["path"]) == (400, "secret")
    body = {"name": "e2e-alone", "type": "SECRET", "secret": "s3cret"}
    made = demand(admin.post("connections", json=body), 201)
    assert "s3cret" not in admin.get(f"connections/{made['id']}").text
    tested = demand(admin.post(f"connections/{made['id']}/test", json={}), 200)
    assert (tested["success"], tested["code"]) == (False, "NO_SYSTEM")
    notified = {"on": ["FAILED"], "type": "SLACK", "target": "${secrets.e2e-alone}"}
    user = create_pipeline(admin, NOOP, notifications=[notified])
    assert user["notifications"] == [notified]
    assert admin.delete(f"connections/{made['id']}").status_code == 409, "a pipeline needs it"
