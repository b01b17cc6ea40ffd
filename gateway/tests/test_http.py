"""HTTP itself: who is calling, methods, conditions, limits, headers, and the pages beside the RPCs."""

import asyncio
import gzip
from typing import Any

import pytest
import yaml
from headrace_chassis.testing.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

PIPELINE = "/api/v1/pipelines/01900000-0000-7000-8000-00000000000a"


async def test_without_a_token_it_is_401_with_a_challenge(gateway: Any) -> None:
    answer = await gateway.anonymous.get(PIPELINE)

    assert (answer.status_code, answer.json()["code"]) == (401, "UNAUTHENTICATED")
    assert answer.headers["www-authenticate"].startswith("Bearer ")
    assert gateway.recorder.requests == []


@pytest.mark.parametrize("token", ["x", "a.b.c", "Ä", "x" * 20_000])
async def test_a_token_that_does_not_verify_is_401(gateway: Any, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}".encode("latin-1")}

    answer = await gateway.anonymous.get(PIPELINE, headers=headers)

    assert answer.status_code == 401


async def test_an_expired_token_is_401(gateway: Any) -> None:
    async with gateway.as_user("admin", lifetime=-60) as client:
        answer = await client.get(PIPELINE)

    assert (answer.status_code, answer.json()["detail"]) == (401, "the token has expired")


@pytest.mark.parametrize(
    ("role", "method", "path", "status"),
    [
        ("viewer", "GET", PIPELINE, 200),
        ("viewer", "DELETE", PIPELINE, 403),
        ("editor", "DELETE", PIPELINE, 204),
        ("editor", "POST", "/api/v1/workspaces", 403),
        ("admin", "POST", "/api/v1/workspaces", 400),
    ],
)
async def test_roles_are_those_of_the_contract(
    gateway: Any, role: str, method: str, path: str, status: int
) -> None:
    async with gateway.as_user(role) as client:
        answer = await client.request(method, path)

    assert answer.status_code == status


async def test_the_tenant_header_must_agree_with_the_token(gateway: Any) -> None:
    other = {"X-Tenant-ID": "01900000-0000-7000-8000-0000000000ee"}
    own = {"X-Tenant-ID": "01900000-0000-7000-8000-000000000001"}

    assert (await gateway.client.get(PIPELINE, headers=own)).status_code == 200
    assert (await gateway.client.get(PIPELINE, headers=other)).status_code == 403
    assert (await gateway.client.get(PIPELINE, headers={"X-Tenant-ID": "x"})).status_code == 403


@pytest.mark.parametrize(
    "path",
    ["/", "/api/v1/scheduler/schedules", "/api/v1/pipelines/", "/api/v1//pipelines", "/api/v1/pipelines/%ff"],
)
async def test_paths_that_are_not_served_are_404(gateway: Any, path: str) -> None:
    answer = await gateway.anonymous.get(path)

    assert (answer.status_code, answer.json()["code"]) == (404, "NO_SUCH_ROUTE")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["requestId"] == answer.headers["x-request-id"]


async def test_rpcs_between_services_have_no_path(gateway: Any) -> None:
    path = "/headrace.metadata.v1.DefinitionService/BatchGetDefinitions"

    assert (await gateway.client.post(path, json={})).status_code == 404


async def test_another_method_is_405_and_says_which_are_served(gateway: Any) -> None:
    answer = await gateway.client.patch(PIPELINE, json={})

    assert (answer.status_code, answer.headers["allow"]) == (405, "DELETE, GET, HEAD, OPTIONS, PUT")
    assert answer.json()["code"] == "METHOD_NOT_ALLOWED"
    page = await gateway.client.post("/docs")
    assert (page.status_code, page.json()["code"]) == (405, "METHOD_NOT_ALLOWED")


async def test_options_and_head(gateway: Any) -> None:
    options = await gateway.anonymous.options("/api/v1/pipelines/validate")
    got = await gateway.client.get(PIPELINE)
    head = await gateway.client.head(PIPELINE)

    assert (options.status_code, options.headers["allow"]) == (204, "OPTIONS, POST")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(got.content))
    assert head.headers["etag"] == '"3"'


@pytest.mark.parametrize("known", ['"3"', 'W/"3"', '"1", "3"', "*"])
async def test_a_version_that_the_client_has_is_not_sent_again(gateway: Any, known: str) -> None:
    answer = await gateway.client.get(PIPELINE, headers={"If-None-Match": known})

    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", '"3"')


async def test_another_version_is_sent(gateway: Any) -> None:
    answer = await gateway.client.get(PIPELINE, headers={"If-None-Match": '"2"'})

    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("if_match", "status", "version"),
    [
        ('"3"', 200, 3),
        ("*", 200, None),
        ('"2"', 412, None),
        ('"x"', 412, None),
        ('W/"3"', 412, None),
        ("3", 400, None),
    ],
)
async def test_if_match_guards_a_write(gateway: Any, if_match: str, status: int, version: int | None) -> None:
    answer = await gateway.client.put(PIPELINE, json={"name": "n"}, headers={"If-Match": if_match})

    assert answer.status_code == status, answer.text
    if status == 200:
        sent = gateway.recorder.requests[0]
        assert (sent.expected_version if sent.HasField("expected_version") else None) == version


