"""What comes of ticks: each is decided once, under a clock that the test moves."""

from datetime import timedelta
from typing import Any

import pytest
from headrace.execution.v1 import runs_pb2
from headrace.scheduler.v1 import schedules_pb2 as pb
from headrace_chassis.database import driver
from headrace_chassis.errors import HeadraceError, InvalidRequest

from .support import NOON, Service, at, away, stamp


@pytest.fixture(autouse=True)
async def _no_others(service: Service) -> None:
    """Schedules of other tests would be due as well."""
    async with service.base.db.transaction() as conn:
        await driver(conn).execute("TRUNCATE schedule, progress, tick")


async def test_a_tick_starts_a_run_for_its_interval(service: Service) -> None:
    made = await service.create("0 * * * *", parameters=b'{"days": 1}')
    await service.tick()
    assert service.execution.started == [], "creating starts nothing"
    service.clock.advance(hours=1)
    await service.tick()
    (start,) = service.execution.started
    assert (start.pipeline_id, start.trigger_id, start.triggered_by) == (made.pipeline_id, made.id, "ada")
    assert (start.logical_date, start.interval_end) == (stamp(at("2026-03-04T13:00")),) * 2
    assert start.interval_start == stamp(at("2026-03-04T12:00"))
    assert start.parameters == b'{"days": 1}'
    shown = await service.get(made)
    assert (shown.last_tick.decision, shown.last_tick.run_id) == (
        pb.TICK_DECISION_FIRED,
        service.execution.decided[start.key].run_id,
    )
    assert shown.next_run_at == stamp(at("2026-03-04T14:00"))
    assert await service.events() == ["created", "ticked"]


async def test_no_tick_is_decided_twice_when_the_clock_goes_back(service: Service) -> None:
    made = await service.create("*/10 * * * *")
    service.clock.advance(minutes=10)
    await service.tick()
    service.clock.advance(hours=-1)
    await service.tick()
    service.clock.advance(hours=1, minutes=10)
    await service.tick()
    assert service.execution.times(made) == [at("2026-03-04T12:10"), at("2026-03-04T12:20")]


async def test_a_clock_that_jumps_ahead_starts_no_burst(service: Service) -> None:
    made = await service.create("*/10 * * * *")
    service.clock.advance(hours=1)
    await service.tick()
    assert service.execution.times(made) == [at("2026-03-04T13:00")], "the latest one is current"
    assert [(state, reason) for _, state, reason in await service.decisions(made)] == [
        *[("SKIPPED", "CATCH_UP")] * 5,
        ("FIRED", None),
    ]


@pytest.mark.parametrize(
    ("fields", "hours"),
    [
        ({}, []),
        ({"catchup_strategy": pb.CATCHUP_STRATEGY_RUN_ALL}, [13, 14, 15, 16]),
        ({"catchup_strategy": pb.CATCHUP_STRATEGY_RUN_LATEST_N, "catchup_limit": 2}, [15, 16]),
    ],
)
async def test_what_was_missed_while_paused_is_caught_up_as_was_said(
    service: Service, fields: dict[str, Any], hours: list[int]
) -> None:
    made = await service.create("0 * * * *", **fields)
    await service.schedules.PauseSchedule(pb.PauseScheduleRequest(id=made.id), metadata=service.user())
    service.clock.advance(hours=4, minutes=1)
    await service.tick()
    assert service.execution.started == []
    await service.schedules.ResumeSchedule(pb.ResumeScheduleRequest(id=made.id), metadata=service.user())
    await service.tick()
    assert [time.hour for time in service.execution.times(made)] == hours
    decisions = await service.decisions(made)
    assert len(decisions) == 4
    assert {reason for _, state, reason in decisions if state == "SKIPPED"} <= {"PAUSED"}


