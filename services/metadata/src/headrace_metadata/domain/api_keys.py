"""API keys: what they look like, how they are recognised, and what they may do.

A key reads `hr_<id>_<secret><checksum>`. The secret has 256 random bits, so a plain SHA-256 of the key is as
good as any slow hash: nobody finds a preimage by trying. The checksum tells a mistyped or made-up key from a
real one without a look at the database, and lets scanners find leaked keys.
"""

import hashlib
import hmac
import re
import string
import zlib
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

SECRET_BYTES = 32

_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_ID_LENGTH = 22  # 62^22 > 2^128
_SECRET_LENGTH = 43  # 62^43 > 2^256
_CHECKSUM_LENGTH = 6  # 62^6 > 2^32
_FORM = re.compile(
    rf"(?P<body>hr_(?P<id>[0-9A-Za-z]{{{_ID_LENGTH}}})_[0-9A-Za-z]{{{_SECRET_LENGTH}}})"
    rf"(?P<checksum>[0-9A-Za-z]{{{_CHECKSUM_LENGTH}}})"
)
_PURPOSE = b"headrace.api-key.v1\0"


class KeyRole(StrEnum):
    """What a key may do, from the least to the most."""

    VIEWER = "VIEWER"
    EDITOR = "EDITOR"
    ADMIN = "ADMIN"


@dataclass(frozen=True)
class ApiKey:
    """A key without its secret. `workspaces` is None where it may use all of the tenant."""

    id: UUID
    tenant: UUID
    name: str
    role: KeyRole
    workspaces: tuple[UUID, ...] | None
    expires_at: datetime | None
    created_by: str
    created_at: datetime
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None

    def is_valid(self, now: datetime) -> bool:
        """Whether it opens anything at this time."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


def key_text(identity: UUID, secret: bytes) -> str:
    """The key as its holder keeps it.

    Raises:
        ValueError: the secret does not have 32 bytes.
    """
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"the secret of a key has {SECRET_BYTES} bytes")
    body = f"{key_prefix(identity)}_{_base62(int.from_bytes(secret), _SECRET_LENGTH)}"
    return body + _checksum(body)


def key_prefix(identity: UUID) -> str:
    """How a key begins: what tells it from others, and reveals nothing."""
    return f"hr_{_base62(identity.int, _ID_LENGTH)}"


def key_id(text: str) -> UUID | None:
    """The id in a key; None where the text is no key."""
    found = _FORM.fullmatch(text)
    if found is None or _checksum(found["body"]) != found["checksum"]:
        return None
    number = 0
    for character in found["id"]:
        number = number * len(_ALPHABET) + _ALPHABET.index(character)
    return UUID(int=number) if number < 2**128 else None


def key_digest(text: str) -> bytes:
    """What is stored of a key."""
    return hashlib.sha256(_PURPOSE + text.encode()).digest()


def is_key(text: str, digest: bytes) -> bool:
    """Whether a text is the key of a digest, in constant time."""
    return hmac.compare_digest(key_digest(text), digest)


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), _CHECKSUM_LENGTH)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
