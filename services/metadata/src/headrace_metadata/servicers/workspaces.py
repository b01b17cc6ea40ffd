"""WorkspaceService."""

from uuid import UUID

from headrace.metadata.v1 import workspaces_pb2 as pb
from headrace.metadata.v1 import workspaces_pb2_grpc
from headrace_chassis import outbox
from headrace_chassis.database import Database
from headrace_chassis.errors import InvalidRequest, NameTaken, NotFound, Problem
from headrace_chassis.identity import current_principal
from headrace_chassis.ids import uuid7
from headrace_chassis.pages import Pages
from headrace_chassis.paging import Cursors
from headrace_chassis.writes import Writes
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_metadata.application import audit
from headrace_metadata.application.events import workspace_event
from headrace_metadata.application.workspaces import ensure_default, scope_of
from headrace_metadata.convert import workspaces as convert
from headrace_metadata.domain.names import name_flaw
from headrace_metadata.domain.workspaces import Workspace
from headrace_metadata.servicers import Context
from headrace_metadata.store import workspaces as store


class WorkspaceServicer(workspaces_pb2_grpc.WorkspaceServiceServicer):
    """Serves workspaces."""

    def __init__(self, db: Database, writes: Writes, cursors: Cursors) -> None:
        self._db = db
        self._writes = writes
        self._pages = Pages[Workspace](cursors, "workspaces", (str,), lambda workspace: (workspace.slug,))

    async def ListWorkspaces(
        self, request: pb.ListWorkspacesRequest, context: Context
    ) -> pb.ListWorkspacesResponse:
        principal = current_principal()
        limit, after = self._pages.begin(request)
        scope = scope_of(principal)
        async with self._db.transaction() as conn:
            await ensure_default(conn, principal.tenant)
            found = await store.page(conn, scope, str(after[0]) if after else None, limit + 1)
            total = await store.count(conn, scope) if request.include_total else None
        items, meta = self._pages.end(found, limit, total)
        return pb.ListWorkspacesResponse(data=map(convert.workspace_message, items), meta=meta)

    async def CreateWorkspace(self, request: pb.CreateWorkspaceRequest, context: Context) -> pb.Workspace:
        principal = current_principal()
        workspace = convert.new_workspace(request, uuid7(), principal.tenant)
        _check(workspace)

        async def apply(conn: AsyncConnection) -> pb.Workspace:
            await ensure_default(conn, principal.tenant)
            added = await store.add(conn, workspace)
            if added is None:
                raise NameTaken("workspace", workspace.slug)
            await outbox.append(conn, [workspace_event("created", added)])
            await audit.workspace_was(conn, principal, "created", added)
            return convert.workspace_message(added)

        return await self._writes.keyed(pb.Workspace, apply)

    async def GetWorkspace(self, request: pb.GetWorkspaceRequest, context: Context) -> pb.Workspace:
        async with self._db.read() as conn:
            found = await store.get(conn, scope_of(current_principal()), UUID(request.id))
        if found is None:
            raise NotFound("workspace", request.id)
        return convert.workspace_message(found)

    async def UpdateWorkspace(self, request: pb.UpdateWorkspaceRequest, context: Context) -> pb.Workspace:
        principal = current_principal()
        scope = scope_of(principal)
        change = convert.workspace_change(request)

        async def apply(conn: AsyncConnection) -> pb.Workspace:
            before = await store.lock(conn, scope, UUID(request.id))
            if before is None:
                raise NotFound("workspace", request.id)
            after = change.after(before)
            _check(after)
            if after == before:
                return convert.workspace_message(before)
            saved = await store.save(conn, after)
            await outbox.append(conn, [workspace_event("updated", saved)])
            await audit.workspace_was(conn, principal, "updated", saved, before)
            return convert.workspace_message(saved)

        return await self._writes.plain(apply)


def _check(workspace: Workspace) -> None:
    if flaw := name_flaw(workspace.name):
        raise InvalidRequest([Problem("INVALID_NAME", "name", flaw)])
