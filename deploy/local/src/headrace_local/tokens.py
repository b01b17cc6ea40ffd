"""Tokens of users of the local stack."""

import time
import uuid
from collections.abc import Sequence
from datetime import timedelta

import jwt

from headrace_local.credentials import USERS_KEY_ID, Credentials
from headrace_local.home import Home, write_private

ISSUER = "headrace-local"
AUDIENCE = "headrace"
TENANT = uuid.uuid5(uuid.NAMESPACE_DNS, "local.headrace.io")
"""The tenant of the ready-made tokens: the same in every local stack."""

ROLES = ("admin", "editor", "viewer")
READY_MADE_LIFETIME = timedelta(days=30)


def mint(
    credentials: Credentials,
    *,
    role: str,
    tenant: uuid.UUID = TENANT,
    workspaces: Sequence[str] = ("*",),
    subject: str | None = None,
    lifetime: timedelta,
    now: float | None = None,
) -> str:
    """A signed token. `workspaces` are UUIDs, or `*` alone for all."""
    issued = int(time.time() if now is None else now)
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": subject or f"local-{role}",
        "tenant": str(tenant),
        "workspaces": "*" if list(workspaces) == ["*"] else list(workspaces),
        "roles": [role],
        "iat": issued,
        "nbf": issued - 5,  # a little room for clocks
        "exp": issued + int(lifetime.total_seconds()),
        "jti": str(uuid.uuid4()),
    }
    return jwt.encode(claims, credentials.users_private_key, algorithm="EdDSA", headers={"kid": USERS_KEY_ID})


def renew_ready_made(home: Home, credentials: Credentials) -> None:
    """Writes a fresh token for each role into `tokens/`."""
    for role in ROLES:
        token = mint(credentials, role=role, lifetime=READY_MADE_LIFETIME)
        write_private(home.token_file(role), token.encode())
