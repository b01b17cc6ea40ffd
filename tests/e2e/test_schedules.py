"""Schedules over real HTTP: a tick fires by itself, and pipelines and their schedules follow one another."""

from typing import Any

import httpx
import pytest
from headrace_local.testing import create_pipeline, demand, until, wait_for_end

NOOP = "version: 1\nsources:\n  - id: noop\n    values: [{x: 1}]\nsinks:\n  - discard: true\n"
SCHEDULES = "scheduler/schedules"


@pytest.fixture(scope="module", autouse=True)
def minutely(admin: httpx.Client) -> dict[str, Any]:
    """A schedule that ticks every minute, from the first test on."""
    pipeline = create_pipeline(admin, NOOP)
    body = {"pipelineId": pipeline["id"], "cronExpression": "* * * * *"}
    return demand(admin.post(SCHEDULES, json=body), 201)


@pytest.fixture(scope="module", autouse=True)
def broken(admin: httpx.Client) -> dict[str, Any]:
    """Such a schedule, with a parameter that its pipeline declares no more."""
    pipeline = create_pipeline(admin, f"parameters: {{n: {{type: integer}}}}\n{NOOP}")["id"]
    body = {"pipelineId": pipeline, "cronExpression": "* * * * *", "parameters": {"n": 5}}
    made = demand(admin.post(SCHEDULES, json=body), 201)
    demand(admin.put(f"pipelines/{pipeline}", json={"yamlDefinition": NOOP}), 200)
    return made


def test_the_printed_example_is_answered_as_printed(admin: httpx.Client) -> None:
    body = {
        "pipelineId": create_pipeline(admin, NOOP)["id"],
        "cronExpression": "0 2 * * *",
        "timezone": "Europe/Warsaw",
        "businessDaysOnly": False,
        "skipHolidays": True,
        "overlapStrategy": "SKIP",
        "catchupStrategy": "SKIP_TO_CURRENT",
    }
    answer = admin.post(SCHEDULES, json=body)
    made = demand(answer, 201)
    assert {name: made[name] for name in body} == body
    assert (made["status"], made["country"], made["managedBy"]) == ("ACTIVE", "PL", "USER")
    assert answer.headers["etag"] == '"1"'
    shown = demand(admin.get("scheduler/next-runs", params={"scheduleId": made["id"], "limit": 3}), 200)
    assert shown["data"][0]["runAt"] == made["nextRunAt"]
    assert [len(shown["data"]), shown["meta"]["limit"]] == [3, 3]


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"cronExpression": "1-5/0 * * * *"}, "cronExpression"),
        ({"cronExpression": "0 0 30 2 *"}, "cronExpression"),
        ({"timezone": "Mars/Olympus"}, "timezone"),
        (
            {"maintenanceWindows": [{"days": ["MON"], "from": "1:00", "to": "02:00"}]},
            "maintenanceWindows[0].from",
        ),
        ({"maintenanceWindows": [{"days": ["MON"], "from": "01:00"}]}, "maintenanceWindows[0]"),
        ({"catchupStrategy": "RUN_LATEST_N"}, "catchupLimit"),
        ({"overlapStrategy": "RUN_TWICE"}, "overlapStrategy"),
        ({"parameters": [1]}, "parameters"),
        ({"parameters": {"unknown": 5}}, "parameters.unknown"),
        ({"queueLimit": 7}, "queueLimit"),
    ],
)
def test_what_is_wrong_is_named(admin: httpx.Client, change: dict[str, Any], path: str) -> None:
    body = {"pipelineId": create_pipeline(admin, NOOP)["id"], "cronExpression": "0 2 * * *", **change}
    answer = admin.post(SCHEDULES, json=body)
    assert answer.status_code == 400
    assert [error["path"] for error in answer.json()["errors"]] == [path]


def test_a_schedule_keeps_what_it_was_given(admin: httpx.Client) -> None:
    window = {"days": ["SAT", "SUN"], "from": "22:00", "to": "24:00"}
    body = {
        "pipelineId": create_pipeline(admin, f"parameters: {{days: {{type: integer}}}}\n{NOOP}")["id"],
        "cronExpression": "30 4 * * mon-fri\n",
        "maintenanceWindows": [window, {"start": "2030-01-01T00:00:00Z", "end": "2030-01-02T00:00:00Z"}],
        "parameters": {"days": 3},
        "overlapStrategy": "queue",
        "queueLimit": 7,
        "catchupStrategy": "RUN_LATEST_N",
        "catchupLimit": 2,
    }
    made = demand(admin.post(SCHEDULES, json=body), 201)
    assert (made["parameters"], made["cronExpression"]) == ({"days": 3}, "30 4 * * mon-fri")
    assert made["maintenanceWindows"][0] == window
    assert (made["overlapStrategy"], made["queueLimit"], made["catchupLimit"]) == ("QUEUE", 7, 2)
    path = f"{SCHEDULES}/{made['id']}"
    changed = demand(admin.put(path, json={"maintenanceWindows": [], "catchupStrategy": "RUN_ALL"}), 200)
    assert (changed["maintenanceWindows"], changed["version"]) == ([], 2)
    assert "catchupLimit" not in changed
    lost = admin.put(path, json={"queueLimit": 8}, headers={"If-Match": '"1"'})
    assert (lost.status_code, lost.json()["code"]) == (412, "VERSION_MISMATCH")


