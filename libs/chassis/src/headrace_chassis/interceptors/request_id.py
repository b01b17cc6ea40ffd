"""Gives every call a request id: the caller's where it is sane, else a new one."""

import re
from typing import Any

from headrace_chassis import ids
from headrace_chassis.call_context import REQUEST_ID_KEY, set_request_id
from headrace_chassis.interceptors.chain import Call, Handler
from headrace_chassis.methods import Method

_SANE = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


def is_sane(request_id: str) -> bool:
    """Tells whether a given request id may be kept: printable, short, and harmless in a log."""
    return _SANE.fullmatch(request_id) is not None


def request_id(method: Method, inner: Handler) -> Handler:
    """The interceptor."""

    async def handle(request: Any, call: Call) -> Any:
        given = call.metadata.get(REQUEST_ID_KEY, "")
        call.request_id = given if is_sane(given) else str(ids.uuid7())
        set_request_id(call.request_id)
        return await inner(request, call)

    return handle
