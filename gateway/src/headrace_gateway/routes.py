"""Routes as the contracts declare them: one for each google.api.http binding of an RPC that users may
call."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from google.api import annotations_pb2, http_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor
from headrace.common.v1 import options_pb2

from .contract import Contract, owner
from .templates import Template, parse_template

USERS: Final = frozenset({options_pb2.ROLE_VIEWER, options_pb2.ROLE_EDITOR, options_pb2.ROLE_ADMIN})
"""The roles of users: what others may call has no path."""

_VERBS: Final = ("get", "put", "post", "delete", "patch")
_EMPTY: Final = "google.protobuf.Empty"
_NO_CONTENT: Final = 204
_RAW: Final = "google.api.HttpBody"
_HEADER: Final = re.compile(r"[a-z][a-z0-9-]*")
_KEPT: Final = frozenset({"authorization", "cookie", "connection", "host"})
"""Headers that never travel on by declaration: the token has its own way."""


class ContractError(Exception):
    """A contract declares a route that cannot be served as it stands."""

    def __init__(self, rpc: MethodDescriptor, problem: str) -> None:
        super().__init__(f"{rpc.full_name}: {problem}")


@dataclass(frozen=True, slots=True)
class Route:
    """How one RPC is called over HTTP.

    `body` is "" (the RPC takes none), "*" (all fields that the path leaves) or the name of one field. `owner`
    is the process that serves the RPC. `deadline_seconds` is 0 where the usual deadline holds.
    `request_headers` are the lower-case names of headers that travel on as metadata; `media_types` are those
    of a streamed body. `stream` is the RPC that answers instead where the field `stream_field` of the request
    is true.
    """

    http_method: str
    template: Template
    rpc: MethodDescriptor
    owner: str
    body: str
    role: options_pb2.Role.ValueType
    success_status: int
    location: Template | None
    etag_field: str
    if_match_field: str
    no_effect: bool
    deadline_seconds: int
    request_headers: tuple[str, ...]
    media_types: tuple[str, ...]
    stream: Route | None = None
    stream_field: str = ""

    @property
    def operation_id(self) -> str:
        """The RPC's name in lower camel case."""
        return self.rpc.name[0].lower() + self.rpc.name[1:]

    @property
    def grpc_path(self) -> str:
        """The path of the RPC's HTTP/2 request."""
        return grpc_path(self.rpc)

    @property
    def answers_nothing(self) -> bool:
        """The answer has no content: its status does not allow any (RFC 9110, 15.3.5), or the response is
        empty."""
        return self.success_status == _NO_CONTENT or self.rpc.output_type.full_name == _EMPTY

    @property
    def is_streamed(self) -> bool:
        """The answer is a stream: of raw bytes, or of one JSON text a line."""
        return self.rpc.server_streaming

    @property
    def answers_bytes(self) -> bool:
        """The answer is a stream of raw bytes."""
        return self.is_streamed and self.rpc.output_type.full_name == _RAW

    @property
    def query_allowed(self) -> bool:
        """Fields that neither path nor body give may be given in the query."""
        return self.body != "*"


def grpc_path(rpc: MethodDescriptor) -> str:
    """Returns the path of an RPC's HTTP/2 request."""
    return f"/{rpc.containing_service.full_name}/{rpc.name}"


def routes_of(contract: Contract) -> tuple[Route, ...]:
    """Returns the routes of all services, in the order of the contract.

    Raises ContractError for a binding that cannot be served, and TemplateError for a malformed path.
    """
    return tuple(route for service in contract.services for route in _routes_of_service(service))


def _routes_of_service(service: ServiceDescriptor) -> Iterator[Route]:
    for rpc in service.methods:
        if rpc.GetOptions().HasExtension(annotations_pb2.http):
            rule = rpc.GetOptions().Extensions[annotations_pb2.http]
            for binding in (rule, *rule.additional_bindings):
                yield _route(rpc, binding)


