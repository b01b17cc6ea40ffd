"""Bounds every unary call: by the caller's deadline, and by the longest that the RPC may take.

A caller without a deadline gets the longest one. What is left of it is known to outgoing calls, which ask for
a little less, so that the innermost service is the one that says what took too long.
"""

import asyncio
import time
from typing import Any

from headrace_chassis.call_context import set_deadline
from headrace_chassis.errors import DeadlineExceeded
from headrace_chassis.interceptors.chain import Call, Handler, Interceptor
from headrace_chassis.methods import Method

DEFAULT_SECONDS = 30.0


def deadline(default_seconds: float = DEFAULT_SECONDS) -> Interceptor:
    """Returns the interceptor. Streams are not bounded: they live as long as both sides want."""

    def intercept(method: Method, inner: Handler) -> Handler:
        if not method.is_unary:
            return inner
        longest = float(method.max_deadline_seconds or default_seconds)
        name = method.path.rpartition("/")[2]

        async def handle(request: Any, call: Call) -> Any:
            asked = call.context.time_remaining()
            seconds = longest if asked is None or asked > longest else asked
            set_deadline(time.monotonic() + seconds)
            scope = asyncio.timeout(seconds)
            try:
                async with scope:
                    return await inner(request, call)
            except TimeoutError:
                if scope.expired():
                    raise DeadlineExceeded(name) from None
                raise

        return handle

    return intercept
