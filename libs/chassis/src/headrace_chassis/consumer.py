"""Following a service's events: every effect once, whatever is lost, repeated or late on the way.

The log of the service is what is followed, in the order of its positions; NATS only says that there is
something new. The position moves in the transaction of the effects, so that both happen or neither. Where log
and position are in different databases, the inbox refuses an event that was handled before, should a position
ever be set back (a restored backup of either side).
"""

from collections.abc import Awaitable, Callable, Sequence

import asyncpg
import structlog
from headrace.common.v1 import event_log_pb2
from prometheus_client import Counter, Gauge
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_chassis import database
from headrace_chassis.agents import Agent
from headrace_chassis.bus import Bus, events_wake
from headrace_chassis.database import Database, driver
from headrace_chassis.errors import HeadraceError, Unavailable
from headrace_chassis.event_sources import EventSource

_log = structlog.get_logger(__name__)

Handle = Callable[[AsyncConnection, Sequence[event_log_pb2.Event]], Awaitable[None]]
"""Has the effects of events, in their order, on the given transaction; it may be rolled back and asked
again."""

PARK_AFTER = 5
"""How often one event may fail before it is parked."""

PARKED = Counter(
    "hr_consumer_parked_total", "Events that were parked because they failed again and again.", ["consumer"]
)
POSITION = Gauge(
    "hr_consumer_position", "The position up to which events were handled.", ["consumer", "source"]
)

_POSITION = "SELECT position FROM consumer_position WHERE consumer = $1 AND source = $2"
_BEGIN = "INSERT INTO consumer_position (consumer, source) VALUES ($1, $2) ON CONFLICT DO NOTHING"
_LOCK = _POSITION + " FOR UPDATE"
_MOVE = """
UPDATE consumer_position SET position = $3, updated_at = clock_timestamp() WHERE consumer = $1 AND source = $2
"""
_RECEIVE = """
INSERT INTO inbox (consumer, event_id) SELECT $1, * FROM unnest($2::uuid[])
ON CONFLICT DO NOTHING RETURNING event_id
"""
_PARK = """
INSERT INTO parked_event (consumer, event_id, source, event, error) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT DO NOTHING
"""


async def park(
    raw: asyncpg.Connection, consumer: str, source: str, event: event_log_pb2.Event, reason: str
) -> None:
    """Keeps an event that cannot be handled, with the reason, for people to look at."""
    await raw.execute(_PARK, consumer, event.id, source, event.SerializeToString(), reason)


class EventConsumer(Agent):
    """Follows the events of one service; several replicas may follow for one `name` and share its position.

    An event whose handling fails is tried alone, and parked after PARK_AFTER failures: it is kept in
    `parked_event`, counted and logged, and the ones behind it go on. Failures that say "something is away" do
    not count.
    """

    interval_seconds = 2.0
    # Each round is a call and a transaction, and every batch of events wakes it.
    gather_seconds = 0.05
    pause_seconds = 0.1

    def __init__(
        self,
        db: Database,
        name: str,
        source: EventSource,
        handle: Handle,
        *,
        types: Sequence[str] = (),
        bus: Bus | None = None,
        batch: int = 500,
    ) -> None:
        self.name = name
        self._db = db
        self._log = source
        self._source = source.service
        self._handle = handle
        self._types = tuple(types)
        self._batch = batch
        self._failures = 0
        self._careful_until = 0
        if bus is not None:
            bus.subscribe(events_wake(source.service), lambda _: self.wake())

    async def run_once(self) -> bool:
        """Handles a batch of events; returns whether more is waiting."""
        after = await self._position()
        limit = 1 if after < self._careful_until else self._batch
        answer = await self._log.read(
            event_log_pb2.ListEventsRequest(after=after, limit=limit, types=self._types)
        )
        if after and answer.oldest > after + 1:
            _log.error("events were pruned unread", consumer=self.name, after=after, oldest=answer.oldest)
        if answer.next_after <= after:
            return False
        try:
            await self._db.run(lambda conn: self._apply(conn, after, answer))
        except HeadraceError as error:
            if isinstance(error, Unavailable) or not answer.events:
                raise
            await self._failed(after, answer, error)
        except Exception as error:
            if database.is_away(error) or not answer.events:
                raise
            await self._failed(after, answer, error)
        else:
            self._failures = 0
            POSITION.labels(self.name, self._source).set(answer.next_after)
        return limit == 1 or answer.next_after - after >= limit

    async def _position(self) -> int:
        async with self._db.read() as conn:
            raw = driver(conn)
            found: int | None = await raw.fetchval(_POSITION, self.name, self._source)
            if found is None:
                await raw.execute(_BEGIN, self.name, self._source)
        return found or 0

    async def _apply(
        self, conn: AsyncConnection, after: int, answer: event_log_pb2.ListEventsResponse
    ) -> None:
        raw = driver(conn)
        if await raw.fetchval(_LOCK, self.name, self._source) != after:
            return  # another replica has handled them
        by_position = {event.position: event for event in answer.events if event.position > after}
        events = [event for _, event in sorted(by_position.items())]
        if self._log.may_repeat:
            fresh = await raw.fetch(_RECEIVE, self.name, [event.id for event in events])
            new = {str(row["event_id"]) for row in fresh}
            events = [event for event in events if event.id in new]
        if events:
            await self._handle(conn, events)
        await raw.execute(_MOVE, self.name, self._source, answer.next_after)

    async def _failed(self, after: int, answer: event_log_pb2.ListEventsResponse, error: Exception) -> None:
        """Raises again what went wrong, unless one event alone has done so often enough: that one is
        parked."""
        if len(answer.events) > 1:
            self._careful_until = answer.next_after
            raise error
        self._failures += 1
        if self._failures < PARK_AFTER:
            raise error
        event = answer.events[0]
        told = f"{type(error).__name__}: {error}"
        async with self._db.transaction() as conn:
            raw = driver(conn)
            if await raw.fetchval(_LOCK, self.name, self._source) != after:
                return
            await park(raw, self.name, self._source, event, told)
            await raw.execute(_MOVE, self.name, self._source, answer.next_after)
        self._failures = 0
        PARKED.labels(self.name).inc()
        _log.error("event parked", consumer=self.name, event_id=event.id, type=event.type, exc_info=error)
