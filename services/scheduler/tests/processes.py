"""Replicas of the scheduler as real processes, which die where a file says."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from headrace.metadata.v1 import pipelines_pb2, workspaces_pb2
from headrace_chassis import faults
from headrace_chassis.database import Database
from headrace_chassis.ids import uuid7
from headrace_chassis.server import Service as ServedService
from headrace_chassis.testing.authority import TENANT, Authority
from headrace_chassis.testing.ports import free_port
from headrace_chassis.testing.serving import serve, until_healthy
from headrace_chassis.testing.waiting import eventually

from .support import NOON, MetadataStandIn, metadata_services, stamp


@dataclass
class Replicas:
    """Replicas over one database, beside a metadata that has one pipeline."""

    environment: dict[str, str]
    points: Path
    """The folder whose files name the points at which a replica dies."""
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

    def kill_at(self, point: str) -> None:
        """Has the replica that comes there first die at a point."""
        (self.points / point).write_text("kill")

    async def bury(self) -> int:
        """Forgets the replica that has ended, and tells how it did."""

        async def ended() -> list[int]:
            return [port for port, process in self.running.items() if process.returncode is not None]

        (port,) = await eventually(ended)
        return self.running.pop(port).returncode or 0


@asynccontextmanager
async def replicas_beside(
    authority: Authority, database_url: str, folder: Path, execution: list[ServedService]
) -> AsyncIterator[Replicas]:
    """Replicas that a test starts, with these services of execution; all are stopped at the end."""
    points = folder / "points"
    points.mkdir()
    metadata = MetadataStandIn()
    workspace, pipeline = str(uuid7()), str(uuid7())
    metadata.workspaces[TENANT, workspace] = workspaces_pb2.Workspace(
        id=workspace, timezone="UTC", updated_at=stamp(NOON)
    )
    metadata.pipelines[TENANT, pipeline] = pipelines_pb2.Pipeline(
        id=pipeline, workspace_id=workspace, version=1, is_active=True
    )
    authority.service_key_file("scheduler")
    async with AsyncExitStack() as stack:
        beside = await stack.enter_async_context(serve(authority, metadata_services(metadata)))
        behind = await stack.enter_async_context(serve(authority, execution))
        values = authority.service_values("scheduler", database_url)
        environment = {
            **{name.upper(): str(value) for name, value in values.items()},
            "PATH": os.environ["PATH"],
            "METADATA_TARGET": beside.target,
            "EXECUTION_TARGET": behind.target,
            "START_TIMEOUT_SECONDS": "1",
            faults.VARIABLE: str(points),
        }
        db = Database(database_url, pool_size=2)
        stack.push_async_callback(db.close)
        made = Replicas(environment, points, db, authority, pipeline)
        stack.push_async_callback(made.stop)
        yield made
