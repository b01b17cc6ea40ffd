"""What the worker's tests share: a worker over real processes, and a server that does what a test says."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from headrace_chassis.testing.authority import Authority
from headrace_chassis.testing.serving import Served, serve
from headrace_worker.config import WorkerSettings
from headrace_worker.wiring import Worker, running

from .scripted_server import ScriptedExecution, Stream

Running = Callable[..., AbstractAsyncContextManager[Worker]]


@pytest.fixture
def execution() -> ScriptedExecution:
    """The server's script."""
    return ScriptedExecution()


@pytest_asyncio.fixture
async def served(authority: Authority, execution: ScriptedExecution) -> AsyncIterator[Served]:
    """The scripted server behind real gRPC, with the worker's key published."""
    authority.worker_key_file("worker-1")
    async with serve(authority, [execution.service]) as server:
        yield server


@pytest.fixture
def run_worker(authority: Authority, served: Served, tmp_path: Path) -> Running:
    """Runs a worker against the scripted server for the length of a block."""

    @asynccontextmanager
    async def run(environment: dict[str, str] | None = None, **settings: Any) -> AsyncIterator[Worker]:
        roots = tmp_path / "files"
        roots.mkdir(exist_ok=True)
        given: dict[str, Any] = {
            "execution_target": served.target,
            "worker_name": "worker-1",
            "worker_key_file": authority.worker_key_file("worker-1"),
            "worker_temp_dir": tmp_path / "temp",
            "worker_artifacts_dir": tmp_path / "artifacts",
            "worker_file_roots": (roots,),
            "worker_allow_loopback": True,
            "worker_slots": 2,
            "worker_memory": 512 * 2**20,
            "drain_seconds": 0.2,
            **settings,
        }
        async with running(WorkerSettings(**given), environment or {}) as worker:
            yield worker

    return run


@pytest_asyncio.fixture
async def worker(run_worker: Running) -> AsyncIterator[Worker]:
    """A worker that has connected, or is about to."""
    async with run_worker() as running_worker:
        yield running_worker


@pytest_asyncio.fixture
async def stream(worker: Worker, execution: ScriptedExecution) -> Stream:
    """The first stream of the worker."""
    return await execution.next_stream()
