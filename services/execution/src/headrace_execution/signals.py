"""Who is told, after a commit, that there is something to do. Signals only save time: each loop also looks
by itself.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable
from typing import Protocol
from uuid import UUID

from headrace_execution.domain.run import Run, Stage
from headrace_execution.domain.states import StageState
from headrace_execution.recording import Change

SUBJECT = "headrace.wake.execution"
"""The NATS subject on which replicas wake one another; nothing on it is durable, and nothing needs it."""

READY = b"ready"
STOPS = b"stops"
ENDED = b"ended"


class WakeBus(Protocol):
    """What carries a wake-up to the other replicas, if anything does."""

    async def publish_wake(self, subject: str, data: bytes) -> bool:
        """Sends it, or drops it when the broker is away; returns whether it was sent."""


class Waiters:
    """Those in this process who wait until something changes: for the end of a run, for an answer."""

    def __init__(self) -> None:
        self._events: dict[UUID, set[asyncio.Event]] = {}

    def wait_for(self, identity: UUID) -> asyncio.Event:
        """An event that is set when something happened to it. Hand it back with `leave`."""
        event = asyncio.Event()
        self._events.setdefault(identity, set()).add(event)
        return event

    def leave(self, identity: UUID, event: asyncio.Event) -> None:
        """Waits no longer."""
        waiting = self._events.get(identity)
        if waiting is not None:
            waiting.discard(event)
            if not waiting:
                del self._events[identity]

    def poke(self, identities: Iterable[UUID]) -> None:
        """Something happened to these."""
        for identity in identities:
            for event in self._events.get(identity, ()):
                event.set()

    def poke_all(self) -> None:
        """Something may have happened to any."""
        self.poke(list(self._events))


class Signals:
    """Tells the loops of this replica, and of the others, what a commit has left to do."""

    def __init__(self, bus: WakeBus | None = None) -> None:
        self._bus = bus
        self.waiters = Waiters()
        self._ready: list[Callable[[], None]] = []
        self._stops: list[Callable[[], None]] = []
        self._events: list[Callable[[], None]] = []
        self._changed: list[Callable[[list[UUID]], None]] = []
        self._words: list[Callable[[bytes], None]] = []
        self._publishing: dict[bytes, asyncio.Task[bool]] = {}
        self._again: set[bytes] = set()

    def on_ready(self, wake: Callable[[], None]) -> None:
        """Calls this when stages or probes may be waiting for a slot."""
        self._ready.append(wake)

    def on_stops(self, wake: Callable[[], None]) -> None:
        """Calls this when leased stages are to be stopped."""
        self._stops.append(wake)

    def on_events(self, wake: Callable[[], None]) -> None:
        """Calls this when events were committed."""
        self._events.append(wake)

    def watch(self, changed: Callable[[list[UUID]], None], heard: Callable[[bytes], None]) -> None:
        """Calls `changed` with runs that a commit has changed, and `heard` with what the bus brings."""
        self._changed.append(changed)
        self._words.append(heard)

    def say(self, words: Iterable[bytes]) -> None:
        """Says something to the other replicas. What is just on its way is said once more: it may be heard
        too early for what has happened since."""
        for word in words:
            if word in self._publishing:
                self._again.add(word)
            self._publish(word)

    def told(self) -> None:
        """Events were committed."""
        _call(self._events)

    def slots_opened(self) -> None:
        """This replica has free slots that it had not."""
        _call(self._ready)

    def ready(self) -> None:
        """Something waits for a slot."""
        self._tell(self._ready, READY)

    def committed(self, changes: Iterable[Change]) -> None:
        """These changes of runs are durable."""
        changes = list(changes)
        self.changed(changes)
        ready = stops = ended = told = False
        for before, after in changes:
            told = told or before.state is not after.state
            if after.is_final and not before.is_final:
                self.waiters.poke([after.id])
                ended = ended or after.cancel_requested_at is not None
            for old, new in zip(before.stages, after.stages, strict=True):
                if old is new:
                    continue
                ready = ready or new.state is StageState.READY or _makes_room(after, old, new)
                stops = stops or (new.stop is not None and old.stop is None)
        if told:
            self.told()
        if ready:
            self.ready()
        if stops:
            self._tell(self._stops, STOPS)
        if ended:
            self._publish(ENDED)

    def changed(self, changes: Collection[Change]) -> None:
        """These changes are durable and leave nothing to do, but somebody may want to see them."""
        if changes:
            for tell in self._changed:
                tell([after.id for _, after in changes])

    def answered(self, probes: Iterable[UUID]) -> None:
        """These questions have answers."""
        self.waiters.poke(probes)
        self._publish(ENDED)

    def heard(self, data: bytes) -> None:
        """Another replica (or this one) said so on the bus; nothing means that words may have been missed."""
        for listen in self._words:
            listen(data)
        match data:
            case b"":
                _call(self._ready)
                _call(self._stops)
                self.waiters.poke_all()
            case b"ready":
                _call(self._ready)
            case b"stops":
                _call(self._stops)
            case b"ended":
                self.waiters.poke_all()
            case _:
                return  # for one of the listeners above, or a newer replica's word: polling serves

    def _tell(self, local: list[Callable[[], None]], word: bytes) -> None:
        _call(local)
        self._publish(word)

    def _publish(self, word: bytes) -> None:
        if self._bus is None or word in self._publishing:
            return  # one that is on its way says it already

        def sent(_: asyncio.Task[bool]) -> None:
            del self._publishing[word]
            if word in self._again:
                self._again.discard(word)
                self._publish(word)

        task = asyncio.create_task(self._bus.publish_wake(SUBJECT, word))
        self._publishing[word] = task
        task.add_done_callback(sent)


def _makes_room(run: Run, old: Stage, new: Stage) -> bool:
    """Whether others may use a connection that this stage has used."""
    left = old.state is StageState.LEASED and new.state is not StageState.LEASED
    return left and bool(run.spec(new).limits)


def _call(wakes: list[Callable[[], None]]) -> None:
    for wake in wakes:
        wake()
