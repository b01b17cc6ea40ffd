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
    package, and holds no secret and no text of users. `subject` is the id of what it is about.
    """

    type: str
    tenant: uuid.UUID
    subject: str
    data: bytes


_INSERT = """
INSERT INTO outbox_event (event_id, type, tenant, subject, data, traceparent)
SELECT event_id, type, tenant, subject, data, $6
FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::text[], $5::bytea[])
     WITH ORDINALITY AS t(event_id, type, tenant, subject, data, n)
ORDER BY n
"""


async def append(conn: AsyncConnection, events: Sequence[NewEvent]) -> None:
    """Appends events to the outbox, in this order; they exist if and when the transaction commits."""
    if not events:
        return
    await driver(conn).execute(
        _INSERT,
        [ids.uuid7() for _ in events],
        [event.type for event in events],
        [event.tenant for event in events],
        [event.subject for event in events],
        [event.data for event in events],
        current_traceparent(),
    )
