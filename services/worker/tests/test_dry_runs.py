"""What a run would do, told without doing it: real systems, and nothing in them changes."""

import base64
import json
from pathlib import Path
from typing import Any

import asyncpg
from headrace.execution.v1 import workers_pb2

from .engine_bench import EngineBench, outcome
from .scripted_server import stage
from .stages import plan

DRY_RUN = workers_pb2.ASSIGNMENT_KIND_DRY_RUN

ORDERS = """
parameters:
  least: {type: integer}
sources:
  - {id: orders, connection: warehouse, table: public.orders,
     incremental: {cursor: changed}}
  - {id: people, path: people.csv}
transformations:
  - {id: rich, type: sql_transform, inputs: [orders, people],
     sql: "SELECT o.id, amount, name FROM orders o JOIN people p ON p.id = person
           WHERE amount > ${params.least}"}
quality_checks:
  - {id: named, type: not_null, input: rich, columns: [name]}
sinks:
  - {id: load, input: rich, connection: warehouse, table: public.rich, mode: merge, keys: [id],
     schema_drift: evolve}
  - {id: kept, input: rich, output: parquet}
"""


async def dry_run(bench: EngineBench, text: str, **fields: Any) -> dict[str, Any]:
    """The answer to a dry run of a definition."""
    if "parameters" in fields:
        fields["parameters"] = json.dumps(fields["parameters"]).encode()
    result = await bench.work_off(stage(plan(text).to_json(), kind=DRY_RUN, **fields))
    assert outcome(result) == "COMPLETED", result
    told: dict[str, Any] = json.loads(result.answer)
    told["byId"] = {task["id"]: task for task in told["tasks"]}
    return told


def files(bench: EngineBench) -> Path:
    """The folder that sources may read."""
    return Path(bench.options.file_roots[0])


async def test_the_whole_plan_is_told_and_nothing_is_made(
    bench: EngineBench, warehouse: asyncpg.Connection
) -> None:
    await warehouse.execute(
        "CREATE TABLE orders (id bigint PRIMARY KEY, person int, amount numeric(8,2), changed int NOT NULL);"
        "INSERT INTO orders VALUES (1, 1, 10, 41), (2, 1, 99, 42);"
        "CREATE TABLE rich (id bigint PRIMARY KEY, amount numeric(8,2), noted timestamptz DEFAULT now())"
    )
    (files(bench) / "people.csv").write_text("id,name\n1,Ada\n")
    bound = json.dumps({"column": "changed", "value": "41"}).encode()
    cursors = [
        workers_pb2.Cursor(sink="load", source="orders", value=bound),
        workers_pb2.Cursor(sink="kept", source="orders"),
    ]

    told = await dry_run(bench, ORDERS, parameters={"least": 50}, cursors=cursors)

    assert [each.get("error") for each in (*told["connections"], *told["tasks"])] == [None] * 7
    again, first = told["byId"]["orders"]["readings"]
    assert (again["sinks"], again["cursorFrom"], again["cursorTo"]) == (["load"], "41", "42")
    assert "\"changed\" > '41'::integer" in again["query"]
    assert (first["sinks"], first.get("cursorFrom")) == (["kept"], None)
    guessed = {c["name"]: (c["type"], c.get("guessed")) for c in told["byId"]["people"]["columns"]}
    assert guessed == {"id": ("BIGINT", True), "name": ("VARCHAR", True)}
    assert "amount > 50" in told["byId"]["rich"]["query"]
    load = told["byId"]["load"]["load"]
    assert (load["mode"], load["keys"], load.get("creates")) == ("merge", ["id"], None)
    assert (load["added"], load["notGiven"]) == (["name"], ["noted"])
    assert told["byId"]["kept"]["load"]["creates"] is True
    assert (
        await warehouse.fetchval("SELECT count(*) FROM information_schema.columns WHERE table_name = 'rich'")
        == 3
    )
    assert await warehouse.fetchval("SELECT to_regnamespace('headrace')") is None


async def test_all_that_is_wrong_is_told_at_once(bench: EngineBench, warehouse: asyncpg.Connection) -> None:
    await warehouse.execute("CREATE TABLE a (v int); CREATE TABLE taken (v date)")
    bench.connect("away", "postgresql", host="127.0.0.1", port=1, database="x", username="u")
    told = await dry_run(
        bench,
        """
sources:
  - {id: a, connection: warehouse, table: a}
  - {id: none, connection: warehouse, table: nothing}
  - {id: far, connection: away, table: b}
transformations:
  - {id: wrong, type: sql_transform, inputs: [a], sql: "SELECT w FROM a"}
  - {id: after, type: filter, input: none, where: "v > 1"}
sinks:
  - {id: typed, input: a, connection: warehouse, table: taken}
  - {id: one, input: wrong, discard: true}
  - {id: two, input: after, discard: true}
  - {id: three, input: far, discard: true}
  - {id: nowhere, input: a}
""",
    )
    codes = {task["id"]: task["error"]["code"] for task in told["tasks"] if "error" in task}
    away = next(each for each in told["connections"] if each["reference"] == "away")
    assert codes == {
        "none": "TABLE_NOT_FOUND",
        "far": away["error"]["code"],
        "wrong": "SQL_INVALID",
        "typed": "TYPE_MISMATCH",
        "nowhere": "DEFINITION_INCOMPLETE",
    }
    assert away["error"]["transient"] is True
    assert "none" in told["byId"]["after"]["unchecked"]
    details = told["byId"]["typed"]["error"]["details"]
    assert details == {"column": "v", "type": "INTEGER", "target_type": "date"}


async def test_transformations_are_not_computed_and_secrets_not_told(
    bench: EngineBench, warehouse: asyncpg.Connection
) -> None:
    secret = bench.connections["warehouse"].secret
    assert len(secret) > 8
    told = await dry_run(
        bench,
        f"""
sources:
  - {{id: one, values: [{{x: 1.5}}]}}
  - {{id: echo, connection: warehouse, query: "SELECT '{secret}' AS s"}}
transformations:
  - {{id: endless, type: sql_transform, inputs: [one],
     sql: "SELECT sum(a.range * b.range % 7) AS s FROM one, range(10000000) a, range(10000000) b"}}
sinks:
  - {{id: there, input: endless, path: out.json}}
  - {{id: nowhere, input: echo, discard: true}}
""",
    )
    assert told["byId"]["there"]["load"]["creates"] is True
    assert "***" in told["byId"]["echo"]["readings"][0]["query"]
    assert secret not in json.dumps(told)
    assert base64.b64encode(secret.encode()).decode() not in json.dumps(told)
    assert list(files(bench).iterdir()) == []


async def test_what_only_a_signal_will_say_is_no_error(bench: EngineBench) -> None:
    told = await dry_run(
        bench,
        """
sources: [{id: rows, values: [{x: 1}]}]
transformations:
  - id: ok
    type: wait_for_signal
    input: rows
    data: {least: {type: integer, default: 7}, name: {type: string}}
  - {id: kept, type: filter, input: ok, condition: "x > ${signals.ok.least}"}
sinks: [{id: load, input: kept, path: "${signals.ok.name}.csv"}]
""",
    )
    assert not any("error" in task for task in told["tasks"])
    assert told["byId"]["ok"]["columns"][0]["name"] == "x"
    assert "> 7" in told["byId"]["kept"]["query"]
    assert "signal ok" in told["byId"]["kept"]["warnings"][0]
    assert "signal ok" in told["byId"]["load"]["unchecked"]
