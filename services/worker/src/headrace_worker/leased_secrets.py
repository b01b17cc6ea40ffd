"""The connections of an assignment with their secrets: asked for under its lease, kept by nobody here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc
from headrace.common.v1 import reasons_pb2
from headrace.execution.v1 import workers_pb2, workers_pb2_grpc
from headrace_chassis.errors import HeadraceError, from_rpc_error

from headrace_worker.engine.failure import CONFIGURATION, TRANSIENT, Failure
from headrace_worker.secret_references import SecretReferences, SecretUnavailable

_ATTEMPT_SECONDS = 10.0
_TRIES = 5
_PAUSE_SECONDS = 0.5
_WORTH_ANOTHER_TRY = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.ABORTED}
)


class LeasedSecrets:
    """Resolves an assignment's connections by the server, and then what they only refer to
    (`SecretSource`).
    """

    def __init__(
        self,
        stub: workers_pb2_grpc.WorkerServiceAsyncStub,
        worker_id: str,
        references: SecretReferences,
        metadata: Callable[[], tuple[tuple[str, str], ...]],
    ) -> None:
        self._stub = stub
        self._worker_id = worker_id
        self._references = references
        self._metadata = metadata

    async def connections(
        self, ref: workers_pb2.AssignmentRef
    ) -> workers_pb2.ResolveSecretsResponse | Failure | None:
        """The connections with their secrets, why there are none, or None where the lease is lost."""
        request = workers_pb2.ResolveSecretsRequest(worker_id=self._worker_id, ref=ref)
        for left in reversed(range(_TRIES)):
            try:
                response = await self._stub.ResolveSecrets(
                    request, timeout=_ATTEMPT_SECONDS, metadata=self._metadata()
                )
            except grpc.aio.AioRpcError as error:
                if error.code() in _WORTH_ANOTHER_TRY and left:
                    await asyncio.sleep(_PAUSE_SECONDS)
                    continue
                return _refusal(from_rpc_error(error))
            return self._with_references(response)
        raise AssertionError("unreachable: the last try returns")

    def _with_references(
        self, response: workers_pb2.ResolveSecretsResponse
    ) -> workers_pb2.ResolveSecretsResponse | Failure:
        for connection in response.connections:
            if not connection.secret_ref:
                continue
            try:
                connection.secret = self._references.resolve(connection.secret_ref)
            except SecretUnavailable as error:
                why = f"connection {connection.name!r}: {error}"
                return Failure("SECRET_UNAVAILABLE", CONFIGURATION, why, {"connection": connection.name})
            connection.ClearField("secret_ref")
        return response


def _refusal(error: HeadraceError) -> Failure | None:
    if error.reason == reasons_pb2.REASON_LEASE_LOST:
        return None
    why = f"the connections of the stage could not be resolved: {error.message}"
    return Failure("SECRETS_NOT_RESOLVED", TRANSIENT, why)
