"""Backfills over a real PostgreSQL and a real gRPC server; a test ends the runs."""

import asyncio
import random
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from headrace.execution.v1 import runs_pb2
from headrace.scheduler.v1 import backfills_pb2 as pb
from headrace_chassis.errors import HeadraceError
from headrace_scheduler.loops.backfill_driver import RECONCILE, REST
from headrace_scheduler.store import backfills as store

from .backfill_support import Backfills, StandInRun
from .support import failure

STATE = pb.BackfillIntervalState
FAILED, CANCELLED = runs_pb2.RUN_STATE_FAILED, runs_pb2.RUN_STATE_CANCELLED


def status(backfill: pb.Backfill) -> str:
    return pb.BackfillStatus.Name(backfill.status).removeprefix("BACKFILL_STATUS_")


def day(run: StandInRun) -> int:
    return run.start.interval_start.ToDatetime().day


async def test_november_is_thirty_days_and_each_runs_once(backfills: Backfills) -> None:
    # given
    made = await backfills.create(
        parameter_overrides=b'{"region": "north"}', priority=pb.BACKFILL_PRIORITY_HIGH
    )
    assert (status(made), made.total_intervals, made.pending_intervals) == ("PENDING", 30, 30)
    # when
    ended = await backfills.run_to_the_end(made)
    # then
    assert (status(ended), ended.completed_intervals, ended.running_intervals) == ("COMPLETED", 30, 0)
    runs = list(backfills.execution.runs.values())
    assert [day(run) for run in runs] == list(range(1, 31))
    start = runs[0].start
    assert (start.trigger, start.trigger_id) == (runs_pb2.TRIGGER_KIND_BACKFILL, made.id)
    assert start.interval_end == start.logical_date
    assert start.interval_end.ToDatetime() - start.interval_start.ToDatetime() == timedelta(days=1)
    assert (start.parameters, start.priority) == (b'{"region": "north"}', runs_pb2.PRIORITY_HIGH)
    events = [each for each in await backfills.service.events() if "backfill" in each]
    assert events == ["io.headrace.backfill.created", "io.headrace.backfill.completed"]


async def test_a_dry_run_counts_and_creates_nothing(backfills: Backfills) -> None:
    # a day of 23 hours in Warsaw
    plan = await backfills.create("2025-03-01", "2025-03-31", dry_run=True, timezone="Europe/Warsaw")
    assert (plan.id, plan.dry_run, plan.total_intervals, len(plan.intervals)) == ("", True, 31, 20)
    assert plan.intervals[0].start.ToDatetime(tzinfo=UTC) == datetime(2025, 2, 28, 23, tzinfo=UTC)
    hours = await backfills.create(
        "2025-03-30", "2025-03-30", dry_run=True, timezone="Europe/Warsaw", granularity=pb.GRANULARITY_HOURLY
    )
    assert hours.total_intervals == 23
    listed = await backfills.stub.ListBackfills(
        pb.ListBackfillsRequest(include_total=True), metadata=backfills.service.user()
    )
    assert listed.meta.total == 0


async def test_the_zone_is_that_of_the_only_schedule(backfills: Backfills) -> None:
    pipeline = backfills.pipeline()
    assert (await backfills.create(pipeline_id=pipeline)).timezone == "UTC"
    await backfills.service.create(pipeline_id=pipeline, timezone="Europe/Warsaw")
    assert (await backfills.create(pipeline_id=pipeline)).timezone == "Europe/Warsaw"
    await backfills.service.create(pipeline_id=pipeline, timezone="Asia/Tokyo")
    assert (await backfills.create(pipeline_id=pipeline)).timezone == "UTC"


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"first": "2025-11-02", "last": "2025-11-01"}, "from"),
        ({"first": "soon"}, "from"),
        ({"first": "1950-01-01", "granularity": pb.GRANULARITY_HOURLY}, "to"),
        ({"parameter_overrides": b"[1]"}, "parameterOverrides"),
        ({"timezone": "Europe/Atlantis"}, "timezone"),
        ({"concurrency": 0}, "concurrency"),
        ({"granularity": pb.GRANULARITY_UNSPECIFIED}, "granularity"),
    ],
)
async def test_bad_requests_name_the_field(
    backfills: Backfills, fields: dict[str, object], path: str
) -> None:
    error = await failure(backfills.create(**fields))  # type: ignore[arg-type]
    assert (error.code, [problem.path for problem in error.problems]) == ("INVALID_REQUEST", [path])


