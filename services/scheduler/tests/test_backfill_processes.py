"""Two schedulers as real processes, one of which is killed where it hurts: each interval has one run."""

import signal
from pathlib import Path
from typing import Any

from headrace.scheduler.v1 import backfills_pb2 as pb
from headrace.scheduler.v1 import backfills_pb2_grpc
from headrace_chassis.channels import call_metadata, open_channel
from headrace_chassis.testing.authority import Authority
from headrace_chassis.testing.waiting import eventually

from .backfill_support import RunningExecution, running_execution_services
from .processes import Replicas, replicas_beside

DAYS = 20
POINT = "scheduler.backfill.asked"
"""Execution has been asked, and what it decided is not written yet."""


async def create(replicas: Replicas, port: int) -> pb.Backfill:
    request = pb.CreateBackfillRequest(
        pipeline_id=replicas.pipeline,
        from_text="2025-11-01",
        to_text=f"2025-11-{DAYS}",
        granularity=pb.GRANULARITY_DAILY,
        concurrency=DAYS // 2,
    )
    async with open_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = backfills_pb2_grpc.BackfillServiceStub(channel)
        made: pb.Backfill = await stub.CreateBackfill(
            request, metadata=call_metadata(replicas.authority.user())
        )
    return made


async def completed(replicas: Replicas, port: int, backfill: pb.Backfill) -> None:
    async with open_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = backfills_pb2_grpc.BackfillServiceStub(channel)
        request = pb.GetBackfillProgressRequest(id=backfill.id)
        token = call_metadata(replicas.authority.user())

        async def look() -> bool:
            told = await stub.GetBackfillProgress(request, metadata=token)
            return bool(told.completed_intervals == DAYS)

        await eventually(look, within=60)


async def test_a_scheduler_that_is_killed_runs_each_interval_once(
    authority: Authority, database_url: str, tmp_path: Path
) -> None:
    execution = RunningExecution()
    execution.ends_at_once = True
    services = running_execution_services(execution)
    async with replicas_beside(authority, database_url, tmp_path, services) as replicas:
        # given two replicas, of which the one that comes there first dies
        execution.pipelines.add(replicas.pipeline)
        replicas.kill_at(POINT)
        ports = [await replicas.start() for _ in range(2)]
        # when
        made = await create(replicas, ports[0])
        assert await replicas.bury() == -signal.SIGKILL
        # then the other one goes on
        (left,) = replicas.running
        await completed(replicas, left, made)
        starts = [run.start.interval_start.seconds for run in execution.runs.values()]
        assert len(starts) == len(set(starts)) == DAYS
