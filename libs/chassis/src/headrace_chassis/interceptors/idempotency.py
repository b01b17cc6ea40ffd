"""Takes the idempotency key of a write from the call's metadata, with its scope and a hash of the request."""

import re
from typing import Any

from headrace_chassis.call_context import IDEMPOTENCY_KEY
from headrace_chassis.errors import InvalidRequest, Problem
from headrace_chassis.idempotency import IdempotencyKey, RequestHasher, set_current_key
from headrace_chassis.identity import current_principal
from headrace_chassis.interceptors.chain import Call, Handler, Interceptor
from headrace_chassis.methods import Method

_FORM = re.compile(r"[\x21-\x7e]{1,255}")


def idempotency(hasher: RequestHasher) -> Interceptor:
    """Returns the interceptor. RPCs without an effect need no record, and a stream is no single request."""

    def intercept(method: Method, inner: Handler) -> Handler:
        if method.no_effect or not method.is_unary:
            return inner

        async def handle(request: Any, call: Call) -> Any:
            text = call.metadata.get(IDEMPOTENCY_KEY)
            if text is not None:
                set_current_key(_key(method, call, text, hasher.digest(request)))
            return await inner(request, call)

        return handle

    return intercept


def _key(method: Method, call: Call, text: str, body_hash: bytes) -> IdempotencyKey:
    if not _FORM.fullmatch(text):
        told = "1 to 255 printable ASCII characters without spaces are expected"
        raise InvalidRequest([Problem("INVALID_FORMAT", "Idempotency-Key", told)])
    principal = call.principal or current_principal()
    # A service that writes for several users must not mix up their keys.
    scope = " for ".join(filter(None, (principal.subject, principal.on_behalf_of)))
    return IdempotencyKey(principal.tenant, scope, method.path, text, body_hash)
