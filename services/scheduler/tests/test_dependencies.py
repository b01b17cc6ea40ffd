"""Pipelines that depend on others: what the ends of runs start, which ticks wait, and for how long."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from headrace.common.v1 import reasons_pb2
from headrace.execution.v1 import events_pb2, runs_pb2
from headrace.metadata.v1 import pipelines_pb2
from headrace.metadata.v1.events_pb2 import PipelineEvent
from headrace.scheduler.v1 import dependencies_pb2 as pb
from headrace.scheduler.v1 import dependencies_pb2_grpc, schedules_pb2
from headrace_chassis.database import driver
from headrace_chassis.ids import uuid7

from .support import NOON, Service, at, away, failure, stamp

HOUR = (NOON - timedelta(hours=1), NOON)
COMPLETED, FAILED = runs_pb2.RUN_STATE_COMPLETED, runs_pb2.RUN_STATE_FAILED
STRONG, WEAK = pb.DEPENDENCY_TYPE_STRONG, pb.DEPENDENCY_TYPE_WEAK


@dataclass
class Graph:
    """Pipelines of the service's tenant that depend on one another."""

    service: Service

    def __post_init__(self) -> None:
        self.rpc: Any = dependencies_pb2_grpc.DependencyServiceStub(self.service.channel)

    async def add(self, above: str, below: str, kind: int = STRONG, **claims: Any) -> pb.Dependency:
        """Makes `below` depend on `above`."""
        request = pb.AddDependencyRequest(
            upstream_pipeline_id=above,
            downstream_pipeline_id=below,
            type=kind,  # type: ignore[arg-type]
        )
        made: pb.Dependency = await self.rpc.AddDependency(request, metadata=self.service.user(**claims))
        return made

    async def ended(
        self,
        pipeline: str,
        state: int = COMPLETED,
        interval: tuple[datetime, datetime] | None = HOUR,
        run: str | None = None,
    ) -> None:
        """Tells that a run of a pipeline has ended, and lets all of its effects happen."""
        event = events_pb2.RunEvent(run_id=run or str(uuid7()), pipeline_id=pipeline, state=state)  # type: ignore[arg-type]
        if interval is not None:
            event.interval_start.FromDatetime(interval[0])
            event.interval_end.FromDatetime(interval[1])
        self.service.metadata.tell(
            "io.headrace.run.completed.v1", self.service.tenant, event.run_id, event.SerializeToString()
        )
        await self.settle()

    async def settle(self) -> None:
        """Lets everything happen that is going to."""
        parts = self.service.parts
        while await parts.run_end_follower.run_once():
            pass
        await parts.dependent_starter.run_once()
        await self.service.tick()
        await parts.gate.run_once()
        await self.service.tick()

    def started(self, pipeline: str) -> list[tuple[datetime, datetime] | None]:
        """The intervals of the runs that upstreams started of a pipeline."""
        return [
            (start.interval_start.ToDatetime(NOON.tzinfo), start.interval_end.ToDatetime(NOON.tzinfo))
            if start.HasField("interval_end")
            else None
            for start in self.service.execution.started
            if start.pipeline_id == pipeline and start.trigger == runs_pb2.TRIGGER_KIND_DEPENDENCY
        ]

    async def show(self, pipeline: str, **fields: Any) -> pb.DependencyGraph:
        """The graph of a pipeline."""
        request = pb.GetDependencyGraphRequest(pipeline_id=pipeline, **fields)
        found: pb.DependencyGraph = await self.rpc.GetDependencyGraph(
            request, metadata=self.service.user("viewer")
        )
        return found


@pytest_asyncio.fixture
async def graph(service: Service) -> AsyncIterator[Graph]:
    """No pipelines, and nothing of other tests."""
    async with service.base.db.transaction() as conn:
        await driver(conn).execute(
            "TRUNCATE schedule, progress, tick, consumer_position, inbox, dependency, interval_outcome,"
            " dependent_start"
        )
    yield Graph(service)


async def test_a_strong_upstream_starts_its_downstream_for_the_same_interval(graph: Graph) -> None:
    above, below = graph.service.pipeline(), graph.service.pipeline()
    await graph.add(above, below)
    await graph.ended(above, FAILED)
    assert graph.started(below) == []
    await graph.ended(above)
    assert graph.started(below) == [HOUR]
    await graph.ended(above)
    assert graph.started(below) == [HOUR], "an interval is run once"


