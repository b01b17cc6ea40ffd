"""Metrics and cost over real HTTP: whatever runs came to, they are counted once, and their money adds up."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
from headrace_local.testing import StackUnderTest, create_pipeline, demand, until, wait_for_end

# The parameter decides what comes of it.
MANY_ENDS = """
version: 1
parameters:
  number: {type: string, default: "1"}
sources: [{id: rows, values: [{x: 1}, {x: 2}]}]
transformations:
  - id: cast
    type: sql_transform
    inputs: [rows]
    sql: SELECT x, CAST(${params.number} AS INTEGER) AS n FROM rows
quality_checks:
  - {id: small, type: range, input: cast, column: n, max: 1, severity: warning}
sinks: [{id: out, input: cast, output: csv}]
"""


def exact(client: httpx.Client, path: str, **query: str) -> dict[str, Any]:
    """An answer whose numbers have all of their digits."""
    answer = client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    read: dict[str, Any] = json.loads(answer.text, parse_float=Decimal)
    return read


def run(admin: httpx.Client, path: str, **body: Any) -> dict[str, Any]:
    """Starts a run and waits for its end."""
    return wait_for_end(admin, demand(admin.post(path, json=body), 202)["runId"])


def test_what_runs_came_to_is_counted_once_and_costs_what_they_cost(
    stack: StackUnderTest, admin: httpx.Client
) -> None:
    pipeline = create_pipeline(admin, MANY_ENDS, maxRetries=0)["id"]
    start = f"pipelines/{pipeline}/run"
    failed = run(admin, start, parameters={"number": "none"})
    runs = [
        run(admin, start),
        run(admin, start, parameters={"number": "2"}),
        failed,
        run(admin, f"runs/{failed['runId']}/retry"),
    ]
    with stack.client("viewer") as viewer:
        found = until(
            lambda: exact(viewer, f"pipelines/{pipeline}/metrics"),
            lambda told: told["metrics"]["runCount"] >= len(runs),
        )
        cost = exact(viewer, f"pipelines/{pipeline}/cost")
        each = [exact(viewer, f"runs/{one['runId']}/cost") for one in runs]

    told = found["metrics"]
    states = [one["overallStatus"] for one in runs]
    assert states == ["COMPLETED", "COMPLETED", "FAILED", "FAILED"]
    assert [told[name] for name in ("runCount", "completed", "failed", "cancelled", "withWarnings")] == [
        4,
        2,
        2,
        0,
        1,
    ]
    assert told["rowsWritten"] == sum(one["metrics"]["rowsWritten"] for one in runs) == 4
    assert told["successRate"] == Decimal("0.5")
    assert sum(one["totalCost"] for one in each) == cost["totalCost"] == told["totalCost"] > 0
    assert sum(cost["breakdown"].values()) == cost["totalCost"]
    assert all(one["computeSeconds"] > 0 for one in each), "those that failed have held slots, too"
    assert sum(one["computeSeconds"] for one in each) == told["computeSeconds"]
    assert [day["totalCost"] for day in cost["history"]] == [cost["totalCost"]]
    assert (cost["currency"], cost["runCount"], cost["period"]) == ("USD", 4, "30d")


def test_periods_are_days_in_utc(admin: httpx.Client) -> None:
    pipeline = create_pipeline(admin, MANY_ENDS)["id"]
    today = datetime.now(UTC).date()

    shown = exact(admin, f"pipelines/{pipeline}/metrics", **{"from": "2026-01-01", "to": "2026-01-31"})
    usual = exact(admin, f"pipelines/{pipeline}/cost")
    refused = admin.get(f"pipelines/{pipeline}/cost", params={"period": "2y"})

    assert (shown["from"], shown["to"], shown["period"]) == ("2026-01-01", "2026-01-31", "31d")
    assert (shown["metrics"]["runCount"], shown["history"], shown["trend"]) == (0, [], {})
    assert "successRate" not in shown["metrics"]
    assert (usual["totalCost"], usual["breakdown"]) == (0, {"compute": 0, "storage": 0, "network": 0})
    # Midnight may have passed in between.
    assert usual["to"] in (str(today), str(today + timedelta(days=1)))
    assert (refused.status_code, refused.json()["errors"][0]["path"]) == (400, "period")
