"""Handing a service's own events to somebody outside: each at least once, those of a subject in their order.

An EventConsumer has its effects in the transaction that moves its position. What is sent over a network
cannot be part of a transaction, and none may stay open while somebody else takes their time: it would hold up
the vacuum of busy tables. So here the position moves after the effect, under a lease: one replica forwards at
a time, and if it dies in between, the next one sends some events again.
"""

import abc
import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Final
from uuid import UUID

import structlog
from headrace.common.v1 import event_log_pb2
from prometheus_client import Counter, Gauge

from headrace_chassis import database, faults
from headrace_chassis.agents import Agent
from headrace_chassis.bus import Bus, events_wake
from headrace_chassis.consumer import park
from headrace_chassis.database import Database, driver
from headrace_chassis.errors import HeadraceError
from headrace_chassis.event_sources import OwnEvents
from headrace_chassis.outbox.schema import Operations

_log = structlog.get_logger(__name__)

LEASE_SECONDS: Final = 40.0
"""How long a replica that died keeps the others from forwarding. Handing over one event must take less."""

RENEW_SECONDS: Final = 10.0

LANES: Final = 8
"""How many events are on their way at once. Those of one subject go one after the other."""

DEFECT_PATIENCE: Final = 5
"""How often a defect of ours may keep an event from being sent before it is parked."""

FORWARDED = Counter(
    "hr_forwarder_events_total",
    "Events that were handed over (sent), or left out since they were refused again and again (parked).",
    ["forwarder", "outcome"],
)
FAILURES = Counter(
    "hr_forwarder_failures_total",
    "Tries that failed, because the receiver was away or because it refused the event.",
    ["forwarder", "kind"],
)
WAITING = Gauge(
    "hr_forwarder_waiting_seconds",
    "The age of the oldest event that has not been handed over, when it was last tried.",
    ["forwarder"],
)

_STATE = """
SELECT position, refusals, coalesce(retry_at > clock_timestamp(), false) AS waits
FROM forwarder WHERE name = $1
"""
_BEGIN = "INSERT INTO forwarder (name) VALUES ($1) ON CONFLICT DO NOTHING"
_CLAIM = """
UPDATE forwarder SET holder = $2, held_until = clock_timestamp() + $3::float8 * interval '1 second'
WHERE name = $1 AND position = $4 AND (holder IS NULL OR holder = $2 OR held_until < clock_timestamp())
RETURNING 1
"""
_SENT = """
UPDATE forwarder SET position = $3, refusals = 0, failures = 0, retry_at = NULL, problem = NULL,
    held_until = clock_timestamp() + $4::float8 * interval '1 second'
WHERE name = $1 AND holder = $2 RETURNING 1
"""
# Who fails lets go of the lease at once: another replica may reach the receiver.
_AWAY = """
UPDATE forwarder SET position = $3, failures = failures + 1, problem = $4, held_until = clock_timestamp(),
    retry_at = clock_timestamp() + interval '1 second'
        * greatest(least($5::float8 * 2.0 ^ least(failures, 30), $6::float8), $7::float8)
WHERE name = $1 AND holder = $2 RETURNING failures
"""
_REFUSED = """
UPDATE forwarder SET position = $3, refusals = w.before + 1, failures = 0, problem = $4,
    held_until = clock_timestamp(),
    retry_at = clock_timestamp()
        + interval '1 second' * least($5::float8 * 2.0 ^ least(w.before, 30), $6::float8)
FROM (SELECT CASE WHEN position = $3 THEN refusals ELSE 0 END AS before FROM forwarder WHERE name = $1) AS w
WHERE name = $1 AND holder = $2 RETURNING refusals
"""


def create_forwarder(op: Operations) -> None:
    """Creates the table of forwarders; a service that has one calls it in a migration with alembic's `op`."""
    op.execute(
        """
        CREATE TABLE forwarder (
            name text PRIMARY KEY,
            position bigint NOT NULL DEFAULT 0,
            holder uuid,
            held_until timestamptz,
            refusals integer NOT NULL DEFAULT 0,
            failures integer NOT NULL DEFAULT 0,
            retry_at timestamptz,
            problem text
        )
        """
    )


