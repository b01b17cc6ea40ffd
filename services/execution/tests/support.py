"""What the tests of execution stand on: a stand-in for metadata, replicas in process, workers with a
script.
"""

import asyncio
import json
import tempfile
import uuid
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from headrace.common.v1 import event_log_pb2
from headrace.execution.v1 import (
    internal_pb2_grpc,
    logs_pb2,
    logs_pb2_grpc,
    runs_pb2,
    runs_pb2_grpc,
    workers_pb2,
    workers_pb2_grpc,
    workflow_pb2_grpc,
)
from headrace.metadata.v1 import definitions_pb2
from headrace_chassis.agents import AgentRunner
from headrace_chassis.channels import Metadata, call_metadata, open_channel
from headrace_chassis.ids import uuid7
from headrace_chassis.service import Foundation
from headrace_chassis.testing.authority import TENANT, Authority
from headrace_chassis.testing.serving import Served, serve
from headrace_chassis.testing.stand_ins import stand_in
from headrace_chassis.testing.waiting import eventually
from headrace_execution.config import ExecutionSettings
from headrace_execution.wiring import SERVICE, Parts

WORKSPACE = UUID("01900000-0000-7000-8000-00000000000a")
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PATIENT = 20.0
"""How long a test waits for what must come, in seconds."""

NOOP = """
version: 1
sources: [{id: noop, values: [{x: 1}]}]
sinks: [{discard: true}]
"""

LOADING = """
version: 1
sources: [{id: rows, values: [{x: 1}]}]
sinks: [{id: load, input: rows, connection: warehouse, table: public.target}]
"""

TWO_STAGES = """
version: 1
sources: [{id: rows, values: [{x: 1}]}]
transformations: [{id: kept, type: filter, input: rows, condition: "x > 0", materialize: true}]
sinks: [{id: load, input: kept, connection: warehouse, table: public.target}]
"""

INCREMENTAL = """
version: 1
sources:
  - {id: rows, connection: warehouse, table: public.source, incremental: {cursor: id}}
sinks: [{id: load, input: rows, connection: warehouse, table: public.target}]
"""


BEHIND_AN_ARTIFACT = """
version: 1
sources:
  - {id: rows, connection: warehouse, table: public.source, incremental: {cursor: id}}
transformations: [{id: kept, type: filter, input: rows, condition: "x > 0", materialize: true}]
sinks: [{id: load, input: kept, connection: warehouse, table: public.target}]
"""


