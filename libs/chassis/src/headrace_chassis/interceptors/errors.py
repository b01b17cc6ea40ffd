"""Turns whatever a handler raises into a status: ours with its details, all others without their text."""

import asyncio
from typing import Any, NoReturn

import grpc
import structlog

from headrace_chassis import database
from headrace_chassis.errors import HeadraceError, Internal, Unavailable, from_rpc_error, to_status
from headrace_chassis.interceptors.chain import Call, Handler
from headrace_chassis.methods import Method

_log = structlog.get_logger(__name__)


def errors(method: Method, inner: Handler) -> Handler:
    """The interceptor."""

    async def handle(request: Any, call: Call) -> Any:
        try:
            return await inner(request, call)
        except HeadraceError as error:
            await _abort(call, error)
        except asyncio.CancelledError:
            call.status = grpc.StatusCode.CANCELLED
            raise
        except grpc.aio.AbortError:
            # A handler that aborts by itself has said all there is to say.
            call.status = call.context.code() or grpc.StatusCode.UNKNOWN
            raise
        except grpc.aio.AioRpcError as error:
            # A service that this one asked has failed: its reason is the reason.
            await _abort(call, from_rpc_error(error))
        except Exception as error:  # noqa: BLE001 - the last guard: its text must not reach the caller
            if database.is_away(error):
                await _abort(call, Unavailable("the database"))
            _log.exception("unexpected failure", rpc=method.path.lstrip("/"))
            await _abort(call, Internal())

    return handle


async def _abort(call: Call, error: HeadraceError) -> NoReturn:
    status = to_status(error)
    call.status = status.code
    await call.context.abort(status.code, status.message, status.trailing_metadata)
    raise AssertionError("abort always raises")
