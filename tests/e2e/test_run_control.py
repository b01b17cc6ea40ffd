"""Controlling runs over real HTTP: overrides, trying again, limits of connections."""

import uuid
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import httpx
import pytest
from headrace_local.testing import StackUnderTest, create_pipeline, demand, run_to_end, until, wait_for_end

NOOP = "version: 1\nsources:\n  - id: noop\n    values: [{x: 1}]\nsinks:\n  - discard: true\n"


@pytest.fixture
def name(stack: StackUnderTest) -> Iterator[str]:
    """What the tables of a test begin with; they are dropped after it."""
    prefix = f"rc_{uuid.uuid4().hex[:12]}"
    yield prefix
    for (table,) in stack.warehouse(
        "SELECT tablename FROM pg_tables WHERE tablename LIKE $1", f"{prefix.replace('_', '#_')}%"
    ):
        stack.warehouse(f'DROP TABLE "{table}"')


def rows(stack: StackUnderTest, table: str) -> list[Any]:
    """The first column of a table."""
    return [row[0] for row in stack.warehouse(f"SELECT * FROM {table} ORDER BY 1")]


def retry(client: httpx.Client, run: dict[str, Any], **headers: str) -> dict[str, Any]:
    """The end of a run that tries another one again."""
    accepted = demand(client.post(f"runs/{run['runId']}/retry", json={}, headers=headers), 202)
    return wait_for_end(client, accepted["runId"])


def two_stages(warehouse: str, name: str) -> str:
    """Rows that are appended to one table, and once more to another by a stage of its own."""
    return f"""
version: 1
sources: [{{id: rows, values: [{{x: 1}}, {{x: 2}}]}}]
transformations: [{{id: kept, type: filter, input: rows, condition: "x > 0", materialize: true}}]
sinks:
  - {{id: first, input: rows, connection: {warehouse}, table: public.{name}_a, mode: append}}
  - {{id: second, input: kept, connection: {warehouse}, table: public.{name}_b, mode: append}}
"""


def test_a_retry_loads_what_is_missing_and_nothing_twice(
    stack: StackUnderTest, admin: httpx.Client, warehouse: str, name: str
) -> None:
    stack.warehouse(f"CREATE TABLE {name}_a (x bigint)")
    stack.warehouse(f"CREATE TABLE {name}_b (x bigint CHECK (x < 2))")
    failed = run_to_end(admin, two_stages(warehouse, name))
    again = retry(admin, failed)
    stack.warehouse(f"ALTER TABLE {name}_b DROP CONSTRAINT {name}_b_x_check")

    done = retry(admin, again)

    assert [run["overallStatus"] for run in (failed, again, done)] == ["FAILED", "FAILED", "COMPLETED"]
    assert (again["retryOf"], done["retryOf"]) == (failed["runId"], again["runId"])
    assert (rows(stack, f"{name}_a"), rows(stack, f"{name}_b")) == ([1, 2], [1, 2])


def test_a_run_that_was_cancelled_in_the_middle_is_tried_again(
    stack: StackUnderTest, admin: httpx.Client, warehouse: str, name: str
) -> None:
    stack.warehouse(f"CREATE TABLE {name}_pace AS SELECT 600 AS seconds")
    definition = f"""
version: 1
sources:
  - id: slow
    connection: {warehouse}
    query: "SELECT 7 AS x, pg_sleep(seconds)::text AS y FROM {name}_pace"
sinks: [{{id: load, input: slow, connection: {warehouse}, table: public.{name}_a, mode: append}}]
"""
    pipeline = create_pipeline(admin, definition)
    run = demand(admin.post(f"pipelines/{pipeline['id']}/run", json={}), 202)
    path = f"runs/{run['runId']}"
    until(lambda: demand(admin.get(path), 200), lambda shown: shown["taskStatuses"]["slow"] == "RUNNING")
    early = admin.post(f"{path}/retry", json={})
    demand(admin.post(f"{path}/cancel", json={}), 200)
    cancelled = wait_for_end(admin, run["runId"])
    stack.warehouse(f"UPDATE {name}_pace SET seconds = 0")

    done = retry(admin, cancelled)

    assert (early.status_code, early.json()["code"]) == (409, "NOT_RETRYABLE")
    assert (cancelled["overallStatus"], done["overallStatus"]) == ("CANCELLED", "COMPLETED")
    assert rows(stack, f"{name}_a") == [7]


