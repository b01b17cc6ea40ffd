"""A schedule that ticks every minute while the demo goes on, and what comes of its tick."""

import time
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from typing import Any

from rich.console import Console

from headrace_local.demo import display
from headrace_local.demo.api import Api
from headrace_local.errors import LocalStackError

PIPELINE = "weather-demo"
_PATIENCE_SECONDS = 90.0
_POLL_SECONDS = 0.25


@dataclass(frozen=True)
class Ticking:
    """A schedule that goes on, and the tick that is waited for."""

    schedule_id: str
    after: str
    """The latest tick that was decided before; the one waited for is later. Empty where there was none."""
    expected: str


def begin(api: Api, console: Console) -> Ticking:
    """Has a small pipeline run every minute from now on.

    Where an earlier demo has left the schedule paused, the latest of the ticks that it missed meanwhile is
    made up for at once, so that nobody waits for the next minute.
    """
    text = resources.files(__package__).joinpath("weather.yaml").read_text(encoding="utf-8")
    pipeline = api.save("pipelines", {"name": PIPELINE, "yamlDefinition": text, "tags": ["demo"]})
    known = api.get("scheduler/schedules", pipelineId=pipeline["id"])["data"]
    if known:
        latest = known[0].get("lastTick", {}).get("at", "")
        catching_up = {"catchup": "RUN_LATEST_N", "catchupLimit": 1}
        schedule = api.post(f"scheduler/schedules/{known[0]['id']}/resume", catching_up)
        expected = (
            f"the latest tick since {latest or 'it was made'}, missed while it was paused, or the next one"
        )
    else:
        latest = ""
        schedule = api.post(
            "scheduler/schedules", {"pipelineId": pipeline["id"], "cronExpression": "* * * * *"}
        )
        expected = f"the tick of {schedule['nextRunAt']}"
    console.print(f"Schedule of [bold]{PIPELINE}[/]: every minute; comes: {expected}", highlight=False)
    return Ticking(schedule["id"], latest, expected)


def watch(api: Api, ticking: Ticking, console: Console) -> None:
    """Waits for the tick that `begin` has told of, follows its run, and pauses the schedule.

    Raises LocalStackError where the tick starts no run, or the run does not complete.
    """
    console.print(f"Waiting for {ticking.expected}, which comes by itself", highlight=False, soft_wrap=True)
    try:
        tick = _await_tick(api, ticking)
    finally:
        api.post(f"scheduler/schedules/{ticking.schedule_id}/pause", {})
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


def _await_tick(api: Api, ticking: Ticking) -> dict[str, Any]:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        tick: dict[str, Any] = api.get(f"scheduler/schedules/{ticking.schedule_id}").get("lastTick", {})
        if tick.get("at", "") > ticking.after and tick["decision"] == "FIRED":
            return tick
        if tick.get("at", "") > ticking.after and tick["decision"] == "SKIPPED":
            raise LocalStackError(f"the tick of {tick['at']} started no run: {tick.get('message')}")
        if time.monotonic() > deadline:
            raise LocalStackError(f"{ticking.expected} did not come within {_PATIENCE_SECONDS:.0f} seconds")
        time.sleep(_POLL_SECONDS)
