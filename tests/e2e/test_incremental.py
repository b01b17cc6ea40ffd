"""Incremental loads over real HTTP: a cursor moves with its load and never otherwise, and loses no row."""

import asyncio
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import asyncpg
import httpx
import pytest
from headrace_local.testing import StackUnderTest, create_pipeline, demand, wait_for_end


@pytest.fixture
def name(stack: StackUnderTest) -> Iterator[str]:
    """What the tables of a test begin with; they are dropped after it."""
    prefix = f"inc_{uuid.uuid4().hex[:12]}"
    stack.warehouse(
        f"CREATE TABLE {prefix}_source (id bigint PRIMARY KEY, at timestamptz NOT NULL DEFAULT now())"
    )
    yield prefix
    for (table,) in stack.warehouse(
        "SELECT tablename FROM pg_tables WHERE tablename LIKE $1", f"{prefix.replace('_', '#_')}%"
    ):
        stack.warehouse(f'DROP TABLE "{table}"')


def definition(warehouse: str, name: str, *, between: str = "", sink: str = "mode: append") -> str:
    """Everything of the source that is new, into one table."""
    return f"""
version: 1
sources:
  - {{id: read, connection: {warehouse}, table: public.{name}_source, incremental: {{cursor: at}}}}
{between}
sinks:
  - {{id: load, connection: {warehouse}, table: public.{name}_target, {sink}}}
"""


def start(client: httpx.Client, pipeline: dict[str, Any], **body: Any) -> str:
    """Starts a run; returns its id."""
    return str(demand(client.post(f"pipelines/{pipeline['id']}/run", json=body), 202)["runId"])


def run(client: httpx.Client, pipeline: dict[str, Any], **body: Any) -> dict[str, Any]:
    """The end of a run."""
    return wait_for_end(client, start(client, pipeline, **body))


def came(status: dict[str, Any], sink: str = "load") -> tuple[str, int, str | None, str | None]:
    """How a run ended, how many rows it read, and from where to where its cursor moved."""
    tasks = {task["id"]: task for task in status["tasks"]}
    cursors = tasks[sink]["cursors"]
    moved = (cursors[0].get("before"), cursors[0]["after"]) if cursors else (None, None)
    return status["overallStatus"], tasks["read"]["rowsOut"], *moved


def loaded(stack: StackUnderTest, name: str) -> list[int]:
    """The ids in the target."""
    return [row[0] for row in stack.warehouse(f"SELECT id FROM {name}_target ORDER BY id")]


@contextmanager
def in_transaction(stack: StackUnderTest, *statements: str) -> Iterator[None]:
    """A transaction of somebody else, which is committed at the end of the block."""
    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(**stack.warehouse_login()))
        runner.run(connection.execute("BEGIN; " + "; ".join(statements)))
        yield
        runner.run(connection.execute("COMMIT"))
        runner.run(connection.close())


def test_a_cursor_moves_with_its_load_and_never_otherwise(
    stack: StackUnderTest, admin: httpx.Client, warehouse: str, name: str
) -> None:
    stack.warehouse(f"CREATE TABLE {name}_target (id bigint CHECK (id < 100), at timestamptz)")
    stack.warehouse(f"INSERT INTO {name}_source VALUES (1, '2024-01-01Z'), (2, '2024-01-02Z')")
    pipeline = create_pipeline(admin, definition(warehouse, name), maxRetries=0)
    first = run(admin, pipeline)
    stack.warehouse(f"INSERT INTO {name}_source VALUES (100, '2024-01-03Z')")
    failed = run(admin, pipeline)
    stack.warehouse(f"UPDATE {name}_source SET id = 3 WHERE id = 100")
    second, third = run(admin, pipeline), run(admin, pipeline)
    again = run(admin, pipeline, fullRefresh=True)

    one, two, three = (f"2024-01-0{day} 00:00:00+00" for day in (1, 2, 3))
    assert came(first) == ("COMPLETED", 2, None, two)
    assert (failed["overallStatus"], came(failed)[2:]) == ("FAILED", (None, None))
    assert came(second) == ("COMPLETED", 1, two, three)
    assert came(third) == ("COMPLETED", 0, three, three)
    assert came(again) == ("COMPLETED", 3, None, three)
    assert loaded(stack, name) == [1, 1, 2, 2, 3, 3]
    assert one not in str(again["tasks"])


