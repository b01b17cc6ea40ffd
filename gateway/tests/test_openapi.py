"""The OpenAPI document: valid, complete, the same each time, and the one that is committed."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import headrace
import pytest
import yaml
from headrace_gateway.contract import load_contract
from headrace_gateway.openapi.document import openapi_document
from headrace_gateway.openapi.text import as_yaml
from headrace_gateway.routes import routes_of
from headrace_gateway.socket_routes import sockets_of
from jsonschema_rs import Draft202012Validator
from schemathesis.specs.openapi.definitions import OPENAPI_31

COMMITTED = Path(__file__).parents[2] / "docs" / "reference" / "openapi-pipeline-engine.yaml"
CONTRACT = load_contract(headrace.descriptor_set())
ROUTES = routes_of(CONTRACT)
SOCKETS = sockets_of(CONTRACT)


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return openapi_document(ROUTES, SOCKETS, CONTRACT.comments)


def test_it_is_valid_by_the_meta_schema(document: dict[str, Any]) -> None:
    errors = [error.message for error in Draft202012Validator(OPENAPI_31).iter_errors(document)]

    assert errors == []


def test_every_schema_in_it_is_one(document: dict[str, Any]) -> None:
    for schema in document["components"]["schemas"].values():
        Draft202012Validator({**schema, "components": document["components"]})


def test_every_route_is_in_it_under_its_rpcs_name(document: dict[str, Any]) -> None:
    operations = {
        operation["operationId"] for methods in document["paths"].values() for operation in methods.values()
    }

    assert operations == {
        *(route.operation_id for route in ROUTES),
        *(socket.operation_id for socket in SOCKETS),
    }


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    for reference in _references(document):
        here: Any = document
        for part in reference.removeprefix("#/").split("/"):
            here = here[part]


def test_what_the_contract_says_stands_in_it(document: dict[str, Any]) -> None:
    create = document["paths"]["/api/v1/pipelines"]["post"]
    request = document["components"]["schemas"]["CreatePipelineRequest"]
    update = document["components"]["schemas"]["UpdatePipelineRequest"]

    assert create["x-role"] == "editor"
    assert {"201", "400", "409", "422"} <= create["responses"].keys()
    assert create["responses"]["201"]["headers"].keys() == {"X-Request-Id", "ETag", "Location"}
    assert request["required"] == ["name", "yamlDefinition"]
    assert request["additionalProperties"] is False
    assert request["properties"]["maxRetries"] == {
        "type": "integer",
        "format": "int32",
        "minimum": 0,
        "maximum": 100,
        "default": 3,
        "description": "How often a failed stage is tried again.",
    }
    assert update["properties"]["name"]["type"] == ["string", "null"]
    assert not {"id", "expectedVersion", "clearedFields"} & update["properties"].keys()


def test_a_websocket_is_its_opening_request_and_what_travels_after_it(document: dict[str, Any]) -> None:
    stream = document["paths"]["/api/v1/runs/{runId}/stream"]["get"]

    assert (stream["operationId"], stream["x-role"]) == ("streamRun", "viewer")
    assert {"101", "401", "403", "404", "426"} <= stream["responses"].keys()
    assert stream["x-websocket"]["message"] == {"$ref": "#/components/schemas/RunStatusResponse"}
    assert stream["x-websocket"]["closeCodes"].keys() >= {"1000", "1012", "4401", "4404"}


def test_everything_in_it_is_described(document: dict[str, Any]) -> None:
    for name, schema in document["components"]["schemas"].items():
        assert schema.get("description"), name
        for member, inner in schema.get("properties", {}).items():
            assert inner.get("description"), f"{name}.{member}"


def test_the_committed_one_is_up_to_date() -> None:
    generated = subprocess.run(
        [sys.executable, "-m", "headrace_gateway.openapi"], capture_output=True, check=True
    )

    assert generated.stdout == COMMITTED.read_bytes()
    assert generated.stdout == as_yaml(openapi_document(ROUTES, SOCKETS, CONTRACT.comments))
    assert yaml.safe_load(generated.stdout)["openapi"] == "3.1.0"


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [found for inner in value.values() for found in _references(inner)]
    return [found for inner in value for found in _references(inner)] if isinstance(value, list) else []
