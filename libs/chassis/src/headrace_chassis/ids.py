"""Identities that sort by the time they were made."""

import os
import time
import uuid
from collections.abc import Callable

NIL = uuid.UUID(int=0)
"""The nil UUID (RFC 9562 5.9): the tenant of callers that belong to none."""


def uuid7(
    milliseconds: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    entropy: Callable[[int], bytes] = os.urandom,
) -> uuid.UUID:
    """Returns a UUID of version 7 (RFC 9562 5.7): 48 bits of Unix milliseconds, then 74 random bits."""
    value = (milliseconds() & 0xFFFF_FFFF_FFFF) << 80 | int.from_bytes(entropy(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return uuid.UUID(int=value)
