"""The demo passes, and passes again with the same rows."""

import uuid

import httpx
from headrace_local.testing import StackUnderTest, demand


def test_the_demo_passes_twice_with_the_same_rows(stack: StackUnderTest, admin: httpx.Client) -> None:
    first = stack.command("demo")
    assert first.returncode == 0, first.stdout + first.stderr
    landed = stack.warehouse(
        "SELECT count(*), sum(dep_delay), sum(hashtext(flights::text)::bigint) FROM flights"
    )
    second = stack.command("demo")
    assert second.returncode == 0, second.stdout + second.stderr
    assert landed == stack.warehouse(
        "SELECT count(*), sum(dep_delay), sum(hashtext(flights::text)::bigint) FROM flights"
    )
    assert landed[0][0] == 336776
    for done in (first, second):
        assert "has_departure_delay" in done.stdout
        assert "ExpressJet Airlines Inc." in done.stdout
    pipelines = demand(admin.get("pipelines", params={"name": "flights-demo"}), 200)["data"]
    assert [p["version"] for p in pipelines] == [1], "the second demo changed nothing"


def test_the_demo_fails_where_the_rows_are_not_right(stack: StackUnderTest) -> None:
    """Somebody adds a row that the source does not have: merging leaves it, and the demo says so."""
    assert stack.command("demo").returncode == 0
    marker = uuid.uuid4().int % 1000 + 10000
    stack.warehouse(
        "INSERT INTO flights (year, month, day, carrier, flight, origin, airline, dep_delay, cancelled) "
        "VALUES (2013, 1, 1, 'UA', $1, 'EWR', 'United Air Lines Inc.', 1, false)",
        marker,
    )
    try:
        done = stack.command("demo")
        assert done.returncode == 1
        assert "336777" in done.stderr
    finally:
        stack.warehouse("DELETE FROM flights WHERE flight = $1", marker)