async def test_a_downstream_that_cannot_start_is_told(graph: Graph) -> None:
    above, below = graph.service.pipeline(), graph.service.pipeline()
    await graph.add(above, below)
    graph.service.execution.refused = {below: "INVALID_PARAMETERS"}
    await graph.ended(above)
    await graph.ended(above)
    (told,) = await graph.service.refused("dependency")
    assert (told.pipeline_id, told.workspace_id) == (below, graph.service.workspace)
    assert (told.logical_date, told.HasField("schedule_id")) == (stamp(NOON), False)
    assert (told.reason, told.message) == ("INVALID_PARAMETERS", "it cannot run")


async def test_a_weak_upstream_starts_its_downstream_whatever_its_result(graph: Graph) -> None:
    above, below = graph.service.pipeline(), graph.service.pipeline()
    await graph.add(above, below, WEAK)
    await graph.ended(above, FAILED)
    assert graph.started(below) == [HOUR]
    await graph.ended(above)
    assert graph.started(below) == [HOUR]


async def test_several_strong_upstreams_are_joined_on_equal_intervals(graph: Graph) -> None:
    first, second, below = (graph.service.pipeline() for _ in range(3))
    await graph.add(first, below)
    await graph.add(second, below)
    later = (NOON, NOON + timedelta(hours=1))
    await graph.ended(first)
    await graph.ended(second, interval=later)
    assert graph.started(below) == []
    await graph.ended(first, interval=later)
    assert graph.started(below) == [later]
    await graph.ended(second, FAILED)
    await graph.ended(second)
    assert graph.started(below) == [later, HOUR], "a run that is tried again and completes counts"


async def test_a_run_by_hand_starts_only_what_its_pipeline_alone_feeds(graph: Graph) -> None:
    above, other, alone, joined = (graph.service.pipeline() for _ in range(4))
    await graph.add(above, alone)
    await graph.add(above, joined)
    await graph.add(other, joined)
    await graph.ended(above, interval=None)
    assert (graph.started(alone), graph.started(joined)) == ([None], [])


async def test_an_inactive_downstream_is_not_started(graph: Graph) -> None:
    above, below = graph.service.pipeline(), graph.service.pipeline(is_active=False)
    await graph.add(above, below)
    await graph.ended(above)
    assert graph.started(below) == []


async def test_events_in_any_order_and_more_than_once_start_each_interval_once(graph: Graph) -> None:
    above = [graph.service.pipeline() for _ in range(3)]
    below = graph.service.pipeline()
    for pipeline in above:
        await graph.add(pipeline, below)
    intervals = [(NOON + timedelta(hours=n), NOON + timedelta(hours=n + 1)) for n in range(4)]
    told = [(pipeline, interval) for pipeline in above for interval in intervals]
    chance = random.Random(7)
    failed = {entry for entry in told if chance.random() < 0.3}
    happened = [(*entry, FAILED) for entry in failed] + [(*entry, COMPLETED) for entry in told] * 2
    chance.shuffle(happened)
    seen: set[tuple[str, tuple[datetime, datetime]]] = set()
    expected = []
    for pipeline, interval, state in happened:
        await graph.ended(pipeline, state, interval)
        if state == COMPLETED:
            seen.add((pipeline, interval))
        if all((each, interval) in seen for each in above) and interval not in expected:
            expected.append(interval)
        assert graph.started(below) == expected


async def test_a_start_survives_execution_being_away(graph: Graph) -> None:
    above, below = graph.service.pipeline(), graph.service.pipeline()
    await graph.add(above, below)
    graph.service.execution.failures.append(away())
    with pytest.raises(Exception, match="away"):
        await graph.ended(above)
    graph.service.clock.advance(seconds=2)
    await graph.settle()
    assert graph.started(below) == [HOUR]