async def test_a_resumption_may_say_otherwise(service: Service) -> None:
    made = await service.create("0 * * * *")
    await service.schedules.PauseSchedule(pb.PauseScheduleRequest(id=made.id), metadata=service.user())
    service.clock.advance(hours=3, minutes=1)
    request = pb.ResumeScheduleRequest(id=made.id, catchup=pb.CATCHUP_STRATEGY_RUN_LATEST_N, catchup_limit=2)
    await service.schedules.ResumeSchedule(request, metadata=service.user())
    await service.tick()
    assert [time.hour for time in service.execution.times(made)] == [14, 15]
    service.clock.advance(hours=5)
    await service.tick()
    assert [time.hour for time in service.execution.times(made)] == [14, 15, 20], "that was for once"


async def test_runs_that_are_caught_up_take_turns(service: Service) -> None:
    made = await service.create("0 * * * *", catchup_strategy=pb.CATCHUP_STRATEGY_RUN_ALL)
    service.clock.advance(hours=3)
    await service.tick()
    assert [start.overlap for start in service.execution.started] == [2, 2, 2], "QUEUE"
    service.clock.advance(hours=1)
    await service.tick()
    assert service.execution.started[-1].overlap == 1, "SKIP, as the schedule has it"
    assert [time.hour for time in service.execution.times(made)] == [13, 14, 15, 16]


async def test_five_years_of_missed_minutes_neither_hang_nor_flood(service: Service) -> None:
    made = await service.create("* * * * *")
    everything = await service.create("* * * * *", catchup_strategy=pb.CATCHUP_STRATEGY_RUN_ALL)
    service.clock.advance(days=5 * 365)
    await service.tick()
    assert service.execution.times(made) == [service.clock.now]
    assert len(service.execution.times(everything)) == 1000
    assert service.execution.times(everything)[-1] == service.clock.now
    assert len(await service.decisions(everything)) == 1001
    assert service.execution.calls < 20


async def test_a_tick_within_maintenance_is_held_until_its_end(service: Service) -> None:
    window = pb.MaintenanceWindow(start=stamp(NOON), end=stamp(NOON + timedelta(hours=3)))
    held = await service.create(
        "0 * * * *", maintenance_windows=[window], catchup_strategy=pb.CATCHUP_STRATEGY_RUN_ALL
    )
    skipped = await service.create("0 * * * *", maintenance_windows=[window])
    service.clock.advance(hours=2)
    await service.tick()
    assert service.execution.started == []
    assert (await service.get(held)).held_until == stamp(NOON + timedelta(hours=3))
    service.clock.advance(hours=1)
    await service.tick()
    assert [time.hour for time in service.execution.times(held)] == [13, 14, 15]
    assert [time.hour for time in service.execution.times(skipped)] == [15]
    assert await service.decisions(skipped) == [
        (at("2026-03-04T13:00"), "SKIPPED", "MAINTENANCE_WINDOW"),
        (at("2026-03-04T14:00"), "SKIPPED", "MAINTENANCE_WINDOW"),
        (at("2026-03-04T15:00"), "FIRED", None),
    ]
    assert not (await service.get(held)).HasField("held_until")


async def test_days_that_do_not_count_are_decided_with_their_reason(service: Service) -> None:
    service.clock.now = at("2026-04-02T08:30")  # Easter is on the fifth
    made = await service.create("0 8 * * *", business_days_only=True, skip_holidays=True, country="PL")
    for _ in range(5):
        service.clock.advance(days=1)
        await service.tick()
    assert [(tick.day, reason) for tick, _, reason in await service.decisions(made)] == [
        (3, None),
        (4, "NON_BUSINESS_DAY"),
        (5, "NON_BUSINESS_DAY"),
        (6, "HOLIDAY"),
        (7, None),
    ]
    assert [time.day for time in service.execution.times(made)] == [3, 7]


async def test_what_execution_skips_is_kept_with_its_reason(service: Service) -> None:
    made = await service.create("0 * * * *")
    service.execution.skip.add(made.id)
    service.clock.advance(hours=1)
    await service.tick()
    shown = (await service.get(made)).last_tick
    assert (shown.decision, shown.reason) == (pb.TICK_DECISION_SKIPPED, "OVERLAP_RUNNING")
    assert shown.message == "an earlier run is going on"
    assert not shown.HasField("run_id")


