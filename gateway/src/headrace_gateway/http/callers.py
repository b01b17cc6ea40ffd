"""Who is calling: bearer tokens and API keys, verified before anything else is done."""

from __future__ import annotations

import uuid

from headrace_chassis.errors import TenantForbidden, Unauthenticated
from headrace_chassis.identity import Principal
from headrace_chassis.verification import TokenVerifier

from .api_keys import PREFIX, ApiKeyExchange
from .exchange import Request


class CallerChecks:
    """Finds out who makes a request. The services verify the token again and trust nothing but it.

    Without `api_keys` nobody here knows API keys, and they are refused as any token that does not verify.
    """

    def __init__(self, verifier: TokenVerifier, api_keys: ApiKeyExchange | None) -> None:
        self._verifier = verifier
        self._api_keys = api_keys

    async def principal(self, request: Request) -> Principal:
        """Returns the caller.

        Raises Unauthenticated without a valid token or key, and TenantForbidden where X-Tenant-ID names
        another tenant.
        """
        given = request.headers.get(b"authorization")
        if given is None:
            raise Unauthenticated("a bearer token is needed: Authorization: Bearer …")
        scheme, _, token = given.decode("latin-1").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("a bearer token is needed: Authorization: Bearer …")
        return await self.bearer(token, request)

    async def bearer(self, token: str, request: Request) -> Principal:
        """Returns whose token or key it is that came with a request. Raises as `principal` does."""
        principal = self._verifier.remembered(token) or await self._verified(token)
        tenant = request.header(b"x-tenant-id")
        if tenant is not None and not _is(tenant, principal.tenant):
            raise TenantForbidden
        return principal

    async def _verified(self, token: str) -> Principal:
        if self._api_keys is not None and token.startswith(PREFIX):
            return await self._api_keys.principal(token)
        return await self._verifier.verify(token)


def _is(text: str, tenant: uuid.UUID) -> bool:
    try:
        return uuid.UUID(text.strip()) == tenant
    except ValueError:
        return False
