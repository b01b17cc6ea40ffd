"""Removes logs and outputs that are older than they are kept."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from headrace_artifacts.keys import LOGS, OUTPUTS, run_prefix
from headrace_artifacts.store import ArtifactError, ArtifactStore
from headrace_chassis.agents import Agent
from headrace_chassis.errors import Unavailable

from headrace_execution.store.port import RunPlace, Store, Tx

BATCH = 100


@dataclass(frozen=True, slots=True)
class Retention:
    """How long artifacts are kept; None is as long as their pipeline."""

    logs: timedelta | None
    outputs: timedelta | None


class ArtifactSweeper(Agent):
    """Removes the artifacts of a run by their prefix, so that what nobody points to goes too; then forgets
    them. If the process dies in between, the next round does it again.
    """

    name = "artifact_sweeper"
    interval_seconds = 600.0

    def __init__(self, store: Store, artifacts: ArtifactStore, retention: Retention) -> None:
        self._store = store
        self._artifacts = artifacts
        self._retention = retention

    async def run_once(self) -> bool:
        """Removes the artifacts of some runs; returns whether there may be more."""
        logs, outputs = self._retention.logs, self._retention.outputs
        more = False
        if logs is not None:
            old = await self._store.run(lambda tx: tx.logs.expired_logs(logs, BATCH))
            await self._remove(old, LOGS, lambda tx: tx.logs.forget_logs([place.run for place in old]))
            more = len(old) == BATCH
        if outputs is not None:
            landed = await self._store.run(lambda tx: tx.logs.expired_outputs(outputs, BATCH))
            await self._remove(
                landed, OUTPUTS, lambda tx: tx.logs.forget_outputs([place.run for place in landed])
            )
            more = more or len(landed) == BATCH
        return more

    async def _remove(
        self, places: Sequence[RunPlace], kind: str, forget: Callable[[Tx], Awaitable[None]]
    ) -> None:
        if not places:
            return
        try:
            for place in places:
                prefix = f"{run_prefix(place.tenant, place.pipeline, place.run)}/{kind}"
                await asyncio.to_thread(self._artifacts.delete_below, prefix)
        except ArtifactError as error:
            raise Unavailable("the artifact store") from error
        await self._store.run(forget)
