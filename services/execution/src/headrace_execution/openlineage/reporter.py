"""Makes messages of run events, and hands them to the endpoint."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol
from uuid import UUID

import grpc
from headrace.common.v1 import event_log_pb2
from headrace.metadata.v1 import definitions_pb2, definitions_pb2_grpc
from headrace_chassis.channels import failure_of, service_metadata
from headrace_chassis.forwarder import Receiver
from headrace_chassis.identity import ServiceTokens
from headrace_definition.datasets import ConnectionPlace

from headrace_execution.acceptance.sized_cache import SizedCache
from headrace_execution.domain.changes import EventKind
from headrace_execution.domain.run import Run
from headrace_execution.openlineage import events as told
from headrace_execution.openlineage.events import Described
from headrace_execution.openlineage.facets import Json
from headrace_execution.openlineage.plans import TracedPlan, connections, found_columns, trace
from headrace_execution.store.port import Store

TENANT_FIELD = "{tenant}"
"""What stands for the tenant's id in the namespace of jobs."""

_ENDS = (EventKind.COMPLETED, EventKind.FAILED, EventKind.CANCELLED)
_TIMEOUT_SECONDS = 10.0
_MOST_CONNECTIONS = 2000
_CACHE_BYTES = 32 * 1024 * 1024


class Endpoint(Protocol):
    """Where OpenLineage events go."""

    async def send(self, message: bytes) -> None:
        """Hands an event over. Raises ReceiverAway and EventRefused."""


class LineageReporter(Receiver):
    """Tells runs in OpenLineage's words: what the definition says of their data when they start, and what was
    read, landed and found when they end. A run whose pipeline is gone for good is not told any more.
    """

    types = tuple(f"io.headrace.run.{kind}.v1" for kind in (EventKind.STARTED, *_ENDS))

    def __init__(
        self,
        store: Store,
        metadata: "definitions_pb2_grpc.DefinitionServiceAsyncStub",
        tokens: ServiceTokens,
        endpoint: Endpoint,
        namespace: str,
    ) -> None:
        self._store = store
        self._metadata = metadata
        self._tokens = tokens
        self._endpoint = endpoint
        self._namespace = namespace
        self._traced: SizedCache[tuple[bytes, int], TracedPlan] = SizedCache(_CACHE_BYTES)

    async def prepare(self, events: Sequence[event_log_pb2.Event]) -> list[list[bytes]]:
        """See Receiver."""
        runs: dict[str, Run] = {}
        for event in events:
            if event.subject not in runs:
                run = await self._store.get(UUID(event.tenant), UUID(event.subject))
                if run is not None:
                    runs[event.subject] = run
        described = await self._describe(runs.values())
        prepared: list[list[bytes]] = []
        for event in events:
            found = runs.get(event.subject)
            known = described.get(found.pipeline) if found is not None else None
            if found is None or known is None:
                prepared.append([])
                continue
            messages = await self._tell(event.type, found, known)
            prepared.append([json.dumps(each, separators=(",", ":")).encode() for each in messages])
        return prepared

    async def send(self, message: bytes) -> None:
        """See Receiver."""
        await self._endpoint.send(message)

    async def _tell(self, kind: str, run: Run, known: Described) -> list[Json]:
        if kind == self.types[0]:
            return [told.start(run, await self._trace(run, {}), known)]
        found = {task: tuple(name for name, _ in columns) for task, columns in found_columns(run).items()}
        traced = await self._trace(run, found)
        end = told.end(run, traced, known)
        return [end] if run.started_at is not None else [told.start(run, traced, known), end]

    async def _trace(self, run: Run, found: Mapping[str, tuple[str, ...]]) -> TracedPlan:
        key = (run.recipe.digest, hash(tuple(sorted(found.items()))))
        traced = self._traced.get(key)
        if traced is None:
            # In a thread: analysing a long definition takes a second, and the loop serves others meanwhile.
            traced = await asyncio.to_thread(trace, run.recipe, found)
            self._traced.put(key, traced, sum(len(stage.payload) for stage in run.recipe.stages))
        return traced

    async def _describe(self, runs: Iterable[Run]) -> dict[UUID, Described]:
        """The pipelines of runs, as far as they exist. Raises HeadraceError where metadata is away."""
        wanted: dict[UUID, dict[UUID, set[str]]] = defaultdict(lambda: defaultdict(set))
        for run in runs:
            wanted[run.tenant][run.pipeline].update(connections(run.recipe))
        described: dict[UUID, Described] = {}
        for tenant, pipelines in wanted.items():
            request = definitions_pb2.BatchDescribePipelinesRequest(
                pipelines=[
                    definitions_pb2.PipelineConnections(
                        pipeline_id=str(pipeline), connections=sorted(words)[:_MOST_CONNECTIONS]
                    )
                    for pipeline, words in pipelines.items()
                ]
            )
            try:
                answer = await self._metadata.BatchDescribePipelines(
                    request, metadata=service_metadata(self._tokens, tenant), timeout=_TIMEOUT_SECONDS
                )
            except grpc.aio.AioRpcError as error:
                raise failure_of(error) from error
            namespace = self._namespace.replace(TENANT_FIELD, str(tenant))
            for pipeline in answer.pipelines:
                described[UUID(pipeline.pipeline_id)] = _described(pipeline, namespace)
        return described


def _described(pipeline: definitions_pb2.DescribedPipeline, namespace: str) -> Described:
    places = {
        place.reference: ConnectionPlace(
            id=place.id,
            name=place.name,
            type=place.type,
            host=place.host if place.HasField("host") else None,
            port=place.port if place.HasField("port") else None,
            database=place.database if place.HasField("database") else None,
            path=place.path if place.HasField("path") else None,
            default_schema=place.default_schema if place.HasField("default_schema") else None,
        )
        for place in pipeline.connections
    }
    return Described(namespace, f"{pipeline.workspace_slug}.{pipeline.slug}", places)
