"""Servicers of real contracts that tests put behind a server."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from headrace.execution.v1 import workers_pb2
from headrace.metadata.v1 import api_keys_pb2, workspaces_pb2
from headrace_chassis.server import Service
from headrace_chassis.testing.stand_ins import stand_in

Behaviour = Callable[[Any], Awaitable[Any]]


class Workspaces:
    """Answers what a test tells it to; keeps the last request."""

    def __init__(self, behaviour: Behaviour | None = None) -> None:
        self.behaviour = behaviour
        self.requests: list[Any] = []

    async def _answer(self, request: Any, otherwise: Any) -> Any:
        self.requests.append(request)
        return await self.behaviour(request) if self.behaviour is not None else otherwise

    async def ListWorkspaces(self, request: Any, context: Any) -> Any:
        return await self._answer(request, workspaces_pb2.ListWorkspacesResponse())

    async def CreateWorkspace(self, request: Any, context: Any) -> Any:
        return await self._answer(request, workspaces_pb2.Workspace(name=request.name))

    async def GetWorkspace(self, request: Any, context: Any) -> Any:
        return await self._answer(request, workspaces_pb2.Workspace(id=request.id))

    async def UpdateWorkspace(self, request: Any, context: Any) -> Any:
        return await self._answer(request, workspaces_pb2.Workspace())


class Workers:
    """Echoes each heartbeat of the stream."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    async def Connect(self, request_iterator: Any, context: Any) -> AsyncIterator[Any]:
        try:
            async for _ in request_iterator:
                yield workers_pb2.ConnectResponse(heartbeat_ack=workers_pb2.HeartbeatAck())
        finally:
            self.ended.set()

    async def ResolveSecrets(self, request: Any, context: Any) -> Any:
        return workers_pb2.ResolveSecretsResponse()


class ApiKeys:
    """Has one RPC that anybody may call, and others."""

    async def ListApiKeys(self, request: Any, context: Any) -> Any:
        return api_keys_pb2.ListApiKeysResponse()

    async def CreateApiKey(self, request: Any, context: Any) -> Any:
        return api_keys_pb2.ApiKey()

    async def ExchangeApiKey(self, request: Any, context: Any) -> Any:
        return api_keys_pb2.ExchangeApiKeyResponse(token="t")


def api_keys() -> Service:
    return stand_in(api_keys_pb2.DESCRIPTOR.services_by_name["ApiKeyService"], ApiKeys())


def workspaces(implementation: Workspaces) -> Service:
    return stand_in(workspaces_pb2.DESCRIPTOR.services_by_name["WorkspaceService"], implementation)


def workers(implementation: Workers) -> Service:
    return stand_in(workers_pb2.DESCRIPTOR.services_by_name["WorkerService"], implementation)