def test_one_key_is_one_retry_and_lists_show_it(admin: httpx.Client) -> None:
    failed = run_to_end(admin, NOOP.replace("values: [{x: 1}]", "connection: nowhere\n    table: t"))
    headers = {"Idempotency-Key": str(uuid.uuid4())}

    answers = [admin.post(f"runs/{failed['runId']}/retry", json={}, headers=headers) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json() == answers[1].json()
    wait_for_end(admin, answers[0].json()["runId"])
    listed = demand(admin.get(f"pipelines/{failed['pipelineId']}/runs"), 200)["data"]
    assert [run["trigger"] for run in listed] == ["RETRY", "MANUAL"]


def test_engine_and_priority_are_overridden_by_a_run(admin: httpx.Client) -> None:
    pipeline = create_pipeline(admin, NOOP + "execution: {priority: low}\n")
    path = f"pipelines/{pipeline['id']}/run"

    plain = demand(admin.post(path, json={}), 202)
    other = demand(admin.post(path, json={"engine": "JDBC", "priority": "high"}), 202)
    absent = admin.post(path, json={"engine": "SPARK"})
    wrong = admin.post(path, json={"engine": "ABACUS", "priority": "URGENT"})

    shown = [wait_for_end(admin, run["runId"]) for run in (plain, other)]
    assert [run["priority"] for run in shown] == ["LOW", "HIGH"]
    assert shown[1]["engineReason"] == "the run was started with engine JDBC"
    assert (absent.status_code, absent.json()["code"]) == (409, "ENGINE_NOT_AVAILABLE")
    assert wrong.status_code == 400
    assert {error["path"] for error in wrong.json()["errors"]} == {"engine", "priority"}


def test_runs_are_listed_by_what_triggered_them(admin: httpx.Client) -> None:
    run_to_end(admin, NOOP)

    nothing = demand(admin.get("runs", params={"triggerId": str(uuid.uuid4()), "includeTotal": True}), 200)

    assert (nothing["data"], nothing["meta"]["total"]) == ([], 0)


def test_runs_wait_for_a_connection_that_enough_stages_use(
    stack: StackUnderTest, admin: httpx.Client, name: str
) -> None:
    login = stack.warehouse_login()
    body = {
        "name": name,
        "type": "POSTGRESQL",
        "host": login["host"],
        "port": login["port"],
        "database": login["database"],
        "username": login["user"],
        "secret": login["password"],
        "maxConcurrentStages": 1,
    }
    demand(admin.post("connections", json=body), 201)
    definition = f"""
version: 1
sources: [{{id: slow, connection: {name}, query: "SELECT pg_backend_pid() AS x, pg_sleep(0.3)::text AS y"}}]
sinks: [{{discard: true}}]
"""
    pipeline = create_pipeline(admin, definition)
    started = [demand(admin.post(f"pipelines/{pipeline['id']}/run", json={}), 202) for _ in range(4)]

    runs = sorted((wait_for_end(admin, run["runId"]) for run in started), key=lambda run: run["startedAt"])

    assert [run["overallStatus"] for run in runs] == ["COMPLETED"] * 4
    for before, after in pairwise(runs):
        assert before["finishedAt"] <= after["startedAt"]
    refused = admin.post("connections", json={**body, "name": f"{name}x", "maxConcurrentStages": 0})
    assert [error["path"] for error in refused.json()["errors"]] == ["maxConcurrentStages"]
