"""RPCs over real HTTP: parameters, bodies, statuses and headers as the contracts declare them."""

from typing import Any

import pytest
from headrace.common.v1 import reasons_pb2
from headrace_chassis.errors import HeadraceError

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_creating_answers_201_with_location_and_etag(gateway: Any, pipeline_id: str) -> None:
    body = {"name": "billing", "yamlDefinition": "version: 1\n", "tags": ["a", "b"], "maxRetries": 0}

    answer = await gateway.client.post("/api/v1/pipelines", json=body)

    assert answer.status_code == 201
    assert answer.headers["location"] == f"/api/v1/pipelines/{pipeline_id}"
    assert answer.headers["etag"] == '"1"'
    assert answer.json()["status"] == "DRAFT"
    sent = gateway.recorder.requests[0]
    assert (sent.name, list(sent.tags), sent.max_retries) == ("billing", ["a", "b"], 0)
    assert sent.HasField("max_retries")
    assert not sent.HasField("description")


async def test_defaults_are_written_and_absent_values_left_out(gateway: Any, pipeline_id: str) -> None:
    answer = (await gateway.client.get(f"/api/v1/pipelines/{pipeline_id}")).json()

    assert answer["maxRetries"] == 0
    assert answer["tags"] == []
    assert answer["isActive"] is False
    assert "description" not in answer
    assert "lastRun" not in answer


async def test_maps_of_enums_bear_bare_words(gateway: Any, run_id: str) -> None:
    answer = (await gateway.client.get(f"/api/v1/runs/{run_id}")).json()

    assert answer["taskStatuses"] == {"extract": "COMPLETED"}
    assert answer["errors"] == {}
    assert answer["revision"] == 0


async def test_query_parameters_fill_the_request(gateway: Any) -> None:
    query = "?limit=7&tags=a&tags=b&includeTotal=true&status=failed&search=x%20y"

    answer = await gateway.client.get(f"/api/v1/pipelines{query}")

    assert answer.status_code == 200, answer.text
    sent = gateway.recorder.requests[0]
    assert (sent.limit, list(sent.tags), sent.include_total) == (7, ["a", "b"], True)
    assert (sent.status, sent.search) == (5, "x y")


async def test_all_bad_query_parameters_are_told_at_once(gateway: Any) -> None:
    query = "?limit=many&includeTotal=yes&stauts=FAILED&name=a&name=b&status=FALED"

    answer = await gateway.client.get(f"/api/v1/pipelines{query}")

    assert answer.status_code == 400
    told = {error["path"]: error for error in answer.json()["errors"]}
    assert told.keys() == {"limit", "includeTotal", "stauts", "name", "status"}
    assert told["stauts"]["suggestion"] == "status"
    assert told["status"]["suggestion"] == "FAILED"
    assert gateway.recorder.requests == []


async def test_an_accepted_run_is_202_with_its_location(gateway: Any, pipeline_id: str, run_id: str) -> None:
    body = {"triggeredBy": "u-1", "engine": "jdbc", "parameters": {"day": "x", "n": 1}}

    answer = await gateway.client.post(f"/api/v1/pipelines/{pipeline_id}/run", json=body)

    assert answer.status_code == 202
    assert answer.headers["location"] == f"/api/v1/runs/{run_id}"
    assert answer.json()["engine"] == "JDBC"
    sent = gateway.recorder.requests[0]
    assert (sent.id, sent.engine, sent.parameters) == (pipeline_id, 2, b'{"day":"x","n":1}')


async def test_a_body_may_be_absent_where_nothing_in_it_is_required(gateway: Any, pipeline_id: str) -> None:
    answer = await gateway.client.post(f"/api/v1/pipelines/{pipeline_id}/run")

    assert answer.status_code == 202


async def test_raw_json_keeps_every_digit(gateway: Any, pipeline_id: str) -> None:
    text = '{"a":1.10,"b":12345678901234567890123,"c":1e40,"d":-0.1000000000000000055511151231257827}'

    answer = await gateway.client.post(
        f"/api/v1/pipelines/{pipeline_id}/run",
        content=f'{{"parameters":{text}}}',
        headers={"Content-Type": "application/json"},
    )

    assert answer.status_code == 202, answer.text
    assert gateway.recorder.requests[0].parameters == text.encode()


async def test_deleting_answers_204_without_content(gateway: Any, pipeline_id: str) -> None:
    answer = await gateway.client.delete(f"/api/v1/pipelines/{pipeline_id}?force=true")

    assert (answer.status_code, answer.content) == (204, b"")
    assert "content-type" not in answer.headers
    assert gateway.recorder.requests[0].force is True


async def test_path_variables_have_their_types(gateway: Any, pipeline_id: str) -> None:
    good = await gateway.client.get(f"/api/v1/pipelines/{pipeline_id}/versions/2")
    bad = await gateway.client.get(f"/api/v1/pipelines/{pipeline_id}/versions/two")

    assert good.json()["version"] == 2
    assert bad.status_code == 400
    assert bad.json()["errors"][0]["path"] == "version"


