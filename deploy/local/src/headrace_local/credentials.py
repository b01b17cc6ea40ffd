"""Passwords and keys of one stack: made once, kept in `secrets/`, never shown."""

import base64
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from headrace_chassis import keys

from headrace_local.home import Home, write_private

USERS_KEY_ID = "local"
ROLES_OF_POSTGRES = ("postgres", "metadata", "execution", "scheduler", "warehouse")
INTERNAL_SUBJECTS = (
    "service:metadata",
    "service:execution",
    "service:scheduler",
    "service:gateway",
    "worker:local",
)


@dataclass(frozen=True)
class Credentials:
    """The secrets of one stack."""

    home: Home
    postgres_passwords: dict[str, str] = field(repr=False)
    nats_password: str = field(repr=False)

    @property
    def users_key(self) -> Path:
        """Signs the tokens of users."""
        return self.home.secrets / "users.pem"

    @property
    def users_jwks(self) -> Path:
        """Lets services verify the tokens of users."""
        return self.home.secrets / "users.jwks.json"

    @property
    def internal_jwks(self) -> Path:
        """Lets services verify one another and the worker."""
        return self.home.secrets / "internal.jwks.json"

    @property
    def encryption_keys(self) -> Path:
        """Keyring that encrypts the secrets of connections at rest."""
        return self.home.secrets / "encryption-keys.json"

    def internal_key(self, subject: str) -> Path:
        """The private key of a service or worker."""
        return self.home.secrets / f"{subject.replace(':', '-')}.pem"

    def cursor_key(self, service: str) -> Path:
        """Signs the page cursors of a service."""
        return self.home.secrets / f"{service}.cursor.key"

    @cached_property
    def users_private_key(self) -> Ed25519PrivateKey:
        """The key behind `users_key`."""
        return keys.read(self.users_key)


def ensure_credentials(home: Home) -> Credentials:
    """Reads the secrets of a stack and makes those that are missing."""
    passwords = _ensure_passwords(home.secrets / "passwords.json")
    credentials = Credentials(home, passwords["postgres"], passwords["nats"]["headrace"])
    users = _ensure_key(credentials.users_key)
    _write_jwks(credentials.users_jwks, {USERS_KEY_ID: users})
    internal = {subject: _ensure_key(credentials.internal_key(subject)) for subject in INTERNAL_SUBJECTS}
    _write_jwks(credentials.internal_jwks, internal)
    for service in ("metadata", "execution", "scheduler"):
        _ensure(credentials.cursor_key(service), lambda: secrets.token_hex(32).encode())
    _ensure(credentials.encryption_keys, _new_keyring)
    return credentials


def _ensure_passwords(path: Path) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads(path.read_text()) if path.exists() else {}
    wanted = {"postgres": ROLES_OF_POSTGRES, "nats": ("headrace",)}
    complete = {
        system: {user: found.get(system, {}).get(user) or secrets.token_hex(24) for user in users}
        for system, users in wanted.items()
    }
    if complete != found:
        write_private(path, json.dumps(complete, indent=2).encode())
    return complete


def _ensure(path: Path, make: Callable[[], bytes]) -> None:
    if not path.exists():
        write_private(path, make())


def _new_keyring() -> bytes:
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    return json.dumps({"active": "k1", "keys": {"k1": key}}).encode()


def _ensure_key(path: Path) -> bytes:
    if not path.exists():
        write_private(path, keys.generate())
    return path.read_bytes()


def _write_jwks(path: Path, private_keys: dict[str, bytes]) -> None:
    content = keys.jwks(private_keys).encode()
    if not path.exists() or path.read_bytes() != content:
        write_private(path, content)
