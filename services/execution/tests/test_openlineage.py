"""Runs as OpenLineage tells them: what is told, to whom, and that it never holds up a run."""

import asyncio
import fcntl
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from headrace.execution.v1 import runs_pb2, workers_pb2
from headrace.metadata.v1 import definitions_pb2
from headrace_chassis.database import Database, driver
from headrace_chassis.forwarder import EventRefused, ReceiverAway
from headrace_chassis.ids import uuid7
from headrace_chassis.testing.authority import TENANT
from headrace_chassis.testing.ports import free_port
from headrace_chassis.testing.waiting import eventually
from headrace_definition.testing import compiled
from headrace_execution.acceptance.compiling import to_recipe
from headrace_execution.domain.triggers import Trigger, TriggerKind
from headrace_execution.domain.values import replace
from headrace_execution.openlineage import events as told
from headrace_execution.openlineage.endpoints import FileEndpoint, HttpEndpoint
from headrace_execution.openlineage.events import Described
from headrace_execution.openlineage.plans import trace
from headrace_execution.testing.openlineage import Invalid, demand_valid
from headrace_outbound.guard import AddressGuard
from headrace_outbound.posting import GuardedPoster

from .factories import recipe
from .lineage_server import LineageServer, lineage_server
from .support import NOOP, PATIENT, Cluster, Replica, ScriptedWorker, failure, moment, receipt

CANARY = "canary-of-openlineage"
SALES = """
version: 1
sources:
  - {id: orders, connection: shop, query: "SELECT id, price FROM sales.orders"}
  - {id: rates, connection: shop, table: rates}
transformations:
  - {id: cents, type: sql_transform, sql: "SELECT o.id, o.price * r.rate AS cents FROM orders o, rates r"}
quality_checks:
  - {id: known, type: not_null, input: rates, columns: [rate]}
  - {id: few, type: row_count, input: rates, max: 3, severity: warning}
sinks: [{id: load, input: cents, connection: shop, table: totals, mode: replace}]
"""
SHOP = "postgres://db.internal:5432"


def shop(mesh: Cluster) -> None:
    """The connection that SALES names."""
    mesh.metadata.connections["shop"] = definitions_pb2.ResolvedConnection(
        reference="shop",
        id=str(uuid7()),
        name="shop",
        type="postgresql",
        host="db.internal",
        database="shop",
        username="etl",
        secret=CANARY,
    )


def columns(*pairs: tuple[str, str]) -> list[runs_pb2.OutputColumn]:
    return [runs_pb2.OutputColumn(name=name, type=kind) for name, kind in pairs]


async def taken(server: LineageServer, count: int, *replicas: Replica) -> list[dict[str, Any]]:
    """The events that the server has, when there are so many; there is no broker that wakes the replicas."""

    async def there() -> bool:
        for replica in replicas:
            assert replica.parts.lineage is not None
            replica.parts.lineage.wake()
        return len(server.events) >= count

    await eventually(there, within=PATIENT)
    for event in server.events:
        demand_valid(event)
    return server.events


async def finished(replica: Replica, worker: ScriptedWorker, pipeline: str, **result: Any) -> str:
    """The id of a run that its worker has finished."""
    run = (await replica.run(pipeline)).run_id
    work = await worker.next_assignment()
    await worker.finish(work, **result)
    await replica.ended(run)
    return run


