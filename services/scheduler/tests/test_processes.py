"""Two schedulers as real processes, one of which is killed where it hurts: each tick starts one run."""

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import pytest_asyncio
from headrace.metadata.v1 import pipelines_pb2, workspaces_pb2
from headrace.scheduler.v1 import schedules_pb2 as pb
from headrace.scheduler.v1 import schedules_pb2_grpc
from headrace_chassis import faults
from headrace_chassis.channels import call_metadata, open_channel
from headrace_chassis.database import Database, driver
from headrace_chassis.ids import uuid7
from headrace_chassis.testing.authority import TENANT, Authority
from headrace_chassis.testing.ports import free_port
from headrace_chassis.testing.serving import serve, until_healthy
from headrace_chassis.testing.waiting import eventually

from .support import NOON, ExecutionStandIn, MetadataStandIn, execution_services, metadata_services, stamp

SCHEDULES = 20
POINTS = (
    "scheduler.tick.before_commit",
    "scheduler.tick.decided",
    "scheduler.tick.leased",
    "scheduler.tick.started",
)


@dataclass
class Schedulers:
    """Two replicas over one database, with metadata and execution beside them."""

    environment: dict[str, str]
    execution: ExecutionStandIn
    db: Database
    authority: Authority
    pipeline: str
    running: dict[int, asyncio.subprocess.Process] = field(default_factory=dict)

    async def start(self) -> int:
        """Starts a replica; returns its port."""
        port = free_port()
        environment = {**self.environment, "GRPC_LISTEN": f"127.0.0.1:{port}"}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "headrace_scheduler", env=environment
        )
        self.running[port] = process
        await until_healthy(f"127.0.0.1:{port}")
        return port

    async def stop(self) -> None:
        """Stops all replicas."""
        for process in self.running.values():
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
                await asyncio.wait_for(process.wait(), 30)

    async def create(self, port: int) -> None:
        """Makes schedules that tick every minute."""
        async with open_channel(f"127.0.0.1:{port}") as channel:
            stub = schedules_pb2_grpc.ScheduleServiceStub(channel)
            request = pb.CreateScheduleRequest(pipeline_id=self.pipeline, cron_expression="* * * * *")
            token = call_metadata(self.authority.user())
            for _ in range(SCHEDULES):
                await stub.CreateSchedule(request, metadata=token)

    async def make_due(self) -> None:
        """Sets all schedules back by a minute, so that nobody waits for one."""
        async with self.db.transaction() as conn:
            await driver(conn).execute(
                "UPDATE progress SET decided_until = date_trunc('minute', now()) - interval '10 seconds', "
                "next_due = date_trunc('minute', now())"
            )

    async def forget_ticks(self) -> None:
        """Begins anew, since the minute of the round before may not be over."""
        self.execution.started.clear()
        self.execution.decided.clear()
        async with self.db.transaction() as conn:
            await driver(conn).execute("TRUNCATE tick")

    async def bury(self) -> int:
        """Forgets the replica that has ended, and tells how it did."""

        async def ended() -> list[int]:
            return [port for port, process in self.running.items() if process.returncode is not None]

        (port,) = await eventually(ended)
        return self.running.pop(port).returncode or 0

    async def demand_one_run_a_tick(self) -> None:
        """Each schedule has ticked, each tick has started one run, and the tick names it."""
        started = self.execution.started
        per_tick = Counter((start.trigger_id, start.logical_date.ToJsonString()) for start in started)
        assert set(per_tick.values()) == {1}
        assert len({schedule for schedule, _ in per_tick}) == SCHEDULES
        async with self.db.read() as conn:
            rows = await driver(conn).fetch("SELECT schedule_id, run_id FROM tick WHERE state = 'FIRED'")
        assert {(str(row["schedule_id"]), row["run_id"]) for row in rows} == {
            (start.trigger_id, UUID(self.execution.decided[start.key].run_id)) for start in started
        }

    async def all_started(self) -> bool:
        """Whether each schedule has ticked and nothing of it is left to do."""
        async with self.db.read() as conn:
            left = await driver(conn).fetchval(
                "SELECT count(*) FROM progress WHERE starting OR next_due <= now() OR NOT EXISTS "
                "(SELECT FROM tick WHERE tick.schedule_id = progress.schedule_id)"
            )
        return bool(left == 0)


@pytest_asyncio.fixture
async def schedulers(authority: Authority, database_url: str, tmp_path: Path) -> AsyncIterator[Schedulers]:
    """Two replicas that die where a file of `tmp_path / "points"` says."""
    points = tmp_path / "points"
    points.mkdir()
    metadata, execution = MetadataStandIn(), ExecutionStandIn()  # type: ignore[abstract]
    workspace, pipeline = str(uuid7()), str(uuid7())
    metadata.workspaces[TENANT, workspace] = workspaces_pb2.Workspace(
        id=workspace, timezone="UTC", updated_at=stamp(NOON)
    )
    metadata.pipelines[TENANT, pipeline] = pipelines_pb2.Pipeline(
        id=pipeline, workspace_id=workspace, version=1, is_active=True
    )
    authority.service_key_file("scheduler")
    async with AsyncExitStack() as stack:
        beside = await stack.enter_async_context(
            serve(authority, [*metadata_services(metadata), *execution_services(execution)])
        )
        values = authority.service_values("scheduler", database_url)
        environment = {
            **{name.upper(): str(value) for name, value in values.items()},
            "PATH": os.environ["PATH"],
            "METADATA_TARGET": beside.target,
            "EXECUTION_TARGET": beside.target,
            "START_TIMEOUT_SECONDS": "1",
            faults.VARIABLE: str(points),
        }
        db = Database(database_url, pool_size=2)
        stack.push_async_callback(db.close)
        made = Schedulers(environment, execution, db, authority, pipeline)
        stack.push_async_callback(made.stop)
        yield made


async def test_a_scheduler_that_is_killed_loses_and_doubles_nothing(
    schedulers: Schedulers, tmp_path: Path
) -> None:
    first = await schedulers.start()
    await schedulers.start()
    await schedulers.create(first)
    for point in POINTS:
        await schedulers.forget_ticks()
        (tmp_path / "points" / point).write_text("kill")
        await schedulers.make_due()
        await eventually(schedulers.all_started, within=60)
        await schedulers.demand_one_run_a_tick()
        assert await schedulers.bury() == -signal.SIGKILL, f"one of them died at {point}"
        await schedulers.start()
