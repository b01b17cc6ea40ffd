"""What the scheduler asks of metadata."""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from uuid import UUID

import grpc
from headrace.metadata.v1 import (
    definitions_pb2,
    definitions_pb2_grpc,
    pipelines_pb2,
    pipelines_pb2_grpc,
    workspaces_pb2,
    workspaces_pb2_grpc,
)
from headrace_chassis.channels import call_metadata, failure_of, service_metadata
from headrace_chassis.identity import Principal, ServiceTokens

from headrace_scheduler.domain.schedules import Workspace
from headrace_scheduler.store.pipelines import Pipeline

OWNER = "scheduler"

_AT_ONCE = 16
"""How many pipelines are asked for at a time."""


@dataclass(frozen=True)
class Found:
    """A pipeline that the caller may use, its workspace, and since when that is as it is."""

    pipeline: Pipeline
    workspace: Workspace
    workspace_as_of: datetime


class Metadata:
    """The metadata service. Every method raises the HeadraceError that metadata raised, and Unavailable while
    it is away."""

    def __init__(self, channel: grpc.aio.Channel, tokens: ServiceTokens) -> None:
        self._pipelines = pipelines_pb2_grpc.PipelineServiceStub(channel)
        self._workspaces = workspaces_pb2_grpc.WorkspaceServiceStub(channel)
        self._definitions = definitions_pb2_grpc.DefinitionServiceStub(channel)
        self._tokens = tokens

    async def pipeline(self, principal: Principal, pipeline_id: UUID) -> Found:
        """A pipeline as its user sees it, asked with the user's own token.

        Raises:
            NotFound: there is none for that user.
        """
        token = call_metadata(principal.token)
        try:
            pipeline = await self._pipelines.GetPipeline(
                pipelines_pb2.GetPipelineRequest(id=str(pipeline_id)), metadata=token
            )
            workspace = await self._workspaces.GetWorkspace(
                workspaces_pb2.GetWorkspaceRequest(id=pipeline.workspace_id), metadata=token
            )
        except grpc.aio.AioRpcError as error:
            raise failure_of(error) from None
        found = Pipeline(
            id=UUID(pipeline.id),
            tenant=principal.tenant,
            workspace_id=UUID(pipeline.workspace_id),
            version=pipeline.version,
            is_active=pipeline.is_active,
        )
        return Found(
            found, _workspace(principal.tenant, workspace), workspace.updated_at.ToDatetime(tzinfo=UTC)
        )

    async def look(
        self, principal: Principal, pipeline_ids: Collection[UUID]
    ) -> Sequence[pipelines_pb2.Pipeline]:
        """Those of some pipelines that the user may see, asked with the user's own token."""
        token = call_metadata(principal.token)
        few = asyncio.Semaphore(_AT_ONCE)

        async def one(pipeline_id: UUID) -> pipelines_pb2.Pipeline | None:
            async with few:
                try:
                    request = pipelines_pb2.GetPipelineRequest(id=str(pipeline_id))
                    return await self._pipelines.GetPipeline(request, metadata=token)
                except grpc.aio.AioRpcError as error:
                    told = failure_of(error)
                    if told.code == "NOT_FOUND":
                        return None
                    raise told from None

        found = await asyncio.gather(*(one(pipeline_id) for pipeline_id in sorted(pipeline_ids)))
        return [pipeline for pipeline in found if pipeline is not None]

    async def acknowledge_purge(self, tenant: UUID, pipeline_id: UUID) -> None:
        """Tells that nothing is left of a deleted pipeline."""
        request = definitions_pb2.AcknowledgePurgeRequest(pipeline_id=str(pipeline_id), owner=OWNER)
        try:
            await self._definitions.AcknowledgePurge(request, metadata=service_metadata(self._tokens, tenant))
        except grpc.aio.AioRpcError as error:
            raise failure_of(error) from None


def _workspace(tenant: UUID, told: workspaces_pb2.Workspace) -> Workspace:
    return Workspace(
        id=UUID(told.id),
        tenant=tenant,
        timezone=told.timezone,
        country=told.country if told.HasField("country") else None,
        subdivision=told.subdivision if told.HasField("subdivision") else None,
        holidays=tuple(date.fromisoformat(day) for day in told.holidays),
    )