class MetadataStandIn:
    """Metadata as far as execution sees it."""

    def __init__(self) -> None:
        self.definitions: dict[str, definitions_pb2.Definition] = {}
        self.connections: dict[str, definitions_pb2.ResolvedConnection] = {}
        self.events: list[event_log_pb2.Event] = []
        self.acknowledged: list[str] = []
        self.asked: list[definitions_pb2.BatchGetDefinitionsRequest] = []
        self.is_away = False
        self.limits: dict[str, definitions_pb2.ConnectionLimit] = {}
        self.resolved: list[definitions_pb2.ResolveConnectionsRequest] = []
        self.allowed_variables: list[str] = []

    def add(self, text: str, *, version: int = 1, **settings: Any) -> str:
        """Stores a pipeline and returns its id."""
        pipeline = settings.pop("pipeline", None) or str(uuid.uuid4())
        values: dict[str, Any] = {"max_retries": 0, "retry_delay_seconds": 60, "timeout_seconds": 3600}
        self.definitions[pipeline] = definitions_pb2.Definition(
            pipeline_id=pipeline,
            workspace_id=str(settings.pop("workspace", WORKSPACE)),
            name="a pipeline",
            version=version,
            text=text,
            is_active=True,
            **{**values, **settings},
        )
        return pipeline

    def delete(self, pipeline: str) -> None:
        """Forgets a pipeline and tells so."""
        del self.definitions[pipeline]
        self.events.append(
            event_log_pb2.Event(
                position=len(self.events) + 1,
                id=str(uuid.uuid4()),
                type="io.headrace.pipeline.deleted.v1",
                tenant=str(TENANT),
                subject=pipeline,
            )
        )

    async def BatchGetDefinitions(self, request: Any, context: Any) -> Any:
        """The definitions that there are; texts that are known are left out."""
        self.asked.append(request)
        if self.is_away:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "metadata is away")
        answer = definitions_pb2.BatchGetDefinitionsResponse()
        for pipeline in request.pipeline_ids:
            if pipeline in self.definitions:
                found = answer.definitions.add()
                found.CopyFrom(self.definitions[pipeline])
                if f"{pipeline}@{found.version}" in request.known:
                    found.text = ""
                for word in request.connections:
                    if word in self.connections:
                        found.connection_types[word] = self.connections[word].type
                        if word in self.limits:
                            found.connection_limits[word].CopyFrom(self.limits[word])
        return answer

    async def ResolveConnections(self, request: Any, context: Any) -> Any:
        """The connections that there are."""
        self.resolved.append(request)
        found = [self.connections[name] for name in request.connections if name in self.connections]
        return definitions_pb2.ResolveConnectionsResponse(connections=found)

    async def BatchDescribePipelines(
        self, request: definitions_pb2.BatchDescribePipelinesRequest, context: Any
    ) -> definitions_pb2.BatchDescribePipelinesResponse:
        """The pipelines that there are, and where their connections lead."""
        if self.is_away:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "metadata is away")
        answer = definitions_pb2.BatchDescribePipelinesResponse()
        for wanted in request.pipelines:
            if wanted.pipeline_id not in self.definitions:
                continue
            found = answer.pipelines.add(
                pipeline_id=wanted.pipeline_id,
                slug="a-pipeline",
                name=self.definitions[wanted.pipeline_id].name,
                workspace_slug="default",
            )
            for word in wanted.connections:
                if (known := self.connections.get(word)) is not None:
                    found.connections.add(
                        reference=word,
                        id=known.id,
                        name=word,
                        type=known.type,
                        host=known.host,
                        database=known.database,
                        port=known.port or None,
                    )
        return answer

    async def BatchGetWorkspaces(
        self, request: definitions_pb2.BatchGetWorkspacesRequest, context: Any
    ) -> definitions_pb2.BatchGetWorkspacesResponse:
        """Those that are asked for: all alike."""
        answer = definitions_pb2.BatchGetWorkspacesResponse()
        for identity in request.ids:
            answer.workspaces.add(id=identity, allowed_variables=self.allowed_variables)
        return answer

    async def AcknowledgePurge(self, request: Any, context: Any) -> Any:
        """Remembers it."""
        self.acknowledged.append(request.pipeline_id)
        return definitions_pb2.AcknowledgePurgeResponse()

    async def ListEvents(self, request: Any, context: Any) -> Any:
        """The events after a position."""
        events = [event for event in self.events if event.position > request.after]
        last = events[-1].position if events else request.after
        return event_log_pb2.ListEventsResponse(events=events, next_after=last, oldest=1)


