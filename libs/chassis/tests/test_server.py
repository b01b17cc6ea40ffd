"""Calls through a real server with all interceptors."""

import uuid
from typing import Any

import grpc
import pytest
from headrace.metadata.v1 import workspaces_pb2, workspaces_pb2_grpc
from headrace_chassis import call_context, errors, idempotency
from headrace_chassis.channels import call_metadata
from headrace_chassis.errors import from_rpc_error
from headrace_chassis.identity import current_principal
from headrace_chassis.testing.authority import Authority
from headrace_chassis.testing.serving import serve

from .servicers import Workspaces, workspaces

WORKSPACE = str(uuid.UUID(int=7))


async def refusal(call: Any) -> errors.HeadraceError:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return from_rpc_error(failed.value)


async def test_a_call_knows_its_caller_request_id_and_key(authority: Authority) -> None:
    seen: dict[str, Any] = {}

    async def look(_: Any) -> Any:
        seen["subject"] = current_principal().subject
        seen["request_id"] = call_context.current_request_id()
        seen["key"] = idempotency.current_key()
        seen["remaining"] = call_context.remaining_seconds()
        return workspaces_pb2.Workspace()

    async with serve(authority, [workspaces(Workspaces(look))]) as served:
        stub = workspaces_pb2_grpc.WorkspaceServiceStub(served.channel)
        metadata = (
            *call_metadata(authority.user("admin", subject="ada"), idempotency_key="k-1"),
            ("x-request-id", "r-1"),
        )
        await stub.CreateWorkspace(
            workspaces_pb2.CreateWorkspaceRequest(slug="a", name="A"), metadata=metadata
        )
    assert (seen["subject"], seen["request_id"]) == ("ada", "r-1")
    assert seen["key"].key == "k-1"
    assert 0 < seen["remaining"] <= 30
