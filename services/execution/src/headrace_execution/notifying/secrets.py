"""The secrets that notifications name, asked of metadata when they are needed and not kept."""

from uuid import UUID

import grpc
from headrace.metadata.v1 import definitions_pb2, definitions_pb2_grpc
from headrace_chassis.channels import service_metadata
from headrace_chassis.identity import ServiceTokens
from headrace_definition.notifying import secret_name

TIMEOUT_SECONDS = 10.0
TYPE = "secret"  # the connections that hold nothing else; others' secrets are for their systems


class SecretUnavailable(Exception):  # noqa: N818 - it names what is the case
    """A secret cannot be had; `needs_change` where somebody must change something first."""

    def __init__(self, message: str, *, needs_change: bool) -> None:
        super().__init__(message)
        self.needs_change = needs_change


class Secrets:
    """Resolves `${secrets.name}`."""

    def __init__(
        self, metadata: "definitions_pb2_grpc.DefinitionServiceAsyncStub", tokens: ServiceTokens
    ) -> None:
        self._metadata = metadata
        self._tokens = tokens

    async def value(self, tenant: UUID, workspace: UUID, text: str) -> str:
        """A text as it is, or the secret that all of it refers to.

        Raises:
            SecretUnavailable: there is none, or metadata is away.
        """
        name = secret_name(text)
        if name is None:
            return text
        request = definitions_pb2.ResolveConnectionsRequest(workspace_id=str(workspace), connections=[name])
        try:
            answer = await self._metadata.ResolveConnections(
                request, metadata=service_metadata(self._tokens, tenant), timeout=TIMEOUT_SECONDS
            )
        except grpc.aio.AioRpcError as error:
            message = f"its secret {name} could not be asked for ({error.code().name})"
            raise SecretUnavailable(message, needs_change=False) from None
        return _secret(name, answer)


def _secret(name: str, answer: definitions_pb2.ResolveConnectionsResponse) -> str:
    for connection in answer.connections:
        if connection.type != TYPE:
            told = (
                f"connection {name} is of type {connection.type.upper()}; a secret of type SECRET is expected"
            )
            raise SecretUnavailable(told, needs_change=True)
        if connection.secret_ref:
            told = f"secret {name} is a reference, which only workers resolve; store its value instead"
            raise SecretUnavailable(told, needs_change=True)
        return connection.secret
    raise SecretUnavailable(f"the workspace has no secret {name}", needs_change=True)
