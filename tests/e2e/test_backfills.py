"""Backfills over real HTTP, with real runs that load real rows."""

import os
import signal
import uuid
from typing import Any

import httpx
from headrace_local.testing import StackUnderTest, create_pipeline, demand, until

NOOP = "version: 1\nsources:\n  - id: noop\n    values: [{x: 1}]\nsinks:\n  - discard: true\n"
# It would take hours, so that there is something to cancel.
ENDLESS = """
version: 1
sources:
  - {id: ten, values: [{x: 0}, {x: 1}, {x: 2}, {x: 3}, {x: 4}, {x: 5}, {x: 6}, {x: 7}, {x: 8}, {x: 9}]}
transformations:
  - id: many
    type: sql_transform
    inputs: [ten]
    sql: |
      SELECT count(*) AS n
      FROM ten a, ten b, ten c, ten d, ten e, ten f, ten g, ten h, ten i, ten j, ten k, ten l, ten m
      WHERE hash(a.x + b.x * c.x + d.x * e.x + f.x * g.x + h.x * i.x + j.x * k.x + l.x * m.x) = 1
sinks:
  - {id: out, input: many, discard: true}
"""
FAILING = NOOP.replace("x: 1", "x: null").replace(
    "sinks:", "quality_checks:\n  - {id: known, type: not_null, input: noop, columns: [x]}\nsinks:"
)
ENDED = ("COMPLETED", "FAILED", "CANCELLED")


def backfill(client: httpx.Client, pipeline: str, first: str, last: str, **fields: Any) -> dict[str, Any]:
    body = {"pipelineId": pipeline, "from": first, "to": last, "granularity": "DAILY", **fields}
    return demand(client.post("scheduler/backfill", json=body), 201)


def progress(client: httpx.Client, made: dict[str, Any]) -> dict[str, Any]:
    return demand(client.get(f"scheduler/backfill/{made['id']}"), 200)


def end_of(client: httpx.Client, made: dict[str, Any]) -> dict[str, Any]:
    return until(lambda: progress(client, made), lambda shown: shown["status"] in ENDED)


def runs_of(client: httpx.Client, pipeline: str) -> list[dict[str, Any]]:
    return list(demand(client.get("runs", params={"pipelineId": pipeline, "limit": 200}), 200)["data"])


def loader(stack: StackUnderTest, admin: httpx.Client, connection: str) -> tuple[str, str, str]:
    """A pipeline that copies the readings of an interval into their partition, its source and its target."""
    name = uuid.uuid4().hex[:12]
    source, target = f"readings_{name}", f"copied_{name}"
    stack.warehouse(f"CREATE TABLE {source} (at timestamptz NOT NULL, value integer NOT NULL)")
    stack.warehouse(
        f"INSERT INTO {source} SELECT at, 1 FROM generate_series(timestamptz '2025-10-20 00:00Z', "
        "'2025-11-10 00:00Z', interval '30 minutes') AS at"
    )
    definition = f"""
version: 1
sources:
  - id: readings
    connection: {connection}
    query: SELECT at, value FROM {source} WHERE at >= ${{interval.start}} AND at < ${{interval.end}}
sinks:
  - connection: {connection}
    table: public.{target}
    mode: replace_partition
    partition: {{column: at}}
"""
    # All but the first of the loads that make the table at the same time are tried again.
    return create_pipeline(admin, definition, retryDelaySeconds=1)["id"], source, target


def test_intervals_load_their_own_rows_and_never_those_of_their_neighbours(
    stack: StackUnderTest, admin: httpx.Client, warehouse: str
) -> None:
    # given days of Warsaw over the end of summer time, loaded once
    pipeline, source, target = loader(stack, admin, warehouse)
    zone = {"timezone": "Europe/Warsaw", "concurrency": 4}
    first = end_of(admin, backfill(admin, pipeline, "2025-10-24", "2025-10-29", **zone))
    assert (first["status"], first["completedIntervals"]) == ("COMPLETED", 6)
    loaded = stack.warehouse(f"SELECT count(*), min(at), max(at) FROM {target}")[0]
    assert loaded[0] == 6 * 48 + 2, "the day on which the clock goes back has 25 hours"
    # when the source changes, and backfills that overlap run at the same time
    stack.warehouse(f"UPDATE {source} SET value = 2")
    made = [
        backfill(admin, pipeline, "2025-10-24", "2025-10-27", **zone),
        backfill(admin, pipeline, "2025-10-26", "2025-10-29", **zone),
        backfill(
            admin,
            pipeline,
            "2025-10-25T10:00:00Z",
            "2025-10-26T13:00:00Z",
            granularity="HOURLY",
            concurrency=4,
        ),
    ]
    assert [end_of(admin, each)["status"] for each in made] == ["COMPLETED"] * 3
    # then each row is there once, as it is now
    assert stack.warehouse(f"SELECT count(*), min(at), max(at) FROM {target}")[0] == loaded
    assert stack.warehouse(f"SELECT DISTINCT value FROM {target}") == [(2,)]
    assert stack.warehouse(f"SELECT at FROM {target} GROUP BY at HAVING count(*) > 1") == []


