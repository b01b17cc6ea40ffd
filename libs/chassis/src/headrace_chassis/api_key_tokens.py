"""The tokens for which API keys are exchanged: what a user's token says, for seconds, signed by the service
that owns the keys."""

import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import jwt

from headrace_chassis import keys
from headrace_chassis.identity import (
    API_KEY_ISSUER,
    API_KEY_PREFIX,
    INTERNAL_AUDIENCE,
    INTERNAL_ISSUER,
    Role,
)


class ApiKeyTokens:
    """Signs tokens for API keys, with the key of the service that owns them."""

    def __init__(
        self, key_file: Path, lifetime_seconds: float, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._key = keys.read(key_file)
        self._lifetime = lifetime_seconds
        self._clock = clock

    def __repr__(self) -> str:
        return "ApiKeyTokens()"

    def token(
        self,
        api_key: uuid.UUID,
        tenant: uuid.UUID,
        role: Role,
        workspaces: Sequence[uuid.UUID] | None,
        until: float | None = None,
    ) -> tuple[str, float]:
        """Returns a token and when it expires, in Unix seconds: at `until` at the latest. None for workspaces
        means all."""
        now = self._clock()
        expires = now + self._lifetime if until is None else min(until, now + self._lifetime)
        claims = {
            "iss": INTERNAL_ISSUER,
            "aud": INTERNAL_AUDIENCE,
            "sub": f"{API_KEY_PREFIX}{api_key}",
            "tenant": str(tenant),
            "workspaces": "*" if workspaces is None else [str(workspace) for workspace in workspaces],
            "roles": [role.name.lower()],
            "iat": int(now),
            "exp": expires,
        }
        return jwt.encode(claims, self._key, algorithm="EdDSA", headers={"kid": API_KEY_ISSUER}), expires
