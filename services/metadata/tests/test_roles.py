"""Which role each RPC of users takes: the least one that the contract names, and no less."""

from typing import Any

import grpc
import pytest
from headrace.common.v1 import options_pb2, reasons_pb2
from headrace.metadata.v1 import (
    api_keys_pb2,
    audit_pb2,
    connections_pb2,
    lineage_pb2,
    pipelines_pb2,
    templates_pb2,
    workspaces_pb2,
)
from headrace_chassis.channels import call_metadata
from headrace_chassis.errors import from_rpc_error
from headrace_chassis.ids import uuid7

from .support import NOOP, Service

ID = str(uuid7())
_ROLES = {
    "viewer": options_pb2.ROLE_VIEWER,
    "editor": options_pb2.ROLE_EDITOR,
    "admin": options_pb2.ROLE_ADMIN,
}

# A sound request of each RPC; what it asks for need not exist, since a role is checked before.
REQUESTS: dict[str, dict[str, Any]] = {
    "ListWorkspaces": {},
    "CreateWorkspace": {"slug": "roles"},
    "GetWorkspace": {"id": ID},
    "UpdateWorkspace": {"id": ID},
    "ListPipelines": {},
    "CreatePipeline": {"name": "roles", "yaml_definition": NOOP},
    "ValidatePipeline": {"yaml_definition": NOOP},
    "GetPipeline": {"id": ID},
    "UpdatePipeline": {"id": ID},
    "DeletePipeline": {"id": ID},
    "DuplicatePipeline": {"id": ID},
    "ListPipelineVersions": {"id": ID},
    "GetPipelineVersion": {"id": ID, "version": 1},
    "GetPipelineLineage": {"id": ID},
    "ListAuditEvents": {},
    "ListTemplates": {},
    "GetTemplate": {"industry": "retail", "name": "daily_sales"},
    "CreatePipelineFromTemplate": {"industry": "retail", "name": "daily_sales", "pipeline_name": "roles 2"},
    "ListConnections": {},
    "CreateConnection": {"name": "roles", "type": connections_pb2.CONNECTION_TYPE_FILE, "path": "/d"},
    "GetConnection": {"id": ID},
    "UpdateConnection": {"id": ID},
    "DeleteConnection": {"id": ID},
    "TestConnection": {"id": ID},
    "ListConnectionTables": {"id": ID},
    "ListApiKeys": {},
    "CreateApiKey": {"name": "roles", "role": api_keys_pb2.API_KEY_ROLE_VIEWER},
    "RevokeApiKey": {"id": ID},
}
RPCS = {
    method.name: (file, method)
    for file, name in (
        (workspaces_pb2, "WorkspaceService"),
        (pipelines_pb2, "PipelineService"),
        (connections_pb2, "ConnectionService"),
        (api_keys_pb2, "ApiKeyService"),
        (audit_pb2, "AuditService"),
        (lineage_pb2, "LineageService"),
        (templates_pb2, "TemplateService"),
    )
    for method in file.DESCRIPTOR.services_by_name[name].methods
    if method.GetOptions().Extensions[options_pb2.method].role != options_pb2.ROLE_ANYONE
}


def test_every_rpc_of_users_is_tried() -> None:
    assert REQUESTS.keys() == RPCS.keys()


@pytest.mark.parametrize("rpc", RPCS)
async def test_each_role_may_call_exactly_what_the_contract_says(service: Service, rpc: str) -> None:
    file, method = RPCS[rpc]
    least = method.GetOptions().Extensions[options_pb2.method].role
    stub = {
        workspaces_pb2: service.workspaces,
        pipelines_pb2: service.pipelines,
        connections_pb2: service.connections,
        api_keys_pb2: service.api_keys,
        audit_pb2: service.audit,
        lineage_pb2: service.lineage,
        templates_pb2: service.templates,
    }[file]
    request = getattr(file, method.input_type.name)(**REQUESTS[rpc])
    callers = {role: service.user(role) for role in _ROLES}
    callers["worker"] = call_metadata(service.authority.worker())
    for role, metadata in callers.items():
        reason = None
        try:
            await getattr(stub, rpc)(request, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            reason = from_rpc_error(error).reason
        allowed = _ROLES.get(role, -1) >= least
        assert (reason != reasons_pb2.REASON_ROLE_REQUIRED) == allowed, role


async def test_without_a_token_nothing_answers(service: Service) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await service.pipelines.ListPipelines(pipelines_pb2.ListPipelinesRequest())
    assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
