"""DefinitionService."""

from collections.abc import Iterable, Iterator
from uuid import UUID

from headrace.metadata.v1 import definitions_pb2 as pb
from headrace.metadata.v1 import definitions_pb2_grpc
from headrace_chassis.database import Database
from headrace_chassis.errors import InvalidRequest, Problem
from headrace_chassis.identity import current_principal
from headrace_chassis.writes import Writes
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_metadata.application.deletion import acknowledge_purge
from headrace_metadata.application.places import describe
from headrace_metadata.application.resolution import resolve
from headrace_metadata.convert.connections import resolved_message
from headrace_metadata.convert.lineage import described_message
from headrace_metadata.convert.pipelines import definition_message
from headrace_metadata.convert.workspaces import workspace_message
from headrace_metadata.keyring import Keyring
from headrace_metadata.servicers import Context
from headrace_metadata.store import pipelines as store
from headrace_metadata.store import workspaces


class DefinitionServicer(definitions_pb2_grpc.DefinitionServiceServicer):
    """Serves definitions and connections to other services."""

    def __init__(self, db: Database, writes: Writes, keyring: Keyring) -> None:
        self._db = db
        self._writes = writes
        self._keyring = keyring

    async def BatchGetDefinitions(
        self, request: pb.BatchGetDefinitionsRequest, context: Context
    ) -> pb.BatchGetDefinitionsResponse:
        tenant = current_principal().tenant
        ids = {UUID(identity) for identity in request.pipeline_ids}
        known = list(_known(request.known))
        async with self._db.read() as conn:
            found = await store.latest(conn, tenant, ids, known, set(request.connections))
        return pb.BatchGetDefinitionsResponse(
            definitions=[
                definition_message(each.workspace_id, each.version, each.connections) for each in found
            ]
        )

    async def ResolveConnections(
        self, request: pb.ResolveConnectionsRequest, context: Context
    ) -> pb.ResolveConnectionsResponse:
        tenant = current_principal().tenant
        async with self._db.read() as conn:
            resolved = await resolve(
                conn, self._keyring, tenant, UUID(request.workspace_id), request.connections
            )
        return pb.ResolveConnectionsResponse(
            connections=[resolved_message(each.reference, each.connection, each.secret) for each in resolved]
        )

    async def BatchDescribePipelines(
        self, request: pb.BatchDescribePipelinesRequest, context: Context
    ) -> pb.BatchDescribePipelinesResponse:
        tenant = current_principal().tenant
        wanted = {UUID(each.pipeline_id): each.connections for each in request.pipelines}
        async with self._db.read() as conn:
            found = await describe(conn, tenant, wanted)
        return pb.BatchDescribePipelinesResponse(pipelines=map(described_message, found))

    async def BatchGetWorkspaces(
        self, request: pb.BatchGetWorkspacesRequest, context: Context
    ) -> pb.BatchGetWorkspacesResponse:
        tenant = current_principal().tenant
        async with self._db.read() as conn:
            found = await workspaces.among(conn, tenant, {UUID(identity) for identity in request.ids})
        return pb.BatchGetWorkspacesResponse(workspaces=map(workspace_message, found))

    async def AcknowledgePurge(
        self, request: pb.AcknowledgePurgeRequest, context: Context
    ) -> pb.AcknowledgePurgeResponse:
        principal = current_principal()

        async def apply(conn: AsyncConnection) -> pb.AcknowledgePurgeResponse:
            await acknowledge_purge(conn, principal.tenant, UUID(request.pipeline_id), request.owner)
            return pb.AcknowledgePurgeResponse()

        return await self._writes.plain(apply)


def _known(pairs: Iterable[str]) -> Iterator[tuple[UUID, int]]:
    for index, pair in enumerate(pairs):
        identity, _, version = pair.partition("@")
        try:
            yield UUID(identity), int(version)
        except ValueError:
            raise InvalidRequest(
                [Problem("INVALID_VALUE", f"known[{index}]", 'must read "<pipeline id>@<version>"')]
            ) from None