async def test_while_execution_is_away_nothing_is_lost_nor_doubled(service: Service) -> None:
    made = await service.create("*/10 * * * *")
    service.execution.failures = [away(), away()]
    service.clock.advance(minutes=10)
    await service.parts.ticker.run_once()
    with pytest.raises(HeadraceError):
        await service.parts.starters[0].run_once()
    assert not await service.parts.starters[0].run_once(), "it waits a moment"
    service.clock.advance(minutes=25)  # two more ticks pass, and are not decided before the first is started
    await service.parts.ticker.run_once()
    with pytest.raises(HeadraceError):
        await service.parts.starters[0].run_once()
    service.clock.advance(seconds=2)
    await service.tick()
    assert service.execution.times(made) == [at("2026-03-04T12:10"), at("2026-03-04T12:30")]
    assert [reason for _, _, reason in await service.decisions(made)] == [None, "CATCH_UP", None]


async def test_an_answer_that_was_lost_is_asked_for_again(service: Service) -> None:
    """The process died after execution decided: the lease ends, and another asks under the same key."""
    made = await service.create("0 * * * *")
    service.clock.advance(hours=1)
    await service.parts.ticker.run_once()
    due, _ = await service.base.db.run(service.parts.starters[0]._claim)
    assert len(due) == 1
    assert not await service.parts.starters[1].run_once(), "it is leased"
    service.clock.advance(minutes=1)
    await service.tick()
    assert len(service.execution.times(made)) == 1


async def test_a_clock_that_goes_back_holds_no_lease(service: Service) -> None:
    made = await service.create("0 * * * *")
    service.clock.advance(hours=2)
    await service.parts.ticker.run_once()
    await service.base.db.run(service.parts.starters[0]._claim)  # and dies
    service.clock.advance(hours=-1)
    await service.parts.starters[1].run_once()
    assert service.execution.times(made) == [at("2026-03-04T14:00")]


async def test_one_bad_start_does_not_hold_up_the_others(service: Service) -> None:
    made = [await service.create("0 * * * *") for _ in range(7)]
    bad = made[3]
    service.execution.refuse = lambda start: (
        InvalidRequest([], "too much") if start.trigger_id == bad.id else None
    )
    service.clock.advance(hours=1)
    await service.tick()
    assert len(service.execution.started) == 6
    shown = (await service.get(bad)).last_tick
    assert (shown.decision, shown.reason) == (pb.TICK_DECISION_SKIPPED, "INVALID_REQUEST")


async def test_pausing_takes_back_what_was_not_asked_for_yet(service: Service) -> None:
    made = await service.create("0 * * * *")
    service.clock.advance(hours=1)
    await service.parts.ticker.run_once()
    await service.schedules.PauseSchedule(pb.PauseScheduleRequest(id=made.id), metadata=service.user())
    await service.tick()
    assert service.execution.started == []
    assert [reason for _, _, reason in await service.decisions(made)] == ["PAUSED"]


async def test_a_trigger_starts_one_run_beside_the_ticks(service: Service) -> None:
    made = await service.create("0 * * * *", parameters=b'{"days": 2}')
    request = pb.TriggerScheduleRequest(id=made.id)
    first, again = [
        await service.schedules.TriggerSchedule(request, metadata=service.user(key="once")) for _ in range(2)
    ]
    assert first == again
    await service.schedules.TriggerSchedule(request, metadata=service.user())
    assert len(service.execution.started) == 2
    start = service.execution.started[0]
    assert (start.trigger, start.trigger_id, start.overlap) == (runs_pb2.TRIGGER_KIND_MANUAL, made.id, 0)
    assert (start.parameters, start.HasField("logical_date")) == (b'{"days": 2}', False)
    assert not (await service.get(made)).HasField("last_tick")


