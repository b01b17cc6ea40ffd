"""Logs every call: failures of ours as errors, refusals as information, successes where debugging is on."""

import time
from typing import Any

import grpc
import structlog

from headrace_chassis.interceptors.chain import Call, Handler
from headrace_chassis.methods import Method

_log = structlog.get_logger(__name__)

SLOW_SECONDS = 5.0
"""A unary call that takes longer is logged as information though it succeeds."""

_OURS = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS})


def logging(method: Method, inner: Handler) -> Handler:
    """The interceptor."""
    name = method.path.lstrip("/")
    clock = time.perf_counter
    slow = SLOW_SECONDS if method.is_unary else float("inf")

    async def handle(request: Any, call: Call) -> Any:
        begun = clock()
        try:
            response = await inner(request, call)
        except BaseException:
            _tell(name, call, clock() - begun)
            raise
        seconds = clock() - begun
        if seconds > slow:
            _log.info("slow call", rpc=name, seconds=round(seconds, 4), caller=_caller(call))
        else:
            _log.debug("call", rpc=name, seconds=seconds)
        return response

    return handle


def _tell(name: str, call: Call, seconds: float) -> None:
    tell = _log.error if call.status in _OURS else _log.info
    tell("call failed", rpc=name, code=call.status.name, seconds=round(seconds, 4), caller=_caller(call))


def _caller(call: Call) -> str:
    return call.principal.subject if call.principal is not None else ""