@dataclass
class Replica:
    """One execution process, in process."""

    parts: Parts
    served: Served
    runner: AgentRunner
    authority: Authority
    runs: "runs_pb2_grpc.RunServiceAsyncStub"
    internal: "internal_pb2_grpc.ExecutionInternalServiceAsyncStub"

    @property
    def logs(self) -> "logs_pb2_grpc.RunLogServiceAsyncStub":
        """The logs of runs."""
        return logs_pb2_grpc.RunLogServiceStub(self.served.channel)

    @property
    def workflow(self) -> "workflow_pb2_grpc.WorkflowServiceAsyncStub":
        """What runs wait for."""
        return workflow_pb2_grpc.WorkflowServiceStub(self.served.channel)

    @property
    def editor(self) -> Metadata:
        """An editor's credentials."""
        return call_metadata(self.authority.user("editor"))

    @property
    def service(self) -> Metadata:
        """Metadata's credentials."""
        return call_metadata(self.authority.service("metadata", tenant=TENANT, on_behalf_of="ada"))

    async def run(self, pipeline: str, **more: Any) -> runs_pb2.RunResponse:
        """Starts a run."""
        key = more.pop("key", None)
        metadata = (
            *call_metadata(self.authority.user("editor"), idempotency_key=key),
            ("traceparent", TRACEPARENT),
        )
        return await self.runs.RunPipeline(
            runs_pb2.RunPipelineRequest(id=pipeline, **more), metadata=metadata, timeout=PATIENT
        )

    async def status(self, run_id: str) -> runs_pb2.RunStatusResponse:
        """How a run stands."""
        request = runs_pb2.GetRunStatusRequest(run_id=run_id)
        return await self.runs.GetRunStatus(request, metadata=self.editor, timeout=PATIENT)

    async def cancel(
        self, run_id: str, *, timeout: float = PATIENT, **more: Any
    ) -> runs_pb2.CancelRunResponse:
        """Cancels a run."""
        request = runs_pb2.CancelRunRequest(run_id=run_id, **more)
        return await self.runs.CancelRun(request, metadata=self.editor, timeout=timeout)

    async def ended(self, run_id: str) -> runs_pb2.RunStatusResponse:
        """A run when it has reached a final state."""

        async def final() -> runs_pb2.RunStatusResponse | None:
            status = await self.status(run_id)
            return status if status.HasField("finished_at") else None

        found = await eventually(final, within=PATIENT)
        assert found is not None
        return found

    async def reaches(self, run_id: str, state: str) -> runs_pb2.RunStatusResponse:
        """A run when it has reached a state."""

        async def there() -> runs_pb2.RunStatusResponse | None:
            status = await self.status(run_id)
            return status if state_of(status) == state else None

        found = await eventually(there, within=PATIENT)
        assert found is not None
        return found

    def travel(self, seconds: float) -> None:
        """Moves this replica's view of the database's clock."""
        self.parts.store.skew += timedelta(seconds=seconds)


def state_of(status: runs_pb2.RunStatusResponse | runs_pb2.RunResponse | runs_pb2.CancelRunResponse) -> str:
    """A state by its bare name."""
    value = status.overall_status if isinstance(status, runs_pb2.RunStatusResponse) else status.status
    return runs_pb2.RunState.Name(value).removeprefix("RUN_STATE_")


def task_states(status: runs_pb2.RunStatusResponse) -> dict[str, str]:
    """The tasks' states by their bare names."""
    return {
        key: runs_pb2.TaskState.Name(value).removeprefix("TASK_STATE_")
        for key, value in status.task_statuses.items()
    }


