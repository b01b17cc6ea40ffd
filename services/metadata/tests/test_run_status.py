"""What pipelines show of their latest runs, whatever order the events come in."""

import random
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from headrace.common.v1 import event_log_pb2
from headrace.execution.v1 import events_pb2, runs_pb2
from headrace.metadata.v1 import pipelines_pb2 as pb
from headrace_chassis.ids import uuid7
from headrace_metadata.domain.run_status import Phase, RunFact, latest_by_pipeline

from .support import Service

START = datetime(2026, 11, 1, tzinfo=UTC)


def _event(
    pipeline_id: str, run_id: UUID, state: "runs_pb2.RunState.ValueType", minute: int, warnings: int = 0
) -> events_pb2.RunEvent:
    event = events_pb2.RunEvent(
        run_id=str(run_id), pipeline_id=pipeline_id, state=state, warning_count=warnings
    )
    event.created_at.FromDatetime(START + timedelta(minutes=minute))
    if state not in (runs_pb2.RUN_STATE_PENDING, runs_pb2.RUN_STATE_RUNNING):
        event.finished_at.FromDatetime(START + timedelta(minutes=minute, seconds=30))
    return event


async def _follow(service: Service, *payloads: events_pb2.RunEvent) -> None:
    """Has the service follow the events, each a batch of its own."""
    (follower,) = [agent for agent in service.parts.agents() if agent.name == "metadata.run_status"]
    for payload in payloads:
        known = await service.rows("SELECT coalesce(max(position), 0) FROM consumer_position")
        event = event_log_pb2.Event(
            position=known[0][0] + 1,
            id=str(uuid7()),
            type="io.headrace.run.completed.v1",
            tenant=str(service.tenant),
            data=payload.SerializeToString(),
        )
        service.execution.events.append(event)
        await follower.run_once()


async def _shown(service: Service, pipeline_id: str) -> pb.Pipeline:
    found: pb.Pipeline = await service.pipelines.GetPipeline(
        pb.GetPipelineRequest(id=pipeline_id), metadata=service.user("viewer")
    )
    return found


@pytest.mark.parametrize(
    ("state", "warnings", "status"),
    [
        (runs_pb2.RUN_STATE_PENDING, 0, pb.PIPELINE_STATUS_RUNNING),
        (runs_pb2.RUN_STATE_RUNNING, 0, pb.PIPELINE_STATUS_RUNNING),
        (runs_pb2.RUN_STATE_COMPLETED, 0, pb.PIPELINE_STATUS_SUCCESS),
        (runs_pb2.RUN_STATE_COMPLETED, 2, pb.PIPELINE_STATUS_WARNING),
        (runs_pb2.RUN_STATE_FAILED, 0, pb.PIPELINE_STATUS_FAILED),
        (runs_pb2.RUN_STATE_CANCELLED, 0, pb.PIPELINE_STATUS_CANCELLED),
    ],
)
async def test_the_status_follows_the_latest_run(
    service: Service,
    state: "runs_pb2.RunState.ValueType",
    warnings: int,
    status: "pb.PipelineStatus.ValueType",
) -> None:
    created = await service.create()
    run = uuid7()
    await _follow(service, _event(created.id, run, state, 1, warnings))
    shown = await _shown(service, created.id)
    assert (shown.status, shown.last_run.run_id, shown.last_run.status) == (status, str(run), status)
    listed = await service.pipelines.ListPipelines(
        pb.ListPipelinesRequest(status=status), metadata=service.user()
    )
    assert [pipeline.id for pipeline in listed.data] == [created.id]


async def test_the_run_accepted_last_is_shown_whatever_comes_later(service: Service) -> None:
    created = await service.create()
    older, newer = uuid7(), uuid7()
    completed, failed = runs_pb2.RUN_STATE_COMPLETED, runs_pb2.RUN_STATE_FAILED
    await _follow(
        service,
        _event(created.id, newer, completed, 2),
        _event(created.id, newer, runs_pb2.RUN_STATE_RUNNING, 2),
        _event(created.id, older, failed, 1),
    )
    shown = await _shown(service, created.id)
    assert (shown.status, shown.last_run.run_id) == (pb.PIPELINE_STATUS_SUCCESS, str(newer))
    assert shown.last_run.finished_at.ToDatetime(tzinfo=UTC) == START + timedelta(minutes=2, seconds=30)


async def test_runs_of_pipelines_that_are_gone_harm_nothing(service: Service) -> None:
    created = await service.create()
    await _follow(
        service,
        _event(str(uuid7()), uuid7(), runs_pb2.RUN_STATE_FAILED, 1),
        _event(created.id, uuid7(), runs_pb2.RUN_STATE_FAILED, 1),
    )
    assert (await _shown(service, created.id)).status == pb.PIPELINE_STATUS_FAILED


def test_any_order_of_the_same_facts_ends_alike() -> None:
    pipelines = [uuid7() for _ in range(3)]
    facts = [
        RunFact(pipeline, run, f"{phase.name}", phase, START + timedelta(minutes=minute), None)
        for pipeline in pipelines
        for minute in range(3)
        for run in [uuid7()]
        for phase in Phase
    ]
    expected = latest_by_pipeline(facts)
    assert [fact.phase for fact in expected] == [Phase.ENDED] * 3
    shuffle = random.Random(7).sample
    for _ in range(20):
        assert latest_by_pipeline(shuffle(facts, len(facts))) == expected
