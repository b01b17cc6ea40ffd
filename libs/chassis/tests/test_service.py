"""A whole service as a process makes it, and the order in which it ends."""

import asyncio
from typing import Any

import sqlalchemy as sa
from headrace.metadata.v1 import workspaces_pb2, workspaces_pb2_grpc
from headrace_chassis import outbox
from headrace_chassis.agents import Agent
from headrace_chassis.channels import call_metadata, open_channel
from headrace_chassis.ids import NIL
from headrace_chassis.lifecycle import Stop
from headrace_chassis.service import foundation
from headrace_chassis.settings import ServiceSettings
from headrace_chassis.testing.authority import Authority
from headrace_chassis.testing.ports import free_port
from headrace_chassis.testing.serving import until_healthy

from .conftest import SAMPLE
from .servicers import Workspaces, workspaces


class Beating(Agent):
    """Tells when it ended."""

    name = "beating"
    interval_seconds = 0.01

    def __init__(self, told: list[str]) -> None:
        self._told = told

    async def run_once(self) -> bool:
        try:
            await asyncio.Event().wait()
        finally:
            self._told.append("agents stopped")
        return False


async def test_it_serves_and_ends_in_order(authority: Authority, database_url: str) -> None:
    told: list[str] = []
    begun, go_on = asyncio.Event(), asyncio.Event()
    port = free_port()
    values = {**authority.service_values("metadata", database_url), "grpc_listen": f"127.0.0.1:{port}"}
    settings = ServiceSettings(**values, metrics_listen="127.0.0.1:0")
    stop = Stop()

    async def process() -> None:
        async with foundation("metadata", settings, SAMPLE) as base:
            base.on_end(lambda: told.append("clients closed"))

            async def slow(_: Any) -> Any:
                begun.set()
                await go_on.wait()
                async with base.db.transaction() as conn:  # the database is still there
                    await conn.execute(sa.text("INSERT INTO effect (name) VALUES ('late')"))
                    await outbox.append(conn, [outbox.NewEvent("io.headrace.x.v1", NIL, "s", b"")])
                told.append("call finished")
                return workspaces_pb2.Workspace(name="finished")

            services = [workspaces(Workspaces(slow)), outbox.event_log(base.log)]
            await base.serve(stop, services, [Beating(told)])

    running = asyncio.create_task(process())
    channel = open_channel(f"127.0.0.1:{port}")
    await until_healthy(f"127.0.0.1:{port}")
    stub: Any = workspaces_pb2_grpc.WorkspaceServiceStub(channel)
    request = workspaces_pb2.GetWorkspaceRequest(id=str(NIL))
    call = asyncio.ensure_future(
        _awaited(stub.GetWorkspace(request, metadata=call_metadata(authority.user())))
    )
    await begun.wait()
    stop.set()
    go_on.set()
    assert (await call).name == "finished"
    await asyncio.wait_for(running, 30)
    await channel.close()
    assert told == ["call finished", "agents stopped", "clients closed"]


async def _awaited(call: Any) -> Any:
    return await call
