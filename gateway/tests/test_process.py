"""The gateway as a process: it starts from its environment, drains on a signal, and refuses bad settings."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from headrace_chassis.testing.ports import free_port
from headrace_chassis.testing.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

PIPELINE = "/api/v1/pipelines/01900000-0000-7000-8000-00000000000a"


@asynccontextmanager
async def running(**environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "headrace_gateway",
        env={"PATH": os.environ["PATH"], **environment},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_signal_lets_running_requests_finish(gateway: Any) -> None:
    called, release = asyncio.Event(), asyncio.Event()

    async def wait(request: Any, context: Any) -> Any:
        called.set()
        await release.wait()
        return default(request)

    def default(request: Any) -> Any:
        from headrace.metadata.v1 import pipelines_pb2

        return pipelines_pb2.Pipeline(id=request.id, version=9)

    port, operations = free_port(), free_port()
    environment = {name.upper(): str(value) for name, value in gateway.authority.auth_values().items()}
    environment |= {"HTTP_LISTEN": f"127.0.0.1:{port}", "METRICS_LISTEN": f"127.0.0.1:{operations}"}
    environment |= {"METADATA_TARGET": f"127.0.0.1:{gateway.back.port}"}
    async with running(**environment) as process, httpx.AsyncClient(headers=gateway.client.headers) as client:

        async def ready() -> bool:
            try:
                return (await client.get(f"http://127.0.0.1:{operations}/readyz")).status_code == 200
            except httpx.TransportError:
                return False

        await eventually(ready)
        served = (await client.get(f"http://127.0.0.1:{port}{PIPELINE}")).status_code
        absent = (await client.get(f"http://127.0.0.1:{port}/api/v1/runs")).status_code
        counted = (await client.get(f"http://127.0.0.1:{operations}/metrics")).text
        gateway.recorder.answers["GetPipelineRequest"] = wait
        running_request = asyncio.create_task(client.get(f"http://127.0.0.1:{port}{PIPELINE}"))
        await asyncio.wait_for(called.wait(), 10)

        process.send_signal(signal.SIGTERM)

        async def draining() -> bool:
            try:
                return (await client.get(f"http://127.0.0.1:{operations}/readyz")).status_code == 503
            except httpx.TransportError:
                return False

        await eventually(draining)
        release.set()
        answer = await running_request

        assert (served, absent) == (200, 404)
        assert 'hr_http_server_duration_seconds_count{operation="getPipeline",status="200"} 1.0' in counted
        assert (answer.status_code, answer.json()["version"]) == (200, 9)
        assert await asyncio.wait_for(process.wait(), 10) == 0


async def test_settings_that_do_not_do_are_named(gateway: Any) -> None:
    async with running(HTTP_LISTEN="127.0.0.1:0", HEADRACE_TYPO="x", JWT_ISSUER="i") as process:
        _, errors = await process.communicate()

    assert process.returncode == 78
    assert b"HEADRACE_TYPO" in errors
    assert b"JWT_AUDIENCE" in errors
