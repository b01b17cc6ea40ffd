"""Schedules that follow their pipelines, as metadata tells of them."""

from typing import Any
from uuid import UUID

import pytest
from headrace.common.v1 import reasons_pb2
from headrace.metadata.v1 import events_pb2
from headrace.scheduler.v1 import schedules_pb2 as pb
from headrace_chassis.database import driver

from .support import NOON, Service, at, failure, stamp


@pytest.fixture(autouse=True)
async def _no_others(service: Service) -> None:
    """Schedules of other tests would be due as well."""
    async with service.base.db.transaction() as conn:
        await driver(conn).execute("TRUNCATE schedule, progress, tick, consumer_position, inbox")


async def test_the_cron_of_a_pipeline_makes_changes_and_clears_its_schedule(service: Service) -> None:
    pipeline = service.pipeline()
    await _told(service, pipeline, schedule_cron="0 2 * * *")
    (made,) = await _schedules(service, pipeline)
    assert (made.managed_by, made.created_by) == (pb.MANAGED_BY_PIPELINE, "grace")
    assert (made.cron_expression, made.timezone) == ("0 2 * * *", "UTC")
    await _told(service, pipeline, version=2, schedule_cron="0 3 * * *")
    (changed,) = await _schedules(service, pipeline)
    assert (changed.id, changed.cron_expression) == (made.id, "0 3 * * *")
    assert changed.next_run_at == stamp(at("2026-03-05T03:00"))
    await _told(service, pipeline, version=3)
    assert await _schedules(service, pipeline) == []
    assert await service.events() == ["created", "updated", "deleted"]


async def test_it_is_paused_here_and_changed_only_there(service: Service) -> None:
    pipeline = service.pipeline()
    await _told(service, pipeline, schedule_cron="0 2 * * *")
    (made,) = await _schedules(service, pipeline)
    for refused in (
        service.schedules.UpdateSchedule(
            pb.UpdateScheduleRequest(id=made.id, timezone="Europe/Warsaw"), metadata=service.user()
        ),
        service.schedules.DeleteSchedule(pb.DeleteScheduleRequest(id=made.id), metadata=service.user()),
    ):
        assert (await failure(refused)).reason == reasons_pb2.REASON_SCHEDULE_MANAGED
    await service.schedules.PauseSchedule(pb.PauseScheduleRequest(id=made.id), metadata=service.user())
    await _told(service, pipeline, version=2, schedule_cron="0 4 * * *")
    (changed,) = await _schedules(service, pipeline)
    assert (changed.status, changed.cron_expression) == (pb.SCHEDULE_STATUS_PAUSED, "0 4 * * *")


async def test_an_inactive_pipeline_has_no_ticks(service: Service) -> None:
    pipeline = service.pipeline()
    made = await service.create("0 * * * *", pipeline_id=pipeline)
    await _told(service, pipeline, version=2, is_active=False)
    service.clock.advance(hours=2, minutes=1)
    await service.tick()
    assert service.execution.started == []
    assert not (await service.get(made)).HasField("next_run_at")
    await _told(service, pipeline, version=3)
    await service.tick()
    assert [reason for _, _, reason in await service.decisions(made)] == ["PIPELINE_INACTIVE"] * 2
    service.clock.advance(hours=1)
    await service.tick()
    assert [time.hour for time in service.execution.times(made)] == [15]


async def test_what_was_told_earlier_and_comes_later_changes_nothing(service: Service) -> None:
    pipeline = service.pipeline(version=5, is_active=False)
    made = await service.create("0 * * * *", pipeline_id=pipeline)
    await _told(service, pipeline, version=4, is_active=True, schedule_cron="0 2 * * *")
    assert [each.id for each in await _schedules(service, pipeline)] == [made.id]
    service.clock.advance(hours=1)
    await service.tick()
    assert service.execution.started == []


async def test_a_deleted_pipeline_leaves_nothing_and_metadata_knows(service: Service) -> None:
    pipeline = service.pipeline()
    made = await service.create("0 * * * *", pipeline_id=pipeline)
    service.clock.advance(hours=1)
    await service.tick()
    await _told(service, pipeline, kind="deleted", version=2)
    service.clock.advance(hours=1)
    await service.tick()
    assert len(service.execution.times(made)) == 1
    while await service.parts.purger.run_once():
        pass
    assert (await failure(service.get(made))).reason == reasons_pb2.REASON_NOT_FOUND
    assert (pipeline, "scheduler") in service.metadata.acknowledged
    assert await service.rows("SELECT FROM tick WHERE schedule_id = $1", UUID(made.id)) == []
    late = await failure(service.create("0 * * * *", pipeline_id=pipeline))
    assert late.reason == reasons_pb2.REASON_NOT_FOUND, "metadata's answer was older than the deletion"


async def test_new_holidays_of_a_workspace_count_at_once(service: Service) -> None:
    made = await service.create("0 8 * * *", skip_holidays=True, country="PL")
    assert made.next_run_at == stamp(at("2026-03-05T08:00"))
    event = events_pb2.WorkspaceEvent(
        workspace_id=service.workspace, slug="default", timezone="UTC", holidays=["2026-03-05"]
    )
    event.updated_at.FromDatetime(NOON.replace(hour=13))
    await _follow(service, "workspace.updated", service.workspace, event.SerializeToString())
    assert (await service.get(made)).next_run_at == stamp(at("2026-03-06T08:00"))


async def _told(service: Service, pipeline: str, *, kind: str = "updated", **fields: Any) -> None:
    given = {"version": 1, "is_active": True, "changed_by": "grace", **fields}
    event = events_pb2.PipelineEvent(pipeline_id=pipeline, workspace_id=service.workspace, **given)
    await _follow(service, f"pipeline.{kind}", pipeline, event.SerializeToString())


async def _follow(service: Service, kind: str, subject: str, data: bytes) -> None:
    service.metadata.tell(f"io.headrace.{kind}.v1", service.tenant, subject, data)
    follower = service.parts.agents()[-1]
    while await follower.run_once():
        pass


async def _schedules(service: Service, pipeline: str) -> list[pb.Schedule]:
    request = pb.ListSchedulesRequest(pipeline_id=pipeline)
    return list((await service.schedules.ListSchedules(request, metadata=service.user())).data)