async def test_nulls_and_empty_collections_clear_fields(gateway: Any, pipeline_id: str) -> None:
    body: dict[str, Any] = {"name": "new", "description": None, "tags": [], "scheduleCron": None}

    answer = await gateway.client.put(f"/api/v1/pipelines/{pipeline_id}", json=body)

    assert answer.status_code == 200, answer.text
    sent = gateway.recorder.requests[0]
    assert list(sent.cleared_fields) == ["description", "scheduleCron", "tags"]
    assert sent.name == "new"


async def test_fields_of_server_and_path_are_refused_in_bodies(gateway: Any, pipeline_id: str) -> None:
    body = {"id": pipeline_id, "expectedVersion": 3, "clearedFields": ["name"], "yaml_definition": "x"}

    answer = await gateway.client.put(f"/api/v1/pipelines/{pipeline_id}", json=body)

    assert answer.status_code == 400
    problem = answer.json()
    assert problem["code"] == "UNKNOWN_FIELD"
    assert [error["path"] for error in problem["errors"]] == list(body)
    assert problem["errors"][3]["suggestion"] == "yamlDefinition"


async def test_wrong_types_are_told_with_their_paths(gateway: Any) -> None:
    body: dict[str, Any] = {
        "name": 5,
        "yamlDefinition": "x",
        "tags": ["a", "b", 3],
        "maxRetries": 2**40,
        "isActive": "yes",
    }
    body |= {"notifications": [{"on": ["FAILD"], "type": "EMAIL", "target": None, "to": "x"}]}

    answer = await gateway.client.post("/api/v1/pipelines", json=body)

    assert answer.status_code == 400
    told = {error["path"]: error["message"] for error in answer.json()["errors"]}
    assert told["name"] == "expected a string, got a number"
    assert told["tags[2]"] == "expected a string, got a number"
    assert told["isActive"] == "expected a boolean, got a string"
    assert "from -2147483648 to 2147483647" in told["maxRetries"]
    assert "did you mean 'FAILED'?" in told["notifications[0].on[0]"]
    assert told["notifications[0].to"].startswith("unknown field 'to'")


async def test_what_the_service_refuses_comes_through_as_it_is(gateway: Any) -> None:
    answer = await gateway.client.post("/api/v1/pipelines", json={"name": "", "scheduleCron": "x y"})

    assert answer.status_code == 400
    problem = answer.json()
    assert problem["code"] == "INVALID_REQUEST"
    assert {error["path"] for error in problem["errors"]} == {"name", "yamlDefinition", "scheduleCron"}


async def test_an_error_of_a_service_is_a_problem_document(gateway: Any) -> None:
    unknown = "01900000-0000-7000-8000-0000000000ff"
    headers = {"X-Request-Id": "req-7"}

    answer = await gateway.client.get(f"/api/v1/pipelines/{unknown}", headers=headers)

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"] == "req-7"
    assert answer.json() == {
        "type": "https://headrace.io/problems/not-found",
        "title": answer.json()["title"],
        "status": 404,
        "detail": f"pipeline {unknown} does not exist",
        "instance": f"/api/v1/pipelines/{unknown}",
        "code": "NOT_FOUND",
        "requestId": "req-7",
        "context": {"kind": "pipeline", "id": unknown},
    }


async def test_an_unexpected_error_reveals_nothing(gateway: Any, pipeline_id: str) -> None:
    async def fail(request: Any, context: Any) -> Any:
        raise RuntimeError("the password is hunter2")

    gateway.recorder.answers["GetPipelineRequest"] = fail

    answer = await gateway.client.get(f"/api/v1/pipelines/{pipeline_id}")

    assert answer.status_code == 500
    assert answer.json()["code"] == "INTERNAL"
    assert "hunter2" not in answer.text


async def test_a_service_that_is_busy_tells_when_to_come_back(gateway: Any, pipeline_id: str) -> None:
    async def busy(request: Any, context: Any) -> Any:
        raise HeadraceError("later", reason=reasons_pb2.REASON_RATE_LIMITED, retry_after=2.5)

    gateway.recorder.answers["GetPipelineRequest"] = busy

    answer = await gateway.client.get(f"/api/v1/pipelines/{pipeline_id}")

    assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")


async def test_metadata_carries_token_ids_and_key(gateway: Any) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = {"X-Request-Id": "abc", "traceparent": trace, "Idempotency-Key": "k-1"}

    answer = await gateway.client.post("/api/v1/workspaces", json={"slug": "a"}, headers=headers)

    assert answer.status_code == 201, answer.text
    carried = gateway.recorder.metadata
    assert carried["authorization"] == gateway.client.headers["authorization"]
    assert carried["x-request-id"] == "abc"
    assert str(carried["traceparent"]).split("-")[1] == trace.split("-")[1]
    assert carried["idempotency-key"] == "k-1"


async def test_a_request_id_that_is_not_sane_is_replaced(gateway: Any, pipeline_id: str) -> None:
    answer = await gateway.client.get(f"/api/v1/pipelines/{pipeline_id}", headers={"X-Request-Id": "a b"})

    assert len(answer.headers["x-request-id"]) == 36


async def test_an_idempotency_key_must_be_printable_and_short(gateway: Any) -> None:
    answer = await gateway.client.post("/api/v1/workspaces", json={}, headers={"Idempotency-Key": "k" * 256})

    assert answer.status_code == 400
    assert answer.json()["errors"][0]["path"] == "Idempotency-Key"