async def test_a_scheduled_downstream_waits_at_its_tick(graph: Graph) -> None:
    service = graph.service
    above, below = service.pipeline(), service.pipeline()
    await service.create("0 * * * *", pipeline_id=above)
    made = await service.create("30 * * * *", pipeline_id=below)
    await graph.add(above, below)
    service.clock.advance(minutes=90)  # 13:30
    await graph.settle()
    assert service.execution.times(made) == []
    shown = await service.get(made)
    assert shown.last_tick.decision == schedules_pb2.TICK_DECISION_HELD
    assert above in shown.last_tick.message
    thirteen = (at("2026-03-04T12:00"), at("2026-03-04T13:00"))
    await graph.ended(above, FAILED, thirteen)
    assert service.execution.times(made) == []
    assert (await service.get(made)).last_tick.message.endswith("its run failed"), "told at once"
    await graph.ended(above, COMPLETED, thirteen)
    assert service.execution.times(made) == [at("2026-03-04T13:30")], "its logical time stays"
    assert graph.started(below) == [], "it has a schedule, so its upstreams start nothing"


async def test_ticks_of_one_instant_wait_for_the_upstream_of_that_instant(graph: Graph) -> None:
    """Whichever schedule is looked at first: what is not decided yet is read off the timetable."""
    service = graph.service
    above, below = service.pipeline(), service.pipeline()
    made = await service.create("0 * * * *", pipeline_id=below)
    await service.create("0 * * * *", pipeline_id=above)
    await graph.add(above, below)
    service.clock.advance(hours=1)
    await graph.settle()
    assert service.execution.times(made) == []
    await graph.ended(above, interval=(at("2026-03-04T12:00"), at("2026-03-04T13:00")))
    assert service.execution.times(made) == [at("2026-03-04T13:00")]


async def test_an_unscheduled_upstream_has_the_intervals_of_its_own(graph: Graph) -> None:
    service = graph.service
    top, middle, below = (service.pipeline() for _ in range(3))
    await service.create("0 * * * *", pipeline_id=top)
    made = await service.create("30 * * * *", pipeline_id=below)
    await graph.add(top, middle)
    await graph.add(middle, below)
    service.clock.advance(minutes=90)
    await graph.settle()
    thirteen = (at("2026-03-04T12:00"), at("2026-03-04T13:00"))
    await graph.ended(top, interval=thirteen)
    assert (graph.started(middle), service.execution.times(made)) == ([thirteen], [])
    await graph.ended(middle, interval=thirteen)
    assert service.execution.times(made) == [at("2026-03-04T13:30")]


async def test_a_weak_upstream_holds_no_tick(graph: Graph) -> None:
    service = graph.service
    above, below = service.pipeline(), service.pipeline()
    await service.create("0 * * * *", pipeline_id=above)
    made = await service.create("30 * * * *", pipeline_id=below)
    await graph.add(above, below, WEAK)
    service.clock.advance(minutes=90)
    await graph.settle()
    assert service.execution.times(made) == [at("2026-03-04T13:30")]


async def test_ticks_go_on_while_one_is_held_and_go_together(graph: Graph) -> None:
    service = graph.service
    above, below = service.pipeline(), service.pipeline()
    await service.create("0 13 * * *", pipeline_id=above)
    made = await service.create("*/20 * * * *", pipeline_id=below)
    await graph.add(above, below)
    for _ in range(5):  # 12:20 and 12:40 before the upstream's; 13:00, 13:20, 13:40 wait for it
        service.clock.advance(minutes=20)
        await graph.settle()
    assert [time.minute for time in service.execution.times(made)] == [20, 40]
    await graph.ended(above, interval=(at("2026-03-03T13:00"), at("2026-03-04T13:00")))
    assert [time.minute for time in service.execution.times(made)] == [20, 40, 0, 20, 40]


async def test_removing_a_dependency_lets_held_ticks_go(graph: Graph) -> None:
    service = graph.service
    above, below = service.pipeline(), service.pipeline()
    await service.create("0 * * * *", pipeline_id=above)
    made = await service.create("30 * * * *", pipeline_id=below)
    edge = await graph.add(above, below)
    service.clock.advance(minutes=90)
    await graph.settle()
    await graph.rpc.RemoveDependency(pb.RemoveDependencyRequest(id=edge.id), metadata=service.user())
    await graph.settle()
    assert service.execution.times(made) == [at("2026-03-04T13:30")]
    again = graph.rpc.RemoveDependency(pb.RemoveDependencyRequest(id=edge.id), metadata=service.user())
    assert (await failure(again)).reason == reasons_pb2.REASON_NOT_FOUND


