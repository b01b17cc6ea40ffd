"""Every template, run on generated data by a real stack: the sums in the target are those of the data."""

import random
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
from headrace_local.testing import StackUnderTest, demand, wait_for_end

from .template_data import MAKERS, World


def _create(admin: httpx.Client, template: str, parameters: dict[str, Any], **more: Any) -> httpx.Response:
    body = {"pipelineName": f"{template} {uuid.uuid4()}", "parameters": parameters, **more}
    return admin.post(f"templates/{template}/create", json=body)


def test_every_template_has_data_here(admin: httpx.Client) -> None:
    listed = demand(admin.get("templates", params={"limit": 200}), 200)["data"]
    assert {template["id"] for template in listed} == set(MAKERS)


@pytest.mark.parametrize("template", MAKERS)
def test_a_template_runs_and_its_sums_are_right(
    stack: StackUnderTest, admin: httpx.Client, folder: Path, files: str, warehouse: str, template: str
) -> None:
    world = World(folder, stack.warehouse, f"t{folder.name}")
    made = MAKERS[template](world, random.Random(template))
    reads_files = any(folder.iterdir())
    connections = {
        "source_connection": files if reads_files else warehouse,
        "target_connection": warehouse,
    }
    pipeline = demand(_create(admin, template, {**connections, **made.parameters}), 201)
    for _ in range(2):  # a second run leaves the same rows
        run = demand(admin.post(f"pipelines/{pipeline['id']}/run", json={}), 202)
        status = wait_for_end(admin, run["runId"])
        assert status["overallStatus"] == "COMPLETED", status["errors"]
        for query, expected in made.expected.items():
            assert [tuple(row) for row in stack.warehouse(query)] == [tuple(row) for row in expected], query


def test_the_printed_example_makes_a_pipeline(admin: httpx.Client) -> None:
    answer = _create(
        admin,
        "fintech/payment_processing",
        {"SCHEMA_REGISTRY_URL": "http://schema-registry:8081"},
        customizations={"sources.payment_gateway.partitions": 128},
    )
    made = demand(answer, 201)
    stored = admin.get(admin.base_url.join(answer.headers["location"]))
    assert "ranges: 128" in demand(stored, 200)["yamlDefinition"]
    assert (made["status"], answer.headers["etag"]) == ("DRAFT", '"1"')
    assert {warning["code"] for warning in made["warnings"]} == {"UNKNOWN_CONNECTION"}


def test_what_does_not_fit_is_told_by_its_name_and_nothing_is_made(admin: httpx.Client) -> None:
    wrong = _create(
        admin,
        "fintech/payment_processing",
        {"SCHEMA_REGISTRY_URL": "http://x", "burst_limit": 0},
        customizations={"sources.payment_gatewya.table": "x"},
    )
    problem = wrong.json()
    assert (wrong.status_code, problem["code"]) == (400, "INVALID_REQUEST")
    assert [each["path"] for each in problem["errors"]] == [
        "parameters.burst_limit",
        "customizations.sources.payment_gatewya.table",
    ]
    unknown = _create(admin, "fintech/nothing", {})
    assert (unknown.status_code, unknown.json()["code"]) == (404, "NOT_FOUND")
