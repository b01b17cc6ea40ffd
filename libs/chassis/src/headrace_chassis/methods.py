"""The facts about each RPC that its contract declares, read once when a server starts."""

from dataclasses import dataclass

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from headrace.common.v1 import options_pb2


class ContractError(Exception):
    """A contract or its implementation is incomplete; the server does not start."""


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC. `path` is "/package.Service/Name"; `max_deadline_seconds` is 0 for the usual limit."""

    path: str
    role: int
    no_effect: bool
    max_deadline_seconds: int
    streams_requests: bool
    streams_responses: bool
    descriptor: MethodDescriptor

    @property
    def is_unary(self) -> bool:
        """Whether it takes one message and answers one."""
        return not (self.streams_requests or self.streams_responses)

    @property
    def is_for_users(self) -> bool:
        """Whether users may call it, so that its input may come from anybody."""
        return self.needs_no_token or self.role in (
            options_pb2.ROLE_VIEWER,
            options_pb2.ROLE_EDITOR,
            options_pb2.ROLE_ADMIN,
        )

    @property
    def needs_no_token(self) -> bool:
        """Whether anybody may call it: it checks by itself what the request brings."""
        return self.role == options_pb2.ROLE_ANYONE


def methods_of(service: ServiceDescriptor) -> dict[str, Method]:
    """Returns the RPCs of a service by name; raises ContractError for one that declares no role."""
    return {descriptor.name: _method(descriptor) for descriptor in service.methods}


def _method(descriptor: MethodDescriptor) -> Method:
    rules = descriptor.GetOptions().Extensions[options_pb2.method]
    path = f"/{descriptor.containing_service.full_name}/{descriptor.name}"
    if rules.role == options_pb2.ROLE_UNSPECIFIED:
        raise ContractError(f"{path} declares no role")
    return Method(
        path=path,
        role=rules.role,
        no_effect=rules.no_effect,
        max_deadline_seconds=rules.max_deadline_seconds,
        streams_requests=descriptor.client_streaming,
        streams_responses=descriptor.server_streaming,
        descriptor=descriptor,
    )