async def test_deleting_an_upstream_releases_its_dependents_and_tells_of_it(graph: Graph) -> None:
    service = graph.service
    above, below = service.pipeline(), service.pipeline()
    await service.create("0 * * * *", pipeline_id=above)
    made = await service.create("30 * * * *", pipeline_id=below)
    await graph.add(above, below)
    service.clock.advance(minutes=90)
    await graph.settle()
    deleted = PipelineEvent(pipeline_id=above, workspace_id=service.workspace, version=1)
    service.metadata.tell(
        "io.headrace.pipeline.deleted.v1", service.tenant, above, deleted.SerializeToString()
    )
    async with service.base.db.transaction() as conn:
        await service.parts.follower.handle(conn, service.metadata.events[-1:])
    service.metadata.events.clear()
    await graph.settle()
    assert service.execution.times(made) == [at("2026-03-04T13:30")]
    assert "io.headrace.dependency.released" in await service.events()


async def test_cycles_are_refused_naming_the_way_round(graph: Graph) -> None:
    first, second, third = (graph.service.pipeline() for _ in range(3))
    await graph.add(first, second)
    await graph.add(second, third)
    error = await failure(graph.add(third, first))
    assert error.reason == reasons_pb2.REASON_DEPENDENCY_CYCLE
    assert f"{first} → {second} → {third} → {first}" in error.message
    assert (await failure(graph.add(first, first))).reason == reasons_pb2.REASON_INVALID_REQUEST
    assert (await failure(graph.add(first, second))).reason == reasons_pb2.REASON_DEPENDENCY_EXISTS


async def test_two_that_are_added_at_once_close_no_circle(graph: Graph) -> None:
    for _ in range(5):
        first, second = graph.service.pipeline(), graph.service.pipeline()
        made = await asyncio.gather(
            graph.add(first, second), graph.add(second, first), return_exceptions=True
        )
        assert sum(isinstance(each, pb.Dependency) for each in made) == 1


async def test_pipelines_of_others_are_not_there_and_other_workspaces_forbidden(graph: Graph) -> None:
    service = graph.service
    above, below = service.pipeline(), service.pipeline()
    elsewhere = str(uuid7())
    service.metadata.workspaces[service.tenant, elsewhere] = service.metadata.workspaces[
        service.tenant, service.workspace
    ]
    foreign = service.pipeline(workspace_id=elsewhere)
    error = await failure(graph.add(above, foreign))
    assert error.reason == reasons_pb2.REASON_CROSS_WORKSPACE_DEPENDENCY
    unknown = await failure(graph.add(above, str(uuid.uuid4())))
    assert unknown.reason == reasons_pb2.REASON_NOT_FOUND
    other_tenant = await failure(graph.add(above, below, tenant=uuid7()))
    assert other_tenant.reason == reasons_pb2.REASON_NOT_FOUND
    assert (await failure(graph.add(above, below, role="viewer"))).reason == reasons_pb2.REASON_ROLE_REQUIRED


async def test_the_graph_tells_what_is_up_and_down_and_what_is_held(graph: Graph) -> None:
    service = graph.service
    status = pipelines_pb2.PIPELINE_STATUS_FAILED
    top, middle, low, lowest = (
        service.pipeline(name=name, status=status) for name in ("top", "middle", "low", "lowest")
    )
    await service.create("0 * * * *", pipeline_id=top)
    made = await service.create("30 * * * *", pipeline_id=middle)
    for above, below in ((top, middle), (middle, low), (low, lowest)):
        await graph.add(above, below)
    service.clock.advance(minutes=90)
    await graph.settle()
    shown = await graph.show(middle)
    assert [(edge.upstream_pipeline_id, edge.depth) for edge in shown.upstream] == [(top, 1)]
    assert [(edge.downstream_pipeline_id, edge.depth) for edge in shown.downstream] == [(low, 1), (lowest, 2)]
    nodes = {node.pipeline_id: node for node in shown.pipelines}
    assert {node.name for node in nodes.values()} == {"top", "middle", "low", "lowest"}
    assert {node.status for node in nodes.values()} == {status}
    (held,) = nodes[middle].held
    assert (held.schedule_id, held.waits_for) == (made.id, top)
    assert held.at == stamp(at("2026-03-04T13:30"))
    assert len((await graph.show(middle, depth=1)).downstream) == 1
    UUID(shown.pipeline_id)
