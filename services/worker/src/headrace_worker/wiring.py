"""Builds the worker, leaves first: the only place that constructs its parts."""

from __future__ import annotations

import importlib.metadata
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from headrace.execution.v1 import workers_pb2_grpc
from headrace_artifacts.urls import open_store
from headrace_chassis.agents import AgentRunner
from headrace_chassis.channels import Metadata, call_metadata, open_channel
from headrace_chassis.identity import WorkerTokens
from headrace_chassis.observability.metrics import OperationsServer

from headrace_worker import metrics
from headrace_worker.config import WorkerSettings
from headrace_worker.engine.artifact_store import ArtifactStore
from headrace_worker.lease import Lease
from headrace_worker.leased_secrets import LeasedSecrets
from headrace_worker.loops import ArtifactSweeper, LeaseGuard, ProcessTrimmer
from headrace_worker.output_keeper import OutputKeeper
from headrace_worker.processes.pool import ProcessPool
from headrace_worker.secret_references import SecretReferences
from headrace_worker.server_link import ServerLink, WorkerIdentity
from headrace_worker.supervisor import Supervisor
from headrace_worker.temp_folder import TempFolder

_FLUSH_SECONDS = 2.0


def boot_clock() -> float:
    """Seconds since boot; unlike the monotonic clock it goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True)
class Worker:
    """A worker that runs, for those who look at it from outside."""

    worker_id: str
    supervisor: Supervisor
    pool: ProcessPool
    link: ServerLink


@asynccontextmanager
async def running(settings: WorkerSettings, environment: dict[str, str]) -> AsyncIterator[Worker]:
    """A worker for the length of the block; at its end, it drains."""
    worker_id = str(uuid.uuid4())
    lease = Lease(boot_clock)
    tokens = WorkerTokens(settings.worker_name, settings.worker_key_file)
    references = SecretReferences(
        environment, prefix=settings.worker_secret_env_prefix, roots=settings.worker_secret_roots
    )
    settings.worker_artifacts_dir.mkdir(mode=0o700, parents=True, exist_ok=True)

    def metadata() -> Metadata:
        return call_metadata(tokens.token())

    async with AsyncExitStack() as stack:
        folder = stack.enter_context(TempFolder(settings.worker_temp_dir, worker_id))
        pool = ProcessPool(settings.engine_options(folder.path), warm=settings.worker_warm_processes)
        stack.push_async_callback(pool.close)
        await pool.start()
        channel = open_channel(settings.execution_target)
        stack.push_async_callback(channel.close)
        stub = workers_pb2_grpc.WorkerServiceStub(channel)
        identity = WorkerIdentity(
            worker_id,
            settings.worker_name,
            importlib.metadata.version("headrace-worker"),
            settings.worker_slots,
        )
        link = ServerLink(stub, identity, lease, metadata, boot_clock)
        supervisor = Supervisor(
            pool,
            slots=settings.worker_slots,
            lease=lease,
            outbox=link,
            outputs=OutputKeeper(open_store(settings.artifacts_url)),
            secrets=LeasedSecrets(stub, worker_id, references, metadata),
            temp_dir=Path(folder.path),
            clock=boot_clock,
        )
        stack.push_async_callback(supervisor.close)
        link.serve(supervisor)
        metrics.ACTIVE.set_function(lambda: supervisor.active)
        metrics.CONNECTED.set_function(lambda: float(link.connected))
        sweeper = ArtifactSweeper(
            ArtifactStore(settings.worker_artifacts_dir), settings.worker_artifacts_hours * 3600
        )
        agents = AgentRunner([link, LeaseGuard(supervisor), ProcessTrimmer(pool), sweeper])
        stack.push_async_callback(agents.stop)
        await agents.start()
        operations = None
        if settings.metrics_listen is not None:
            operations = OperationsServer(settings.metrics_listen, {"execution": link.check})
            stack.push_async_callback(operations.stop)
            await operations.start()
        try:
            yield Worker(worker_id, supervisor, pool, link)
        finally:
            if operations is not None:
                operations.drain()
            await supervisor.drain(settings.drain_seconds)
            await link.flush(_FLUSH_SECONDS)
