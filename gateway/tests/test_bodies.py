"""Bodies: JSON and YAML alike, under limits, and bad ones refused precisely and cheaply."""

import asyncio
import random
from typing import Any

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="session")

RUN = "/api/v1/pipelines/01900000-0000-7000-8000-00000000000a/run"


async def post(gateway: Any, content: bytes, kind: str = "application/json", path: str = RUN) -> Any:
    return await gateway.client.post(path, content=content, headers={"Content-Type": kind})


async def test_yaml_is_the_same_message(gateway: Any) -> None:
    body = b"name: no\nyamlDefinition: |\n  version: 1\ntags: [yes, &a 'x', *a]\nmaxRetries: 0x10\n"
    body += b"isActive: true\n"

    answer = await post(gateway, body, "application/yaml", "/api/v1/pipelines")

    assert answer.status_code == 201, answer.text
    sent = gateway.recorder.requests[0]
    assert (sent.name, sent.yaml_definition) == ("no", "version: 1\n")
    assert (list(sent.tags), sent.max_retries, sent.is_active) == (["yes", "x", "x"], 16, True)


async def test_yaml_keeps_the_digits_of_raw_json(gateway: Any) -> None:
    answer = await post(
        gateway, b"parameters: {a: 1.10, b: 007, c: 2025-01-01, d: ~, e: 1_0}", "application/yaml"
    )

    assert answer.status_code == 202, answer.text
    assert gateway.recorder.requests[0].parameters == b'{"a":1.10,"b":7,"c":"2025-01-01","d":null,"e":"1_0"}'


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"a: 1\na: 2", "the key 'a' stands twice in the same mapping (line 2, column 1)"),
        (b"a: [1, 2", "not valid YAML"),
        (b"a: !!python/object:os.system x", "the tag"),
        (b"a: *nothing", "the alias 'nothing'"),
        (b"a: &a [*a]", "the alias 'a'"),
        (b"a: 1\n---\nb: 2", "expected one document"),
        (b"? [x]\n: 1", "a key must be a plain value"),
        (b"a: \xff", "byte 3 is not valid UTF-8"),
        (b"a: " + b"[" * 10_000, "nested deeper than 100 levels"),
        (b"\tb: 1", "not valid YAML"),
    ],
)
async def test_bad_yaml_is_refused(gateway: Any, body: bytes, told: str) -> None:
    answer = await post(gateway, body, "application/yaml")

    assert answer.status_code == 400
    assert answer.json()["code"] == "MALFORMED_BODY"
    assert told in answer.json()["detail"]


async def test_an_alias_bomb_costs_nothing(gateway: Any) -> None:
    levels = "\n".join(f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 10)}]" for i in range(9))

    answer = await post(gateway, f"a0: &a0 [x]\n{levels}".encode(), "application/yaml")

    assert answer.status_code == 400
    assert "more than 20000 values" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"a": }', "not valid JSON"),
        (b'{"triggeredBy": "a", "triggeredBy": "b"}', "'triggeredBy' stands twice"),
        (b'{"parameters": {"x": {"y": 1, "y": ":"}}}', "'y' stands twice"),
        (b'{"triggeredBy": "\xff"}', "byte 17 is not valid UTF-8"),
        (b'{"parameters": ' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}", "nested deeper than 100 levels"),
        (b'{"parameters": ' + b"[" * 200 + b"]" * 200 + b"}", "nested deeper than 100 levels"),
        (b'{"parameters": NaN}', "not valid JSON"),
        (b'{"triggeredBy": "\\ud800"}', "not valid JSON"),
        (b"[1, 2", "not valid JSON"),
    ],
)
async def test_bad_json_is_refused(gateway: Any, body: bytes, told: str) -> None:
    answer = await post(gateway, body)

    assert answer.status_code == 400
    assert answer.json()["code"] == "MALFORMED_BODY"
    assert told in answer.json()["detail"]


async def test_the_place_of_bad_json_is_told(gateway: Any) -> None:
    problem = (await post(gateway, b'{\n  "triggeredBy": x}')).json()

    assert (problem["errors"][0]["line"], problem["errors"][0]["column"]) == (2, 18)


async def test_colons_within_strings_are_no_members(gateway: Any) -> None:
    answer = await post(gateway, b'{"triggeredBy": "a: \\"b\\": c", "parameters": {"x": ":::"}}')

    assert answer.status_code == 202, answer.text


async def test_a_body_that_is_no_object_is_refused(gateway: Any) -> None:
    answer = await post(gateway, b"[1]")

    assert answer.status_code == 400
    assert answer.json()["errors"] == [
        {"code": "WRONG_TYPE", "path": "", "message": "expected an object, got a list"}
    ]


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1"]
)
async def test_other_media_types_are_415(gateway: Any, kind: str) -> None:
    answer = await post(gateway, b"{}", kind)

    assert (answer.status_code, answer.json()["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert "application/yaml" in answer.headers["accept"]


async def test_compressed_bodies_are_415(gateway: Any) -> None:
    answer = await gateway.client.post(RUN, content=b"{}", headers={"Content-Encoding": "gzip"})

    assert answer.status_code == 415


async def test_a_large_body_is_413_before_it_is_sent(gateway: Any) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    token = gateway.client.headers["authorization"]
    head = f"POST {RUN} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nContent-Length: 10485760\r\n\r\n"

    writer.write(head.encode())
    status = await reader.readline()
    writer.close()

    assert status.split()[1] == b"413"


async def test_a_body_that_never_ends_is_cut_off(gateway: Any) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    token = gateway.client.headers["authorization"]
    head = f"POST {RUN} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nTransfer-Encoding: chunked\r\n\r\n"

    async def send_for_ever() -> None:
        writer.write(head.encode())
        while True:
            writer.write(b"10000\r\n" + b" " * 65536 + b"\r\n")
            await writer.drain()

    sending = asyncio.create_task(send_for_ever())
    status = await reader.readline()
    with pytest.raises(ConnectionError):
        await sending

    assert status.split()[1] == b"413"


async def test_a_body_that_does_not_arrive_is_408(serve_gateway: Any) -> None:
    gateway = await serve_gateway(body_timeout_seconds=0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    token = gateway.client.headers["authorization"]
    head = f"POST {RUN} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nContent-Length: 10\r\n\r\n{{"

    writer.write(head.encode())
    status = await reader.readline()
    writer.close()

    assert status.split()[1] == b"408"


async def test_more_bodies_than_there_is_room_for_are_503(serve_gateway: Any) -> None:
    gateway = await serve_gateway(max_concurrent_bodies=1)
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    token = gateway.client.headers["authorization"]
    head = f"POST {RUN} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nContent-Length: 10\r\n\r\n{{"
    writer.write(head.encode())
    await writer.drain()

    answer = await post(gateway, b"{}")
    while answer.status_code == 202:  # the other one has not been read yet
        answer = await post(gateway, b"{}")
    writer.close()

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


@pytest.mark.parametrize("kind", ["application/json", "application/yaml"])
async def test_garbled_bodies_never_fail_inside(gateway: Any, kind: str) -> None:
    whole = b'{"triggeredBy": "\\u00e4 : x", "engine": "JDBC", "parameters": {"a": [1, 2.5e3, null]}}'
    draw = random.Random(7)  # the seed makes a failure come again

    for _ in range(150):
        garbled = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            garbled[draw.randrange(len(garbled))] = draw.randrange(256)

        answer = await post(gateway, bytes(garbled), kind)

        assert answer.status_code in (202, 400), (bytes(garbled), answer.text)
