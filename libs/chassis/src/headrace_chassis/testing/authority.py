"""An authority for tests: it makes the keys of users, services and workers, publishes them, and signs
tokens."""

import json
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jwt

from headrace_chassis import keys
from headrace_chassis.identity import ServiceTokens, WorkerTokens
from headrace_chassis.ids import NIL
from headrace_chassis.settings import AuthSettings

TENANT = uuid.UUID("01900000-0000-7000-8000-000000000001")
"""The tenant of tokens that name no other."""


class Authority:
    """Keys and key sets in a folder. Services and workers get their keys when they are first asked for."""

    issuer = "https://issuer.test"
    audience = "headrace-test"
    kid = "users-1"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._user_key = keys.generate()
        self._internal: dict[str, bytes] = {}
        self.user_jwks = folder / "users.jwks.json"
        self.internal_jwks = folder / "internal.jwks.json"
        self.cursor_key_file = folder / "cursor.key"
        self.cursor_key_file.write_text("a cursor key that only tests use, of 32 bytes or more")
        self.user_jwks.write_text(keys.jwks({self.kid: self._user_key}))
        self.internal_jwks.write_text(keys.jwks({}))

    def user(
        self,
        role: str = "editor",
        *,
        tenant: uuid.UUID = TENANT,
        workspaces: Iterable[uuid.UUID] | None = None,
        subject: str = "ada",
        lifetime: float = 3600,
        **claims: Any,
    ) -> str:
        """Returns a user's token; None for workspaces means all. Further claims replace those of the same
        name."""
        now = time.time()
        content: dict[str, Any] = {
            "iss": self.issuer,
            "aud": self.audience,
            "sub": subject,
            "tenant": str(tenant),
            "workspaces": "*" if workspaces is None else [str(workspace) for workspace in workspaces],
            "roles": [role],
            "iat": int(now),
            "exp": int(now + lifetime),
        }
        given = {name: value for name, value in {**content, **claims}.items() if value is not None}
        return jwt.encode(given, self._user_key.decode(), algorithm="EdDSA", headers={"kid": self.kid})

    def rotate_users(self, kid: str, *, keep_old: bool = True) -> None:
        """Signs users' tokens with a new key from now on; the old one stays published unless told
        otherwise."""
        old = {self.kid: self._user_key} if keep_old else {}
        self.kid, self._user_key = kid, keys.generate()
        self.user_jwks.write_text(keys.jwks({**old, kid: self._user_key}))

    def service_key_file(self, name: str) -> Path:
        """Returns the private key file of a service; its public key is published."""
        return self._key_file(f"service:{name}")

    def worker_key_file(self, name: str) -> Path:
        """Returns the private key file of a worker; its public key is published."""
        return self._key_file(f"worker:{name}")

    def service(
        self, name: str = "metadata", *, tenant: uuid.UUID = NIL, on_behalf_of: str | None = None
    ) -> str:
        """Returns a service's token."""
        return ServiceTokens(name, self.service_key_file(name)).token(tenant, on_behalf_of)

    def worker(self, name: str = "worker-1") -> str:
        """Returns a worker's token."""
        return WorkerTokens(name, self.worker_key_file(name)).token()

    def auth_settings(self) -> AuthSettings:
        """Returns settings that believe this authority."""
        return AuthSettings(**self.auth_values())

    def auth_values(self) -> dict[str, Any]:
        """Returns the values of AuthSettings, for settings that have more."""
        return {
            "jwt_jwks": str(self.user_jwks),
            "jwt_issuer": self.issuer,
            "jwt_audience": self.audience,
            "internal_jwks": self.internal_jwks,
        }

    def server_values(self) -> dict[str, Any]:
        """Returns the values that ServerSettings needs, listening on a free port."""
        return {
            **self.auth_values(),
            "grpc_listen": "127.0.0.1:0",
            "cursor_key_file": self.cursor_key_file,
            "drain_seconds": 5.0,
        }

    def service_values(self, name: str, database_url: str) -> dict[str, Any]:
        """Returns the values that ServiceSettings needs, listening on a free port."""
        return {
            **self.server_values(),
            "database_url": database_url,
            "internal_key_file": self.service_key_file(name),
        }

    def _key_file(self, subject: str) -> Path:
        path = self._folder / f"{subject.replace(':', '-')}.pem"
        if subject not in self._internal:
            self._internal[subject] = keys.generate()
            path.write_bytes(self._internal[subject])
            self.internal_jwks.write_text(keys.jwks(self._internal))
        return path

    def __repr__(self) -> str:
        return f"Authority({json.dumps(sorted(self._internal))})"
