"""The shape of an interceptor, and how a chain of them becomes the handler that gRPC calls."""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, Protocol

import grpc

from headrace_chassis.identity import Principal
from headrace_chassis.methods import ContractError, Method


class Call:
    """One call on its way through the chain: what the interceptors have learned of it."""

    __slots__ = ("context", "metadata", "method", "principal", "request_id", "status")

    def __init__(self, method: Method, context: Any) -> None:
        self.method = method
        self.context = context
        self.metadata: dict[str, str] = dict(context.invocation_metadata() or ())
        self.request_id = ""
        self.principal: Principal | None = None
        self.status = grpc.StatusCode.OK


Handler = Callable[[Any, Call], Awaitable[Any]]
"""Takes the request (or the iterator of requests) and the call; returns the response, or None where it was
written."""


class Interceptor(Protocol):
    """Adds one thing to an RPC's handler; returns `inner` itself where there is nothing to add."""

    def __call__(self, method: Method, inner: Handler) -> Handler:
        """Returns the handler that calls `inner`."""


def compose(
    method: Method, behaviour: Callable[..., Any], interceptors: Sequence[Interceptor]
) -> Callable[[Any, Any], Awaitable[Any]]:
    """Returns the coroutine function that gRPC calls for a method; the first interceptor is the outermost."""
    handler = _innermost(method, behaviour)
    for interceptor in reversed(interceptors):
        handler = interceptor(method, handler)
    outermost = handler

    async def entry(request: Any, context: Any) -> Any:
        return await outermost(request, Call(method, context))

    return entry


def _innermost(method: Method, behaviour: Callable[..., Any]) -> Handler:
    if inspect.isasyncgenfunction(behaviour) and method.streams_responses:

        async def pump(request: Any, call: Call) -> None:
            # Closed as soon as the client is gone: what it holds is given back then.
            async with aclosing(behaviour(request, call.context)) as responses:
                async for response in responses:
                    await call.context.write(response)

        return pump
    if not inspect.iscoroutinefunction(behaviour):
        raise ContractError(f"{method.path} is not implemented (an async method is expected)")

    async def one(request: Any, call: Call) -> Any:
        return await behaviour(request, call.context)

    return one
