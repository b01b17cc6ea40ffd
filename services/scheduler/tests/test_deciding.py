"""Whatever the clock does and whoever pauses when: each tick is decided exactly once, in order."""

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from uuid import UUID

from headrace_scheduler.application.schedules import paused, resumed
from headrace_scheduler.domain.deciding import DecidedTick, decide, resumed_progress
from headrace_scheduler.domain.schedules import (
    Catchup,
    ManagedBy,
    Overlap,
    Progress,
    Schedule,
    Status,
    Terms,
    Times,
    Window,
)
from headrace_scheduler.domain.timing import MOST_CAUGHT_UP, timetable
from headrace_timetable.ticks import ticks
from hypothesis import given, settings
from hypothesis import strategies as st

from .support import NOON

GRACE = timedelta(hours=1)
NIL = UUID(int=0)

CRONS = ("* * * * *", "*/7 * * * *", "5 * * * *", "30 2 * * *", "0 9 * * mon", "15 1,2,3 * * *")
ZONES = ("UTC", "Europe/Warsaw", "America/New_York", "Australia/Lord_Howe")
WINDOWS = (
    (),
    (Window(days=("WED", "SUN"), from_time="22:00", to_time="03:30"),),
    (Window(start=NOON + timedelta(hours=5), end=NOON + timedelta(days=2)),),
)
# Minutes that pass, or what somebody does.
STEPS = st.lists(
    st.one_of(st.integers(-90, 700), st.sampled_from(["pause", "resume", "resume all", "resume 2"])),
    max_size=15,
)


def a_schedule(
    times: Times, catchup: Catchup = Catchup.SKIP_TO_CURRENT, limit: int | None = None
) -> Schedule:
    """A schedule that was made at noon."""
    made = Schedule(
        id=NIL,
        tenant=NIL,
        workspace_id=NIL,
        pipeline_id=NIL,
        managed_by=ManagedBy.USER,
        version=1,
        status=Status.ACTIVE,
        terms=Terms(times, catchup=catchup, catchup_limit=limit),
        progress=Progress(decided_until=NOON),
        created_at=NOON,
        updated_at=NOON,
        created_by="ada",
    )
    return replace(made, progress=resumed_progress(made, NOON))


@settings(max_examples=60, deadline=None)
@given(
    cron=st.sampled_from(CRONS),
    zone=st.sampled_from(ZONES),
    weekdays=st.booleans(),
    windows=st.sampled_from(WINDOWS),
    catchup=st.sampled_from(
        [(Catchup.SKIP_TO_CURRENT, None), (Catchup.RUN_ALL, None), (Catchup.RUN_LATEST_N, 3)]
    ),
    steps=STEPS,
)
def test_each_tick_is_decided_exactly_once(
    cron: str,
    zone: str,
    weekdays: bool,
    windows: tuple[Window, ...],
    catchup: tuple[Catchup, int | None],
    steps: list[int | str],
) -> None:
    times = Times(cron, zone, business_days_only=weekdays, windows=windows)
    schedule, now = a_schedule(times, *catchup), NOON
    decided: list[DecidedTick] = []
    for step in steps:
        if isinstance(step, int):
            now += timedelta(minutes=step)
        else:
            schedule = _done(schedule, step, now)
        if schedule.progress.next_due is not None and schedule.progress.next_due <= now:
            outcome = decide(schedule, now, GRACE)
            assert outcome.progress.decided_until >= schedule.progress.decided_until
            assert sum(tick.starts for tick in outcome.ticks) <= MOST_CAUGHT_UP * 2
            decided += outcome.ticks
            schedule = replace(schedule, progress=replace(outcome.progress, starting=False))
            due = schedule.progress.next_due
            assert due is None or due > now, "nothing is left to do now"
    _demand_each_once(times, decided, schedule.progress.decided_until)


def _done(schedule: Schedule, what: str, now: datetime) -> Schedule:
    """The schedule after somebody has paused or resumed it."""
    if what == "pause":
        changed = paused(schedule)
    elif schedule.status is Status.ACTIVE:
        return schedule
    elif what == "resume 2":
        changed = resumed(schedule, Catchup.RUN_LATEST_N, 2, now)
    else:
        all_of_them = what == "resume all"
        changed = resumed(schedule, Catchup.RUN_ALL if all_of_them else schedule.terms.catchup, None, now)
    return replace(changed, progress=resumed_progress(changed, now))


def _demand_each_once(times: Times, decided: list[DecidedTick], until: datetime) -> None:
    plan = timetable(times, ())
    places = iter(decided)
    place = next(places, None)
    for tick in ticks(plan.expression, plan.zone, NOON):
        if tick > until:
            break
        while place is not None and place.through < tick:
            place = next(places, None)
        assert place is not None, f"{tick} was never decided"
        assert place.at <= tick <= place.through, f"{tick} was never decided"
    assert all(before.through < after.at for before, after in pairwise(decided)), "once, in order"
    for each in decided:
        assert each.interval_start < each.at, "no interval is empty"


def test_runs_that_are_caught_up_queue_and_one_in_time_does_as_the_schedule_says() -> None:
    schedule = a_schedule(Times("0 * * * *", "UTC"), Catchup.RUN_ALL)
    late = decide(schedule, NOON + timedelta(hours=3), GRACE)
    assert [tick.overlap for tick in late.ticks] == [Overlap.QUEUE] * 3
    in_time = decide(replace(schedule, progress=late.progress), NOON + timedelta(hours=4), GRACE)
    assert [tick.overlap for tick in in_time.ticks] == [Overlap.SKIP]


def test_the_latest_tick_starts_within_the_grace_and_not_after_it() -> None:
    schedule = a_schedule(Times("0 13 * * *", "UTC"))
    within = decide(schedule, NOON + timedelta(hours=1, minutes=59), GRACE)
    assert [tick.starts for tick in within.ticks] == [True]
    beyond = decide(schedule, NOON + timedelta(hours=2, minutes=1), GRACE)
    assert [(tick.starts, tick.reason) for tick in beyond.ticks] == [(False, "CATCH_UP")]
