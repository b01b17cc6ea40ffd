"""One-time tickets for the stream of a run.

A ticket is 256 random bits, so that a plain SHA-256 of it is enough to keep: nobody finds it by trying.
"""

import base64
import hashlib
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class StreamTicket:
    """Who may follow which run with it, and until when. `workspaces` is None where the maker may use all."""

    run: UUID
    tenant: UUID
    subject: str
    workspaces: frozenset[UUID] | None
    token_expires_at: datetime


def ticket_text(secret: bytes) -> str:
    """The ticket as its holder has it."""
    return base64.urlsafe_b64encode(secret).rstrip(b"=").decode("ascii")


def ticket_hash(text: str) -> bytes:
    """What is kept of it."""
    return hashlib.sha256(text.encode("utf-8")).digest()