def _route(rpc: MethodDescriptor, rule: http_pb2.HttpRule) -> Route:
    rules: options_pb2.MethodRules = rpc.GetOptions().Extensions[options_pb2.method]
    process = owner(rpc.containing_service)
    if process is None:
        raise ContractError(rpc, "its package is not headrace.<service>.v<number>")
    if rules.role not in USERS:
        raise ContractError(
            rpc, "it has a path although no user may call it; drop the path or declare a user's role"
        )
    _require_servable(rpc, rules)
    if rule.response_body:
        raise ContractError(rpc, "response_body is not served; let the RPC return what the answer is to be")
    method, path = _verb(rpc, rule)
    template = parse_template(path)
    for name in template.fields:
        require_scalar(rpc, rpc.input_type, name)
    if rule.body and rule.body != "*" and rule.body not in rpc.input_type.fields_by_name:
        raise ContractError(
            rpc, f"its body is {rule.body!r}, which is no field of {rpc.input_type.full_name}"
        )
    location = parse_template(rules.location) if rules.location else None
    for name in location.fields if location else ():
        require_scalar(rpc, rpc.output_type, name)
    for name, message in ((rules.etag_field, rpc.output_type), (rules.if_match_field, rpc.input_type)):
        if name:
            require_scalar(rpc, message, name)
    route = Route(
        http_method=method,
        template=template,
        rpc=rpc,
        owner=process,
        body=rule.body,
        role=rules.role,
        success_status=rules.success_status or (_NO_CONTENT if rpc.output_type.full_name == _EMPTY else 200),
        location=location,
        etag_field=rules.etag_field,
        if_match_field=rules.if_match_field,
        no_effect=rules.no_effect,
        deadline_seconds=rules.max_deadline_seconds,
        request_headers=tuple(rules.request_headers),
        media_types=tuple(rules.media_types),
    )
    if not rules.stream_rpc:
        return route
    stream = replace(route, rpc=_other_answer(rpc, rules), location=None, etag_field="", if_match_field="")
    return replace(route, stream=stream, stream_field=rules.stream_field)


def _other_answer(rpc: MethodDescriptor, rules: options_pb2.MethodRules) -> MethodDescriptor:
    """Returns the RPC that streams what another one answers at once. Raises ContractError."""
    found = rpc.containing_service.methods_by_name.get(rules.stream_rpc)
    if found is None or found.input_type is not rpc.input_type or not found.server_streaming:
        raise ContractError(rpc, f"{rules.stream_rpc!r} is no streaming RPC of its service with its request")
    if rpc.server_streaming or found.client_streaming or found.output_type.full_name == _RAW:
        raise ContractError(rpc, "one answer at once and one stream of messages are expected")
    if found.GetOptions().Extensions[options_pb2.method].role != rules.role:
        raise ContractError(rpc, f"{rules.stream_rpc!r} demands another role")
    field = rpc.input_type.fields_by_name.get(rules.stream_field)
    if field is None or field.type != FieldDescriptor.TYPE_BOOL or field.is_repeated:
        raise ContractError(rpc, f"{rules.stream_field!r} is no boolean field of its request")
    return found


def _require_servable(rpc: MethodDescriptor, rules: options_pb2.MethodRules) -> None:
    """Raises ContractError for what has no form in HTTP."""
    if rpc.client_streaming:
        raise ContractError(rpc, "a stream of requests cannot be served over HTTP by declaration")
    if rpc.output_type.full_name == _RAW and not rpc.server_streaming:
        raise ContractError(rpc, f"{_RAW} is served as a stream; let the RPC return one")
    if rpc.server_streaming and (rules.location or rules.etag_field):
        raise ContractError(rpc, "a stream has no message from which to take location or etag_field")
    for name in rules.request_headers:
        if not _HEADER.fullmatch(name) or name in _KEPT:
            raise ContractError(rpc, f"the header {name!r} cannot travel on as metadata")


def _verb(rpc: MethodDescriptor, rule: http_pb2.HttpRule) -> tuple[str, str]:
    pattern = rule.WhichOneof("pattern")
    if pattern in _VERBS:
        return pattern.upper(), getattr(rule, pattern)
    if pattern == "custom":
        return rule.custom.kind.upper(), rule.custom.path
    raise ContractError(rpc, "its http rule names no method and path")


def scalar_field(message: Descriptor, field_path: str) -> list[FieldDescriptor] | None:
    """Returns the fields on the way to a scalar that is no list ("a.b"), or None where the path leads
    elsewhere."""
    chain: list[FieldDescriptor] = []
    here: Descriptor | None = message
    for name in field_path.split("."):
        field = here.fields_by_name.get(name) if here is not None else None
        if field is None or field.is_repeated:
            return None
        chain.append(field)
        here = field.message_type
    return chain if chain[-1].message_type is None else None


def require_scalar(rpc: MethodDescriptor, message: Descriptor, field_path: str) -> None:
    """Raises ContractError where a path of fields leads to no single scalar."""
    if scalar_field(message, field_path) is None:
        raise ContractError(rpc, f"{field_path!r} is no single scalar of {message.full_name}")


def of_owners(routes: Iterable[Route], owners: Iterable[str]) -> tuple[Route, ...]:
    """Returns the routes of RPCs that these processes serve."""
    served = frozenset(owners)
    return tuple(route for route in routes if route.owner in served)
