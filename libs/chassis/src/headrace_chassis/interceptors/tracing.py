"""Puts every call into a trace: the caller's, or a new one; a span of it is exported where that is
configured."""

from typing import Any

from headrace_chassis.interceptors.chain import Call, Handler
from headrace_chassis.methods import Method
from headrace_chassis.observability import tracing as traces


def tracing(method: Method, inner: Handler) -> Handler:
    """The interceptor."""
    name = method.path.lstrip("/")

    async def carry(request: Any, call: Call) -> Any:
        traces.set_traceparent(traces.accepted_or_new(call.metadata.get(traces.TRACEPARENT_KEY, "")))
        return await inner(request, call)

    async def export(request: Any, call: Call) -> Any:
        parent = traces.accepted_or_new(call.metadata.get(traces.TRACEPARENT_KEY, ""))
        with traces.server_span(name, parent) as span:
            try:
                return await inner(request, call)
            finally:
                span.set_attribute("rpc.grpc.status_code", call.status.value[0])

    return export if traces.is_exporting() else carry
