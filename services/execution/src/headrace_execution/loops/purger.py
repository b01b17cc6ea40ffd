"""Removes what is kept of deleted pipelines, and tells metadata when all of it is gone; and what nobody asks
for any more.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import grpc
from headrace.common.v1 import event_log_pb2
from headrace.metadata.v1 import definitions_pb2, definitions_pb2_grpc
from headrace_artifacts.keys import pipeline_prefix
from headrace_artifacts.store import ArtifactError, ArtifactStore
from headrace_chassis.agents import Agent
from headrace_chassis.channels import service_metadata
from headrace_chassis.errors import Unavailable, from_rpc_error
from headrace_chassis.identity import ServiceTokens
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_execution.clock import Moments
from headrace_execution.domain.lifecycle import request_cancel
from headrace_execution.recording import Change, record
from headrace_execution.signals import Signals
from headrace_execution.store.port import Store, Tx
from headrace_execution.store.sql import SqlStore

OWNER = "execution"
PIPELINE_DELETED = "io.headrace.pipeline.deleted.v1"
BATCH = 500
PIPELINES = 20
FORGET_AFTER = timedelta(days=1)


class Purger(Agent):
    """Deletes runs in bounded pieces; a pipeline is acknowledged when nothing of it is left.

    Acknowledging again is harmless, so a crash between any two steps only repeats one.
    """

    name = "purger"
    interval_seconds = 5.0

    def __init__(
        self,
        store: Store,
        signals: Signals,
        moments: Moments,
        metadata: "definitions_pb2_grpc.DefinitionServiceAsyncStub",
        tokens: ServiceTokens,
        start_retention: timedelta,
        artifacts: ArtifactStore,
        alert_retention: timedelta,
    ) -> None:
        self._artifacts = artifacts
        self._store = store
        self._signals = signals
        self._moments = moments
        self._metadata = metadata
        self._tokens = tokens
        self._start_retention = start_retention
        self._alert_retention = alert_retention

    async def run_once(self) -> bool:
        """Does one piece for each of some pipelines; more is waiting when one of them is not empty yet."""

        async def read(tx: Tx) -> list[tuple[UUID, UUID]]:
            return await tx.pipelines.to_purge(PIPELINES)

        waiting = await self._store.run(read)
        more = False
        for pipeline, tenant in waiting:
            more = not await self._purge(pipeline, tenant) or more
        if not waiting:
            await self._store.run(self._forget)
        return more

    async def _purge(self, pipeline: UUID, tenant: UUID) -> bool:
        """Removes a piece of a pipeline; returns whether nothing more can be done for it now."""
        if await self._stop_live(pipeline):
            return True  # their ends come by themselves; the next round looks again

        async def remove(tx: Tx) -> bool:
            return await tx.pipelines.purge(pipeline, BATCH)

        if not await self._store.run(remove):
            return False
        try:
            await asyncio.to_thread(self._artifacts.delete_below, pipeline_prefix(tenant, pipeline))
        except ArtifactError as error:
            raise Unavailable("the artifact store") from error
        request = definitions_pb2.AcknowledgePurgeRequest(pipeline_id=str(pipeline), owner=OWNER)
        try:
            await self._metadata.AcknowledgePurge(request, metadata=service_metadata(self._tokens, tenant))
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error

        async def note(tx: Tx) -> None:
            await tx.pipelines.purged(pipeline)

        await self._store.run(note)
        return True

    async def _stop_live(self, pipeline: UUID) -> bool:
        """Cancels what is live yet, which closing has not left; returns whether anything was."""

        async def stop(tx: Tx) -> tuple[bool, list[Change]]:
            live = await tx.runs.ids_of(pipeline, BATCH)
            runs = await tx.runs.lock(live)
            moment = self._moments.at(tx.now)
            changes = [
                (run, request_cancel(run, "its pipeline was deleted", moment))
                for run in runs.values()
                if not run.is_final
            ]
            return bool(live), await record(tx, changes)

        found, changes = await self._store.run(stop)
        self._signals.committed(changes)
        return found

    async def _forget(self, tx: Tx) -> None:
        await tx.starts.forget(self._start_retention, BATCH)
        await tx.pipelines.forget_purged(FORGET_AFTER, BATCH)
        await tx.probes.forget(BATCH)
        await tx.alerts.forget_resolved(self._alert_retention, BATCH)
        await tx.deliveries.forget_parked(self._alert_retention, BATCH)


class DeletionFollower:
    """Notes, in the transaction of the consumer's position, which pipelines were deleted."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store

    async def handle(self, conn: AsyncConnection, events: Sequence[event_log_pb2.Event]) -> None:
        """Closes deleted pipelines and asks for their purge."""
        tx = await self._store.join(conn)
        await tx.pipelines.ask_purge({UUID(event.subject): UUID(event.tenant) for event in events})