class ReceiverAway(Exception):  # noqa: N818 - it names what is the case
    """The receiver takes nothing now, whatever it is sent. The message holds no secret.

    `retry_after` is after how many seconds it wants to be asked again, where it says so.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class EventRefused(Exception):  # noqa: N818 - it names what has happened
    """The receiver does not take this event. The message holds no secret.

    `patience` is how often it is to be tried before it is parked.
    """

    def __init__(self, message: str, *, patience: int) -> None:
        super().__init__(message)
        self.patience = patience


class Receiver(abc.ABC):
    """To whom events are handed over, and in which words."""

    types: Sequence[str] = ()
    """The types of events that are handed over; none means all."""

    @abc.abstractmethod
    async def prepare(self, events: Sequence[event_log_pb2.Event]) -> Sequence[Sequence[bytes]]:
        """The messages that tell each of these events, in their order.

        Raises:
            HeadraceError: what is needed for it is away.
        """

    @abc.abstractmethod
    async def send(self, message: bytes) -> None:
        """Hands a message over; returns when the receiver has it, within half of LEASE_SECONDS.

        Raises:
            ReceiverAway: it takes nothing now.
            EventRefused: it does not take this message.
        """


class EventForwarder(Agent):
    """Forwards events to one receiver. Any number of replicas may run it for one `name`; one of them sends.

    While the receiver is away, events wait in their log (OutboxPruner: for seven days) and are sent in their
    order when it is back; the wait between two tries doubles from `first_wait` to `longest_wait` seconds. An
    event that is refused again and again is parked in `parked_event` with the reason, and the ones behind it
    go on.
    """

    interval_seconds = 2.0
    gather_seconds = 0.1

    def __init__(
        self,
        db: Database,
        name: str,
        source: OwnEvents,
        receiver: Receiver,
        me: UUID,
        *,
        bus: Bus | None = None,
        batch: int = 50,
        first_wait: float = 1.0,
        longest_wait: float = 60.0,
    ) -> None:
        self.name = name
        self._db = db
        self._source = source
        self._receiver = receiver
        self._me = me
        self._batch = batch
        self._first_wait = first_wait
        self._longest_wait = longest_wait
        self._careful_until = 0
        if bus is not None:
            bus.subscribe(events_wake(source.service), lambda _: self.wake())

    async def run_once(self) -> bool:
        """Hands a batch of events over; returns whether more is waiting."""
        after = await self._position()
        if after is None:
            return False
        limit = 1 if after < self._careful_until else self._batch
        answer = await self._source.read(
            event_log_pb2.ListEventsRequest(after=after, limit=limit, types=self._receiver.types)
        )
        if after and answer.oldest > after + 1:
            _log.error("events were pruned unsent", forwarder=self.name, after=after, oldest=answer.oldest)
        if answer.next_after <= after or not await self._claim(after):
            return False
        if answer.events:
            WAITING.labels(self.name).set(max(0.0, time.time() - answer.events[0].time.seconds))
        if not await self._hand_over(after, answer.events):
            return False
        more = limit == 1 or answer.next_after - after >= limit
        # Who has nothing left to do lets go of the lease: should it die, nobody has to wait for it.
        if not await self._sent(answer.next_after, LEASE_SECONDS if more else 0.0):
            return False
        WAITING.labels(self.name).set(0)
        return more

    async def _position(self) -> int | None:
        """The position, or None while the receiver is left alone."""
        async with self._db.read() as conn:
            raw = driver(conn)
            row = await raw.fetchrow(_STATE, self.name)
            if row is None:
                await raw.execute(_BEGIN, self.name)
                return 0
        if row["refusals"]:
            # What is refused is tried alone, so that only what stands before it in its batch comes twice.
            self._careful_until = max(self._careful_until, row["position"] + 1)
        return None if row["waits"] else int(row["position"])

    async def _hand_over(self, after: int, events: Sequence[event_log_pb2.Event]) -> bool:
        """Hands events over, and returns whether all of them were."""
        batch = _Batch(after, events)
        try:
            prepared = await self._receiver.prepare(events) if events else ()
            lanes: dict[str, list[tuple[event_log_pb2.Event, Sequence[bytes]]]] = defaultdict(list)
            for event, messages in zip(events, prepared, strict=True):
                lanes[event.subject].append((event, messages))
            free = asyncio.Semaphore(LANES)
            await asyncio.gather(*(self._work_off(lane, batch, free) for lane in lanes.values()))
            if batch.broken is not None:
                raise batch.broken
        except HeadraceError:
            raise  # something of ours is away: the agent is run again soon
        except Exception as error:
            if database.is_away(error):
                raise
            if len(events) > 1:
                # One of them cannot be told, by a defect of ours: each is tried alone.
                self._careful_until = events[-1].position
                raise
            _log.error("event cannot be told", forwarder=self.name, event_id=events[0].id, exc_info=error)
            told = f"{type(error).__name__}: {error}"
            batch.fail(events[0], EventRefused(told, patience=DEFECT_PATIENCE))
        return await self._settled(batch)

    async def _work_off(
        self,
        lane: Sequence[tuple[event_log_pb2.Event, Sequence[bytes]]],
        batch: "_Batch",
        free: asyncio.Semaphore,
    ) -> None:
        """Hands the events of one subject over, one after the other, unless something has failed by then."""
        for event, messages in lane:
            async with free:
                try:
                    if batch.is_over or not await self._renew(batch):
                        return
                    for message in messages:
                        faults.point("forwarder.send.before")
                        await self._receiver.send(message)
                        faults.point("forwarder.send.after")
                except (ReceiverAway, EventRefused) as error:
                    batch.fail(event, error)
                    return
                except Exception as error:  # noqa: BLE001 - the other lanes end first, then it is raised
                    batch.broken = error
                    return
            if messages:
                FORWARDED.labels(self.name, "sent").inc()
            batch.done.add(event.position)

    async def _renew(self, batch: "_Batch") -> bool:
        """Keeps the lease while a batch takes long; returns whether it still stands."""
        if time.monotonic() - batch.renewed_at > RENEW_SECONDS:
            batch.renewed_at = time.monotonic()
            batch.is_lost = not await self._sent(batch.sent)
        return not batch.is_lost

    async def _settled(self, batch: "_Batch") -> bool:
        """Notes how far a batch has come; returns whether all of it was handed over."""
        if batch.is_lost:
            return False  # it took so long that another replica forwards now
        if batch.failed is None:
            return True
        event, error = batch.failed
        if isinstance(error, ReceiverAway):
            await self._away(batch.sent, str(error), error.retry_after)
        elif event.position == batch.following:
            await self._refused(batch.sent, event, str(error), error.patience)
        else:
            # Events before it were stopped in their lanes: when they are done, it is tried alone.
            self._careful_until = event.position
            await self._sent(batch.sent)
        return False

    async def _claim(self, position: int) -> bool:
        return bool(await self._update(_CLAIM, LEASE_SECONDS, position))

    async def _sent(self, position: int, lease: float = LEASE_SECONDS) -> bool:
        return bool(await self._update(_SENT, position, lease))

    async def _away(self, sent: int, problem: str, retry_after: float | None) -> None:
        FAILURES.labels(self.name, "away").inc()
        _log.warning("receiver is away", forwarder=self.name, problem=problem)
        asked = min(retry_after or 0.0, self._longest_wait * 10)
        await self._update(_AWAY, sent, problem, self._first_wait, self._longest_wait, asked)

    async def _refused(self, sent: int, event: event_log_pb2.Event, problem: str, patience: int) -> None:
        FAILURES.labels(self.name, "refused").inc()
        self._careful_until = event.position
        refusals = await self._update(_REFUSED, sent, problem, self._first_wait, self._longest_wait)
        if refusals is None or refusals < patience:
            _log.warning("event refused", forwarder=self.name, event_id=event.id, problem=problem)
            return
        async with self._db.transaction() as conn:
            raw = driver(conn)
            if not await raw.fetchval(_SENT, self.name, self._me, event.position, LEASE_SECONDS):
                return
            await park(raw, self.name, self._source.service, event, problem)
        FORWARDED.labels(self.name, "parked").inc()
        _log.error("event parked", forwarder=self.name, event_id=event.id, type=event.type, problem=problem)

    async def _update(self, statement: str, *values: object) -> int | None:
        async with self._db.transaction() as conn:
            found: int | None = await driver(conn).fetchval(statement, self.name, self._me, *values)
        return found


class _Batch:
    """How far a batch of events has come."""

    def __init__(self, after: int, events: Sequence[event_log_pb2.Event]) -> None:
        self._after = after
        self._positions = [event.position for event in events]
        self.done: set[int] = set()
        self.failed: tuple[event_log_pb2.Event, ReceiverAway | EventRefused] | None = None
        self.broken: Exception | None = None
        """Something else went wrong: a defect of ours, or our database is away."""
        self.renewed_at = time.monotonic()
        self.is_lost = False

    @property
    def is_over(self) -> bool:
        """Whether no further event of it is to be handed over."""
        return self.is_lost or self.failed is not None or self.broken is not None

    @property
    def sent(self) -> int:
        """The position up to which all of it was handed over."""
        return max((each for each in self._positions if each < self.following), default=self._after)

    @property
    def following(self) -> float:
        """The position of the first event that was not."""
        return next((each for each in self._positions if each not in self.done), math.inf)

    def fail(self, event: event_log_pb2.Event, error: ReceiverAway | EventRefused) -> None:
        """Notes a failure. That the receiver is away counts more than what it says of an event."""
        if self.failed is None or isinstance(error, ReceiverAway):
            self.failed = (event, error)
