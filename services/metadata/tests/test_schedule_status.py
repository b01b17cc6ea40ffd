"""What pipelines show of their schedules, as the scheduler tells of them."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

from google.protobuf.timestamp_pb2 import Timestamp
from headrace.common.v1 import event_log_pb2
from headrace.metadata.v1 import pipelines_pb2 as pb
from headrace.scheduler.v1 import events_pb2
from headrace_metadata.loops.schedule_follower import follow_schedules

from .support import Service

NEXT = datetime(2026, 3, 5, 2, tzinfo=UTC)


async def test_a_schedule_shows_on_its_pipeline_until_it_is_gone(service: Service) -> None:
    pipeline = await service.create()
    early, late = _told(pipeline, NEXT), _told(pipeline, NEXT + timedelta(hours=1))
    await _follow(service, "created", late, early)
    assert await _shown(service, pipeline) == (pb.PIPELINE_STATUS_SCHEDULED, NEXT)
    early.ClearField("next_run_at")
    early.active = False
    await _follow(service, "paused", early)
    assert await _shown(service, pipeline) == (pb.PIPELINE_STATUS_SCHEDULED, NEXT + timedelta(hours=1))
    for gone in (early, late):
        await _follow(service, "deleted", gone)
    assert await _shown(service, pipeline) == (pb.PIPELINE_STATUS_DRAFT, None)


async def test_ticks_of_many_schedules_come_in_one_event(service: Service) -> None:
    pipelines = [await service.create(name) for name in ("one", "two")]
    ticked = events_pb2.SchedulesTickedEvent(schedules=[_told(each, NEXT) for each in pipelines])
    await service.base.db.run(
        lambda conn: follow_schedules(
            conn,
            [event_log_pb2.Event(type="io.headrace.schedule.ticked.v1", data=ticked.SerializeToString())],
        )
    )
    for each in pipelines:
        assert await _shown(service, each) == (pb.PIPELINE_STATUS_SCHEDULED, NEXT)


async def test_schedules_of_a_pipeline_that_is_gone_are_passed_over(service: Service) -> None:
    pipeline = await service.create()
    gone = _told(pipeline, NEXT)
    gone.pipeline_id = str(uuid4())
    await _follow(service, "created", gone)
    assert await _shown(service, pipeline) == (pb.PIPELINE_STATUS_DRAFT, None)


def _told(pipeline: pb.Pipeline, next_run_at: datetime) -> events_pb2.ScheduleEvent:
    stamp = Timestamp()
    stamp.FromDatetime(next_run_at)
    return events_pb2.ScheduleEvent(
        schedule_id=str(uuid4()), pipeline_id=pipeline.id, active=True, next_run_at=stamp
    )


async def _follow(service: Service, what: str, *told: events_pb2.ScheduleEvent) -> None:
    kind = f"io.headrace.schedule.{what}.v1"
    events = [event_log_pb2.Event(type=kind, data=each.SerializeToString()) for each in told]
    await service.base.db.run(lambda conn: follow_schedules(conn, events))


async def _shown(service: Service, pipeline: pb.Pipeline) -> tuple[int, datetime | None]:
    found = await service.pipelines.GetPipeline(
        pb.GetPipelineRequest(id=pipeline.id), metadata=service.user()
    )
    at = found.next_run_at.ToDatetime(tzinfo=UTC) if found.HasField("next_run_at") else None
    return found.status, at
