"""AlertService."""

from datetime import datetime
from uuid import UUID

import grpc
from headrace.execution.v1 import alerts_pb2, alerts_pb2_grpc
from headrace_chassis.errors import NotFound, WorkspaceForbidden
from headrace_chassis.identity import Principal, current_principal
from headrace_chassis.messages import optional_id
from headrace_chassis.pages import Pages
from headrace_chassis.paging import Cursors
from headrace_chassis.writes import Writes
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_execution import alert_convert
from headrace_execution.domain.alerts import (
    Alert,
    AlertChanged,
    AlertEvent,
    AlertResolved,
    acknowledge,
)
from headrace_execution.errors import AlertAlreadyResolved
from headrace_execution.remarks import check_remark
from headrace_execution.servicers.places import place_of
from headrace_execution.store.alerts_port import AlertFilter
from headrace_execution.store.port import Tx
from headrace_execution.store.sql import SqlStore

Context = grpc.aio.ServicerContext[object, object]


class AlertServicer(alerts_pb2_grpc.AlertServiceServicer):
    """Shows alerts and takes them on."""

    def __init__(self, store: SqlStore, writes: Writes, cursors: Cursors) -> None:
        self._store = store
        self._writes = writes
        self._pages: Pages[Alert] = Pages(
            cursors, "alerts", (datetime, UUID), lambda it: (it.opened_at, it.id)
        )

    async def ListAlerts(
        self, request: alerts_pb2.ListAlertsRequest, context: Context
    ) -> alerts_pb2.ListAlertsResponse:
        """See the contract."""
        narrow = _narrowed(current_principal(), request)
        limit, before = self._pages.begin(request, request.offset)
        after = place_of(before)

        async def read(tx: Tx) -> tuple[list[Alert], int | None]:
            found = await tx.alerts.page(narrow, limit=limit + 1, offset=request.offset, after=after)
            return found, await tx.alerts.count(narrow) if request.include_total else None

        found, total = await self._store.run(read)
        page, meta = self._pages.end(found, limit, total)
        return alerts_pb2.ListAlertsResponse(data=map(alert_convert.alert_message, page), meta=meta)

    async def AcknowledgeAlert(
        self, request: alerts_pb2.AcknowledgeAlertRequest, context: Context
    ) -> alerts_pb2.Alert:
        """See the contract."""
        principal = current_principal()
        note = request.note if request.HasField("note") else None
        check_remark("note", note)

        async def apply(conn: AsyncConnection) -> alerts_pb2.Alert:
            tx = await self._store.join(conn)
            alert = await tx.alerts.lock_one(principal.tenant, UUID(request.id))
            if alert is None or not principal.may_use(alert.workspace):
                raise NotFound("alert", request.id)
            try:
                after = acknowledge(alert, principal.acts_as, note, tx.now)
            except AlertResolved:
                raise AlertAlreadyResolved(alert.id) from None
            if after is not alert:
                await tx.alerts.save([after])
                await tx.alerts.tell([AlertChanged(AlertEvent.ACKNOWLEDGED, after)])
            return alert_convert.alert_message(after)

        return await self._writes.keyed(alerts_pb2.Alert, apply)


def _narrowed(principal: Principal, request: alerts_pb2.ListAlertsRequest) -> AlertFilter:
    workspaces = principal.workspaces
    if request.workspace_id:
        workspace = UUID(request.workspace_id)
        if not principal.may_use(workspace):
            raise WorkspaceForbidden(workspace)
        workspaces = frozenset({workspace})
    return AlertFilter(
        tenant=principal.tenant,
        workspaces=workspaces,
        pipeline=optional_id(request.pipeline_id),
        state=alert_convert.state_of(request.status),
        severity=alert_convert.severity_of(request.severity),
        rule=alert_convert.rule_of(request.rule),
    )