async def test_old_decisions_are_forgotten_and_stay_decided(service: Service) -> None:
    made = await service.create("0 * * * *")
    service.clock.advance(hours=1)
    await service.tick()
    service.clock.advance(days=91)
    await service.parts.pruner.run_once()
    assert await service.decisions(made) == []
    service.clock.advance(days=-91)
    await service.tick()
    assert len(service.execution.times(made)) == 1


async def test_many_schedules_of_many_tenants_are_due_at_once(service: Service) -> None:
    tenants = [service, *(_another(service) for _ in range(3))]
    for each in tenants:
        pipeline = each.pipeline()
        for _ in range(20):
            await each.create("0 * * * *", pipeline_id=pipeline)
    service.clock.advance(hours=1)
    for each in tenants:
        await each.tick()
    assert len(service.execution.started) == 80
    assert service.execution.calls == 4, "one for each tenant"


def _another(service: Service) -> Service:
    return Service(
        service.base,
        service.parts,
        service.metadata,
        service.execution,
        service.clock,
        service.authority,
        service.channel,
    )


async def test_missed_ticks_are_told(service: Service) -> None:
    made = await service.create("0 * * * *")
    for hours in (1, 4):
        service.clock.advance(hours=hours)
        await service.tick()
    in_time, late = await service.ticked()
    assert not in_time.HasField("missed_since")
    assert late.schedule_id == made.id
    assert (late.missed_since, late.missed_until) == (
        stamp(at("2026-03-04T14:00")),
        stamp(at("2026-03-04T16:00")),
    ), "the one of 17:00 starts"


async def test_what_a_paused_schedule_passes_over_is_not_missed(service: Service) -> None:
    made = await service.create("0 * * * *")
    await service.schedules.PauseSchedule(pb.PauseScheduleRequest(id=made.id), metadata=service.user())
    service.clock.advance(hours=5)
    await service.schedules.ResumeSchedule(pb.ResumeScheduleRequest(id=made.id), metadata=service.user())
    await service.tick()
    assert not any(each.HasField("missed_since") for each in await service.ticked())


async def test_what_a_long_maintenance_passes_over_is_not_missed(service: Service) -> None:
    window = pb.MaintenanceWindow(start=stamp(NOON), end=stamp(NOON + timedelta(hours=3)))
    made = await service.create("* * * * *", maintenance_windows=[window])
    service.clock.advance(hours=3)
    await service.tick()
    assert await service.decisions(made) == [
        (at("2026-03-04T12:01"), "SKIPPED", "MAINTENANCE_WINDOW"),
        (at("2026-03-04T15:00"), "FIRED", None),
    ]
    assert not any(each.HasField("missed_since") for each in await service.ticked())


async def test_starts_that_somebody_has_to_mend_are_told(service: Service) -> None:
    made, off, busy = [await service.create("0 * * * *") for _ in range(3)]
    service.execution.refused = {made.pipeline_id: "INVALID_PARAMETERS", off.pipeline_id: "PIPELINE_INACTIVE"}
    service.execution.skip.add(busy.id)
    service.clock.advance(hours=1)
    await service.tick()
    (told,) = await service.refused("schedule")
    assert (told.pipeline_id, told.schedule_id) == (made.pipeline_id, made.id)
    assert (told.workspace_id, told.logical_date) == (service.workspace, stamp(at("2026-03-04T13:00")))
    assert (told.reason, told.message) == ("INVALID_PARAMETERS", "it cannot run")
    assert [reason for _, _, reason in await service.decisions(made)] == ["INVALID_PARAMETERS"]


async def test_of_two_that_settle_a_tick_one_tells(service: Service) -> None:
    """The lease of the first has ended while execution answered: another asked again, and settled it."""
    made = await service.create("0 * * * *")
    service.execution.refused = {made.pipeline_id: "INVALID_DEFINITION"}
    service.clock.advance(hours=1)
    await service.parts.ticker.run_once()
    slow, other = service.parts.starters[:2]
    due, now = await service.base.db.run(slow._claim)
    service.clock.advance(minutes=1)
    await other.run_once()
    await slow._start(service.tenant, due, now)
    assert len(await service.refused("schedule")) == 1
