"""The demo passes, passes again with the same rows, and fails where the rows are not right."""

import subprocess
import uuid
from typing import Any

import httpx
import pytest
from headrace_local.testing import StackUnderTest, demand

pytestmark = pytest.mark.timeout(300)  # it waits, up to a minute, for a tick of a schedule

TOTALS = "SELECT count(*), sum(dep_delay), sum(hashtext(flights::text)::bigint) FROM flights"


@pytest.fixture(scope="module")
def first(stack: StackUnderTest) -> tuple[subprocess.CompletedProcess[str], list[tuple[Any, ...]]]:
    """What the first demo said, and what it landed."""
    done = stack.command("demo")
    assert done.returncode == 0, done.stdout + done.stderr
    return done, stack.warehouse(TOTALS)


def test_the_demo_passes_twice_with_the_same_rows(
    stack: StackUnderTest,
    admin: httpx.Client,
    first: tuple[subprocess.CompletedProcess[str], list[tuple[Any, ...]]],
) -> None:
    done, landed = first
    assert "fired" in done.stdout, "a schedule has started a run by itself"
    again = stack.command("demo", "--no-scheduled")
    assert again.returncode == 0, again.stdout + again.stderr
    assert stack.warehouse(TOTALS) == landed
    assert landed[0][0] == 336776
    for said in (done.stdout, again.stdout):
        assert "8255 of 336776" in said
        assert "ExpressJet Airlines Inc." in said
    pipelines = demand(admin.get("pipelines", params={"name": "flights-demo"}), 200)["data"]
    assert [(p["version"], p["status"]) for p in pipelines] == [(1, "WARNING")], "the second changed nothing"


def test_the_demo_fails_where_the_rows_are_not_right(
    stack: StackUnderTest, first: tuple[subprocess.CompletedProcess[str], list[tuple[Any, ...]]]
) -> None:
    """Somebody adds a row that the source does not have: merging leaves it, and the demo says so."""
    assert first[0].returncode == 0
    marker = uuid.uuid4().int % 1000 + 10000
    stack.warehouse(
        "INSERT INTO flights (year, month, day, carrier, flight, origin, airline, dep_delay, cancelled) "
        "VALUES (2013, 1, 1, 'UA', $1, 'EWR', 'United Air Lines Inc.', 1, false)",
        marker,
    )
    try:
        done = stack.command("demo", "--no-scheduled")
        assert done.returncode == 1
        assert "336777" in done.stderr
    finally:
        stack.warehouse("DELETE FROM flights WHERE flight = $1", marker)
