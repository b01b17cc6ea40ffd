"""Shows a run while it goes on: a table that changes in place on a terminal, a line a change elsewhere."""

import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from headrace_local.errors import LocalStackError

FINAL = ("COMPLETED", "FAILED", "CANCELLED")

_COLOURS = {"COMPLETED": "green", "RUNNING": "cyan", "FAILED": "red", "CANCELLED": "red", "SKIPPED": "yellow"}
_POLL_SECONDS = 0.2
_RUN_SECONDS = 600.0


def follow(fetch: Callable[[], dict[str, Any]], console: Console) -> dict[str, Any]:
    """Asks for a run's status until it is final, showing each task; returns the last answer.

    Raises LocalStackError where it is not final after ten minutes.
    """
    deadline = time.monotonic() + _RUN_SECONDS
    if not console.is_terminal:
        return _follow_by_lines(fetch, console, deadline)
    with Live(console=console, refresh_per_second=10) as live:
        while True:
            status = fetch()
            live.update(_table(status))
            if status["overallStatus"] in FINAL:
                return status
            _wait(deadline)


def _follow_by_lines(
    fetch: Callable[[], dict[str, Any]], console: Console, deadline: float
) -> dict[str, Any]:
    seen: dict[str, str] = {}
    while True:
        status = fetch()
        for task in status["tasks"]:
            if seen.get(task["id"]) != task["status"] and task["status"] != "PENDING":
                console.print(f"  {task['id']:20} {task['status'].lower():10} {task['rowsOut']:>10,} rows")
            seen[task["id"]] = task["status"]
        if status["overallStatus"] in FINAL:
            return status
        _wait(deadline)


def _wait(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise LocalStackError(f"the run has not ended after {_RUN_SECONDS:.0f} seconds")
    time.sleep(_POLL_SECONDS)


def _table(status: dict[str, Any]) -> Table:
    table = Table(title=f"run {status['runId']}: {status['overallStatus'].lower()}", title_justify="left")
    for column in ("task", "kind", "state"):
        table.add_column(column)
    table.add_column("rows in", justify="right")
    table.add_column("rows out", justify="right")
    for task in status["tasks"]:
        colour = _COLOURS.get(task["status"], "default")
        state = f"[{colour}]{task['status'].lower()}[/]"
        table.add_row(task["id"], task["kind"], state, f"{task['rowsIn']:,}", f"{task['rowsOut']:,}")
    return table