async def test_no_more_than_concurrency_run_at_once(backfills: Backfills) -> None:
    made = await backfills.create(concurrency=4)
    execution, tenant = backfills.execution, backfills.service.tenant
    while status(await backfills.check_counts(made)) != "COMPLETED":
        await backfills.drive()
        live = execution.live(tenant)
        assert len(live) <= 4
        execution.end([run.id for run in live[:3]])
        await backfills.drive()
    assert len(execution.runs) == 30


async def test_a_failed_interval_stops_no_other_and_can_be_tried_again(backfills: Backfills) -> None:
    # given three days, of which the second fails and the run of the third is cancelled by somebody
    made = await backfills.create(last="2025-11-03", concurrency=3)
    await backfills.drive()
    first, second, third = (run.id for run in backfills.execution.live(backfills.service.tenant))
    backfills.execution.end([first])
    backfills.execution.end([second], FAILED)
    backfills.execution.end([third], CANCELLED)
    await backfills.drive()
    ended = await backfills.check_counts(made)
    assert (status(ended), ended.completed_intervals, ended.failed_intervals, ended.cancelled_intervals) == (
        "FAILED",
        1,
        1,
        1,
    )
    (failed,) = await backfills.intervals(made, STATE.BACKFILL_INTERVAL_STATE_FAILED)
    assert (failed.number, failed.reason, failed.run_id) == (2, "RUN_FAILED", second)
    # when
    assert status(await backfills.ask("retry", made)) == "RUNNING"
    ended = await backfills.run_to_the_end(made)
    # then
    assert (status(ended), ended.completed_intervals) == ("COMPLETED", 3)
    assert [interval.attempt for interval in await backfills.intervals(made)] == [1, 2, 2]
    assert len(backfills.execution.runs) == 5


async def test_what_has_completed_is_not_tried_again(backfills: Backfills) -> None:
    made = await backfills.create(last="2025-11-01")
    assert status(await backfills.run_to_the_end(made)) == "COMPLETED"
    error = await failure(backfills.ask("retry", made))
    assert (error.code, error.metadata["status"]) == ("BACKFILL_ENDED", "COMPLETED")
    assert "nothing" in error.message


async def test_parameters_that_do_not_fit_are_refused_at_once(backfills: Backfills) -> None:
    for dry in (True, False):
        error = await failure(backfills.create(dry_run=dry, parameter_overrides=b'{"regoin": "north"}'))
        assert [problem.path for problem in error.problems] == ["parameterOverrides.regoin"]
        assert error.message.startswith("parameterOverrides.regoin: ")


async def test_what_cannot_start_fails_with_the_reason(backfills: Backfills) -> None:
    pipeline = backfills.pipeline()
    backfills.execution.refused[pipeline] = "INVALID_PARAMETERS"
    made = await backfills.create(last="2025-11-02", pipeline_id=pipeline)
    await backfills.drive()
    ended = await backfills.check_counts(made)
    assert (status(ended), ended.failed_intervals) == ("FAILED", 2)
    assert {interval.reason for interval in await backfills.intervals(made)} == {"INVALID_PARAMETERS"}


async def test_without_room_in_the_pipeline_an_interval_waits(backfills: Backfills) -> None:
    pipeline = backfills.pipeline()
    backfills.execution.refused[pipeline] = "CONCURRENCY_LIMIT"
    made = await backfills.create(last="2025-11-01", pipeline_id=pipeline)
    await backfills.drive()
    waiting = await backfills.check_counts(made)
    assert (status(waiting), waiting.pending_intervals) == ("RUNNING", 1)
    # when there is room, a while later
    del backfills.execution.refused[pipeline]
    await backfills.drive()
    assert not backfills.execution.runs
    backfills.service.clock.now += REST
    assert status(await backfills.run_to_the_end(made)) == "COMPLETED"