def test_the_cron_of_a_pipeline_is_a_schedule_that_follows_it(admin: httpx.Client) -> None:
    pipeline = create_pipeline(admin, NOOP, scheduleCron="0 3 1 1 *")
    path = f"pipelines/{pipeline['id']}"
    shown = until(lambda: demand(admin.get(path), 200), lambda p: p["status"] == "SCHEDULED")
    (made,) = _schedules_of(admin, pipeline["id"])
    assert (made["managedBy"], shown["nextRunAt"]) == ("PIPELINE", made["nextRunAt"])
    assert made["createdBy"] == pipeline["createdBy"]
    for refused in (
        admin.put(f"{SCHEDULES}/{made['id']}", json={"timezone": "Europe/Warsaw"}),
        admin.delete(f"{SCHEDULES}/{made['id']}"),
    ):
        assert (refused.status_code, refused.json()["code"]) == (409, "SCHEDULE_MANAGED")
    demand(admin.put(path, json={"isActive": False}), 200)
    until(lambda: demand(admin.get(path), 200), lambda p: p["status"] == "DRAFT" and "nextRunAt" not in p)
    demand(admin.put(path, json={"isActive": True, "scheduleCron": None}), 200)
    until(lambda: {"left": _schedules_of(admin, pipeline["id"])}, lambda seen: not seen["left"])


def test_a_trigger_runs_now_with_the_parameters_of_the_schedule(admin: httpx.Client) -> None:
    text = f"parameters:\n  n: {{type: integer, default: 1}}\n{NOOP}"
    pipeline = create_pipeline(admin, text)["id"]
    body = {
        "pipelineId": pipeline,
        "cronExpression": "0 0 29 2 *",
        "parameters": {"n": 5},
        "status": "PAUSED",
    }
    made = demand(admin.post(SCHEDULES, json=body), 201)
    run = demand(admin.post(f"{SCHEDULES}/{made['id']}/trigger", json={}), 202)
    status = wait_for_end(admin, run["runId"])
    assert (status["overallStatus"], status["trigger"], status["triggerId"]) == (
        "COMPLETED",
        "MANUAL",
        made["id"],
    )


def test_a_trigger_that_cannot_run_says_why(admin: httpx.Client) -> None:
    # given a schedule with a parameter that its pipeline has declared once
    pipeline = create_pipeline(admin, f"parameters: {{n: {{type: integer}}}}\n{NOOP}")["id"]
    body = {"pipelineId": pipeline, "cronExpression": "0 0 29 2 *", "parameters": {"n": 5}}
    made = demand(admin.post(SCHEDULES, json=body), 201)
    demand(admin.put(f"pipelines/{pipeline}", json={"yamlDefinition": NOOP}), 200)
    refused = admin.post(f"{SCHEDULES}/{made['id']}/trigger", json={})
    assert (refused.status_code, refused.json()["code"]) == (400, "INVALID_PARAMETERS")


def test_the_schedules_of_a_deleted_pipeline_are_gone(admin: httpx.Client) -> None:
    pipeline = create_pipeline(admin, NOOP, scheduleCron="0 3 1 1 *")["id"]
    until(lambda: {"made": _schedules_of(admin, pipeline)}, lambda seen: bool(seen["made"]))
    (made,) = _schedules_of(admin, pipeline)
    demand(admin.delete(f"pipelines/{pipeline}"), 204)
    until(
        lambda: {"status": admin.get(f"{SCHEDULES}/{made['id']}").status_code},
        lambda seen: seen["status"] == 404,
    )


def test_a_tick_fires_by_itself(admin: httpx.Client, minutely: dict[str, Any]) -> None:
    path = f"{SCHEDULES}/{minutely['id']}"
    fired = until(lambda: demand(admin.get(path), 200), lambda s: _fired(s), 90)
    demand(admin.post(f"{path}/pause", json={}), 200)
    tick = fired["lastTick"]
    status = wait_for_end(admin, tick["runId"])
    assert (status["overallStatus"], status["trigger"], status["triggerId"]) == (
        "COMPLETED",
        "SCHEDULE",
        minutely["id"],
    )
    assert (status["logicalDate"], status["intervalEnd"]) == (tick["at"], tick["at"])
    assert fired["nextRunAt"] > tick["at"]
    of_schedule = demand(admin.get("runs", params={"triggerId": minutely["id"]}), 200)["data"]
    assert tick["runId"] in {run["runId"] for run in of_schedule}


def test_a_tick_whose_run_is_refused_makes_an_alert(admin: httpx.Client, broken: dict[str, Any]) -> None:
    narrow = {"pipelineId": broken["pipelineId"]}
    page = until(
        lambda: demand(admin.get("monitoring/alerts", params=narrow), 200), lambda it: bool(it["data"]), 90
    )
    demand(admin.post(f"{SCHEDULES}/{broken['id']}/pause", json={}), 200)
    (alert,) = page["data"]
    assert (alert["rule"], alert["severity"]) == ("START_REFUSED", "CRITICAL")
    assert (alert["details"]["scheduleId"], alert["details"]["reason"]) == (
        broken["id"],
        "INVALID_PARAMETERS",
    )
    tick = demand(admin.get(f"{SCHEDULES}/{broken['id']}"), 200)["lastTick"]
    assert (tick["decision"], tick["reason"]) == ("SKIPPED", "INVALID_PARAMETERS")
    assert tick["message"] in alert["message"]


def _fired(schedule: dict[str, Any]) -> bool:
    return bool(schedule.get("lastTick", {}).get("decision") == "FIRED")


def _schedules_of(admin: httpx.Client, pipeline: str) -> list[dict[str, Any]]:
    return list(demand(admin.get(SCHEDULES, params={"pipelineId": pipeline}), 200)["data"])