async def test_a_run_is_told_with_its_datasets_columns_and_rows(mesh: Cluster, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("the-api-key\n")
    shop(mesh)
    async with lineage_server() as server:
        replica = await mesh.replica(
            openlineage_url=server.url, openlineage_api_key_file=key, openlineage_namespace="prod"
        )
        worker = await mesh.worker(replica)
        run = (await replica.run(mesh.metadata.add(SALES))).run_id
        work = await worker.next_assignment()
        tasks = [
            workers_pb2.TaskProgress(
                task=task,
                state=runs_pb2.TASK_STATE_COMPLETED,
                rows_in=4,
                rows_out=4,
                bytes=40,
                started_at=moment(0),
            )
            for task in ("orders", "rates", "cents", "known", "few", "load")
        ]
        rates = workers_pb2.SourceColumns(task="rates", columns=columns(("rate", "numeric")))
        landed = receipt(
            work.ref.fence,
            rows=4,
            bytes=64,
            columns=columns(("id", "BIGINT"), ("cents", "DOUBLE")),
            sources=[rates],
        )
        warned = runs_pb2.RunWarning(task="few", code="QUALITY_CHECK_FAILED", message="4 rows")
        await worker.finish(work, tasks=tasks, receipts=[landed], warnings=[warned])
        start, complete = await taken(server, 2, replica)

    assert server.told == [(run, "START"), (run, "COMPLETE")]
    assert complete["job"]["namespace"] == "prod"
    assert complete["job"]["name"] == "default.a-pipeline"
    assert complete["job"]["facets"]["sql"]["query"].startswith("SELECT id, price FROM sales.orders;")
    assert [(each["namespace"], each["name"]) for each in complete["inputs"]] == [
        (SHOP, "shop.sales.orders"),
        (SHOP, "shop.public.rates"),
    ]
    assert complete["inputs"][1]["facets"]["schema"]["fields"] == [{"name": "rate", "type": "numeric"}]
    assert complete["inputs"][0]["inputFacets"]["inputStatistics"]["rowCount"] == 4
    checks = complete["inputs"][1]["inputFacets"]["dataQualityAssertions"]["assertions"]
    assert [(each["name"], each["assertion"], each["success"], each["severity"]) for each in checks] == [
        ("known", "not_null", True, "error"),
        ("few", "row_count", False, "warn"),
    ]
    assert [each.get("column") for each in checks] == ["rate", None]
    (output,) = complete["outputs"]
    assert (output["namespace"], output["name"]) == (SHOP, "shop.public.totals")
    assert [each["name"] for each in output["facets"]["schema"]["fields"]] == ["id", "cents"]
    statistics = output["outputFacets"]["outputStatistics"]
    assert (statistics["rowCount"], statistics["size"]) == (4, 64)
    fields = output["facets"]["columnLineage"]["fields"]
    assert [(each["name"], each["field"]) for each in fields["cents"]["inputFields"]] == [
        ("shop.public.rates", "rate"),
        ("shop.sales.orders", "price"),
    ]
    assert start["eventTime"] <= complete["eventTime"]
    assert "outputFacets" not in start["outputs"][0]
    assert {each["authorization"] for each in server.headers} == {"Bearer the-api-key"}
    assert CANARY not in json.dumps(server.events)


async def test_a_run_that_failed_says_why_and_one_that_never_started_is_whole_as_well(mesh: Cluster) -> None:
    async with lineage_server() as server:
        replica = await mesh.replica(openlineage_url=server.url)
        waits = (await replica.run(mesh.metadata.add(NOOP))).run_id  # there is no worker yet
        await replica.cancel(waits)
        await taken(server, 2, replica)
        worker = await mesh.worker(replica)
        error = failure("TABLE_NOT_FOUND", "CONFIGURATION", "there is no table x")
        failed = await finished(
            replica, worker, mesh.metadata.add(NOOP), outcome="FAILED", error=error, failed_task="rows"
        )
        events = await taken(server, 4, replica)

    assert server.told == [(waits, "START"), (waits, "ABORT"), (failed, "START"), (failed, "FAIL")]
    assert "there is no table x" in events[3]["run"]["facets"]["errorMessage"]["message"]


async def test_a_service_that_is_away_delays_events_and_no_run(mesh: Cluster, db: Database) -> None:
    port = free_port()
    replica = await mesh.replica(openlineage_url=f"http://127.0.0.1:{port}/api/v1/lineage")
    lineage = replica.parts.lineage
    assert lineage is not None
    lineage._first_wait = 0.0
    worker = await mesh.worker(replica)
    pipeline = mesh.metadata.add(NOOP)
    runs = [await finished(replica, worker, pipeline)]

    async def has_failed() -> bool:
        lineage.wake()
        async with db.read() as conn:
            return bool(await driver(conn).fetchval("SELECT failures FROM forwarder"))

    await eventually(has_failed, within=PATIENT)
    runs += [await finished(replica, worker, pipeline) for _ in range(2)]

    async with lineage_server(port) as server:
        await taken(server, 6, replica)

    for run in runs:
        assert list(dict.fromkeys(server.of(run))) == ["START", "COMPLETE"]


async def test_of_two_replicas_one_tells_each_event(mesh: Cluster) -> None:
    async with lineage_server() as server:
        first = await mesh.replica(openlineage_url=server.url)
        second = await mesh.replica(openlineage_url=server.url)
        worker = await mesh.worker(first)
        pipeline = mesh.metadata.add(NOOP)
        runs = [await finished(first, worker, pipeline) for _ in range(6)]
        await taken(server, 12, first, second)

    assert [server.of(run) for run in runs] == [["START", "COMPLETE"]] * 6


async def test_what_the_service_refuses_for_good_is_parked_and_the_rest_goes_on(
    mesh: Cluster, db: Database
) -> None:
    async with lineage_server() as server:
        server.answer = lambda event: "422 Unprocessable" if event["eventType"] == "START" else "201 Created"
        replica = await mesh.replica(openlineage_url=server.url)
        assert replica.parts.lineage is not None
        replica.parts.lineage._first_wait = 0.0
        worker = await mesh.worker(replica)
        run = await finished(replica, worker, mesh.metadata.add(NOOP))
        await taken(server, 1, replica)
        async with db.read() as conn:
            parked = await driver(conn).fetch("SELECT consumer, error FROM parked_event")

    assert server.told == [(run, "COMPLETE")]
    assert [tuple(row) for row in parked] == [("execution.openlineage", "the service answered 422")]


def hang_up(event: dict[str, Any]) -> str | None:
    return None


def answering(status: str) -> Callable[[dict[str, Any]], str | None]:
    return lambda event: status


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (answering("204 No Content"), None),
        (answering("301 Moved\r\nLocation: http://127.0.0.1:1/"), ReceiverAway),
        (answering("400 Bad Request"), EventRefused),
        (answering("401 Unauthorized"), ReceiverAway),
        (answering("429 Slow Down\r\nRetry-After: 7"), ReceiverAway),
        (answering("500 Oops"), EventRefused),
        (answering("503 Busy"), ReceiverAway),
        (hang_up, ReceiverAway),
    ],
)
async def test_each_answer_says_whether_it_is_the_event_or_the_service(
    answer: Callable[[dict[str, Any]], str | None], expected: type[Exception] | None
) -> None:
    poster = GuardedPoster(AddressGuard(allow_loopback=True), timeout=5.0)
    async with lineage_server() as server:
        server.answer = answer
        endpoint = HttpEndpoint(server.url, None, poster)
        if expected is None:
            await endpoint.send(b"{}")
            return
        with pytest.raises(expected) as raised:
            await endpoint.send(b"{}")
    if isinstance(raised.value, ReceiverAway) and "429" in str(raised.value):
        assert raised.value.retry_after == 7.0