async def test_paused_starts_nothing_and_goes_on_where_it_was(backfills: Backfills) -> None:
    # given one running
    made = await backfills.create(last="2025-11-03")
    await backfills.drive()
    # when paused, it ends, and no other starts
    assert status(await backfills.ask("pause", made)) == "PAUSED"
    backfills.execution.end([run.id for run in backfills.execution.live(backfills.service.tenant)])
    await backfills.drive()
    paused = await backfills.check_counts(made)
    assert (status(paused), paused.completed_intervals, paused.pending_intervals) == ("PAUSED", 1, 2)
    assert len(backfills.execution.runs) == 1
    # then
    assert status(await backfills.ask("resume", made)) == "RUNNING"
    assert status(await backfills.run_to_the_end(made)) == "COMPLETED"


async def test_cancel_ends_what_runs_and_starts_nothing_more(backfills: Backfills) -> None:
    made = await backfills.create(concurrency=2)
    await backfills.drive()
    # when the driver runs beside the call, which waits for it
    cancel = asyncio.create_task(backfills.ask("cancel", made))
    while not cancel.done():
        await backfills.drive()
        await asyncio.sleep(0)
    told = await cancel
    # then
    assert (status(told), told.running_intervals, told.cancelled_intervals) == ("CANCELLED", 0, 30)
    await backfills.check_counts(made)
    assert len(backfills.execution.runs) == 2
    assert len(await backfills.intervals(made, STATE.BACKFILL_INTERVAL_STATE_CANCELLED, limit=200)) == 30
    assert not await backfills.intervals(made, STATE.BACKFILL_INTERVAL_STATE_PENDING)
    assert status(await backfills.ask("cancel", made)) == "CANCELLED"
    for verb in ("pause", "resume", "retry"):
        error = await failure(backfills.ask(verb, made))
        assert (error.code, error.metadata["status"]) == ("BACKFILL_ENDED", "CANCELLED")


async def test_a_start_under_way_when_cancelled_never_comes_to_be(backfills: Backfills) -> None:
    # given intervals that a driver has decided to start, and then was stopped before it asked execution
    made = await backfills.create(concurrency=3)
    held = await backfills.service.base.db.run(backfills.driver._claim)
    assert len(held) == 3
    # when it is cancelled, and another replica looks after it
    cancel = asyncio.create_task(backfills.ask("cancel", made))
    while not cancel.done():
        await backfills.drive()
        await asyncio.sleep(0)
    assert (await cancel).running_intervals == 0
    # then the driver that goes on starts nothing
    await backfills.driver._attend(backfills.service.tenant, held)
    assert not backfills.execution.runs
    assert (await backfills.check_counts(made)).cancelled_intervals == 30


async def test_a_crash_between_decision_and_start_is_made_good(backfills: Backfills) -> None:
    # given a driver that died after it had decided, and one that died after execution had heard of it
    made = await backfills.create(last="2025-11-02", concurrency=2)
    claimed = await backfills.service.base.db.run(backfills.driver._claim)
    await backfills.driver._starts.start(backfills.service.tenant, claimed[:1])
    # when the lease is over
    await backfills.drive()
    assert len(backfills.execution.runs) == 1
    backfills.service.clock.now += backfills.driver.lease
    await backfills.drive()
    # then each has one run
    assert sorted(map(day, backfills.execution.runs.values())) == [1, 2]
    assert status(await backfills.run_to_the_end(made)) == "COMPLETED"
    assert len(backfills.execution.runs) == 2


async def test_an_end_that_nobody_told_of_is_found(backfills: Backfills) -> None:
    made = await backfills.create(last="2025-11-01")
    await backfills.drive()
    (run,) = backfills.execution.runs
    backfills.execution.end([run], told=False)
    await backfills.drive()
    assert status(await backfills.ask("get", made)) == "RUNNING"
    backfills.service.clock.now += RECONCILE
    await backfills.drive()
    assert status(await backfills.check_counts(made)) == "COMPLETED"


async def test_a_run_that_is_gone_is_a_failed_interval(backfills: Backfills) -> None:
    made = await backfills.create(last="2025-11-01")
    await backfills.drive()
    backfills.execution.runs.clear()
    backfills.service.clock.now += RECONCILE
    await backfills.drive()
    assert status(await backfills.ask("get", made)) == "FAILED"
    assert [interval.reason for interval in await backfills.intervals(made)] == ["RUN_LOST"]


async def test_while_execution_is_away_nothing_fails(backfills: Backfills) -> None:
    made = await backfills.create(last="2025-11-01")
    backfills.execution.away = 5  # as often as the channel asks for one call
    with pytest.raises(HeadraceError) as raised:
        await backfills.drive()
    assert raised.value.code == "UNAVAILABLE"
    assert (await backfills.check_counts(made)).running_intervals == 1
    backfills.service.clock.now += backfills.driver.lease
    assert status(await backfills.run_to_the_end(made)) == "COMPLETED"


