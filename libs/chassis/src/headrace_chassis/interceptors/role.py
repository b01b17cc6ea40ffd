"""Lets a call through only where the caller has the role that the contract declares."""

from typing import Any

from headrace.common.v1 import options_pb2

from headrace_chassis.errors import RoleRequired
from headrace_chassis.identity import current_principal
from headrace_chassis.interceptors.chain import Call, Handler
from headrace_chassis.methods import Method


def role(method: Method, inner: Handler) -> Handler:
    """The interceptor."""
    if method.needs_no_token:
        return inner
    required = method.role
    told = options_pb2.Role.Name(method.descriptor.GetOptions().Extensions[options_pb2.method].role)
    name = told.removeprefix("ROLE_").lower()

    async def handle(request: Any, call: Call) -> Any:
        principal = call.principal or current_principal()
        if not principal.may_call(method.path, required):
            raise RoleRequired(name)
        return await inner(request, call)

    return handle
