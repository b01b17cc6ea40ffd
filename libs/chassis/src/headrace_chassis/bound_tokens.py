"""Tokens that are good for one RPC about one object: what a service gives to somebody who may see that and
nothing else."""

import time
import uuid
from collections.abc import Callable, Collection
from pathlib import Path

import jwt

from headrace_chassis import keys
from headrace_chassis.identity import (
    INTERNAL_AUDIENCE,
    INTERNAL_ISSUER,
    MAXIMUM_INTERNAL_SECONDS,
    Bound,
    Role,
)


class BoundTokens:
    """Signs bound tokens for RPCs of one service, with its key."""

    def __init__(self, service_name: str, key_file: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._kid = f"service:{service_name}"
        self._key = keys.read(key_file)
        self._clock = clock

    def __repr__(self) -> str:
        return f"BoundTokens({self._kid!r})"

    def token(
        self,
        bound: Bound,
        *,
        subject: str,
        tenant: uuid.UUID,
        workspaces: Collection[uuid.UUID] | None,
        role: Role,
        until: float,
    ) -> tuple[str, float]:
        """Returns a token and when it expires, in Unix seconds: at `until`, and after an hour at the latest.
        None for workspaces means all."""
        now = self._clock()
        expires = min(until, now + MAXIMUM_INTERNAL_SECONDS)
        claims = {
            "iss": INTERNAL_ISSUER,
            "aud": INTERNAL_AUDIENCE,
            "sub": subject,
            "tenant": str(tenant),
            "workspaces": "*" if workspaces is None else sorted(str(workspace) for workspace in workspaces),
            "roles": [role.name.lower()],
            "bound": {"rpc": bound.rpc, "object": bound.object},
            "iat": int(now),
            "exp": expires,
        }
        return jwt.encode(claims, self._key, algorithm="EdDSA", headers={"kid": self._kid}), expires
