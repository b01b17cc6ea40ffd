"""Wrong definitions are refused at once, with the place and what was expected; nothing is stored."""

import uuid
from typing import Any

import httpx
import pytest
from headrace_local.testing import demand

HEAD = "version: 1\nsources:\n  - {id: a, values: [{x: 1}]}\n"

MISTAKES = {
    "malformed": ("version: 1\nsources: [\n  - {id: a\n", None, ()),
    "unknown key": (
        "version: 1\nsources:\n  - {id: a, valeus: [{x: 1}]}\nsinks:\n  - {input: a, discard: true}\n",
        3,
        ("valeus", "values"),
    ),
    "duplicate key": ("version: 1\nversion: 1\nsources: []\n", 2, ("version",)),
    "missing input": (HEAD + "sinks:\n  - {id: out, input: b, discard: true}\n", 5, ("b",)),
    "cycle": (
        HEAD
        + "transformations:\n"
        + "  - {id: p, type: filter, input: q, condition: x > 1}\n"
        + "  - {id: q, type: filter, input: p, condition: x > 1}\n"
        + "sinks:\n  - {id: out, input: q, discard: true}\n",
        None,
        ("p", "q"),
    ),
    "bad SQL": (
        HEAD
        + "transformations:\n"
        + "  - id: t\n    type: sql_transform\n    inputs: [a]\n    sql: |\n"
        + "      SELECT x\n      FRM a WHERE (\n"
        + "sinks:\n  - {id: out, input: t, discard: true}\n",
        10,
        (),
    ),
    "file function in SQL": (
        HEAD
        + "transformations:\n"
        + "  - {id: t, type: sql_transform, inputs: [a], sql: SELECT * FROM read_csv('/etc/passwd')}\n"
        + "sinks:\n  - {id: out, input: t, discard: true}\n",
        5,
        ("read_csv",),
    ),
    "literal secret": (
        "version: 1\nsources:\n  - {id: a, connector: rest, stream: s, config: {password: hunter2}}\n"
        + "sinks:\n  - {input: a, discard: true}\n",
        3,
        ("password",),
    ),
    "deep nesting": ("version: 1\nsources: " + "[" * 10000 + "]" * 10000 + "\n", 2, ()),
    "alias bomb": (
        "version: 1\nx0: &x0 [l, l, l, l, l, l, l, l, l]\n"
        + "".join(f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 9)}]\n" for i in range(1, 12))
        + "sources: *x11\n",
        None,
        ("alias",),
    ),
    "python tag": ("version: 1\nsources: !!python/object/apply:os.system [id]\n", 2, ()),
    "bad cron": (
        HEAD + "sinks:\n  - {input: a, discard: true}\n" + "orchestration: {schedule: {cron: 61 * * * *}}\n",
        6,
        ("minute",),
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_refused_with_its_place(admin: httpx.Client, mistake: str) -> None:
    text, line, words = MISTAKES[mistake]
    name = f"bad-{uuid.uuid4()}"
    answer = admin.post("pipelines", json={"name": name, "yamlDefinition": text})
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (400, "INVALID_DEFINITION"), answer.text[:2000]
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["requestId"] == answer.headers["x-request-id"]
    assert problem["errors"]
    assert len(answer.content) < 100_000, "the answer does not repeat a bomb"
    if line is not None:
        assert line in {error.get("line") for error in problem["errors"]}, problem["errors"]
    for word in words:
        assert word in str(problem["errors"])
    assert "hunter2" not in answer.text
    assert demand(admin.get("pipelines", params={"name": name}), 200)["data"] == []


@pytest.mark.parametrize("mistake", MISTAKES)
def test_validation_tells_the_same_as_an_answer(admin: httpx.Client, mistake: str) -> None:
    report = demand(admin.post("pipelines/validate", json={"yamlDefinition": MISTAKES[mistake][0]}), 200)
    assert report["valid"] is False
    assert report["errors"]


def test_all_mistakes_are_told_at_once(admin: httpx.Client) -> None:
    text = (
        "version: 1\nsorces: []\nsources:\n  - {id: a, values: [{x: 1}], colour: red}\n"
        "sinks:\n  - {input: nowhere, discard: true}\n"
    )
    errors = demand(admin.post("pipelines/validate", json={"yamlDefinition": text}), 200)["errors"]
    assert {error["line"] for error in errors} == {2, 4, 6}


@pytest.mark.parametrize(("size", "by"), [(10 << 20, "gateway"), (3 << 19, "metadata")])
def test_a_definition_that_is_too_large_is_refused(admin: httpx.Client, size: int, by: str) -> None:
    text = "version: 1\nsources: []\n# " + "x" * size
    answer = admin.post("pipelines", json={"name": f"large-{uuid.uuid4()}", "yamlDefinition": text})
    assert (answer.status_code, answer.json()["code"]) == (413, "TOO_LARGE"), by


def test_an_update_with_a_mistake_changes_nothing(admin: httpx.Client) -> None:
    text = HEAD + "sinks:\n  - {input: a, discard: true}\n"
    made = demand(admin.post("pipelines", json={"name": f"u-{uuid.uuid4()}", "yamlDefinition": text}), 201)
    path = f"pipelines/{made['id']}"
    refused = admin.put(path, json={"yamlDefinition": MISTAKES["cycle"][0], "tags": ["x"]})
    assert refused.status_code == 400
    kept = demand(admin.get(path), 200)
    assert (kept["version"], kept["tags"], kept["yamlDefinition"]) == (1, [], text)


REQUESTS: dict[str, tuple[Any, int, str]] = {
    "not JSON": (b'{"name": ', 400, "MALFORMED_BODY"),
    "bad UTF-8": (b'{"name": "\xff"}', 400, "MALFORMED_BODY"),
    "duplicate keys": (b'{"name": "a", "name": "b"}', 400, "MALFORMED_BODY"),
    "deep JSON": (b"[" * 100_000, 400, "MALFORMED_BODY"),
    "unknown field": (b'{"name": "a", "yamlDefinition": "version: 1", "tgas": []}', 400, "UNKNOWN_FIELD"),
    "wrong type": (b'{"name": 5, "yamlDefinition": "version: 1"}', 400, "INVALID_REQUEST"),
    "missing field": (b"{}", 400, "INVALID_REQUEST"),
    "bad cron": (
        b'{"name": "a", "yamlDefinition": "version: 1", "scheduleCron": "61 * * * *"}',
        400,
        "INVALID_REQUEST",
    ),
}


@pytest.mark.parametrize("request_", REQUESTS)
def test_a_request_that_is_wrong_is_refused(admin: httpx.Client, request_: str) -> None:
    content, status, code = REQUESTS[request_]
    answer = admin.post("pipelines", content=content, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text[:1000]
    assert answer.headers["content-type"] == "application/problem+json"
