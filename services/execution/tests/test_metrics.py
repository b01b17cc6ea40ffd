"""Metrics and cost over gRPC: runs are counted once, whatever reads them, and money adds up."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import grpc
import pytest
from headrace.execution.v1 import metrics_pb2, metrics_pb2_grpc, runs_pb2, workers_pb2
from headrace_chassis.channels import call_metadata
from headrace_chassis.database import Database
from headrace_chassis.errors import HeadraceError, from_rpc_error
from headrace_chassis.event_sources import OwnEvents
from headrace_chassis.ids import uuid7
from headrace_chassis.outbox import EventLog
from headrace_chassis.testing.waiting import eventually
from headrace_execution.loops.run_follower import RunFollower
from headrace_execution.store.sql import SqlStore
from headrace_execution.wiring import SERVICE

from .support import LOADING, NOOP, PATIENT, Cluster, Replica, ScriptedWorker, failure, receipt

RATES = "compute=0.5,storage=2,network=0.25"


class Desk:
    """What shows metrics at a replica."""

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.stub: metrics_pb2_grpc.MetricsServiceAsyncStub = metrics_pb2_grpc.MetricsServiceStub(
            replica.served.channel
        )

    async def metrics(self, pipeline: str, **asked: Any) -> metrics_pb2.PipelineMetrics:
        request = metrics_pb2.GetPipelineMetricsRequest(id=pipeline, **asked)
        return await self.stub.GetPipelineMetrics(request, metadata=self.replica.editor, timeout=PATIENT)

    async def cost(self, pipeline: str, **asked: Any) -> metrics_pb2.PipelineCost:
        request = metrics_pb2.GetPipelineCostRequest(id=pipeline, **asked)
        return await self.stub.GetPipelineCost(request, metadata=self.replica.editor, timeout=PATIENT)

    async def run_cost(self, run: str) -> metrics_pb2.RunCost:
        request = metrics_pb2.GetRunCostRequest(run_id=run)
        return await self.stub.GetRunCost(request, metadata=self.replica.editor, timeout=PATIENT)

    async def counted(self, pipeline: str, runs: int) -> metrics_pb2.PipelineMetrics:
        """The metrics when so many runs are counted."""

        async def enough() -> metrics_pb2.PipelineMetrics | None:
            found = await self.metrics(pipeline)
            return found if found.metrics.run_count >= runs else None

        found = await eventually(enough, within=PATIENT)
        assert found is not None
        return found


def progress(start: datetime, seconds: float | None, **tasks: int) -> list[workers_pb2.TaskProgress]:
    """Tasks that started then and took so long, or go on; each with the bytes that it has moved."""
    made = []
    for task, moved in tasks.items():
        state = runs_pb2.TASK_STATE_RUNNING if seconds is None else runs_pb2.TASK_STATE_COMPLETED
        told = workers_pb2.TaskProgress(task=task, state=state, rows_in=1, rows_out=1, bytes=moved)
        told.started_at.FromDatetime(start)
        if seconds is not None:
            told.finished_at.FromDatetime(start + timedelta(seconds=seconds))
        made.append(told)
    return made


async def load(worker: ScriptedWorker, *, seconds: float, read: int, landed: int) -> None:
    """Does a run of LOADING that took so long and moved so many bytes."""
    assignment = await worker.next_assignment()
    tasks = progress(datetime.now(UTC), seconds, rows=read, load=landed)
    proof = receipt(assignment.ref.fence, rows=1, bytes=landed)
    await worker.finish(assignment, tasks=tasks, receipts=[proof])


@pytest.fixture
async def priced(mesh: Cluster) -> Replica:
    return await mesh.replica(cost_rates=RATES, cost_currency="EUR")


async def test_each_run_is_counted_once_however_many_read_the_log(
    mesh: Cluster, priced: Replica, db: Database
) -> None:
    pipeline = mesh.metadata.add(LOADING)
    another = await mesh.replica()
    worker = await mesh.worker(priced)
    for number in range(6):
        run = await priced.run(pipeline)
        assignment = await worker.next_assignment()
        if number % 3:
            await worker.finish(assignment, receipts=[receipt(assignment.ref.fence, rows=10)])
        else:
            await worker.finish(assignment, "FAILED", error=failure("BROKEN", "DATA"), failed_task="load")
        await priced.ended(run.run_id)  # those that are folded together end at the same moment

    found = await Desk(another).counted(pipeline, 6)
    for _ in range(2):  # there is nothing left for them
        await RunFollower(db, OwnEvents(SERVICE, EventLog(db)), SqlStore(db)).run_once()

    again = await Desk(priced).metrics(pipeline)
    assert again.metrics == found.metrics
    assert (again.metrics.run_count, again.metrics.completed, again.metrics.failed) == (6, 4, 2)
    assert again.metrics.success_rate == pytest.approx(4 / 6)
    assert again.metrics.rows_written == 40
    (today,) = again.history
    assert (today.run_count, today.status) == (6, runs_pb2.RUN_STATE_COMPLETED)
    assert again.period == "7d"


async def test_the_cost_of_a_pipeline_is_that_of_its_runs_to_the_last_digit(
    mesh: Cluster, priced: Replica
) -> None:
    pipeline = mesh.metadata.add(LOADING)
    worker = await mesh.worker(priced)
    runs = []
    for seconds in (1.5, 0.25, 0.000001):
        runs.append((await priced.run(pipeline)).run_id)
        await load(worker, seconds=seconds, read=3_000_000_001, landed=1_000_000_007)
        await priced.ended(runs[-1])
    desk = Desk(priced)
    await desk.counted(pipeline, 3)

    each = [await desk.run_cost(run) for run in runs]
    total = await desk.cost(pipeline)

    # 1.5 s at 0.5; 1.000000007 GB landed at 2; 4.000000008 GB moved at 0.25.
    first = each[0]
    parts = (first.breakdown.compute, first.breakdown.storage, first.breakdown.network)
    assert parts == ("0.75", "2.000000014", "1.000000002")
    assert (first.total_cost, first.currency, first.estimated) == ("3.750000016", "EUR", False)
    assert Decimal(total.total_cost) == sum(Decimal(run.total_cost) for run in each)
    assert Decimal(total.total_cost) == sum(
        Decimal(part) for part in (total.breakdown.compute, total.breakdown.storage, total.breakdown.network)
    )
    assert (total.run_count, total.period, total.previous_total_cost) == (3, "30d", "0")
    assert total.trend == metrics_pb2.TREND_UNSPECIFIED
    assert [day.total_cost for day in total.history] == [total.total_cost]


async def test_a_live_run_costs_what_it_has_taken_so_far_by_stage_and_task(
    mesh: Cluster, priced: Replica
) -> None:
    worker = await mesh.worker(priced)
    run = (await priced.run(mesh.metadata.add(LOADING))).run_id
    assignment = await worker.next_assignment()
    began = datetime.now(UTC) - timedelta(hours=1)
    report = workers_pb2.AssignmentProgress(
        ref=assignment.ref, tasks=progress(began, None, rows=1_000_000_000, load=0)
    )
    await worker.send(progress=workers_pb2.ProgressReport(assignments=[report]))
    desk = Desk(priced)

    async def told() -> metrics_pb2.RunCost | None:
        found = await desk.run_cost(run)
        return found if found.compute_seconds else None

    live = await eventually(told, within=PATIENT)

    assert live is not None
    assert live.estimated
    assert live.status == runs_pb2.RUN_STATE_RUNNING
    assert 3600 <= live.compute_seconds < 3700
    (stage,) = live.stages
    assert (stage.attempts, stage.total_cost) == (1, live.total_cost)
    tasks = {task.task: (task.kind, task.bytes_read, task.storage, task.network) for task in stage.tasks}
    assert tasks == {"rows": ("source", 1_000_000_000, "0", "0.25"), "load": ("sink", 0, "0", "0")}


async def refused(call: Any) -> HeadraceError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value)


async def test_another_workspace_and_another_tenant_see_nothing(mesh: Cluster, replica: Replica) -> None:
    pipeline = mesh.metadata.add(NOOP)
    run = (await replica.run(pipeline)).run_id
    stub = Desk(replica).stub
    strangers = [
        call_metadata(replica.authority.user("admin", workspaces=[uuid7()])),
        call_metadata(replica.authority.user("admin", tenant=uuid7())),
    ]

    for metadata in strangers:
        # The stand-in for metadata knows no tenants: metadata's own tests see to it that it tells none other.
        if metadata is strangers[0]:
            request = metrics_pb2.GetPipelineCostRequest(id=pipeline)
            assert (await refused(stub.GetPipelineCost(request, metadata=metadata))).code == "NOT_FOUND"
        of_run = metrics_pb2.GetRunCostRequest(run_id=run)
        assert (await refused(stub.GetRunCost(of_run, metadata=metadata))).code == "NOT_FOUND"
    assert (await refused(Desk(replica).metrics(str(uuid7())))).code == "NOT_FOUND"


async def test_a_period_that_is_none_is_refused_with_its_place(mesh: Cluster, replica: Replica) -> None:
    desk, pipeline = Desk(replica), mesh.metadata.add(NOOP)
    asked: list[tuple[str, str, dict[str, str]]] = [
        ("SEVERAL_GIVEN", "period", {"period": "7d", "from_text": "2026-01-01"}),
        ("INVALID_FORMAT", "period", {"period": "24h"}),
        ("OUT_OF_RANGE", "period", {"period": "400d"}),
        ("INVALID_FORMAT", "from", {"from_text": "2026-02-30"}),
        ("OUT_OF_RANGE", "from", {"from_text": "2026-02-02", "to_text": "2026-02-01"}),
    ]

    for code, place, period in asked:
        error = await refused(desk.metrics(pipeline, **period))
        told = [(problem.code, problem.path) for problem in error.problems]
        assert (error.code, told) == ("INVALID_REQUEST", [(code, place)])
