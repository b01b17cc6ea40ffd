"""The audit trail: what is recorded of a change, and how records are chained."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Deed:
    """Something that is being done. `fields` are names of what was given or changed, never values."""

    tenant: UUID
    actor: str
    action: str
    object_type: str
    object_id: UUID
    object_name: str
    workspace_id: UUID | None
    request_id: str
    fields: tuple[str, ...] = ()
    via: str | None = None


@dataclass(frozen=True)
class AuditEvent:
    """A deed in its place in the tenant's chain."""

    sequence: int
    at: datetime
    deed: Deed
    hash: bytes
    previous_hash: bytes


def chained(deed: Deed, sequence: int, at: datetime, previous_hash: bytes) -> AuditEvent:
    """A deed as the event that follows the one with `previous_hash`, which is empty for the first."""
    return AuditEvent(sequence, at, deed, _digest(deed, sequence, at, previous_hash), previous_hash)


def is_sound(event: AuditEvent) -> bool:
    """Whether the hash of an event is that of its content."""
    return event.hash == _digest(event.deed, event.sequence, event.at, event.previous_hash)


def changed_fields(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
    """The names under which two descriptions of an object differ, in the order of the later one."""
    return tuple(name for name, value in after.items() if before.get(name) != value)


def _digest(deed: Deed, sequence: int, at: datetime, previous_hash: bytes) -> bytes:
    """The formula stands in the contract of the audit trail: whoever keeps hashes can check them."""
    content = [
        previous_hash.hex(),
        str(deed.tenant),
        sequence,
        (at - _EPOCH) // timedelta(microseconds=1),
        deed.actor,
        deed.via or "",
        deed.action,
        deed.object_type,
        str(deed.object_id),
        deed.object_name,
        "" if deed.workspace_id is None else str(deed.workspace_id),
        deed.request_id,
        list(deed.fields),
    ]
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).digest()