async def test_an_end_that_overtakes_its_start_counts(backfills: Backfills) -> None:
    # given a run that ended before the answer to its start was written
    made = await backfills.create(last="2025-11-01")
    claimed = await backfills.service.base.db.run(backfills.driver._claim)
    moves = await backfills.driver._starts.start(backfills.service.tenant, claimed)
    backfills.execution.end(list(backfills.execution.runs))
    await backfills.service.parts.run_end_follower.run_once()
    # when
    await backfills.driver._record(moves)
    # then
    assert status(await backfills.check_counts(made)) == "COMPLETED"
    assert (await backfills.intervals(made))[0].run_id


async def test_higher_priority_goes_first(backfills: Backfills) -> None:
    priorities = (pb.BACKFILL_PRIORITY_LOW, pb.BACKFILL_PRIORITY_MEDIUM, pb.BACKFILL_PRIORITY_HIGH)
    made = [await backfills.create(last="2025-11-01", priority=priority) for priority in priorities]
    await backfills.drive()
    started = [run.start.trigger_id for run in backfills.execution.runs.values()]
    assert started == [each.id for each in reversed(made)]


async def test_others_see_nothing_of_it(backfills: Backfills) -> None:
    made = await backfills.create(last="2025-11-01")
    stub, service = backfills.stub, backfills.service
    other = service.user(tenant=UUID(int=9))
    elsewhere = service.user(workspaces=[str(UUID(int=8))])
    for stranger in (other, elsewhere):
        get = stub.GetBackfillProgress(pb.GetBackfillProgressRequest(id=made.id), metadata=stranger)
        assert (await failure(get)).code == "NOT_FOUND"
        cancel = stub.CancelBackfill(pb.CancelBackfillRequest(id=made.id), metadata=stranger)
        assert (await failure(cancel)).code == "NOT_FOUND"
        listed = await stub.ListBackfills(pb.ListBackfillsRequest(), metadata=stranger)
        assert not listed.data
    pause = stub.PauseBackfill(pb.PauseBackfillRequest(id=made.id), metadata=service.user("viewer"))
    assert (await failure(pause)).code == "ROLE_REQUIRED"
    unknown = backfills.create(pipeline_id=str(UUID(int=7)))
    assert (await failure(unknown)).code == "NOT_FOUND"


async def test_a_key_creates_one(backfills: Backfills) -> None:
    request = pb.CreateBackfillRequest(
        pipeline_id=backfills.pipeline(),
        from_text="2025-11-01",
        to_text="2025-11-02",
        granularity=pb.GRANULARITY_DAILY,
    )
    one = await backfills.stub.CreateBackfill(request, metadata=backfills.service.user(key="k"))
    two = await backfills.stub.CreateBackfill(request, metadata=backfills.service.user(key="k"))
    assert one.id == two.id


async def test_lists_have_pages(backfills: Backfills) -> None:
    made = [await backfills.create(last="2025-11-05") for _ in range(3)]
    user = backfills.service.user()
    first = await backfills.stub.ListBackfills(
        pb.ListBackfillsRequest(limit=2, include_total=True), metadata=user
    )
    second = await backfills.stub.ListBackfills(
        pb.ListBackfillsRequest(limit=2, cursor=first.meta.next_cursor), metadata=user
    )
    assert [each.id for each in [*first.data, *second.data]] == [each.id for each in reversed(made)]
    assert first.meta.total == 3
    request = pb.ListBackfillIntervalsRequest(id=made[0].id, limit=3, include_total=True)
    page = await backfills.stub.ListBackfillIntervals(request, metadata=user)
    assert ([each.number for each in page.data], page.meta.total) == ([1, 2, 3], 5)
    rest = await backfills.intervals(made[0], cursor=page.meta.next_cursor)
    assert [each.number for each in rest] == [4, 5]
    assert (
        await failure(backfills.intervals(made[1], cursor=page.meta.next_cursor))
    ).code == "INVALID_CURSOR"


