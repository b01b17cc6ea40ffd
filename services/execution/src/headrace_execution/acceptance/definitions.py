"""Reads definitions from metadata, many at once, and never an older one than when the request arrived."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias
from uuid import UUID

import grpc
from headrace.metadata.v1 import definitions_pb2, definitions_pb2_grpc
from headrace_chassis.channels import service_metadata
from headrace_chassis.errors import HeadraceError, NotFound, from_rpc_error
from headrace_chassis.identity import ServiceTokens

from headrace_execution.batching import Batcher

LARGEST = 500
PAUSE_SECONDS = 0.008
CROWDED_PAUSE_SECONDS = 0.016
"""Between two calls. What was read together is accepted together, so that this is the beat of acceptance."""
TIMEOUT_SECONDS = 10.0


class KnownTexts(Protocol):
    """Which texts need not be sent again."""

    def known_version(self, pipeline: UUID) -> int | None:
        """The version of a pipeline whose text is at hand."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A pipeline whose latest definition somebody wants."""

    tenant: UUID
    pipeline: UUID
    on_behalf_of: str
    with_text: bool = False
    """Whether the text must be sent whatever is known."""
    connections: frozenset[str] = frozenset()
    """Names and ids of connections whose types are wanted beside those that the definition refers to."""


_Call: TypeAlias = tuple[UUID, frozenset[str]]
"""What the wishes of one call to metadata share: the tenant and the further connections."""


def _call(wish: Wanted) -> _Call:
    return wish.tenant, wish.connections


class DefinitionReader:
    """Gathers the wishes that arrive while a call is under way into the next calls: one a tenant, and one
    for each set of further connections."""

    def __init__(
        self,
        stub: "definitions_pb2_grpc.DefinitionServiceAsyncStub",
        tokens: ServiceTokens,
        known: KnownTexts,
    ) -> None:
        self._stub = stub
        self._tokens = tokens
        self._known = known
        self._batcher: Batcher[Wanted, definitions_pb2.Definition] = Batcher(
            self._read, largest=LARGEST, pause=PAUSE_SECONDS, crowded_pause=CROWDED_PAUSE_SECONDS
        )

    async def read(self, wanted: Wanted) -> definitions_pb2.Definition:
        """The latest definition; its text is empty where it is known.

        Raises:
            NotFound: when the tenant has no such pipeline.
            Unavailable: when metadata is away.
        """
        return await self._batcher.submit(wanted)

    async def _read(self, wishes: Sequence[Wanted]) -> list[definitions_pb2.Definition | Exception]:
        calls: dict[_Call, list[Wanted]] = defaultdict(list)
        for wish in wishes:
            calls[_call(wish)].append(wish)
        found: dict[tuple[_Call, UUID], definitions_pb2.Definition] = {}
        failed: dict[_Call, HeadraceError] = {}
        for call, theirs in calls.items():
            try:
                for definition in await self._ask(call, theirs):
                    found[call, UUID(definition.pipeline_id)] = definition
            except grpc.RpcError as error:
                failed[call] = from_rpc_error(error)
        return [
            failed.get(_call(wish))
            or found.get((_call(wish), wish.pipeline))
            or NotFound("pipeline", wish.pipeline)
            for wish in wishes
        ]

    async def _ask(self, call: _Call, wishes: Sequence[Wanted]) -> list[definitions_pb2.Definition]:
        tenant, connections = call
        pipelines = dict.fromkeys(wish.pipeline for wish in wishes)
        in_full = {wish.pipeline for wish in wishes if wish.with_text}
        known = [
            f"{pipeline}@{version}"
            for pipeline in pipelines
            if pipeline not in in_full and (version := self._known.known_version(pipeline)) is not None
        ]
        request = definitions_pb2.BatchGetDefinitionsRequest(
            pipeline_ids=[str(pipeline) for pipeline in pipelines],
            known=known,
            connections=sorted(connections),
        )
        metadata = service_metadata(self._tokens, tenant, wishes[0].on_behalf_of)
        answer = await self._stub.BatchGetDefinitions(request, metadata=metadata, timeout=TIMEOUT_SECONDS)
        return list(answer.definitions)
