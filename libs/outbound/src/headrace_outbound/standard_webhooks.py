"""Signing what is sent, as Standard Webhooks 1.0.0 has it (https://www.standardwebhooks.com, symmetric
signatures): the receiver holds the same secret and can tell who sent a message, that it is whole, and when.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence

PREFIX = "whsec_"
LEAST_BYTES = 24
MOST_BYTES = 64


class InvalidSecret(ValueError):  # noqa: N818 - it names what is the case
    """A signing secret does not have the form of the specification; the message does not repeat it."""


def key_of(secret: str) -> bytes:
    """The key that a secret such as "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" holds: 24 to 64 bytes in base64.

    Raises InvalidSecret.
    """
    try:
        key = base64.b64decode(secret.strip().removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidSecret(f"must be {PREFIX} followed by base64") from None
    if not LEAST_BYTES <= len(key) <= MOST_BYTES:
        raise InvalidSecret(f"must hold {LEAST_BYTES} to {MOST_BYTES} bytes in base64 after {PREFIX}")
    return key


def headers(message_id: str, timestamp: int, body: bytes, secrets: Sequence[str] = ()) -> Mapping[str, str]:
    """The headers of a message: its id, which stays the same however often it is sent, the time of this
    sending in seconds since 1970, and a signature for each secret (two while one replaces the other).

    Raises InvalidSecret.
    """
    found = {"webhook-id": message_id, "webhook-timestamp": str(timestamp)}
    if secrets:
        found["webhook-signature"] = " ".join(
            signature(message_id, timestamp, body, secret) for secret in secrets
        )
    return found


def signature(message_id: str, timestamp: int, body: bytes, secret: str) -> str:
    """One signature, in the form "v1,<base64>". Raises InvalidSecret."""
    signed = b".".join((message_id.encode(), str(timestamp).encode(), body))
    digest = hmac.new(key_of(secret), signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"
