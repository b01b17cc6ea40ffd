"""Checks every request against the rules of its fields, and tells all problems at once."""

from collections.abc import AsyncIterator
from typing import Any

from headrace.common.v1 import options_pb2

from headrace_chassis.errors import InvalidRequest
from headrace_chassis.field_rules import Check, compile_check
from headrace_chassis.interceptors.chain import Call, Handler
from headrace_chassis.methods import Method


def validation(method: Method, inner: Handler) -> Handler:
    """The interceptor."""
    check = compile_check(
        method.descriptor.input_type,
        known_enums_only=method.is_for_users,
        # What a worker reports may quote a user's data, and a refused report is a result that is lost.
        any_text=method.role == options_pb2.ROLE_WORKER,
    )
    if check is None:
        return inner

    async def one(request: Any, call: Call) -> Any:
        problems = check(request)
        if problems:
            raise InvalidRequest(problems)
        return await inner(request, call)

    async def many(requests: AsyncIterator[Any], call: Call) -> Any:
        return await inner(_checked(requests, check), call)

    return many if method.streams_requests else one


async def _checked(requests: AsyncIterator[Any], check: Check) -> AsyncIterator[Any]:
    async for request in requests:
        problems = check(request)
        if problems:
            raise InvalidRequest(problems)
        yield request