@pytest.mark.parametrize("sink", ["mode: append", "mode: merge, keys: [id]"])
def test_a_row_that_is_committed_late_is_loaded_once(
    stack: StackUnderTest, admin: httpx.Client, warehouse: str, name: str, sink: str
) -> None:
    pipeline = create_pipeline(admin, definition(warehouse, name, sink=sink))
    with in_transaction(stack, f"INSERT INTO {name}_source VALUES (1)"):
        stack.warehouse(f"INSERT INTO {name}_source VALUES (2)")
        assert run(admin, pipeline)["overallStatus"] == "COMPLETED"
        assert 1 not in loaded(stack, name)
    run(admin, pipeline)

    assert loaded(stack, name) == [1, 2]


def test_runs_that_share_a_cursor_take_turns(
    stack: StackUnderTest, admin: httpx.Client, warehouse: str, name: str
) -> None:
    """Whatever starts them: a request, another try, a full refresh."""
    stack.warehouse(f"CREATE TABLE {name}_target (id bigint CHECK (id < 100), at timestamptz)")
    stack.warehouse(f"INSERT INTO {name}_source VALUES (100)")
    pipeline = create_pipeline(
        admin, definition(warehouse, name) + "execution: {max_concurrent_runs: 5}\n", maxRetries=0
    )
    failed = run(admin, pipeline)
    stack.warehouse(f"UPDATE {name}_source SET id = 1")

    runs = [start(admin, pipeline) for _ in range(4)]
    runs.append(demand(admin.post(f"runs/{failed['runId']}/retry", json={}), 202)["runId"])
    runs.append(start(admin, pipeline, fullRefresh=True))
    ended = [wait_for_end(admin, each) for each in runs]

    assert {status["overallStatus"] for status in ended} == {"COMPLETED"}
    turns = sorted(ended, key=lambda status: str(status["startedAt"]))
    assert all(one["finishedAt"] <= other["startedAt"] for one, other in pairwise(turns))
    assert loaded(stack, name) == [1, 1]  # once, and once by the full refresh


def test_a_cursor_goes_through_a_materialised_step(
    stack: StackUnderTest, admin: httpx.Client, warehouse: str, name: str
) -> None:
    """The stage that reads is not the one that lands: the cursor moves when the rows have landed."""
    between = "transformations: [{id: kept, type: filter, condition: id > 0, materialize: true}]"
    stack.warehouse(f"CREATE TABLE {name}_target (id bigint CHECK (id < 100), at timestamptz)")
    stack.warehouse(f"INSERT INTO {name}_source VALUES (1, '2024-01-01Z'), (2, '2024-01-02Z')")
    pipeline = create_pipeline(admin, definition(warehouse, name, between=between), maxRetries=0)
    first = run(admin, pipeline)
    stack.warehouse(f"INSERT INTO {name}_source VALUES (100, '2024-01-03Z')")
    failed = run(admin, pipeline)
    stack.warehouse(f"UPDATE {name}_source SET id = 3 WHERE id = 100")
    retried = wait_for_end(admin, demand(admin.post(f"runs/{failed['runId']}/retry", json={}), 202)["runId"])
    last = run(admin, pipeline)

    _, two, three = (f"2024-01-0{day} 00:00:00+00" for day in (1, 2, 3))
    assert came(first) == ("COMPLETED", 2, None, two)
    assert (failed["overallStatus"], came(failed)[2:]) == ("FAILED", (None, None))
    assert came(retried) == ("COMPLETED", 1, two, three)
    assert came(last) == ("COMPLETED", 0, three, three)
    assert loaded(stack, name) == [1, 2, 3]


def test_rows_without_a_cursor_value_are_told(
    stack: StackUnderTest, admin: httpx.Client, warehouse: str, name: str
) -> None:
    stack.warehouse(f"ALTER TABLE {name}_source ALTER at DROP NOT NULL")
    stack.warehouse(f"INSERT INTO {name}_source VALUES (1, now()), (2, NULL)")
    pipeline = create_pipeline(admin, definition(warehouse, name))
    first = run(admin, pipeline)
    stack.warehouse(f"INSERT INTO {name}_source VALUES (3, NULL)")
    second = run(admin, pipeline)

    assert [len(status["warnings"]) for status in (first, second)] == [0, 1]
    assert "at is NULL" in second["warnings"][0]["message"]
    assert loaded(stack, name) == [1, 2]
