"""Runs the flights through the stack as a user would, and checks what has landed against the files."""

import asyncio
from collections.abc import Sequence
from importlib import resources
from typing import Any

import asyncpg
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from headrace_local.demo import dataset, display, schedule
from headrace_local.demo.api import Api
from headrace_local.errors import LocalStackError
from headrace_local.postgres import WAREHOUSE, warehouse_login
from headrace_local.stack import Running

PIPELINE = "flights-demo"
FILES = "flights-files"

_TOTALS = """
    SELECT count(*)                                      AS rows,
           count(*) FILTER (WHERE dep_delay IS NULL)     AS without_delay,
           coalesce(sum(dep_delay), 0)                   AS total_delay,
           count(plane_seats)                            AS with_plane,
           coalesce(sum(plane_seats), 0)                 AS total_seats,
           count(visib)                                  AS with_weather,
           count(dest_name)                              AS with_destination
    FROM flights
"""

_AIRLINES = """
    SELECT airline,
           count(dep_delay)                                            AS departed,
           sum(dep_delay)                                              AS delay,
           count(*)                                                    AS flights,
           round(avg(dep_delay), 1)                                    AS mean_delay,
           round(100.0 * count(*) FILTER (WHERE cancelled) / count(*), 1) AS cancelled
    FROM flights
    GROUP BY airline
    ORDER BY avg(dep_delay) DESC
"""


def run_demo(running: Running, console: Console, *, scheduled: bool = True) -> None:
    """Registers the connections and the pipeline, runs it, shows the result and checks it; meanwhile a
    schedule starts a run by itself, where that is `scheduled`.

    Repeating it changes nothing about the rows. Raises LocalStackError where anything is not as it must be.
    """
    folder = running.home.work / PIPELINE
    dataset.unpack(folder)
    console.print(f"The data are in {folder}", highlight=False, soft_wrap=True)
    with Api(running.url, running.token("admin")) as api:
        _register_connections(api, running, console)
        ticking = schedule.begin(api, console) if scheduled else None
        pipeline = _register_pipeline(api, console)
        run = api.post(f"pipelines/{pipeline['id']}/run", {"triggeredBy": "demo"})
        status = display.follow(lambda: api.get(f"runs/{run['runId']}"), console)
        _demand_completed(status)
        for warning in status["warnings"]:
            console.print(f"[yellow]warning[/] {escape(warning['message'])}", soft_wrap=True)
        asyncio.run(_check_and_show(running, status, dataset.expected(folder), console))
        if ticking is not None:
            schedule.watch(api, ticking, console)


def _register_connections(api: Api, running: Running, console: Console) -> None:
    login = warehouse_login(running.ports, running.credentials)
    wanted: list[dict[str, Any]] = [
        {
            "name": FILES,
            "description": "The files of the flights demo",
            "type": "FILE",
            "path": str(running.home.work / PIPELINE),
        },
        {
            "name": WAREHOUSE,
            "description": "The local stack's database for your own tables",
            "type": "POSTGRESQL",
            "secret": login.pop("password"),
            **login,
        },
    ]
    for body in wanted:
        connection = api.save("connections", body)
        found = api.post(f"connections/{connection['id']}/test", {})
        if not found["success"]:
            raise LocalStackError(f"the connection {body['name']} does not work: {found['message']}")
        version = found.get("serverVersion") or found["message"]
        console.print(f"Connection [bold]{body['name']}[/] works ({version})", highlight=False)


def _register_pipeline(api: Api, console: Console) -> dict[str, Any]:
    text = resources.files(__package__).joinpath("flights.yaml").read_text(encoding="utf-8")
    pipeline = api.save("pipelines", {"name": PIPELINE, "yamlDefinition": text, "tags": ["demo"]})
    console.print(f"Pipeline [bold]{PIPELINE}[/], version {pipeline['version']}", highlight=False)
    return pipeline


def _demand_completed(status: dict[str, Any]) -> None:
    if status["overallStatus"] == "COMPLETED":
        return
    errors = "".join(f"\n  {task}: {message}" for task, message in status["errors"].items())
    raise LocalStackError(f"run {status['runId']} ended as {status['overallStatus']}{errors}")


async def _check_and_show(
    running: Running, status: dict[str, Any], expected: dataset.Expected, console: Console
) -> None:
    login = warehouse_login(running.ports, running.credentials)
    connection = await asyncpg.connect(user=login.pop("username"), **login)
    try:
        totals = dict(await connection.fetchrow(_TOTALS))
        airlines = await connection.fetch(_AIRLINES)
    finally:
        await connection.close()
    console.print(_airlines_table(airlines))
    by_airline = {row["airline"]: (row["departed"], row["delay"]) for row in airlines}
    _compare({**totals, "delay_by_airline": by_airline}, expected)
    _demand_warning(status, expected)
    console.print(
        f"[green]✓[/] {expected.rows:,} rows, as in the source; departure delays add up to "
        f"{expected.total_delay:,} minutes, seats to {expected.total_seats:,}, for each airline too",
        highlight=False,
        soft_wrap=True,
    )


def _airlines_table(rows: Sequence[Any], count: int = 8) -> Table:
    table = Table(title=f"Least punctual airlines (first {count} of {len(rows)})", title_justify="left")
    table.add_column("airline")
    for column in ("flights", "mean delay (min)", "cancelled (%)"):
        table.add_column(column, justify="right")
    for row in rows[:count]:
        table.add_row(row["airline"], f"{row['flights']:,}", str(row["mean_delay"]), str(row["cancelled"]))
    return table


def _compare(landed: dict[str, Any], expected: dataset.Expected) -> None:
    wrong = [
        f"  {name}: {landed[name]!r} in the table, {wanted!r} in the source"
        for name, wanted in vars(expected).items()
        if landed[name] != wanted
    ]
    if wrong:
        raise LocalStackError("the table does not hold what the source holds:\n" + "\n".join(wrong))


def _demand_warning(status: dict[str, Any], expected: dataset.Expected) -> None:
    """The one check that cannot hold must have said so, with the number of rows that the source has."""
    for warning in status["warnings"]:
        if warning["task"] == "has_departure_delay" and str(expected.without_delay) in str(warning):
            return
    raise LocalStackError(
        f"{expected.without_delay} flights have no departure delay, and no warning says so; there are: "
        f"{status['warnings']}"
    )