async def test_a_service_that_takes_too_long_is_away_and_a_forbidden_address_is_never_called() -> None:
    async with lineage_server() as server:
        server.delay = 60.0
        slow = HttpEndpoint(server.url, None, GuardedPoster(AddressGuard(allow_loopback=True), timeout=0.2))
        with pytest.raises(ReceiverAway, match="did not answer within"):
            await slow.send(b"{}")
        closed = HttpEndpoint(server.url, None, GuardedPoster(AddressGuard()))
        with pytest.raises(ReceiverAway, match="may not be reached"):
            await closed.send(b"{}")
    assert server.tries == 1


async def test_events_of_many_runs_go_into_one_file(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    endpoint = FileEndpoint(path)
    await asyncio.gather(*(endpoint.send(b'{"n":%d}' % number) for number in range(20)))
    with path.open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # another process stands still while it writes
        with pytest.raises(ReceiverAway, match="cannot be written"):
            await endpoint.send(b"{}")

    assert sorted(json.loads(line)["n"] for line in path.read_text().splitlines()) == list(range(20))


async def test_a_line_that_was_not_finished_gives_way_to_the_next(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    endpoint = FileEndpoint(path)
    await endpoint.send(b'{"n":1}')
    with path.open("ab") as file:
        file.write(b'{"n":2' + b" " * 100_000)  # the process died here
    await endpoint.send(b'{"n":2}')

    assert path.read_text() == '{"n":1}\n{"n":2}\n'
    with pytest.raises(ReceiverAway, match="cannot be written"):
        await FileEndpoint(tmp_path / "missing" / "events.jsonl").send(b"{}")


async def test_the_interval_and_the_backfill_of_a_run_are_told(mesh: Cluster, replica: Replica) -> None:
    run_id = (await replica.run(mesh.metadata.add(NOOP))).run_id
    run = await replica.parts.store.get(TENANT, UUID(run_id))
    assert run is not None
    backfill = uuid7()
    filled = replace(
        run,
        trigger=Trigger(TriggerKind.BACKFILL, str(backfill)),
        interval_start=run.logical_date,
        interval_end=run.logical_date + timedelta(days=1),
        retry_of=backfill,
    )

    event = told.start(filled, trace(run.recipe, {}), Described("prod", "default.sales", {}))

    demand_valid(event)
    facets = event["run"]["facets"]
    assert facets["parent"]["run"] == {"runId": str(backfill)}
    assert facets["parent"]["job"]["name"] == "default.sales.backfill"
    assert facets["nominalTime"]["nominalStartTime"] < facets["nominalTime"]["nominalEndTime"]
    assert {"key": "retryOf", "value": str(backfill), "source": "HEADRACE"} in facets["tags"]["tags"]
    assert event["inputs"] == []  # rows of the definition have no name outside of the run


def test_columns_are_traced_through_what_waits_for_a_signal() -> None:
    plan = compiled("""
sources: [{id: rows, connection: shop, table: orders, columns: [id]}]
transformations: [{id: approval, type: wait_for_signal, input: rows}]
sinks: [{id: load, input: approval, connection: shop, table: totals}]
""").plan
    traced = trace(to_recipe(plan, recipe().policy), {})

    assert {key: [o.column for o in origins] for key, origins in traced.sinks["load"].items()} == {
        "id": ["id"]
    }


def test_what_is_not_of_the_specification_is_found() -> None:
    event = {
        "eventTime": "2026-01-01T00:00:00Z",
        "producer": "https://example.com",
        "schemaURL": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent",
        "run": {"runId": str(uuid7())},
        "job": {"namespace": "a", "name": "b"},
    }
    demand_valid(event)
    for change in (
        {"eventType": "BEGIN"},
        {"eventTime": "yesterday"},
        {"run": {"runId": "1"}},
        {"job": {"name": "b"}},
        {"extra": 1},
        {"outputs": [{"namespace": "n", "name": "t", "facets": {"schema": {"fields": []}}}]},
        {"schemaURL": "https://openlineage.io/spec/1-0-5/OpenLineage.json"},
    ):
        with pytest.raises(Invalid):
            demand_valid({**event, **change})
