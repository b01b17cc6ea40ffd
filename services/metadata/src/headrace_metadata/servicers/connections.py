"""ConnectionService."""

from uuid import UUID

from google.protobuf.empty_pb2 import Empty
from headrace.metadata.v1 import connections_pb2 as pb
from headrace.metadata.v1 import connections_pb2_grpc
from headrace_chassis.database import Database
from headrace_chassis.errors import InvalidCursor, NotFound
from headrace_chassis.identity import Principal, current_principal
from headrace_chassis.ids import uuid7
from headrace_chassis.messages import optional_id
from headrace_chassis.pages import Pages
from headrace_chassis.paging import Cursors
from headrace_chassis.writes import Writes
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_metadata.application import workspaces
from headrace_metadata.application.connections import ConnectionWriter
from headrace_metadata.application.probes import ConnectionProbes
from headrace_metadata.convert import connections as convert
from headrace_metadata.domain.connections import Connection
from headrace_metadata.domain.names import normalise_name
from headrace_metadata.servicers import Context
from headrace_metadata.store import connections as store
from headrace_metadata.store.searching import reading


class ConnectionServicer(connections_pb2_grpc.ConnectionServiceServicer):
    """Serves connections."""

    def __init__(
        self,
        db: Database,
        writes: Writes,
        writer: ConnectionWriter,
        probes: ConnectionProbes,
        cursors: Cursors,
    ) -> None:
        self._db = db
        self._writes = writes
        self._writer = writer
        self._probes = probes
        self._cursors = cursors
        self._pages = Pages[Connection](
            cursors, "connections", (str, UUID), lambda connection: (connection.name, connection.id)
        )

    async def ListConnections(
        self, request: pb.ListConnectionsRequest, context: Context
    ) -> pb.ListConnectionsResponse:
        principal = current_principal()
        limit, after = self._pages.begin(request, request.offset)
        place = store.Place(*after) if after else None  # type: ignore[arg-type]
        filters = store.Filters(
            search=normalise_name(request.search), type=convert.connection_type_filter(request.type)
        )
        async with reading(self._db, filters.search) as conn:
            scope = await workspaces.listed(conn, principal, optional_id(request.workspace_id))
            found = await store.page(conn, scope, filters, place, request.offset, limit + 1)
            total = await store.count(conn, scope, filters) if request.include_total else None
        items, meta = self._pages.end(found, limit, total)
        return pb.ListConnectionsResponse(data=map(convert.connection_message, items), meta=meta)

    async def CreateConnection(self, request: pb.CreateConnectionRequest, context: Context) -> pb.Connection:
        principal = current_principal()

        async def apply(conn: AsyncConnection) -> pb.Connection:
            named = optional_id(request.workspace_id)
            workspace = await workspaces.chosen(conn, principal, named)
            connection = convert.new_connection(
                request, uuid7(), principal.tenant, workspace.id, principal.acts_as
            )
            secret = request.secret if request.HasField("secret") else None
            return convert.connection_message(await self._writer.create(conn, principal, connection, secret))

        return await self._writes.keyed(pb.Connection, apply)

    async def GetConnection(self, request: pb.GetConnectionRequest, context: Context) -> pb.Connection:
        return convert.connection_message(await self._get(current_principal(), request.id))

    async def UpdateConnection(self, request: pb.UpdateConnectionRequest, context: Context) -> pb.Connection:
        principal = current_principal()
        change = convert.connection_change(request)
        saved = await self._writes.plain(
            lambda conn: self._writer.update(conn, principal, UUID(request.id), change)
        )
        return convert.connection_message(saved)

    async def DeleteConnection(self, request: pb.DeleteConnectionRequest, context: Context) -> Empty:
        principal = current_principal()
        await self._writes.plain(
            lambda conn: self._writer.delete(conn, principal, UUID(request.id), force=request.force)
        )
        return Empty()

    async def TestConnection(
        self, request: pb.TestConnectionRequest, context: Context
    ) -> pb.TestConnectionResponse:
        principal = current_principal()
        connection = await self._get(principal, request.id)
        return convert.test_message(await self._probes.test(principal, connection))

    async def ListConnectionTables(
        self, request: pb.ListConnectionTablesRequest, context: Context
    ) -> pb.ListConnectionTablesResponse:
        principal = current_principal()
        connection = await self._get(principal, request.id)
        # The worker says where its page ended, so the cursor holds its word instead of an item's.
        pages = Pages[str](self._cursors, "tables", (UUID, str), lambda after: (connection.id, after))
        limit, place = pages.begin(request)
        if place is not None and place[0] != connection.id:
            raise InvalidCursor
        answer = await self._probes.tables(principal, connection, limit, str(place[1]) if place else "")
        _, meta = pages.end([answer.after] * (limit + 1) if answer.after else [], limit, None)
        return pb.ListConnectionTablesResponse(data=map(convert.table_message, answer.tables), meta=meta)

    async def _get(self, principal: Principal, connection_id: str) -> Connection:
        async with self._db.read() as conn:
            connection = await store.get(conn, workspaces.scope_of(principal), UUID(connection_id))
        if connection is None:
            raise NotFound("connection", connection_id)
        return connection
