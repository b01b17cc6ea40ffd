"""Encryption of secrets at rest: AES-256-GCM under named keys that can be rotated.

One key is active and seals; all keys of the ring open. Each sealed secret is bound to its tenant and
connection, so that a row copied over another's does not open.
"""

import base64
import binascii
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_KEY_BYTES = 32
_NONCE_BYTES = 12
_KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class KeyringError(ValueError):
    """The keyring cannot be used. The message names key ids and what is wrong, never key material."""


class SealBroken(ValueError):  # noqa: N818 - it names what is the case
    """A sealed secret does not open under its key: it was altered, or belongs to another connection."""


@dataclass(frozen=True)
class Sealed:
    """A secret at rest."""

    key_id: str
    nonce: bytes
    ciphertext: bytes = field(repr=False)


class Keyring:
    """The keys of an installation. Neither its repr nor its errors show them."""

    def __init__(self, active: str, keys: Mapping[str, bytes]) -> None:
        if active not in keys:
            raise KeyringError(f"the active key {active!r} is not among the keys")
        for key_id, key in keys.items():
            if not _KEY_ID.fullmatch(key_id):
                raise KeyringError(f"{key_id!r} is no key id: letters, digits, dots, hyphens, at most 64")
            if len(key) != _KEY_BYTES:
                raise KeyringError(f"key {key_id!r} has {len(key)} bytes; AES-256 needs {_KEY_BYTES}")
        self.active = active
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.items()}

    def __repr__(self) -> str:
        return f"Keyring(active={self.active!r}, keys={sorted(self._ciphers)})"

    @classmethod
    def parse(cls, text: str) -> "Keyring":
        """A keyring from its JSON: {"active": "k2", "keys": {"k1": "<base64>", "k2": "<base64>"}}.

        Raises:
            KeyringError: it is no such JSON, or a key does not have 32 bytes.
        """
        try:
            document: Any = json.loads(text)
        except ValueError:
            # The cause holds the text, and with it the keys.
            raise KeyringError("the keyring is no JSON") from None
        if (
            not isinstance(document, dict)
            or set(document) != {"active", "keys"}
            or not isinstance(document["active"], str)
            or not isinstance(document["keys"], dict)
        ):
            raise KeyringError('the keyring must be {"active": "<id>", "keys": {"<id>": "<base64>"}}')
        return cls(
            document["active"], {key_id: _decode(key_id, key) for key_id, key in document["keys"].items()}
        )

    @classmethod
    def read(cls, path: Path) -> "Keyring":
        """A keyring from a file.

        Raises:
            KeyringError: the file cannot be read or holds no keyring.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise KeyringError(f"the keyring file {path} cannot be read: {type(error).__name__}") from None
        return cls.parse(text)

    def missing(self, key_ids: Iterable[str]) -> list[str]:
        """Those key ids that the ring has no key for."""
        return sorted(set(key_ids) - self._ciphers.keys())

    def seal(self, secret: str, tenant: UUID, connection: UUID) -> Sealed:
        """The secret under the active key, with a fresh random nonce (NIST SP 800-38D, 8.2.2)."""
        nonce = os.urandom(_NONCE_BYTES)
        cipher = self._ciphers[self.active]
        return Sealed(
            self.active, nonce, cipher.encrypt(nonce, secret.encode(), _bound_to(tenant, connection))
        )

    def open(self, sealed: Sealed, tenant: UUID, connection: UUID) -> str:
        """The secret in the clear.

        Raises:
            KeyringError: the ring lacks its key.
            SealBroken: it does not open for this tenant and connection.
        """
        cipher = self._ciphers.get(sealed.key_id)
        if cipher is None:
            raise KeyringError(f"there is no key {sealed.key_id!r} in the keyring")
        try:
            return cipher.decrypt(sealed.nonce, sealed.ciphertext, _bound_to(tenant, connection)).decode()
        except InvalidTag:
            raise SealBroken(f"the secret of connection {connection} does not open") from None


def _decode(key_id: str, key: object) -> bytes:
    if not isinstance(key, str):
        raise KeyringError(f"key {key_id!r} must be a base64 text")
    try:
        return base64.b64decode(key, validate=True)
    except binascii.Error:
        raise KeyringError(f"key {key_id!r} is no base64") from None


def _bound_to(tenant: UUID, connection: UUID) -> bytes:
    return b"headrace.connection.secret.v1" + tenant.bytes + connection.bytes
