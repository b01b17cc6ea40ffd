"""A schedule that ticks every minute while the demo goes on, and what comes of its tick."""

import time
from datetime import datetime
from importlib import resources
from typing import Any

from rich.console import Console

from headrace_local.demo import display
from headrace_local.demo.api import Api, JsonObject
from headrace_local.errors import LocalStackError

PIPELINE = "weather-demo"
_PATIENCE_SECONDS = 90.0
_POLL_SECONDS = 0.25


def begin(api: Api, console: Console) -> JsonObject:
    """Has a small pipeline run every minute from now on; returns its schedule."""
    text = resources.files(__package__).joinpath("weather.yaml").read_text(encoding="utf-8")
    pipeline = api.save("pipelines", {"name": PIPELINE, "yamlDefinition": text, "tags": ["demo"]})
    known = api.get("scheduler/schedules", pipelineId=pipeline["id"])["data"]
    if known:
        schedule = api.post(f"scheduler/schedules/{known[0]['id']}/resume", {"catchup": "SKIP_TO_CURRENT"})
    else:
        wanted = {"pipelineId": pipeline["id"], "cronExpression": "* * * * *"}
        schedule = api.post("scheduler/schedules", wanted)
    console.print(
        f"Schedule of [bold]{PIPELINE}[/]: every minute, next at {schedule['nextRunAt']}", highlight=False
    )
    return schedule


def watch(api: Api, schedule: JsonObject, console: Console) -> None:
    """Waits for the tick that `begin` has told of, follows its run, and pauses the schedule.

    Raises LocalStackError where the tick starts no run, or the run does not complete.
    """
    due = schedule["nextRunAt"]
    console.print(f"Waiting for the tick of {due}, which comes by itself", highlight=False)
    try:
        tick = _await_tick(api, schedule["id"], due)
    finally:
        api.post(f"scheduler/schedules/{schedule['id']}/pause", {})
    status = display.follow(lambda: api.get(f"runs/{tick['runId']}"), console)
    if status["overallStatus"] != "COMPLETED":
        raise LocalStackError(f"the scheduled run {tick['runId']} ended as {status['overallStatus']}")
    late = datetime.fromisoformat(tick["decidedAt"]) - datetime.fromisoformat(tick["at"])
    console.print(
        f"[green]✓[/] the tick of {tick['at']} fired {late.total_seconds():.2f} s later, and its run has "
        "completed; the schedule is paused now",
        highlight=False,
        soft_wrap=True,
    )


def _await_tick(api: Api, schedule_id: str, due: str) -> dict[str, Any]:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        tick: dict[str, Any] = api.get(f"scheduler/schedules/{schedule_id}").get("lastTick", {})
        if tick.get("at", "") >= due and tick["decision"] == "FIRED":
            return tick
        if tick.get("at", "") >= due and tick["decision"] == "SKIPPED":
            raise LocalStackError(f"the tick of {tick['at']} started no run: {tick.get('message')}")
        if time.monotonic() > deadline:
            raise LocalStackError(f"the tick of {due} did not come within {_PATIENCE_SECONDS:.0f} seconds")
        time.sleep(_POLL_SECONDS)
