"""The log as others read it: headrace.common.v1.EventLogService."""

from typing import Any

from google.protobuf import timestamp_pb2
from headrace.common.v1 import event_log_pb2, event_log_pb2_grpc

from headrace_chassis.database import Database, driver
from headrace_chassis.server import Service

DEFAULT_LIMIT = 500

WINDOW = 10_000
"""How many positions one call looks at, at the most: a rare type must not make a call read the whole log."""

# One statement is one snapshot: the head must not be newer than the events, or a reader would pass over some.
_LIST = """
WITH head AS (SELECT position AS head, pruned FROM outbox_head),
page AS (
    SELECT position, event_id, type, tenant, subject, data, traceparent, created_at
    FROM outbox_event
    WHERE position > $1 AND position <= $1 + $4 AND ($3::text[] = '{}' OR type = ANY ($3::text[]))
    ORDER BY position LIMIT $2
)
SELECT head.head, head.pruned, page.* FROM head LEFT JOIN page ON true ORDER BY page.position
"""


class EventLogServicer(event_log_pb2_grpc.EventLogServiceServicer):
    """Serves the outbox of one database."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def ListEvents(
        self, request: event_log_pb2.ListEventsRequest, context: Any
    ) -> event_log_pb2.ListEventsResponse:
        """Returns events after a position, and where to go on."""
        return await list_events(self._db, request)


async def list_events(
    db: Database, request: event_log_pb2.ListEventsRequest
) -> event_log_pb2.ListEventsResponse:
    """Returns events of the outbox after a position, and where to go on."""
    limit = request.limit or DEFAULT_LIMIT
    async with db.read() as conn:
        rows = await driver(conn).fetch(_LIST, request.after, limit, list(request.types), WINDOW)
    head: int = rows[0]["head"]
    events = [_event(row) for row in rows if row["position"] is not None]
    looked_at = events[-1].position if len(events) == limit else min(head, request.after + WINDOW)
    return event_log_pb2.ListEventsResponse(
        events=events, next_after=max(looked_at, request.after), oldest=rows[0]["pruned"] + 1
    )


def event_log(db: Database) -> Service:
    """Returns the service for a GrpcServer."""
    return (
        event_log_pb2.DESCRIPTOR.services_by_name["EventLogService"],
        event_log_pb2_grpc.add_EventLogServiceServicer_to_server,
        EventLogServicer(db),
    )


def _event(row: Any) -> event_log_pb2.Event:
    time = timestamp_pb2.Timestamp()
    time.FromDatetime(row["created_at"])
    return event_log_pb2.Event(
        position=row["position"],
        id=str(row["event_id"]),
        type=row["type"],
        tenant=str(row["tenant"]),
        subject=row["subject"],
        time=time,
        data=row["data"],
        traceparent=row["traceparent"],
    )
