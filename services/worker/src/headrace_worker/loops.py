"""What the worker does every so often."""

from __future__ import annotations

import asyncio

import structlog
from headrace_chassis.agents import Agent

from headrace_worker.engine.artifact_store import ArtifactStore
from headrace_worker.processes.pool import ProcessPool
from headrace_worker.supervisor import Supervisor

_log = structlog.get_logger(__name__)


class LeaseGuard(Agent):
    """Stops everything that runs when the lease could not be renewed for as long as it lasts."""

    name = "lease_guard"
    interval_seconds = 0.25

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    async def run_once(self) -> bool:
        """One look at the lease."""
        self._supervisor.fence_itself()
        return False


class ProcessTrimmer(Agent):
    """Lets processes go that nobody has needed for a while."""

    name = "process_trimmer"
    interval_seconds = 15.0

    def __init__(self, pool: ProcessPool) -> None:
        self._pool = pool

    async def run_once(self) -> bool:
        """One look at the idle processes."""
        self._pool.trim()
        return False


class ArtifactSweeper(Agent):
    """Removes the artifacts of runs that nothing was written to for long."""

    name = "artifact_sweeper"
    interval_seconds = 3600.0

    def __init__(self, artifacts: ArtifactStore, older_than_seconds: float) -> None:
        self._artifacts = artifacts
        self._older_than_seconds = older_than_seconds

    async def run_once(self) -> bool:
        """One pass over all runs' folders."""
        removed = await asyncio.to_thread(self._artifacts.sweep, self._older_than_seconds)
        if removed:
            _log.info("removed old artifacts", runs=removed)
        return False
