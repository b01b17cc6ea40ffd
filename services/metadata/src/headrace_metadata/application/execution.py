"""What metadata asks of execution: to close pipelines that go, and to probe connections from a worker."""

import json
from typing import Any, Literal
from uuid import UUID

import grpc
from headrace.execution.v1 import internal_pb2, internal_pb2_grpc
from headrace_chassis.channels import failure_of, service_metadata
from headrace_chassis.errors import Unavailable
from headrace_chassis.identity import ServiceTokens

CLOSE_SECONDS = 60.0
"""The longest that execution takes to cancel the runs of a pipeline."""

PROBE_SECONDS = 60.0

_KINDS = {"TEST": internal_pb2.PROBE_KIND_TEST, "TABLES": internal_pb2.PROBE_KIND_TABLES}


class UnsoundAnswer(Unavailable):
    """What a worker answered to a probe is not what the contract says."""

    def __init__(self) -> None:
        super().__init__("a worker with a sound answer")


class Execution:
    """The execution service, called with tokens of our own.

    Every method raises the HeadraceError that execution raised, and Unavailable while it is away.
    """

    def __init__(self, channel: grpc.aio.Channel, tokens: ServiceTokens) -> None:
        self._stub = internal_pb2_grpc.ExecutionInternalServiceStub(channel)
        self._tokens = tokens

    async def close_pipeline(
        self, tenant: UUID, on_behalf_of: str, pipeline_id: UUID, *, attempt: int, force: bool
    ) -> None:
        """Closes a pipeline for new runs; `attempt` counts the attempts to delete it.

        Raises:
            HeadraceError: with PIPELINE_HAS_LIVE_RUNS, naming them; the pipeline is as open as before.
        """
        request = internal_pb2.ClosePipelineRequest(
            pipeline_id=str(pipeline_id), force=force, attempt=attempt
        )
        metadata = service_metadata(self._tokens, tenant, on_behalf_of)
        try:
            await self._stub.ClosePipeline(request, metadata=metadata, timeout=CLOSE_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise failure_of(error) from None

    async def probe(
        self,
        kind: Literal["TEST", "TABLES"],
        tenant: UUID,
        on_behalf_of: str,
        workspace_id: UUID,
        connection_id: UUID,
        *,
        limit: int = 0,
        after: str = "",
    ) -> dict[str, Any]:
        """The answer of a worker to a probe, as the JSON object that the contract describes.

        Raises:
            Unavailable: also where the answer is no such object; another worker may give one.
        """
        request = internal_pb2.ProbeRequest(
            kind=_KINDS[kind],
            workspace_id=str(workspace_id),
            connection_id=str(connection_id),
            limit=limit,
            after=after,
        )
        metadata = service_metadata(self._tokens, tenant, on_behalf_of)
        try:
            response = await self._stub.Probe(request, metadata=metadata, timeout=PROBE_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise failure_of(error) from None
        return _object(response.answer)


def _object(answer: bytes) -> dict[str, Any]:
    try:
        read = json.loads(answer)
    except (ValueError, RecursionError):
        raise UnsoundAnswer from None
    if not isinstance(read, dict) or not read:
        raise UnsoundAnswer
    return read