async def test_a_deleted_pipeline_takes_its_backfills_along(backfills: Backfills) -> None:
    made = await backfills.create(concurrency=2)
    await backfills.drive()
    db = backfills.service.base.db
    left = 0
    while not await db.run(lambda conn: store.purge(conn, UUID(made.pipeline_id), 10)):
        left += 1
    assert left >= 2
    assert (await failure(backfills.ask("get", made))).code == "NOT_FOUND"
    backfills.execution.end(list(backfills.execution.runs))
    await backfills.drive()  # what comes late finds nothing
    assert not await backfills.service.rows(
        "SELECT FROM backfill_interval WHERE backfill_id = $1", UUID(made.id)
    )


async def test_a_hundred_thousand_hours_are_created_in_one_call(backfills: Backfills) -> None:
    made = await backfills.create(
        "2014-06-01", "2025-10-27", granularity=pb.GRANULARITY_HOURLY, concurrency=1000
    )
    assert made.total_intervals == 100_008
    await backfills.driver.run_once()
    assert len(backfills.execution.live(backfills.service.tenant)) == 200
    (last,) = await backfills.intervals(made, limit=1, state=STATE.BACKFILL_INTERVAL_STATE_PENDING)
    assert last.number == 201


@pytest.mark.parametrize("seed", range(6))
async def test_storms_of_pause_resume_cancel_and_crashes_add_up(backfills: Backfills, seed: int) -> None:
    """Whatever is asked in whatever order, while three replicas drive, die and are told twice: the counts are
    what the intervals add up to, no interval runs twice at once or after it completed, never more than
    `concurrency` at once, nothing starts after a cancel has answered, and it ends."""
    chance = random.Random(seed)
    made = await backfills.create(last="2025-11-12", concurrency=chance.randint(1, 5))
    execution, tenant, db = backfills.execution, backfills.service.tenant, backfills.service.base.db
    cancelled_at: int | None = None
    for _ in range(60):
        verb = chance.choice(["drive", "drive", "end", "end", "lose", "fail", "die", "clock", "ask"])
        live = execution.live(tenant)
        if verb == "drive":
            await asyncio.gather(*(backfills.driver.run_once() for _ in range(3)))
        elif verb == "die":
            await db.run(backfills.driver._claim)
        elif verb == "clock":
            backfills.service.clock.now += timedelta(seconds=chance.choice([1, 10, 70, -20]))
        elif verb == "ask":
            await _ask_anything(backfills, made, chance)
        elif live:
            some = [run.id for run in chance.sample(live, chance.randint(1, len(live)))]
            execution.end(
                some, FAILED if verb == "fail" else runs_pb2.RUN_STATE_COMPLETED, told=verb != "lose"
            )
            await backfills.service.parts.run_end_follower.run_once()
        told = await backfills.check_counts(made)
        running = [run.start.interval_start.ToDatetime() for run in execution.live(tenant)]
        assert len(running) == len(set(running)) <= told.concurrency
        if status(told) == "CANCELLED" and not told.running_intervals:
            cancelled_at = cancelled_at or len(execution.runs)
            assert len(execution.runs) == cancelled_at
    await _end_of_storm(backfills, made)


async def _ask_anything(backfills: Backfills, made: pb.Backfill, chance: random.Random) -> None:
    verb = chance.choice(["pause", "resume", "resume", "retry", "pause", "cancel"])
    if verb == "cancel" and chance.random() < 0.7:
        return
    asked = asyncio.create_task(backfills.ask(verb, made))
    while not asked.done():
        await backfills.drive()
        backfills.service.clock.now += backfills.driver.lease
    if (error := asked.exception()) is not None:
        assert "BACKFILL_ENDED" in str(error) or "is " in str(error)


async def _end_of_storm(backfills: Backfills, made: pb.Backfill) -> None:
    told = await backfills.ask("get", made)
    if status(told) == "PAUSED":
        await backfills.ask("resume", made)
    for _ in range(60):
        backfills.service.clock.now += backfills.driver.lease + RECONCILE
        await backfills.run_to_the_end(made)
        told = await backfills.check_counts(made)
        if told.finished_at.seconds:
            break
    assert status(told) in ("COMPLETED", "FAILED", "CANCELLED")
    completed = [
        run.start for run in backfills.execution.runs.values() if run.state == runs_pb2.RUN_STATE_COMPLETED
    ]
    assert len({start.interval_start.seconds for start in completed}) == len(completed)
