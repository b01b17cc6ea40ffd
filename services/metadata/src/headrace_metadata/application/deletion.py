"""Deleting pipelines, in steps that survive a crash between any two of them.

1. The pipeline is marked as closing and its event says so, in one transaction.
2. Execution closes it for new runs. Where runs are live and force is not given, the pipeline is put back to
   normal.
3. The pipeline is gone for every reader and its event says so, in one transaction; its name is free.
4. Each owner of traces purges them and acknowledges; after the last one the versions and the tombstone go.

After a crash or an answer that was lost, the pipeline stands as closing until somebody carries the deletion
on: whoever asks again, or the loop PipelineDeleter.
"""

from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import structlog
from headrace.common.v1 import reasons_pb2
from headrace_chassis import outbox
from headrace_chassis.database import Database
from headrace_chassis.errors import HeadraceError, InvalidRequest, Problem
from headrace_chassis.identity import Principal
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_metadata.application import audit
from headrace_metadata.application.events import pipeline_event
from headrace_metadata.application.execution import CLOSE_SECONDS, Execution
from headrace_metadata.application.pipelines import lock
from headrace_metadata.domain.deletion import PURGE_OWNERS, Deletion
from headrace_metadata.errors import DeletionGoesOn
from headrace_metadata.store import deletions as store
from headrace_metadata.store import pipelines
from headrace_metadata.store.deletions import Attempt
from headrace_metadata.store.scope import Scope

_log = structlog.get_logger(__name__)

QUIET = timedelta(seconds=CLOSE_SECONDS + 30)
"""How long nobody must have worked at a deletion before it counts as abandoned: longer than any attempt
takes."""


class PipelineDeletion:
    """Carries deletions out. `wake` is called when there are new events to publish."""

    def __init__(self, db: Database, execution: Execution, wake: Callable[[], None]) -> None:
        self._db = db
        self._execution = execution
        self._wake = wake

    async def delete(
        self, principal: Principal, pipeline_id: UUID, *, force: bool, expected_version: int | None
    ) -> None:
        """Deletes a pipeline; returns when it is gone.

        Raises:
            NotFound: there is no such pipeline for the caller.
            VersionMismatch: it is no longer at the version that the caller has seen.
            HeadraceError: PIPELINE_HAS_LIVE_RUNS, and nothing has changed.
            DeletionGoesOn: execution was away or too slow; the deletion is carried on without the caller.
        """

        async def begin(conn: AsyncConnection) -> Attempt:
            pipeline = await lock(conn, principal, pipeline_id, expected_version, closing_too=True)
            if not pipeline.closing:
                await outbox.append(conn, [pipeline_event("deleting", pipeline)])
            attempt = await store.begin(conn, principal.tenant, pipeline_id, force, principal.acts_as)
            if not pipeline.closing:
                await audit.pipeline_was(conn, principal, "deleting", pipeline)
            return attempt

        attempt = await self._db.run(begin)
        self._wake()
        await self.carry_on(attempt)

    async def carry_on(self, attempt: Attempt) -> None:
        """Does what is left of a deletion, see `delete`."""
        try:
            await self._execution.close_pipeline(
                attempt.tenant,
                attempt.on_behalf_of,
                attempt.pipeline_id,
                attempt=attempt.number,
                force=attempt.force,
            )
        except HeadraceError as error:
            if error.reason == reasons_pb2.REASON_PIPELINE_HAS_LIVE_RUNS:
                await self._db.run(lambda conn: store.give_up(conn, attempt))
                raise
            # Whether execution has closed the pipeline is not known, so there is no way back.
            _log.warning(
                "a pipeline could not be closed; its deletion is carried on later",
                pipeline_id=str(attempt.pipeline_id),
                reason=error.code,
            )
            raise DeletionGoesOn(attempt.pipeline_id, error.retry_after or 5.0) from error
        await self._db.run(lambda conn: self._finish(conn, attempt))
        self._wake()

    async def take_abandoned(self, quiet: timedelta, limit: int) -> list[Attempt]:
        """Takes over deletions that nobody has worked at for a while."""

        async def take(conn: AsyncConnection) -> list[Attempt]:
            return list(await store.take_abandoned(conn, quiet, limit))

        return await self._db.run(take)

    async def _finish(self, conn: AsyncConnection, attempt: Attempt) -> None:
        pipeline = await pipelines.get(conn, Scope(attempt.tenant), attempt.pipeline_id)
        if pipeline is not None and await store.finish(conn, attempt):
            await outbox.append(conn, [pipeline_event("deleted", pipeline)])
            await audit.pipeline_was_deleted(conn, pipeline, attempt.on_behalf_of)


async def acknowledge_purge(conn: AsyncConnection, tenant: UUID, pipeline_id: UUID, owner: str) -> None:
    """Notes that an owner has purged what it kept of a deleted pipeline. Repeating it is harmless.

    Raises:
        InvalidRequest: no such owner is expected, or the pipeline is not deleted.
    """
    if owner not in PURGE_OWNERS:
        expected = ", ".join(sorted(PURGE_OWNERS))
        raise InvalidRequest([Problem("INVALID_VALUE", "owner", f"must be one of {expected}")])
    standing = await store.standing(conn, tenant, pipeline_id)
    if standing is None:
        return
    if standing is not Deletion.DELETED:
        raise InvalidRequest([Problem("NOT_DELETED", "pipelineId", "the pipeline is not deleted")])
    await store.acknowledge(conn, pipeline_id, owner)