@dataclass
class ScriptedWorker:
    """A worker that does what a test says, over the real stream."""

    worker_id: str
    call: Any
    received: "asyncio.Queue[workers_pb2.ConnectResponse]" = field(default_factory=asyncio.Queue)
    assignments: "asyncio.Queue[workers_pb2.Assignment]" = field(default_factory=asyncio.Queue)
    cancels: "asyncio.Queue[workers_pb2.CancelAssignment]" = field(default_factory=asyncio.Queue)
    acks: "asyncio.Queue[workers_pb2.AssignmentRef]" = field(default_factory=asyncio.Queue)
    log_acks: "asyncio.Queue[workers_pb2.LogAck]" = field(default_factory=asyncio.Queue)
    heartbeat_acks: "asyncio.Queue[workers_pb2.HeartbeatAck]" = field(default_factory=asyncio.Queue)
    welcome: workers_pb2.WorkerWelcome = field(default_factory=workers_pb2.WorkerWelcome)
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    reconnects: int = 0
    reader: asyncio.Task[None] | None = None

    async def read(self) -> None:
        """Sorts what comes down the stream."""
        try:
            while (message := await self.call.read()) is not grpc.aio.EOF:
                match message.WhichOneof("body"):
                    case "assignments":
                        for assignment in message.assignments.assignments:
                            self.assignments.put_nowait(assignment)
                    case "cancel":
                        self.cancels.put_nowait(message.cancel)
                    case "result_ack":
                        for ref in message.result_ack.refs:
                            self.acks.put_nowait(ref)
                    case "log_ack":
                        self.log_acks.put_nowait(message.log_ack)
                    case "heartbeat_ack":
                        self.heartbeat_acks.put_nowait(message.heartbeat_ack)
                    case "reconnect":
                        self.reconnects += 1
        except (grpc.aio.AioRpcError, asyncio.CancelledError):
            return  # the stream broke: what was sent after that is lost

    async def next_assignment(self) -> workers_pb2.Assignment:
        """The next assignment."""
        return await asyncio.wait_for(self.assignments.get(), PATIENT)

    async def next_cancel(self) -> workers_pb2.CancelAssignment:
        """The next cancel."""
        return await asyncio.wait_for(self.cancels.get(), PATIENT)

    async def next_ack(self) -> workers_pb2.AssignmentRef:
        """The next acknowledged result."""
        return await asyncio.wait_for(self.acks.get(), PATIENT)

    async def send(self, **body: Any) -> None:
        """Sends a message."""
        async with self.writing:  # gRPC takes one message at a time
            await self.call.write(workers_pb2.ConnectRequest(**body))

    async def finish(
        self, assignment: workers_pb2.Assignment, outcome: str = "COMPLETED", **more: Any
    ) -> None:
        """Reports a result."""
        if (
            outcome == "COMPLETED"
            and "tasks" not in more
            and assignment.kind == workers_pb2.ASSIGNMENT_KIND_STAGE
        ):
            stage = json.loads(assignment.payload)["stage"]
            more["tasks"] = [
                workers_pb2.TaskProgress(task=key, state=runs_pb2.TASK_STATE_COMPLETED, rows_in=1, rows_out=1)
                for key in stage["tasks"]
            ]
        result = workers_pb2.AssignmentResult(
            ref=assignment.ref, outcome=workers_pb2.Outcome.Value(f"OUTCOME_{outcome}"), **more
        )
        await self.send(result=result)

    async def log(
        self, assignment: workers_pb2.Assignment, sequence: int, *messages: str, task: str = ""
    ) -> None:
        """Logs lines."""
        lines = [
            logs_pb2.LogLine(
                time=moment(sequence * 100 + number),
                level=logs_pb2.LOG_LEVEL_INFO,
                task=task,
                attempt=assignment.attempt,
                message=message,
                fields={"number": str(number)},
            )
            for number, message in enumerate(messages)
        ]
        chunk = workers_pb2.LogChunk(
            ref=assignment.ref, attempt=assignment.attempt, sequence=sequence, lines=lines
        )
        await self.send(log=chunk)

    async def next_log_ack(self) -> workers_pb2.LogAck:
        """The next acknowledged chunk."""
        return await asyncio.wait_for(self.log_acks.get(), PATIENT)

    async def heartbeat(self, *held: workers_pb2.AssignmentRef) -> workers_pb2.HeartbeatAck:
        """Renews its leases."""
        await self.send(heartbeat=workers_pb2.Heartbeat(held=held))
        return await asyncio.wait_for(self.heartbeat_acks.get(), PATIENT)

    async def drop(self) -> None:
        """Breaks its stream, as a crash or a cut does."""
        self.call.cancel()
        if self.reader is not None:
            await self.reader


