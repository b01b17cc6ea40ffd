"""WebSockets as the contracts declare them: one for each server-streaming RPC with a `websocket` rule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from headrace.common.v1 import options_pb2

from .contract import Contract, owner
from .routes import USERS, ContractError, Route, require_scalar
from .templates import Template, parse_template

_INTEGERS = frozenset(
    {
        FieldDescriptor.TYPE_INT32,
        FieldDescriptor.TYPE_INT64,
        FieldDescriptor.TYPE_UINT32,
        FieldDescriptor.TYPE_UINT64,
    }
)


@dataclass(frozen=True, slots=True)
class SocketRoute:
    """How one RPC is called over a WebSocket. `route` is that of its opening request, a GET."""

    route: Route
    operation_id: str
    revision_field: str
    ticket_rpc: MethodDescriptor | None
    """What redeems one-time tickets, where the WebSocket takes any."""


def sockets_of(contract: Contract) -> tuple[SocketRoute, ...]:
    """Returns the WebSockets of all services, in the order of the contract.

    Raises ContractError for one that cannot be served, and TemplateError for a malformed path.
    """
    rpcs = {rpc.full_name: rpc for service in contract.services for rpc in service.methods}
    return tuple(
        _socket(rpc, rules, rpcs)
        for service in contract.services
        for rpc in service.methods
        if (rules := rpc.GetOptions().Extensions[options_pb2.method]).HasField("websocket")
    )


def sockets_of_owners(sockets: Iterable[SocketRoute], owners: Iterable[str]) -> tuple[SocketRoute, ...]:
    """Returns those of RPCs that these processes serve."""
    served = frozenset(owners)
    return tuple(socket for socket in sockets if socket.route.owner in served)


def _socket(
    rpc: MethodDescriptor, rules: options_pb2.MethodRules, rpcs: Mapping[str, MethodDescriptor]
) -> SocketRoute:
    process = owner(rpc.containing_service)
    if process is None:
        raise ContractError(rpc, "its package is not headrace.<service>.v<number>")
    if rules.role not in USERS:
        raise ContractError(rpc, "it is a WebSocket although no user may call it")
    if rpc.client_streaming or not rpc.server_streaming:
        raise ContractError(rpc, "a WebSocket takes one request and answers with a stream")
    declared = rules.websocket
    revision = rpc.output_type.fields_by_name.get(declared.revision_field)
    if revision is None or revision.is_repeated or revision.type not in _INTEGERS:
        message = f"{declared.revision_field!r} is no integer field of {rpc.output_type.full_name}"
        raise ContractError(rpc, message)
    template = parse_template(declared.path)
    for name in template.fields:
        require_scalar(rpc, rpc.input_type, name)
    route = Route(
        http_method="GET",
        template=template,
        rpc=rpc,
        owner=process,
        body="",
        role=rules.role,
        success_status=101,
        location=None,
        etag_field="",
        if_match_field="",
        no_effect=True,
        deadline_seconds=rules.max_deadline_seconds,
        request_headers=(),
        media_types=(),
    )
    ticket_rpc = _ticket_rpc(rpc, declared.ticket_rpc, template, rpcs) if declared.ticket_rpc else None
    return SocketRoute(
        route, declared.operation_id or route.operation_id, declared.revision_field, ticket_rpc
    )


def _ticket_rpc(
    rpc: MethodDescriptor, name: str, template: Template, rpcs: Mapping[str, MethodDescriptor]
) -> MethodDescriptor:
    found = rpcs.get(name)
    if found is None or owner(found.containing_service) != owner(rpc.containing_service):
        raise ContractError(rpc, f"its ticket_rpc {name!r} is no RPC of its process")
    if found.GetOptions().Extensions[options_pb2.method].role != options_pb2.ROLE_ANYONE:
        raise ContractError(rpc, f"its ticket_rpc {name!r} needs a token: declare ROLE_ANYONE")
    for field in (*template.fields, "ticket"):
        require_scalar(found, found.input_type, field)
    require_scalar(found, found.output_type, "token")
    return found
