"""A metadata service in process, with execution as a servicer of its own beside it."""

import asyncio
import base64
import json
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import grpc
import pytest
from headrace.common.v1 import event_log_pb2, event_log_pb2_grpc, reasons_pb2
from headrace.execution.v1 import internal_pb2
from headrace.metadata.v1 import (
    api_keys_pb2_grpc,
    audit_pb2_grpc,
    connections_pb2_grpc,
    definitions_pb2_grpc,
    lineage_pb2_grpc,
    pipelines_pb2,
    pipelines_pb2_grpc,
    templates_pb2_grpc,
    workspaces_pb2_grpc,
)
from headrace_chassis.channels import Metadata, call_metadata
from headrace_chassis.database import driver
from headrace_chassis.errors import HeadraceError, from_rpc_error
from headrace_chassis.identity import current_principal
from headrace_chassis.ids import uuid7
from headrace_chassis.service import Foundation
from headrace_chassis.testing.authority import Authority
from headrace_metadata.wiring import Parts

NOOP = "sources:\n  - {id: noop, values: [{x: 1}]}\nsinks:\n  - {discard: true, input: noop}\n"


def keyring_json(active: str, *key_ids: str) -> str:
    """A keyring whose keys follow from their ids."""
    keys = {name: base64.b64encode(name.encode().ljust(32, b".")).decode() for name in key_ids}
    return json.dumps({"active": active, "keys": keys})


class ExecutionStandIn:
    """Execution as metadata sees it: pipelines with live runs, answers of workers, and a log of events."""

    def __init__(self) -> None:
        self.live: dict[str, list[str]] = {}
        self.closed: list[tuple[str, bool]] = []
        self.failure: HeadraceError | None = None
        self.answer: dict[str, Any] | bytes = {}
        self.probes: list[internal_pb2.ProbeRequest] = []
        self.callers: list[tuple[str, UUID, str | None]] = []
        self.events: list[event_log_pb2.Event] = []
        self.entered = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def ClosePipeline(
        self, request: internal_pb2.ClosePipelineRequest, context: Any
    ) -> internal_pb2.ClosePipelineResponse:
        self._note_caller()
        self.entered.set()
        await self.go_on.wait()
        if self.failure is not None:
            raise self.failure
        live = self.live.get(request.pipeline_id, [])
        if live and not request.force:
            raise HeadraceError(
                f"the pipeline has live runs: {', '.join(live)}",
                reason=reasons_pb2.REASON_PIPELINE_HAS_LIVE_RUNS,
            )
        self.closed.append((request.pipeline_id, request.force))
        return internal_pb2.ClosePipelineResponse()

    async def StartRuns(
        self, request: internal_pb2.StartRunsRequest, context: Any
    ) -> internal_pb2.StartRunsResponse:
        raise AssertionError("metadata starts no runs")

    async def GetStarts(
        self, request: internal_pb2.GetStartsRequest, context: Any
    ) -> internal_pb2.GetStartsResponse:
        raise AssertionError("metadata starts no runs")

    async def CancelRuns(
        self, request: internal_pb2.CancelRunsRequest, context: Any
    ) -> internal_pb2.CancelRunsResponse:
        raise AssertionError("metadata cancels no runs")

    async def Probe(self, request: internal_pb2.ProbeRequest, context: Any) -> internal_pb2.ProbeResponse:
        self._note_caller()
        self.probes.append(request)
        if self.failure is not None:
            raise self.failure
        answer = self.answer if isinstance(self.answer, bytes) else json.dumps(self.answer).encode()
        return internal_pb2.ProbeResponse(answer=answer)

    async def ListEvents(
        self, request: event_log_pb2.ListEventsRequest, context: Any
    ) -> event_log_pb2.ListEventsResponse:
        events = [event for event in self.events if event.position > request.after]
        last = events[-1].position if events else request.after
        return event_log_pb2.ListEventsResponse(events=events, next_after=last, oldest=1)

    def _note_caller(self) -> None:
        principal = current_principal()
        self.callers.append((principal.subject, principal.tenant, principal.on_behalf_of))


@dataclass
class Service:
    """The service under test, with a tenant of this test's own."""

    base: Foundation
    parts: Parts
    execution: ExecutionStandIn
    authority: Authority
    channel: grpc.aio.Channel
    tenant: UUID = field(default_factory=uuid7)

    def __post_init__(self) -> None:
        self.workspaces: Any = workspaces_pb2_grpc.WorkspaceServiceStub(self.channel)
        self.pipelines: Any = pipelines_pb2_grpc.PipelineServiceStub(self.channel)
        self.connections: Any = connections_pb2_grpc.ConnectionServiceStub(self.channel)
        self.definitions: Any = definitions_pb2_grpc.DefinitionServiceStub(self.channel)
        self.api_keys: Any = api_keys_pb2_grpc.ApiKeyServiceStub(self.channel)
        self.lineage: Any = lineage_pb2_grpc.LineageServiceStub(self.channel)
        self.templates: Any = templates_pb2_grpc.TemplateServiceStub(self.channel)
        self.audit: Any = audit_pb2_grpc.AuditServiceStub(self.channel)
        self.log: Any = event_log_pb2_grpc.EventLogServiceStub(self.channel)

    def user(self, role: str = "editor", *, key: str | None = None, **claims: Any) -> Metadata:
        """The metadata of a user of the tenant, or of the tenant in `claims`."""
        token = self.authority.user(role, **{"tenant": self.tenant, **claims})
        return call_metadata(token, idempotency_key=key)

    def service(self, name: str = "execution") -> Metadata:
        """The metadata of another service that acts for the tenant."""
        return call_metadata(self.authority.service(name, tenant=self.tenant))

    async def create(self, name: str = "flights", text: str = NOOP, **fields: Any) -> pipelines_pb2.Pipeline:
        """A pipeline of the tenant."""
        request = pipelines_pb2.CreatePipelineRequest(name=name, yaml_definition=text, **fields)
        created: pipelines_pb2.Pipeline = await self.pipelines.CreatePipeline(request, metadata=self.user())
        return created

    async def events(self) -> list[event_log_pb2.Event]:
        """The events of the tenant, in their order, as another service reads them."""
        sequencer = self.base.relay.agents[0]
        while await sequencer.run_once():
            pass
        events: list[event_log_pb2.Event] = []
        after = 0
        while True:
            page = await self.log.ListEvents(
                event_log_pb2.ListEventsRequest(after=after), metadata=self.service()
            )
            if page.next_after == after:
                return [event for event in events if event.tenant == str(self.tenant)]
            events += page.events
            after = page.next_after

    async def rows(self, sql: str, *values: Any) -> list[Any]:
        """Rows straight from the database."""
        async with self.base.db.read() as conn:
            return list(await driver(conn).fetch(sql, *values))


def away() -> HeadraceError:
    """What execution raises while it is away, where nobody repeats the call."""
    return HeadraceError("away", reason=reasons_pb2.REASON_UNAVAILABLE, may_repeat=False)


async def failure(call: Any) -> HeadraceError:
    """The error that a call ends with; fails where it succeeds."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return from_rpc_error(raised.value)
