"""Schedules and backfills whose processes are killed wherever they are: each tick and interval is one run."""

from collections.abc import Sequence

import httpx
import pytest
from headrace_local.testing import demand

from .checking import Reference, check_all
from .cluster import SCHEDULER, Cluster, until
from .losing import SCHEDULING, injected, losing
from .striking import await_fired
from .submitting import Submitted, persistent
from .workload import Pipeline, Places, create, posting

MISSED_MINUTES = 12
TICK_POINTS = (
    "scheduler.tick.claimed",
    "scheduler.tick.before_commit",
    "scheduler.tick.decided",
    "scheduler.tick.leased",
    "scheduler.tick.started",
    "scheduler.tick.settled",
)
BACKFILL_POINTS = ("scheduler.backfill.claimed", "scheduler.backfill.asked")
ENDED = ("COMPLETED", "FAILED", "CANCELLED")


@pytest.mark.long
def test_each_tick_is_one_run(
    cluster: Cluster, admin: httpx.Client, places: Places, reference: Reference
) -> None:
    """The scheduler was away for some minutes, and dies at every point of catching up."""
    pipelines = [create(posting(admin), places, "values_append") for _ in range(5)]
    schedules = {minutely(admin, pipeline): pipeline for pipeline in pipelines}
    was_away(cluster, list(schedules))
    with losing(cluster, SCHEDULING):
        killed_at(cluster, TICK_POINTS)
        until(lambda: caught_up(cluster, list(schedules)), "all that was missed has started")
        for schedule in schedules:
            demand(admin.post(f"scheduler/schedules/{schedule}/pause", json={}), 200)
        until(lambda: not due(cluster, list(schedules)), "all that is decided has started")
        lost = injected(cluster, "scheduler")

    started = Submitted()
    for schedule, pipeline in schedules.items():
        runs = started_by(cluster, schedule)
        assert runs == fired(cluster, schedule), "each tick has its run, and each run its tick"
        assert len(runs) >= MISSED_MINUTES
        started.runs |= dict.fromkeys(runs, pipeline)
    check_all(cluster, started, reference)
    assert lost > 0, "some transactions were refused"
    print(f"{len(started.runs)} runs of {len(schedules)} schedules, {lost} transactions refused")


@pytest.mark.long
def test_each_interval_is_one_run(
    cluster: Cluster, admin: httpx.Client, places: Places, reference: Reference
) -> None:
    pipeline = create(posting(admin), places, "values_append")
    body = {"pipelineId": pipeline.id, "from": "2025-11-01", "to": "2025-11-30", "granularity": "DAILY"}
    for point in BACKFILL_POINTS:
        cluster.arm(point, "kill 2")
    # The scheduler that is asked may be killed before it has answered.
    made = persistent(admin, Submitted())("scheduler/backfill", {**body, "concurrency": 3})["id"]
    for point in BACKFILL_POINTS:
        await_fired(cluster, point)
    cluster.await_ready()
    cluster.disarm()

    def shown() -> dict[str, object]:
        return demand(admin.get(f"scheduler/backfill/{made}"), 200)

    until(lambda: shown()["status"] in ENDED, "the backfill ends")
    assert (shown()["status"], shown()["completedIntervals"]) == ("COMPLETED", 30)
    intervals = cluster.sql(
        "scheduler", "SELECT run_id::text FROM backfill_interval WHERE backfill_id = $1::uuid", made
    )
    runs = started_by(cluster, made)
    assert runs == {str(run) for (run,) in intervals}, "each interval has its run, and each run its interval"
    assert len(runs) == 30
    check_all(cluster, Submitted(dict.fromkeys(runs, pipeline)), reference)


def minutely(admin: httpx.Client, pipeline: Pipeline) -> str:
    """A schedule that leaves nothing out."""
    body = {
        "pipelineId": pipeline.id,
        "cronExpression": "* * * * *",
        "catchupStrategy": "RUN_ALL",
        "overlapStrategy": "QUEUE",
        "queueLimit": 100,
    }
    return str(demand(admin.post("scheduler/schedules", json=body), 201)["id"])


def was_away(cluster: Cluster, schedules: Sequence[str]) -> None:
    """Stops all schedulers, and has some minutes pass in their absence."""
    for name in SCHEDULER:
        cluster.halt(name)
    cluster.sql(
        "scheduler",
        "UPDATE progress SET decided_until = decided_until - $2 * interval '1 minute', next_due = now() "
        "WHERE schedule_id = ANY($1::uuid[])",
        schedules,
        MISSED_MINUTES,
    )


def killed_at(cluster: Cluster, points: Sequence[str]) -> None:
    """Starts the schedulers, and kills whoever comes to each of these points."""
    for point in points:
        cluster.arm(point, "kill")
    for name in SCHEDULER:
        cluster.resume(name)
    for point in points:
        await_fired(cluster, point)
    cluster.await_ready()
    cluster.disarm()


def caught_up(cluster: Cluster, schedules: Sequence[str]) -> bool:
    """Whether all that is over is decided and started."""
    ((behind,),) = cluster.sql(
        "scheduler",
        "SELECT count(*) FROM progress WHERE schedule_id = ANY($1::uuid[]) "
        "AND decided_until < date_trunc('minute', now()) - interval '1 minute'",
        schedules,
    )
    return behind == 0 and not due(cluster, schedules)


def due(cluster: Cluster, schedules: Sequence[str]) -> int:
    """How many ticks are decided to run and not started yet."""
    ((count,),) = cluster.sql(
        "scheduler",
        "SELECT count(*) FROM tick WHERE schedule_id = ANY($1::uuid[]) AND state = 'DUE'",
        schedules,
    )
    return int(count)


def fired(cluster: Cluster, schedule: str) -> set[str]:
    """The runs of the ticks of a schedule: one for each minute from the first to the last."""
    rows = cluster.sql(
        "scheduler",
        "SELECT state, run_id::text, at FROM tick WHERE schedule_id = $1::uuid ORDER BY at",
        schedule,
    )
    assert {state for state, _, _ in rows} == {"FIRED"}, "no tick was left out"
    minutes = [at.timestamp() / 60 for _, _, at in rows]
    assert minutes == [minutes[0] + number for number in range(len(minutes))], "no minute is missing"
    return {str(run) for _, run, _ in rows}


def started_by(cluster: Cluster, trigger: str) -> set[str]:
    """The runs that a schedule or backfill has started."""
    rows = cluster.sql("execution", "SELECT id::text FROM runs WHERE trigger_id = $1", trigger)
    return {str(run) for (run,) in rows}
