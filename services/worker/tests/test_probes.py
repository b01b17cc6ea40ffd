"""Chores on a connection: does it work, and what is behind it."""

import json
from typing import Any

import asyncpg
from headrace.execution.v1 import workers_pb2

from .engine_bench import EngineBench, outcome
from .scripted_server import stage
from .target_server import TargetServer

TEST = workers_pb2.ASSIGNMENT_KIND_TEST_CONNECTION
TABLES = workers_pb2.ASSIGNMENT_KIND_LIST_TABLES


async def ask(bench: EngineBench, kind: int, **order: Any) -> dict[str, Any]:
    """The answer of a chore."""
    result = await bench.work_off(stage(json.dumps(order).encode(), kind=kind))
    assert outcome(result) == "COMPLETED"
    answer: dict[str, Any] = json.loads(result.answer)
    return answer


async def test_a_connection_that_works(bench: EngineBench, warehouse: asyncpg.Connection) -> None:
    answer = await ask(bench, TEST, connection="warehouse")
    assert answer["success"] is True
    assert answer["latencyMs"] > 0
    assert answer["serverVersion"]


async def test_a_connection_that_does_not_says_why(bench: EngineBench, target_server: TargetServer) -> None:
    bench.connect("warehouse", "postgresql", **target_server.fields("no_such_database"))
    answer = await ask(bench, TEST, connection="warehouse")
    assert answer["success"] is False
    assert answer["code"]
    assert "no_such_database" in answer["message"]
    assert "canary" not in str(answer)


async def test_an_unknown_connection_is_an_answer(bench: EngineBench) -> None:
    answer = await ask(bench, TEST, connection="nowhere")
    assert (answer["success"], answer["code"]) == (False, "CONNECTION_NOT_FOUND")


async def test_tables_are_listed_in_pages(bench: EngineBench, warehouse: asyncpg.Connection) -> None:
    await warehouse.execute("CREATE TABLE a (id int NOT NULL, n numeric); CREATE VIEW b AS SELECT 1 AS x")

    first = await ask(bench, TABLES, connection="warehouse", limit=1)
    second = await ask(bench, TABLES, connection="warehouse", limit=1, after=first["after"])

    (table,), (view,) = first["tables"], second["tables"]
    assert (table["schema"], table["name"], table["kind"]) == ("public", "a", "table")
    assert table["columns"][0] == {"name": "id", "type": "integer", "nullable": False}
    assert (view["name"], view["kind"]) == ("b", "view")
    assert "after" not in second


async def test_tables_of_a_connection_that_fails_are_an_error(bench: EngineBench) -> None:
    bench.connect("warehouse", "postgresql", host="127.0.0.1", port=1, database="x", username="u")
    answer = await ask(bench, TABLES, connection="warehouse")
    assert answer["error"]["class"] == "TRANSIENT"
    assert answer["error"]["code"]
