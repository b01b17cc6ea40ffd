"""Pipelines of different kinds whose results are known, and the tables that they read."""

import csv
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from headrace_local.testing import demand

from .cluster import Cluster

ORDERS = 4000
CUSTOMERS = 150
READINGS = 20_000

_SOURCES = (
    f"""CREATE TABLE orders AS SELECT g AS id, g % {CUSTOMERS} AS customer,
        ((g * 7 % 1000) / 10.0)::numeric(10, 2) AS amount,
        timestamptz '2026-01-01 00:00Z' + g * interval '1 minute' AS at, repeat(md5(g::text), 4) AS note
        FROM generate_series(1, {ORDERS}) AS g""",
    "ALTER TABLE orders ADD PRIMARY KEY (id)",
    "CREATE TABLE customers AS SELECT g AS id, 'customer ' || g AS name "
    f"FROM generate_series(0, {CUSTOMERS - 1}) AS g",
    "ALTER TABLE customers ADD PRIMARY KEY (id)",
)

_KINDS = {
    "noop": """
sources: [{id: rows, values: [{x: 1}]}]
sinks: [{id: out, discard: true}]
""",
    "values_append": """
sources: [{id: rows, values: [{x: 1, y: one}, {x: 2, y: two}, {x: 3, y: null}]}]
transformations:
  - {id: more, type: sql_transform, inputs: [rows], sql: "SELECT r.range AS n, x, y FROM rows, range(40) r"}
sinks: [{id: load, input: more, connection: WAREHOUSE, table: TABLE, mode: append}]
""",
    "csv_merge": """
sources:
  - {id: read, connection: FILES, path: readings.csv, schema: {id: INTEGER, place: VARCHAR, celsius: DOUBLE}}
transformations: [{id: warm, type: filter, input: read, condition: celsius >= 0}]
quality_checks:
  - {id: whole, type: not_null, input: warm, columns: [id, place]}
  - {id: once, type: unique, input: warm, columns: [id]}
sinks: [{id: load, input: warm, connection: WAREHOUSE, table: TABLE, mode: merge, keys: [id]}]
""",
    "copy_append": """
sources: [{id: read, connection: WAREHOUSE, table: orders}]
sinks: [{id: load, connection: WAREHOUSE, table: TABLE, mode: append}]
""",
    "stages_replace": """
sources:
  - {id: orders, connection: WAREHOUSE, table: orders}
  - {id: customers, connection: WAREHOUSE, table: customers}
transformations:
  - id: named
    type: lookup_join
    input: orders
    lookup: customers
    on: {customer: id}
    columns: {name: name}
    materialize: true
  - id: sums
    type: sql_transform
    inputs: [named]
    sql: SELECT name, count(*) AS orders, sum(amount) AS amount FROM named GROUP BY name
quality_checks:
  - {id: all_of_them, type: row_count, input: sums, min: 150, max: 150}
sinks:
  - {id: load, input: sums, connection: WAREHOUSE, table: TABLE, mode: replace}
""",
    "incremental_append": """
sources: [{id: read, connection: WAREHOUSE, table: orders, columns: [id, amount], incremental: {cursor: id}}]
sinks: [{id: load, connection: WAREHOUSE, table: TABLE, mode: append}]
""",
    "two_sinks": """
sources: [{id: read, connection: WAREHOUSE, table: customers}]
sinks:
  - {id: every, input: read, connection: WAREHOUSE, table: TABLE, mode: append}
  - {id: latest, input: read, connection: WAREHOUSE, table: TABLE_latest, mode: merge, keys: [id]}
""",
    "approved_append": """
sources: [{id: read, connection: WAREHOUSE, table: customers}]
transformations:
  - {id: approval, type: wait_for_signal, input: read, data: {least: {type: integer, required: true}}}
  - {id: kept, type: filter, input: approval, condition: "id >= ${signals.approval.least}"}
sinks: [{id: load, input: kept, connection: WAREHOUSE, table: TABLE, mode: append}]
""",
}
LEAST = 10
SIGNALS: dict[str, dict[str, Any]] = {
    "approved_append": {"signalName": "approval", "data": {"least": LEAST}},
}
"""What is said to each run of a kind: it waits for that."""

KINDS = tuple(_KINDS)
TABLES = {"noop": (), "two_sinks": ("", "_latest")}
"""What a kind adds to the name of its table for each sink; one plain table where it is not named here."""

ADDS_EACH_TIME = {("values_append", ""), ("copy_append", ""), ("two_sinks", ""), ("approved_append", "")}
"""The tables that grow with every run; each other one is the same after any number of runs."""


@dataclass(frozen=True)
class Pipeline:
    """One pipeline of the workload."""

    id: str
    kind: str
    table: str

    @property
    def tables(self) -> list[str]:
        """The tables that it loads."""
        return [f"{self.table}{suffix}" for suffix in TABLES.get(self.kind, ("",))]


@dataclass(frozen=True)
class Places:
    """The connections of the workload, by name."""

    warehouse: str
    files: str


def prepare(cluster: Cluster, client: httpx.Client) -> Places:
    """Makes the sources and the connections to them."""
    for statement in _SOURCES:
        cluster.sql("warehouse", statement)
    cluster.sql("warehouse", "GRANT ALL ON ALL TABLES IN SCHEMA public TO warehouse")
    cluster.sql("warehouse", "GRANT ALL ON SCHEMA public TO warehouse")
    folder = cluster.home.work / "readings"
    folder.mkdir()
    _write_readings(folder / "readings.csv")
    demand(client.post("connections", json={"name": "files", "type": "FILE", "path": str(folder)}), 201)
    return Places(connect(cluster, client, "warehouse"), "files")


def connect(cluster: Cluster, client: httpx.Client, name: str, port: int | None = None) -> str:
    """A connection to the user's database, by another port where a proxy stands between; returns its name."""
    login = cluster.warehouse_login()
    body = {
        "name": name,
        "type": "POSTGRESQL",
        "host": login["host"],
        "port": port or login["port"],
        "database": login["database"],
        "username": login["username"],
        "secret": login["password"],
    }
    demand(client.post("connections", json=body), 201)
    return name


Post = Callable[[str, dict[str, Any]], dict[str, Any]]
"""Sends a POST and returns what was made."""


def create(post: Post, places: Places, kind: str, text: str | None = None, **settings: int) -> Pipeline:
    """A pipeline of a kind, or of a text with the same placeholders, loading a table of its own."""
    table = f"t_{uuid.uuid4().hex[:12]}"
    named = (text or _KINDS[kind]).replace("WAREHOUSE", places.warehouse).replace("FILES", places.files)
    body = {
        "name": f"{kind}-{table}",
        "yamlDefinition": "version: 1" + named.replace("TABLE", table),
        "maxRetries": 20,
        "retryDelaySeconds": 1,
        "timeoutSeconds": 120,
        **settings,
    }
    return Pipeline(post("pipelines", body)["id"], kind, table)


def start(post: Post, pipeline: Pipeline) -> str:
    """The id of a run, which has been told what it waits for."""
    run: str = post(f"pipelines/{pipeline.id}/run", {})["runId"]
    if pipeline.kind in SIGNALS:
        post(f"runs/{run}/signal", SIGNALS[pipeline.kind])
    return run


def posting(client: httpx.Client) -> Post:
    """Posts once, and demands success."""
    return lambda path, body: demand(client.post(path, json=body), 201)


def _write_readings(path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "place", "celsius"])
        for number in range(READINGS):
            writer.writerow([number, f"place {number % 97}", (number * 37 % 600) / 10 - 10])
