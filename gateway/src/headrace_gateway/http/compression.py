"""gzip for large answers, where the client takes it."""

from __future__ import annotations

import asyncio
import re
import zlib
from typing import Final

from .exchange import Answer

_LEVEL: Final = 5
_IN_THREAD: Final = 64 * 1024
"""Larger bodies are compressed in a thread, which frees the event loop: zlib lets go of the interpreter's
lock."""

_GZIP: Final = re.compile(
    r"(?:^|,)\s*(?:gzip|x-gzip|\*)\s*(?:;\s*q=(?P<q>[01](?:\.[0-9]{0,3})?)\s*)?(?=,|$)", re.IGNORECASE
)


def accepts_gzip(accept_encoding: bytes | None) -> bool:
    """Tells whether a client takes gzip (RFC 9110, 12.5.3)."""
    if not accept_encoding:
        return False
    match = _GZIP.search(accept_encoding.decode("latin-1"))
    return match is not None and float(match["q"] or 1) > 0


async def compress(answer: Answer) -> None:
    """Compresses the body of an answer in place."""
    body = answer.body
    answer.body = await asyncio.to_thread(_gzip, body) if len(body) > _IN_THREAD else _gzip(body)
    answer.headers.append((b"content-encoding", b"gzip"))


def _gzip(body: bytes) -> bytes:
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    return packer.compress(body) + packer.flush()
