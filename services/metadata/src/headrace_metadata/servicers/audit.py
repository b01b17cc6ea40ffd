"""AuditService."""

from headrace.metadata.v1 import audit_pb2 as pb
from headrace.metadata.v1 import audit_pb2_grpc
from headrace_chassis.database import Database
from headrace_chassis.identity import current_principal
from headrace_chassis.messages import optional_id
from headrace_chassis.pages import Pages
from headrace_chassis.paging import Cursors

from headrace_metadata.application import workspaces
from headrace_metadata.convert import audit as convert
from headrace_metadata.domain.audit import AuditEvent
from headrace_metadata.servicers import Context
from headrace_metadata.store import audit as store


class AuditServicer(audit_pb2_grpc.AuditServiceServicer):
    """Serves the audit trail."""

    def __init__(self, db: Database, cursors: Cursors) -> None:
        self._db = db
        self._pages = Pages[AuditEvent](cursors, "audit", (int,), lambda event: (event.sequence,))

    async def ListAuditEvents(
        self, request: pb.ListAuditEventsRequest, context: Context
    ) -> pb.ListAuditEventsResponse:
        principal = current_principal()
        limit, after = self._pages.begin(request)
        before = int(after[0]) if after is not None else None  # type: ignore[arg-type]
        filters = convert.filters(request)
        async with self._db.read() as conn:
            scope = await workspaces.listed(conn, principal, optional_id(request.workspace_id))
            found = await store.page(conn, scope, filters, before, limit + 1)
            total = await store.count(conn, scope, filters) if request.include_total else None
        items, meta = self._pages.end(found, limit, total)
        return pb.ListAuditEventsResponse(data=map(convert.event_message, items), meta=meta)
