"""Counts calls and times them, by RPC and status; no ids are labels."""

import time
from typing import Any

import grpc
from prometheus_client import Counter, Gauge, Histogram

from headrace_chassis.interceptors.chain import Call, Handler
from headrace_chassis.methods import Method

DURATION = Histogram(
    "hr_rpc_server_duration_seconds",
    "How long calls took.",
    ["method"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
CALLS = Counter("hr_rpc_server_calls_total", "Finished calls.", ["method", "code"])
RUNNING = Gauge("hr_rpc_server_running", "Calls that are being handled.", ["method"])


def metrics(method: Method, inner: Handler) -> Handler:
    """The interceptor."""
    name = method.path.lstrip("/")
    duration, running = DURATION.labels(name), RUNNING.labels(name)
    succeeded = CALLS.labels(name, grpc.StatusCode.OK.name)
    clock = time.perf_counter

    async def handle(request: Any, call: Call) -> Any:
        running.inc()
        begun = clock()
        try:
            response = await inner(request, call)
        except BaseException:
            CALLS.labels(name, call.status.name).inc()
            raise
        else:
            succeeded.inc()
            return response
        finally:
            duration.observe(clock() - begun)
            running.dec()

    return handle
