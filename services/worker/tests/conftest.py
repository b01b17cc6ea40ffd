"""What the worker's tests share: a worker over real processes, and a server that does what a test says."""

import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from headrace.execution.v1 import workers_pb2
from headrace_chassis.testing.authority import Authority
from headrace_chassis.testing.serving import Served, serve
from headrace_chassis.testing.waiting import eventually
from headrace_worker.config import WorkerSettings
from headrace_worker.engine.options import EngineOptions
from headrace_worker.wiring import Worker, running

from .engine_bench import EngineBench
from .scripted_server import ScriptedExecution, Stream
from .target_server import TargetServer

Running = Callable[..., AbstractAsyncContextManager[Worker]]


async def process_of(worker: Worker, work: workers_pb2.Assignment) -> int:
    """The process that works on an assignment, once it has begun."""

    async def pid() -> int | None:
        holding = worker.supervisor.holdings.find(work.ref)
        if holding is None or holding.process is None or holding.progress is None:
            return None
        return holding.process.pid

    found = await eventually(pid)
    assert found is not None
    return found


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
            "artifacts_url": f"file://{tmp_path}/store",
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


@pytest.fixture(scope="session")
def target_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TargetServer]:
    """A PostgreSQL that stages read and write, on a port of the loopback interface."""
    with TargetServer(Path(tempfile.mkdtemp(prefix="hr-target-", dir="/tmp"))) as server:
        yield server


@pytest_asyncio.fixture
async def warehouse(target_server: TargetServer, bench: EngineBench) -> AsyncIterator[asyncpg.Connection]:
    """An empty database, which the engine knows as `warehouse`, and a connection of the test's own to it."""
    database = await target_server.new_database()
    bench.connect("warehouse", "postgresql", **target_server.fields(database))
    connection = await target_server.connect(database)
    yield connection
    await connection.close()


@pytest.fixture
def bench(tmp_path: Path) -> EngineBench:
    """The engine in this process, with a folder for files."""
    roots = tmp_path / "files"
    roots.mkdir()
    options = EngineOptions(
        temp_dir=str(tmp_path / "temp"),
        artifacts_dir=str(tmp_path / "artifacts"),
        file_roots=(str(roots),),
        memory_bytes=256 * 2**20,
        threads=2,
        allow_loopback=True,
    )
    return EngineBench(options)