def test_a_dry_run_tells_the_intervals_and_starts_nothing(admin: httpx.Client) -> None:
    pipeline = create_pipeline(admin, NOOP)["id"]
    body = {
        "pipelineId": pipeline,
        "from": "2025-11-01",
        "to": "2025-11-30",
        "granularity": "WEEKLY",
        "dryRun": True,
    }
    answer = admin.post("scheduler/backfill", json=body)
    plan = demand(answer, 201)
    assert "location" not in answer.headers
    assert (plan["totalIntervals"], plan["dryRun"], plan["status"]) == (5, True, "PENDING")
    assert "id" not in plan
    assert [each["start"] for each in plan["intervals"]][:2] == [
        "2025-11-01T00:00:00Z",
        "2025-11-03T00:00:00Z",
    ]
    listed = demand(admin.get("scheduler/backfill", params={"pipelineId": pipeline}), 200)
    assert (listed["data"], runs_of(admin, pipeline)) == ([], [])


def test_the_example_of_the_contract(admin: httpx.Client) -> None:
    pipeline = create_pipeline(admin, NOOP)["id"]
    body = {
        "pipelineId": pipeline,
        "from": "2025-11-01",
        "to": "2025-11-30",
        "granularity": "DAILY",
        "concurrency": 4,
        "priority": "MEDIUM",
        "dryRun": False,
    }
    made = demand(admin.post("scheduler/backfill", json=body), 201)
    assert (made["totalIntervals"], made["completedIntervals"], made["failedIntervals"]) == (30, 0, 0)
    assert end_of(admin, made)["completedIntervals"] == 30
    runs = runs_of(admin, pipeline)
    assert {(run["trigger"], run["triggerId"]) for run in runs} == {("BACKFILL", made["id"])}
    assert len({run["intervalStart"] for run in runs}) == len(runs) == 30


def test_what_fails_says_so_and_can_be_tried_again(admin: httpx.Client) -> None:
    made = backfill(admin, create_pipeline(admin, FAILING)["id"], "2025-11-01", "2025-11-02")
    assert end_of(admin, made)["status"] == "FAILED"
    listed = demand(admin.get(f"scheduler/backfill/{made['id']}/intervals", params={"state": "FAILED"}), 200)
    assert {each["reason"] for each in listed["data"]} == {"RUN_FAILED"}
    # when tried again it fails again, under new attempts
    assert demand(admin.post(f"scheduler/backfill/{made['id']}/retry"), 200)["status"] == "RUNNING"
    assert end_of(admin, made)["failedIntervals"] == 2
    listed = demand(admin.get(f"scheduler/backfill/{made['id']}/intervals"), 200)
    assert [each["attempt"] for each in listed["data"]] == [2, 2]


def test_values_that_the_pipeline_does_not_take_are_refused_at_once(admin: httpx.Client) -> None:
    definition = NOOP.replace("sources:", "parameters: {region: {type: string, required: true}}\nsources:")
    pipeline = create_pipeline(admin, definition)["id"]
    body = {"pipelineId": pipeline, "from": "2025-11-01", "to": "2025-11-02", "granularity": "DAILY"}
    for given in ({}, {"region": 7}):
        refused = admin.post("scheduler/backfill", json={**body, "parameterOverrides": given})
        assert (refused.status_code, refused.json()["code"]) == (400, "INVALID_PARAMETERS")
        assert [error["path"] for error in refused.json()["errors"]] == ["parameterOverrides.region"]


def test_a_cancel_ends_the_runs(admin: httpx.Client) -> None:
    pipeline = create_pipeline(admin, ENDLESS)["id"]
    made = backfill(admin, pipeline, "2025-11-01", "2025-11-30", concurrency=2)
    until(lambda: progress(admin, made), lambda shown: shown["runningIntervals"] == 2)
    until(lambda: {"runs": runs_of(admin, pipeline)}, lambda seen: len(seen["runs"]) == 2)
    told = demand(admin.post(f"scheduler/backfill/{made['id']}/cancel"), 200)
    assert told["status"] == "CANCELLED"
    ended = until(lambda: progress(admin, made), lambda shown: shown["runningIntervals"] == 0)
    assert (ended["cancelledIntervals"], ended["pendingIntervals"]) == (30, 0)
    assert {run["status"] for run in runs_of(admin, pipeline)} == {"CANCELLED"}
    refused = admin.post(f"scheduler/backfill/{made['id']}/resume")
    assert (refused.status_code, refused.json()["code"]) == (409, "BACKFILL_ENDED")


def test_a_scheduler_that_is_killed_doubles_and_loses_nothing(
    stack: StackUnderTest, admin: httpx.Client
) -> None:
    pipeline = create_pipeline(admin, NOOP)["id"]
    made = backfill(admin, pipeline, "2025-09-01", "2025-11-30", concurrency=3)
    for done in (5, 30):
        until(lambda: progress(admin, made), lambda shown, done=done: shown["completedIntervals"] >= done)  # type: ignore[misc]
        pid = int((stack.home.root / "run" / "scheduler.pid").read_text())
        os.kill(pid, signal.SIGKILL)
        until(
            lambda: {"status": admin.get(f"scheduler/backfill/{made['id']}").status_code},
            lambda seen: seen["status"] == 200,
        )
    ended = end_of(admin, made)
    assert (ended["status"], ended["completedIntervals"]) == ("COMPLETED", 91)
    runs = runs_of(admin, pipeline)
    assert len({run["intervalStart"] for run in runs}) == len(runs) == 91


def test_a_deleted_pipeline_takes_its_backfills_along(admin: httpx.Client) -> None:
    pipeline = create_pipeline(admin, NOOP)["id"]
    made = backfill(admin, pipeline, "2025-11-01", "2025-11-03", concurrency=3)
    end_of(admin, made)
    demand(admin.delete(f"pipelines/{pipeline}", params={"force": True}), 204)
    path = f"scheduler/backfill/{made['id']}"
    until(lambda: {"status": admin.get(path).status_code}, lambda seen: seen["status"] == 404)