async def test_each_caller_has_a_rate_of_its_own(serve_gateway: Any) -> None:
    gateway = await serve_gateway(rate_limit_per_second=0.001, rate_limit_burst=2)
    first = [await gateway.client.get(PIPELINE) for _ in range(3)]
    async with gateway.as_user("viewer", subject="grace") as other:
        second = await other.get(PIPELINE)

    assert [answer.status_code for answer in first] == [200, 200, 429]
    assert first[0].headers["ratelimit"].startswith('"default";r=1;')
    assert (first[2].json()["code"], int(first[2].headers["retry-after"]) > 1) == ("RATE_LIMITED", True)
    assert second.status_code == 200


async def test_large_answers_are_compressed(serve_gateway: Any) -> None:
    gateway = await serve_gateway(gzip_minimum_bytes=10)

    packed = await gateway.client.get(PIPELINE)
    plain = await gateway.client.get(PIPELINE, headers={"Accept-Encoding": "identity, gzip;q=0"})

    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.content == plain.content
    assert int(packed.headers["content-length"]) == len(gzip.compress(plain.content, 5, mtime=0))


async def test_answers_are_not_guessed_framed_or_kept(gateway: Any) -> None:
    for path in (PIPELINE, "/nothing", "/docs", "/healthz"):
        headers = (await gateway.client.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "content-security-policy" in headers
        assert headers["x-request-id"]


async def test_scripts_of_other_origins_are_let_in_only_where_they_are_named(serve_gateway: Any) -> None:
    gateway = await serve_gateway(cors_origins="https://ui.test")
    asks = {"Access-Control-Request-Method": "PUT"}

    allowed = await gateway.anonymous.options(PIPELINE, headers={**asks, "Origin": "https://ui.test"})
    refused = await gateway.anonymous.options(PIPELINE, headers={**asks, "Origin": "https://evil.test"})

    assert allowed.headers["access-control-allow-origin"] == "https://ui.test"
    assert "PUT" in allowed.headers["access-control-allow-methods"]
    assert "access-control-allow-origin" not in refused.headers


async def test_a_call_is_cancelled_when_its_client_goes_away(gateway: Any) -> None:
    called, cancelled = asyncio.Event(), asyncio.Event()

    async def wait_for_ever(request: Any, context: Any) -> Any:
        called.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    gateway.recorder.answers["GetPipelineRequest"] = wait_for_ever
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    token = gateway.client.headers["authorization"]
    writer.write(f"GET {PIPELINE} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n\r\n".encode())
    await asyncio.wait_for(called.wait(), 10)

    writer.close()

    await asyncio.wait_for(cancelled.wait(), 10)


async def test_a_call_that_takes_too_long_is_504(serve_gateway: Any) -> None:
    gateway = await serve_gateway(default_deadline_seconds=0.2)

    async def wait_for_ever(request: Any, context: Any) -> Any:
        await asyncio.Event().wait()

    gateway.recorder.answers["GetPipelineRequest"] = wait_for_ever

    answer = await gateway.client.get(PIPELINE)

    assert (answer.status_code, answer.json()["code"]) == (504, "DEADLINE_EXCEEDED")


async def test_a_head_without_end_and_a_slow_one_lose_their_connection(serve_gateway: Any) -> None:
    gateway = await serve_gateway(header_timeout_seconds=0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(b"GET / HTTP/1.1\r\nX: ")
    slow = await asyncio.wait_for(reader.read(), 10)
    writer.close()

    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000)
    huge = await asyncio.wait_for(reader.read(), 10)
    writer.close()

    assert slow == b""
    assert huge.split()[1] == b"431"


async def test_the_documentation_needs_nothing_from_elsewhere(gateway: Any) -> None:
    page = await gateway.anonymous.get("/docs")
    script = await gateway.anonymous.get("/docs/swagger-ui-bundle.js")
    style = await gateway.anonymous.get("/docs/swagger-ui.css")

    assert page.headers["content-type"].startswith("text/html")
    assert "http" not in page.text.replace("http-equiv", "")
    assert "SwaggerUIBundle" in script.text
    assert style.status_code == 200


async def test_the_document_is_served_in_yaml_and_json(gateway: Any) -> None:
    as_yaml = await gateway.anonymous.get("/openapi-pipeline-engine.yaml")
    as_json = await gateway.anonymous.get("/openapi-pipeline-engine.json")

    assert as_yaml.headers["content-type"].startswith("application/yaml")
    assert yaml.safe_load(as_yaml.content) == as_json.json()
    assert as_json.json()["openapi"].startswith("3.1")


async def test_readiness_is_that_of_the_services(serve_gateway: Any) -> None:
    gateway = await serve_gateway()
    ready = await gateway.anonymous.get("/readyz")
    await gateway.back.drain()

    async def gone() -> bool:
        return bool((await gateway.anonymous.get("/readyz")).status_code == 503)

    assert ready.status_code == 200
    await eventually(gone)
    assert (await gateway.anonymous.get("/healthz")).status_code == 200


async def test_a_service_that_is_away_is_503_with_retry_after(serve_gateway: Any) -> None:
    gateway = await serve_gateway()
    await gateway.back.stop()

    answer = await gateway.client.post("/api/v1/workspaces", json={"slug": "a"})

    assert (answer.status_code, answer.json()["code"]) == (503, "UNAVAILABLE")
    assert int(answer.headers["retry-after"]) >= 1
