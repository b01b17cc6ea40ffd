"""The connected workers and their free slots.

What a worker has is known from its leases in the store; the pool only keeps what this replica needs to
know in order not to hand out more than fits, and every heartbeat puts it right again.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Collection, Iterable
from uuid import UUID

from headrace.execution.v1 import runs_pb2, workers_pb2

from headrace_execution.store.port import WorkerRecord
from headrace_execution.workers.window import LONGEST_WAIT, Window


class Session:
    """One worker's stream, as long as it lasts."""

    def __init__(
        self,
        worker: WorkerRecord,
        *,
        silence_limit: float = 6.0,
        monotonic: Callable[[], float],
    ) -> None:
        self.worker = worker
        self._silence_limit = silence_limit
        self._monotonic = monotonic
        self._heard_at = monotonic()
        self.busy: dict[UUID, int] = {}
        """What it has: assignments and their fences."""
        self.reserved = 0
        """Places that a transaction under way may fill."""
        self._window = Window(worker.slots)
        self._sent: dict[UUID, tuple[float, int]] = {}
        """When each was sent, and how many others it had then; the oldest first."""
        self._full = False
        self.told_to_stop: set[tuple[UUID, int]] = set()
        self._outbound: deque[workers_pb2.ConnectResponse] = deque()
        self._something = asyncio.Event()
        self._closed = False

    @property
    def free(self) -> int:
        """How many more assignments it can be sent: those it can start, and short ones to wait in it."""
        return self._room(self._window.size(self._long))

    @property
    def idle(self) -> int:
        """How many more assignments it can start at once."""
        return self._room(self.worker.slots)

    def _room(self, places: int) -> int:
        if self._closed or self._full or self._is_silent:
            return 0
        return max(places - len(self.busy) - self.reserved, 0)

    @property
    def _long(self) -> int:
        # Sent in this order: the first that is not late ends the count. What it has from an earlier stream
        # may be of any age.
        late = self._monotonic() - LONGEST_WAIT
        lasting = sum(1 for _ in itertools.takewhile(lambda sent: sent[0] < late, self._sent.values()))
        return lasting + len(self.busy) - len(self._sent)

    def fill(self, assignment: UUID, fence: int) -> None:
        """An assignment takes a reserved place."""
        self.reserved -= 1
        self._sent.pop(assignment, None)
        self._sent[assignment] = (self._monotonic(), len(self.busy))
        self.busy[assignment] = fence

    def vacate(self, assignment: UUID, fence: int, *, worked: bool = True) -> None:
        """It is done with an assignment; or has not `worked` on it."""
        if self.busy.get(assignment) != fence:
            return
        del self.busy[assignment]
        sent_at, ahead = self._sent.pop(assignment, (None, 0))
        if sent_at is not None and worked:
            self._window.returned(self._monotonic() - sent_at, ahead)
            self._full = False

    def overran(self) -> None:
        """It gives back what it could not start: nothing is sent until it has room again."""
        self._window.overran()
        self._full = True

    def has_room(self) -> None:
        """It says that it could start more."""
        self._full = False

    @property
    def _is_silent(self) -> bool:
        # A worker that was stopped, or whose network is a black hole, keeps its stream: what it was given
        # now would only be lost with its lease, and counted against the stage.
        return self._monotonic() - self._heard_at > self._silence_limit

    def heard(self) -> None:
        """The worker has renewed its leases."""
        self._heard_at = self._monotonic()

    @property
    def is_closed(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._closed

    def send(self, message: workers_pb2.ConnectResponse) -> None:
        """Queues a message. On a closed stream it is dropped: the worker hears of its leases when it
        connects again.
        """
        if not self._closed:
            self._outbound.append(message)
            self._something.set()

    def close(self) -> None:
        """Ends the stream after what is queued."""
        self._closed = True
        self._something.set()

    async def next(self) -> workers_pb2.ConnectResponse | None:
        """The next message to send; None when the stream is to end."""
        while not self._outbound:
            if self._closed:
                return None
            self._something.clear()
            await self._something.wait()
        return self._outbound.popleft()


class WorkerPool:
    """The sessions of this replica."""

    def __init__(self) -> None:
        self._sessions: dict[UUID, Session] = {}

    def add(self, session: Session) -> None:
        """Takes a session in; an older one of the same worker ends."""
        old = self._sessions.get(session.worker.id)
        if old is not None:
            old.close()
        self._sessions[session.worker.id] = session

    def remove(self, session: Session) -> None:
        """Lets a session go, unless another has taken its place."""
        session.close()
        if self._sessions.get(session.worker.id) is session:
            del self._sessions[session.worker.id]

    def get(self, worker: UUID) -> Session | None:
        """The session of a worker, if it is connected here."""
        return self._sessions.get(worker)

    def all(self) -> list[Session]:
        """All sessions."""
        return list(self._sessions.values())

    def ids(self) -> list[UUID]:
        """The workers that are connected here."""
        return list(self._sessions)

    def has_free(self) -> bool:
        """Whether any slot is free."""
        return any(session.free for session in self._sessions.values())

    def reserve(self, limit: int) -> list[Session]:
        """Up to so many free places, as their sessions; each must be filled or handed back.

        Slots that are idle come first: nothing waits in one worker while another could start it.
        """
        able = [session for session in self._sessions.values() if runs_here(session.worker)]
        slots = _spread({session: session.idle for session in able}, limit)
        for session in slots:
            session.reserved += 1
        ahead = _spread({session: session.free for session in able}, limit - len(slots))
        for session in ahead:
            session.reserved += 1
        return slots + ahead

    @staticmethod
    def hand_back(slots: Iterable[Session]) -> None:
        """Reserved slots that nothing took."""
        for session in slots:
            session.reserved -= 1

    def vacate(self, worker: UUID, assignment: UUID, fence: int, *, worked: bool = True) -> None:
        """A worker is done with an assignment; or has not `worked` on it."""
        session = self._sessions.get(worker)
        if session is not None:
            session.vacate(assignment, fence, worked=worked)


def _spread(free: dict[Session, int], limit: int) -> list[Session]:
    """Up to so many of these free places, evenly over the sessions."""
    places: list[Session] = []
    while len(places) < limit and free:
        free = {session: count for session, count in free.items() if count > 0}
        for session in list(free)[: limit - len(places)]:
            places.append(session)
            free[session] -= 1
    return places


def runs_here(worker: WorkerRecord) -> bool:
    """Whether a worker runs what this release dispatches: stages of the embedded engine."""
    return JDBC in worker.engines or not worker.engines


JDBC = "JDBC"


def engines_of(engines: Collection["runs_pb2.Engine.ValueType"]) -> tuple[str, ...]:
    """Engines by their names; those that this release does not know are left out."""
    known = {value.number: value.name for value in runs_pb2.Engine.DESCRIPTOR.values}
    return tuple(known[engine].removeprefix("ENGINE_") for engine in engines if engine in known)