class Cluster:
    """Any number of replicas over one database, their workers, and the metadata that they ask."""

    def __init__(self, stack: AsyncExitStack, authority: Authority, database_url: str) -> None:
        self._stack = stack
        self._authority = authority
        self._database_url = database_url
        self.metadata = MetadataStandIn()
        self._metadata_target = ""
        self.artifacts = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hr-artifacts-")))

    async def start(self) -> None:
        """Serves metadata's stand-in."""
        self._authority.service_key_file("execution")
        self._authority.service_key_file("metadata")
        self._authority.worker_key_file("worker-1")
        served = await self._stack.enter_async_context(
            serve(
                self._authority,
                [
                    stand_in(definitions_pb2.DESCRIPTOR.services_by_name["DefinitionService"], self.metadata),
                    stand_in(event_log_pb2.DESCRIPTOR.services_by_name["EventLogService"], self.metadata),
                ],
            )
        )
        self._metadata_target = served.target

    async def replica(
        self, *, nats_url: str | None = None, without: Collection[str] = (), **settings: Any
    ) -> Replica:
        """Starts a replica, `without` some agents that the test runs by itself."""
        settings.setdefault("artifacts_url", f"file://{self.artifacts}")
        configured = ExecutionSettings(
            **self._authority.service_values("execution", self._database_url),
            metadata_target=self._metadata_target,
            nats_url=nats_url,
            **settings,
        )
        base = Foundation(SERVICE, configured, self._stack)
        channel = open_channel(self._metadata_target, own_connection=True)
        self._stack.push_async_callback(channel.close)
        parts = Parts(configured, base, channel)
        await base.bus.start()
        agents = [agent for agent in parts.agents() if agent.name not in without]
        runner = AgentRunner([*base.relay.agents, *agents])
        self._stack.push_async_callback(runner.stop)
        await runner.start()
        served = await self._stack.enter_async_context(serve(self._authority, parts.services()))
        self._stack.push_async_callback(parts.workers.drain)
        return Replica(
            parts,
            served,
            runner,
            self._authority,
            runs_pb2_grpc.RunServiceStub(served.channel),
            internal_pb2_grpc.ExecutionInternalServiceStub(served.channel),
        )

    async def worker(
        self,
        replica: Replica,
        *,
        slots: int = 4,
        worker_id: str | None = None,
        held: tuple[workers_pb2.AssignmentRef, ...] = (),
        name: str = "worker-1",
    ) -> ScriptedWorker:
        """Connects a worker; returns when it was welcomed."""
        stub = workers_pb2_grpc.WorkerServiceStub(replica.served.channel)
        call: Any = stub.Connect(metadata=call_metadata(self._authority.worker(name)))
        worker = ScriptedWorker(worker_id or str(uuid7()), call)
        hello = workers_pb2.WorkerHello(
            worker_id=worker.worker_id,
            name=name,
            slots=slots,
            engines=[runs_pb2.ENGINE_JDBC],
            held=held,
        )
        await worker.send(hello=hello)
        first = await call.read()
        worker.welcome = first.welcome
        worker.reader = asyncio.create_task(worker.read())
        self._stack.push_async_callback(worker.drop)
        return worker


@asynccontextmanager
async def cluster(authority: Authority, database_url: str) -> AsyncIterator[Cluster]:
    """A cluster without replicas yet."""
    async with AsyncExitStack() as stack:
        made = Cluster(stack, authority, database_url)
        await made.start()
        yield made


def moment(milliseconds: int) -> Timestamp:
    """So long after the beginning of 2099: later than anything that execution itself writes."""
    value = Timestamp(seconds=4_070_908_800)
    value.FromMilliseconds(value.ToMilliseconds() + milliseconds)
    return value


def failure(code: str, kind: str, message: str = "it did not work", **details: str) -> runs_pb2.TaskError:
    """An error as workers report it."""
    values: Mapping[str, Any] = {"class": runs_pb2.ErrorClass.Value(f"ERROR_CLASS_{kind}")}
    return runs_pb2.TaskError(code=code, message=message, details=details, **values)


def receipt(fence: int, sink: str = "load", rows: int = 1, **more: Any) -> workers_pb2.Receipt:
    """A receipt as workers report it."""
    return workers_pb2.Receipt(sink=sink, fence=fence, rows=rows, checksum="c", **more)
