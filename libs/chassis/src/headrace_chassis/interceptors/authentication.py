"""Finds out who is calling, from the bearer token and nothing else."""

from typing import Any

from headrace_chassis.call_context import AUTHORIZATION_KEY
from headrace_chassis.errors import Unauthenticated
from headrace_chassis.identity import set_principal
from headrace_chassis.interceptors.chain import Call, Handler, Interceptor
from headrace_chassis.methods import Method
from headrace_chassis.verification import TokenVerifier

_SCHEME = "Bearer "


def authentication(verifier: TokenVerifier) -> Interceptor:
    """Returns the interceptor. An RPC for anybody has no caller."""

    def intercept(method: Method, inner: Handler) -> Handler:
        if method.needs_no_token:
            return inner

        async def handle(request: Any, call: Call) -> Any:
            token = bearer_token(call.metadata.get(AUTHORIZATION_KEY, ""))
            principal = verifier.remembered(token) or await verifier.verify(token)
            call.principal = principal
            set_principal(principal)
            return await inner(request, call)

        return handle

    return intercept


def bearer_token(authorization: str) -> str:
    """Returns the token of an Authorization value (RFC 6750 2.1); raises Unauthenticated where there is
    none."""
    if authorization[: len(_SCHEME)].lower() != _SCHEME.lower():
        raise Unauthenticated("a bearer token is needed (Authorization: Bearer …)")
    return authorization[len(_SCHEME) :].strip()
