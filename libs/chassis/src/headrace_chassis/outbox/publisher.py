"""Carries events to NATS, in the order of their positions: sooner than polling, and never needed.

A stream a service (HEADRACE_<SERVICE>) with subjects headrace.<service>.<event>, protobuf payloads, and
CloudEvents 1.0 attributes as headers (binary content mode of its NATS protocol binding).
"""

import uuid

from headrace.common.v1 import event_log_pb2

from headrace_chassis import faults
from headrace_chassis.agents import Agent
from headrace_chassis.bus import Bus, events_wake, stream_config
from headrace_chassis.database import Database, driver
from headrace_chassis.jetstream import OutgoingMessage
from headrace_chassis.outbox.reading import EventLog

TYPE_PREFIX = "io.headrace."

LEASE_SECONDS = 10
ACKNOWLEDGE_SECONDS = 5.0

# One replica publishes at a time, under a lease by the database's clock: two would do no harm, but double the
# work.
_CLAIM = """
UPDATE outbox_head
SET publisher = $1, publisher_until = clock_timestamp() + $2 * interval '1 second'
WHERE published < position
  AND (publisher IS NULL OR publisher = $1 OR publisher_until < clock_timestamp())
RETURNING greatest(published, pruned)
"""

_MOVE = "UPDATE outbox_head SET published = greatest(published, $2) WHERE publisher = $1"


class OutboxPublisher(Agent):
    """Publishes what has a position, many at a time, and remembers how far it has come.

    It may die between publishing and remembering: then some events come twice, with the same identity. While
    NATS is away it does nothing, and afterwards goes on where it was.
    """

    name = "outbox_publisher"
    interval_seconds = 2.0

    def __init__(self, db: Database, service: str, bus: Bus, log: EventLog, *, batch: int = 500) -> None:
        self._db = db
        self._log = log
        self._service = service
        self._bus = bus
        self._batch = batch
        self._me = str(uuid.uuid4())
        self._stream = stream_config(f"HEADRACE_{service.upper()}", [f"headrace.{service}.>"])

    async def run_once(self) -> bool:
        """Publishes a batch; returns whether more is waiting."""
        if not self._bus.is_connected:
            return False
        async with self._db.read() as conn:
            after: int | None = await driver(conn).fetchval(_CLAIM, self._me, LEASE_SECONDS)
        if after is None:
            return False
        events = (await self._log.read(after, self._batch)).events
        if not events:
            return False
        # Those that follow the log need to hear once that it has grown, not of each event in it.
        await self._bus.publish_wake(events_wake(self._service))
        messages = [self._message(event) for event in events]
        faults.point("outbox.publish.before")
        count = await self._bus.publish_all(self._stream, messages, timeout=ACKNOWLEDGE_SECONDS)
        faults.point("outbox.publish.after")
        if count:
            async with self._db.read() as conn:
                await driver(conn).execute(_MOVE, self._me, events[count - 1].position)
        return count == self._batch

    def _message(self, event: event_log_pb2.Event) -> OutgoingMessage:
        headers = {
            "ce-specversion": "1.0",
            "ce-id": event.id,
            "ce-source": f"/headrace/{self._service}",
            "ce-type": event.type,
            "ce-subject": event.subject,
            "ce-time": f"{event.time.ToDatetime().isoformat()}Z",
            "ce-sequence": str(event.position),
            "ce-tenant": event.tenant,
            "content-type": "application/protobuf",
        }
        if event.traceparent:
            headers["ce-traceparent"] = event.traceparent
        subject = f"headrace.{self._service}.{event.type.removeprefix(TYPE_PREFIX)}"
        return OutgoingMessage(subject, event.data, event.id, headers)
