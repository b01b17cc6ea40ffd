"""Two schedulers as real processes, one of which is killed where it hurts: each tick starts one run."""

import signal
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest
import pytest_asyncio
from headrace.scheduler.v1 import schedules_pb2 as pb
from headrace.scheduler.v1 import schedules_pb2_grpc
from headrace_chassis.channels import call_metadata, open_channel
from headrace_chassis.database import driver
from headrace_chassis.testing.authority import Authority
from headrace_chassis.testing.waiting import eventually

from .processes import Replicas, replicas_beside
from .support import ExecutionStandIn, execution_services

SCHEDULES = 20
POINTS = (
    "scheduler.tick.before_commit",
    "scheduler.tick.decided",
    "scheduler.tick.leased",
    "scheduler.tick.started",
)


@dataclass
class Schedulers:
    """Two replicas, and the execution that they ask."""

    replicas: Replicas
    execution: ExecutionStandIn

    async def create(self, port: int) -> None:
        """Makes schedules that tick every minute."""
        async with open_channel(f"127.0.0.1:{port}") as channel:
            stub = schedules_pb2_grpc.ScheduleServiceStub(channel)
            request = pb.CreateScheduleRequest(
                pipeline_id=self.replicas.pipeline, cron_expression="* * * * *"
            )
            token = call_metadata(self.replicas.authority.user())
            for _ in range(SCHEDULES):
                await stub.CreateSchedule(request, metadata=token)

    async def make_due(self) -> None:
        """Sets all schedules back by a minute, so that nobody waits for one."""
        async with self.replicas.db.transaction() as conn:
            await driver(conn).execute(
                "UPDATE progress SET decided_until = date_trunc('minute', now()) - interval '10 seconds', "
                "next_due = date_trunc('minute', now())"
            )

    async def forget_ticks(self) -> None:
        """Begins anew, since the minute of the round before may not be over."""
        self.execution.started.clear()
        self.execution.decided.clear()
        async with self.replicas.db.transaction() as conn:
            await driver(conn).execute("TRUNCATE tick")

    async def demand_one_run_a_tick(self) -> None:
        """Each schedule has ticked, each tick has started one run, and the tick names it."""
        started = self.execution.started
        per_tick = Counter((start.trigger_id, start.logical_date.ToJsonString()) for start in started)
        assert set(per_tick.values()) == {1}
        assert len({schedule for schedule, _ in per_tick}) == SCHEDULES
        async with self.replicas.db.read() as conn:
            rows = await driver(conn).fetch("SELECT schedule_id, run_id FROM tick WHERE state = 'FIRED'")
        assert {(str(row["schedule_id"]), row["run_id"]) for row in rows} == {
            (start.trigger_id, UUID(self.execution.decided[start.key].run_id)) for start in started
        }

    async def all_started(self) -> bool:
        """Whether each schedule has ticked and nothing of it is left to do."""
        async with self.replicas.db.read() as conn:
            left = await driver(conn).fetchval(
                "SELECT count(*) FROM progress WHERE starting OR next_due <= now() OR NOT EXISTS "
                "(SELECT FROM tick WHERE tick.schedule_id = progress.schedule_id)"
            )
        return bool(left == 0)


@pytest_asyncio.fixture
async def schedulers(authority: Authority, database_url: str, tmp_path: Path) -> AsyncIterator[Schedulers]:
    """No replica runs yet."""
    execution = ExecutionStandIn()
    services = execution_services(execution)
    async with replicas_beside(authority, database_url, tmp_path, services) as replicas:
        yield Schedulers(replicas, execution)


@pytest.mark.timeout(300)  # it starts six processes, each of which takes seconds on a busy machine
async def test_a_scheduler_that_is_killed_loses_and_doubles_nothing(
    schedulers: Schedulers,
) -> None:
    first = await schedulers.replicas.start()
    await schedulers.replicas.start()
    await schedulers.create(first)
    for point in POINTS:
        await schedulers.forget_ticks()
        schedulers.replicas.kill_at(point)
        await schedulers.make_due()
        await eventually(schedulers.all_started, within=60)
        await schedulers.demand_one_run_a_tick()
        assert await schedulers.replicas.bury() == -signal.SIGKILL, f"one of them died at {point}"
        await schedulers.replicas.start()
