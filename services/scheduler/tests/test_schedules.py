"""Schedules as users make, change, pause and resume them."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from headrace.common.v1 import reasons_pb2
from headrace.scheduler.v1 import schedules_pb2 as pb
from headrace_chassis.ids import uuid7

from .support import NOON, Service, at, failure, stamp


async def test_a_schedule_is_as_it_was_asked_for(service: Service) -> None:
    service.set_workspace(timezone="Europe/Warsaw")
    made = await service.create("0 2 * * *", skip_holidays=True)
    assert (made.timezone, made.country, made.version) == ("Europe/Warsaw", "PL", 1)
    assert (made.overlap_strategy, made.catchup_strategy) == (
        pb.OVERLAP_STRATEGY_SKIP,
        pb.CATCHUP_STRATEGY_SKIP_TO_CURRENT,
    )
    assert (made.status, made.managed_by) == (pb.SCHEDULE_STATUS_ACTIVE, pb.MANAGED_BY_USER)
    assert made.next_run_at == stamp(at("2026-03-05T01:00"))
    assert made.created_by == "ada"
    assert not made.HasField("last_tick")
    assert await service.get(made) == made
    assert await service.events() == ["created"]


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"cron": "61 * * * *"}, "cronExpression"),
        ({"cron": "1-5/0 * * * *"}, "cronExpression"),
        ({"cron": "0 0 30 2 *"}, "cronExpression"),
        ({"timezone": "Europe/Warsawa"}, "timezone"),
        ({"skip_holidays": True, "country": "ZZ"}, "country"),
        ({"skip_holidays": True, "country": "PL", "subdivision": "ZZZ"}, "subdivision"),
        ({"skip_holidays": True}, "country"),
        ({"catchup_strategy": pb.CATCHUP_STRATEGY_RUN_LATEST_N}, "catchupLimit"),
        ({"catchup_limit": 3}, "catchupLimit"),
        ({"parameters": b"[1]"}, "parameters"),
        (
            {
                "cron": "0 12 * * *",
                "maintenance_windows": [
                    pb.MaintenanceWindow(
                        days=list(pb.DayOfWeek.values())[1:], from_time="00:00", to_time="24:00"
                    )
                ],
            },
            "maintenanceWindows",
        ),
        ({"maintenance_windows": [pb.MaintenanceWindow(from_time="01:00")]}, "maintenanceWindows[0]"),
        (
            {"maintenance_windows": [pb.MaintenanceWindow(start=stamp(NOON), end=stamp(NOON))]},
            "maintenanceWindows[0]",
        ),
        ({"cron": "0 12 * * 6", "business_days_only": True, "country": "PL"}, "cronExpression"),
    ],
)
async def test_what_makes_no_sense_is_refused_with_its_field(
    service: Service, fields: dict[str, Any], path: str
) -> None:
    error = await failure(service.create(**fields))
    assert error.reason == reasons_pb2.REASON_INVALID_REQUEST
    assert path in [problem.path for problem in error.problems]


async def test_a_pipeline_of_others_has_no_schedules_of_mine(service: Service) -> None:
    made = await service.create()
    stranger = service.user(tenant=uuid4())
    for call, request in (
        (service.schedules.GetSchedule, pb.GetScheduleRequest(id=made.id)),
        (service.schedules.DeleteSchedule, pb.DeleteScheduleRequest(id=made.id)),
        (service.schedules.PauseSchedule, pb.PauseScheduleRequest(id=made.id)),
        (service.schedules.GetNextRuns, pb.GetNextRunsRequest(schedule_id=made.id)),
        (
            service.schedules.CreateSchedule,
            pb.CreateScheduleRequest(pipeline_id=made.pipeline_id, cron_expression="0 2 * * *"),
        ),
    ):
        assert (await failure(call(request, metadata=stranger))).reason == reasons_pb2.REASON_NOT_FOUND
    elsewhere = service.user(workspaces=[uuid7()])
    hidden = await failure(
        service.schedules.GetSchedule(pb.GetScheduleRequest(id=made.id), metadata=elsewhere)
    )
    assert hidden.reason == reasons_pb2.REASON_NOT_FOUND
    listed = await service.schedules.ListSchedules(pb.ListSchedulesRequest(), metadata=elsewhere)
    assert list(listed.data) == []


async def test_changing_the_times_counts_from_now_on(service: Service) -> None:
    made = await service.create("0 2 * * *")
    service.clock.advance(minutes=30)
    request = pb.UpdateScheduleRequest(id=made.id, cron_expression="0 * * * *", expected_version=1)
    changed = await service.schedules.UpdateSchedule(request, metadata=service.user())
    assert (changed.version, changed.next_run_at) == (2, stamp(at("2026-03-04T13:00")))
    same = await service.schedules.UpdateSchedule(
        pb.UpdateScheduleRequest(id=made.id, cron_expression="0 * * * *"), metadata=service.user()
    )
    assert same == changed, "no real change makes no version"
    lost = await failure(service.schedules.UpdateSchedule(request, metadata=service.user()))
    assert lost.reason == reasons_pb2.REASON_VERSION_MISMATCH
    assert await service.events() == ["created", "updated"]


async def test_another_zone_gives_the_country_that_there_was_none(service: Service) -> None:
    made = await service.create("0 2 * * *")
    assert not made.HasField("country")
    request = pb.UpdateScheduleRequest(id=made.id, timezone="Europe/Warsaw", skip_holidays=True)
    assert (await service.schedules.UpdateSchedule(request, metadata=service.user())).country == "PL"
    request = pb.UpdateScheduleRequest(id=made.id, timezone="America/New_York")
    kept = await service.schedules.UpdateSchedule(request, metadata=service.user())
    assert kept.country == "PL", "what is shown stays until it is changed"


async def test_a_null_clears_and_some_fields_cannot_be(service: Service) -> None:
    made = await service.create(parameters=b'{"days": 1}', country="DE")
    cleared = await service.schedules.UpdateSchedule(
        pb.UpdateScheduleRequest(id=made.id, cleared_fields=["parameters", "country"]),
        metadata=service.user(),
    )
    assert (cleared.parameters, cleared.HasField("country")) == (b"{}", False)
    error = await failure(
        service.schedules.UpdateSchedule(
            pb.UpdateScheduleRequest(id=made.id, cleared_fields=["cronExpression"]), metadata=service.user()
        )
    )
    assert [problem.path for problem in error.problems] == ["cronExpression"]


async def test_a_schedule_stays_with_its_pipeline(service: Service) -> None:
    made = await service.create()
    error = await failure(
        service.schedules.UpdateSchedule(
            pb.UpdateScheduleRequest(id=made.id, pipeline_id=service.pipeline()), metadata=service.user()
        )
    )
    assert [problem.path for problem in error.problems] == ["pipelineId"]


async def test_parameters_that_the_pipeline_does_not_declare_are_refused_at_once(service: Service) -> None:
    # given
    service.execution.undeclared = {"regoin"}
    made = await service.create(parameters=b'{"region": "eu"}')
    change = pb.UpdateScheduleRequest(id=made.id, parameters=b'{"regoin": "us"}')
    # when
    refused = await failure(service.create(parameters=b'{"regoin": "eu"}'))
    kept = await failure(service.schedules.UpdateSchedule(change, metadata=service.user()))
    # then
    assert {refused.code, kept.code} == {"INVALID_PARAMETERS"}
    assert [problem.path for problem in refused.problems] == ["parameters.regoin"]
    assert (await service.get(made)).parameters == b'{"region": "eu"}'


async def test_only_a_queue_has_a_limit(service: Service) -> None:
    made = await service.create(overlap_strategy=pb.OVERLAP_STRATEGY_QUEUE, queue_limit=7)
    refused = await failure(service.create(queue_limit=7))
    change = pb.UpdateScheduleRequest(id=made.id, overlap_strategy=pb.OVERLAP_STRATEGY_SKIP)
    skipping = await service.schedules.UpdateSchedule(change, metadata=service.user())
    assert [problem.path for problem in refused.problems] == ["queueLimit"]
    assert (made.queue_limit, skipping.queue_limit) == (7, 100)


async def test_pausing_and_resuming_are_told_once(service: Service) -> None:
    made = await service.create()
    for _ in range(2):
        paused = await service.schedules.PauseSchedule(
            pb.PauseScheduleRequest(id=made.id), metadata=service.user()
        )
        assert (paused.status, paused.HasField("next_run_at")) == (pb.SCHEDULE_STATUS_PAUSED, False)
    for _ in range(2):
        resumed = await service.schedules.ResumeSchedule(
            pb.ResumeScheduleRequest(id=made.id), metadata=service.user()
        )
        assert (resumed.status, resumed.next_run_at) == (pb.SCHEDULE_STATUS_ACTIVE, made.next_run_at)
    assert await service.events() == ["created", "paused", "resumed"]


async def test_resuming_demands_a_number_for_the_latest_ones(service: Service) -> None:
    made = await service.create()
    error = await failure(
        service.schedules.ResumeSchedule(
            pb.ResumeScheduleRequest(id=made.id, catchup=pb.CATCHUP_STRATEGY_RUN_LATEST_N),
            metadata=service.user(),
        )
    )
    assert [problem.path for problem in error.problems] == ["catchupLimit"]


async def test_a_repeated_creation_with_a_key_makes_one(service: Service) -> None:
    request = pb.CreateScheduleRequest(pipeline_id=service.pipeline(), cron_expression="0 2 * * *")
    first, second = [
        await service.schedules.CreateSchedule(request, metadata=service.user(key="k")) for _ in range(2)
    ]
    assert first == second
    listed = await service.schedules.ListSchedules(
        pb.ListSchedulesRequest(include_total=True), metadata=service.user()
    )
    assert listed.meta.total == 1


async def test_a_deleted_schedule_is_gone(service: Service) -> None:
    made = await service.create()
    await service.schedules.DeleteSchedule(pb.DeleteScheduleRequest(id=made.id), metadata=service.user())
    assert (await failure(service.get(made))).reason == reasons_pb2.REASON_NOT_FOUND
    assert await service.events() == ["created", "deleted"]


async def test_lists_page_and_filter(service: Service) -> None:
    pipeline = service.pipeline()
    made = [(await service.create(pipeline_id=pipeline)).id for _ in range(3)]
    await service.create()
    await service.schedules.PauseSchedule(pb.PauseScheduleRequest(id=made[0]), metadata=service.user())
    request = pb.ListSchedulesRequest(pipeline_id=pipeline, limit=2, include_total=True)
    page = await service.schedules.ListSchedules(request, metadata=service.user())
    assert ([each.id for each in page.data], page.meta.total) == ([made[2], made[1]], 3)
    request.cursor = page.meta.next_cursor
    page = await service.schedules.ListSchedules(request, metadata=service.user())
    assert ([each.id for each in page.data], page.meta.HasField("next_cursor")) == ([made[0]], False)
    paused = await service.schedules.ListSchedules(
        pb.ListSchedulesRequest(status=pb.SCHEDULE_STATUS_PAUSED), metadata=service.user()
    )
    assert [each.id for each in paused.data] == [made[0]]


async def test_next_runs_are_those_of_all_schedules_in_order(service: Service) -> None:
    hourly, daily = await service.create("30 * * * *"), await service.create("0 14 * * *")
    off = await service.create("* * * * *", status=pb.SCHEDULE_STATUS_PAUSED)
    answer = await service.schedules.GetNextRuns(pb.GetNextRunsRequest(limit=4), metadata=service.user())
    assert [(run.schedule_id, run.run_at) for run in answer.data] == [
        (hourly.id, stamp(at("2026-03-04T12:30"))),
        (hourly.id, stamp(at("2026-03-04T13:30"))),
        (daily.id, stamp(at("2026-03-04T14:00"))),
        (hourly.id, stamp(at("2026-03-04T14:30"))),
    ]
    assert answer.data[2].interval_start == stamp(at("2026-03-03T14:00"))
    none = await service.schedules.GetNextRuns(
        pb.GetNextRunsRequest(schedule_id=off.id), metadata=service.user()
    )
    assert list(none.data) == []


async def test_ticks_that_maintenance_holds_are_told_as_catch_up_has_it(service: Service) -> None:
    window = pb.MaintenanceWindow(start=stamp(NOON), end=stamp(NOON + timedelta(hours=3)))
    made = await service.create(
        "0 * * * *", maintenance_windows=[window], catchup_strategy=pb.CATCHUP_STRATEGY_RUN_ALL
    )
    end = stamp(NOON + timedelta(hours=3))
    assert made.next_run_at == end
    request = pb.GetNextRunsRequest(schedule_id=made.id, limit=4)
    for hours in (0, 2):  # before any is held, and while some are
        service.clock.advance(hours=hours)
        await service.tick()
        answer = await service.schedules.GetNextRuns(request, metadata=service.user())
        assert [(run.run_at.ToDatetime().hour, run.starts_at) for run in answer.data[:3]] == [
            (13, end),
            (14, end),
            (15, end),
        ]
    assert (await service.get(made)).next_run_at == end
    never = pb.MaintenanceWindow(days=pb.DayOfWeek.values()[1:], from_time="22:00", to_time="06:00")
    late = await service.create(
        "0 23 * * *", maintenance_windows=[never], catchup_strategy=pb.CATCHUP_STRATEGY_RUN_ALL
    )
    assert late.next_run_at == stamp(at("2026-03-05T06:00")), "after the night"


async def test_skipped_ticks_are_told_on_request_with_their_reasons(service: Service) -> None:
    made = await service.create("0 8 * * *", business_days_only=True, skip_holidays=True, country="PL")
    service.clock.now = at("2026-04-02T12:00")  # the Thursday before Easter
    request = pb.GetNextRunsRequest(schedule_id=made.id, limit=5, include_skipped=True)
    answer = await service.schedules.GetNextRuns(request, metadata=service.user())
    assert [(run.run_at.ToDatetime().day, run.skipped, run.reason) for run in answer.data] == [
        (3, False, ""),
        (4, True, "NON_BUSINESS_DAY"),
        (5, True, "NON_BUSINESS_DAY"),
        (6, True, "HOLIDAY"),
        (7, False, ""),
    ]
