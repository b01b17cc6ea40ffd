"""Writing events: in the caller's transaction, all of one call in one statement."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_chassis import ids
from headrace_chassis.database import driver
from headrace_chassis.observability.tracing import current_traceparent


@dataclass(frozen=True, slots=True)
class NewEvent:
    """Something that happens with the transaction that it is appended in.

    `type` is "io.headrace.<subject>.<past participle>.v<n>", `data` a serialized message of the owner's
    package, and holds no secret and no text of users. `subject` is the id of what it is about. `traceparent`
    is the trace that its cause belongs to, where that is not the call at hand: a writer that gathers what
    many calls caused appends it outside of all of them. Empty means none.
    """

    type: str
    tenant: uuid.UUID
    subject: str
    data: bytes
    traceparent: str | None = None


_INSERT = """
INSERT INTO outbox_event (event_id, type, tenant, subject, data, traceparent)
SELECT event_id, type, tenant, subject, data, traceparent
FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::text[], $5::bytea[], $6::text[])
     WITH ORDINALITY AS t(event_id, type, tenant, subject, data, traceparent, n)
ORDER BY n
"""


async def append(conn: AsyncConnection, events: Sequence[NewEvent]) -> None:
    """Appends events to the outbox, in this order; they exist if and when the transaction commits."""
    if not events:
        return
    current = current_traceparent()
    await driver(conn).execute(
        _INSERT,
        [ids.uuid7() for _ in events],
        [event.type for event in events],
        [event.tenant for event in events],
        [event.subject for event in events],
        [event.data for event in events],
        [current if event.traceparent is None else event.traceparent for event in events],
    )
