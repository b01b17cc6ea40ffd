"""What happens to dependencies in one transaction."""

from collections.abc import Sequence
from uuid import UUID

from headrace.scheduler.v1 import dependency_events_pb2
from headrace_chassis import outbox
from headrace_chassis.errors import InvalidRequest, NotFound, Problem
from headrace_chassis.identity import Principal
from headrace_chassis.ids import uuid7
from headrace_chassis.outbox import NewEvent
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_scheduler.application.metadata import Found
from headrace_scheduler.application.schedules import Clock
from headrace_scheduler.domain.dependencies import Dependency, DependencyType
from headrace_scheduler.errors import (
    CrossWorkspaceDependency,
    DependencyCycle,
    DependencyExists,
    TooManyDependencies,
)
from headrace_scheduler.store import dependencies as store
from headrace_scheduler.store import held_ticks, pipelines
from headrace_scheduler.store.scope import scope_of

MOST_OF_A_PIPELINE = 100
"""On how many pipelines one may depend directly, and how many may depend on it."""


class DependencyWriter:
    """Adds, removes and releases dependencies."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def add(
        self,
        conn: AsyncConnection,
        principal: Principal,
        upstream: Found,
        downstream: Found,
        kind: DependencyType,
    ) -> Dependency:
        """Adds a dependency.

        Raises:
            CrossWorkspaceDependency, DependencyCycle, DependencyExists, NotFound, TooManyDependencies.
        """
        if upstream.pipeline.workspace_id != downstream.pipeline.workspace_id:
            raise CrossWorkspaceDependency
        await store.lock_workspace(conn, upstream.pipeline.workspace_id)
        for found in sorted((upstream, downstream), key=lambda each: each.pipeline.id):
            if (await pipelines.note(conn, found.pipeline)).is_deleted:
                raise NotFound("pipeline", found.pipeline.id)
        above, below = upstream.pipeline.id, downstream.pipeline.id
        way = await store.path(conn, below, above)
        if way is not None:
            raise DependencyCycle([*way, below])
        if max(await store.counts(conn, above, below)) >= MOST_OF_A_PIPELINE:
            raise TooManyDependencies(MOST_OF_A_PIPELINE)
        new = Dependency(
            id=uuid7(),
            tenant=principal.tenant,
            workspace_id=upstream.pipeline.workspace_id,
            upstream=above,
            downstream=below,
            type=kind,
            created_at=await self._clock(conn),
            created_by=principal.acts_as,
        )
        if not await store.add(conn, new):
            raise DependencyExists(above, below)
        await outbox.append(conn, [_event("added", new)])
        return new

    async def remove(self, conn: AsyncConnection, principal: Principal, dependency_id: UUID) -> None:
        """Removes a dependency; ticks that waited for it are looked at again.

        Raises:
            NotFound: there is none for the caller.
        """
        removed = await store.remove(conn, scope_of(principal), dependency_id)
        if removed is None:
            raise NotFound("dependency", dependency_id)
        await held_ticks.look_again(conn, [removed.downstream])
        await outbox.append(conn, [_event("removed", removed)])


async def release(conn: AsyncConnection, pipeline_id: UUID) -> None:
    """Removes the dependencies of a pipeline that is deleted, and tells of each pipeline that depended on it.
    Its dependents' ticks are looked at again."""
    removed = await store.remove_all_of(conn, pipeline_id)
    released = [each for each in removed if each.upstream == pipeline_id]
    await held_ticks.look_again(conn, [each.downstream for each in released])
    await outbox.append(conn, _events(removed, pipeline_id))


def demand_two(upstream: UUID, downstream: UUID) -> None:
    """Raises InvalidRequest where a pipeline is to depend on itself."""
    if upstream == downstream:
        message = "a pipeline cannot depend on itself"
        raise InvalidRequest([Problem("DEPENDS_ON_ITSELF", "downstreamPipelineId", message)])


def _events(removed: Sequence[Dependency], deleted: UUID) -> list[NewEvent]:
    return [_event("released" if each.upstream == deleted else "removed", each) for each in removed]


def _event(what: str, dependency: Dependency) -> NewEvent:
    payload = dependency_events_pb2.DependencyEvent(
        dependency_id=str(dependency.id),
        upstream_pipeline_id=str(dependency.upstream),
        downstream_pipeline_id=str(dependency.downstream),
        workspace_id=str(dependency.workspace_id),
    )
    return NewEvent(
        type=f"io.headrace.dependency.{what}.v1",
        tenant=dependency.tenant,
        subject=str(dependency.downstream),
        data=payload.SerializeToString(),
    )
