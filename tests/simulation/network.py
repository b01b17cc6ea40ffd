"""What is between processes: streams that keep order and can be cut, and a broker that keeps nothing."""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import grpc
from headrace_chassis.bus import Listener
from headrace_chassis.jetstream import OutgoingMessage

from .virtual_loop import NOBODY, VirtualLoop

M = TypeVar("M")


def unavailable() -> grpc.aio.AioRpcError:
    """What a call tells whose other side cannot be reached."""
    return grpc.aio.AioRpcError(
        grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), details="simulated"
    )


class Network:
    """How long messages take, and the chance that they take longer."""

    def __init__(self, loop: VirtualLoop, chance: random.Random) -> None:
        self.loop = loop
        self.chance = chance
        self.unsteady = True
        """Whether there are delays beyond the ordinary, losses and repetitions."""

    def delay(self) -> float:
        """How long a message is on its way."""
        if self.unsteady and self.chance.random() < 0.02:
            return self.chance.uniform(0.1, 1.5)
        return 0.0005 + self.chance.random() * 0.002


class Line(Generic[M]):
    """One direction of a stream. What was sent arrives in its order, or not at all once it is cut."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._arrived: deque[M | None] = deque()
        self._waiting: asyncio.Future[None] | None = None
        self._last = 0.0
        self._is_cut = False
        self._is_finished = False

    def send(self, message: M | None) -> None:
        """Sends a message; None is the end of the line."""
        if self._is_cut or self._is_finished:
            return
        self._is_finished = message is None
        loop = self._network.loop
        self._last = max(self._last, loop.time() + self._network.delay())
        loop.call_at(self._last, self._arrive, message, context=NOBODY)

    def stall(self, seconds: float) -> None:
        """Whatever is sent from now on arrives no sooner than then."""
        self._last = max(self._last, self._network.loop.time() + seconds)

    def cut(self) -> None:
        """Nothing arrives any more, not even what is on its way."""
        self._is_cut = True
        self._wake()

    async def next(self) -> M | None:
        """The next message; None at the end. Raises AioRpcError when the line was cut."""
        while not self._arrived:
            if self._is_cut:
                raise unavailable()
            self._waiting = self._network.loop.create_future()
            await self._waiting
        return self._arrived.popleft()

    def _arrive(self, message: M | None) -> None:
        if not self._is_cut:
            self._arrived.append(message)
            self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
        self._waiting = None


class Stream(Generic[M]):
    """A bidirectional stream between a worker and a replica."""

    def __init__(self, network: Network) -> None:
        self.up: Line[Any] = Line(network)
        self.down: Line[Any] = Line(network)
        self.on_cut: list[Callable[[], None]] = []
        self.is_cut = False

    def cut(self) -> None:
        """Breaks it; both sides notice."""
        if self.is_cut:
            return
        self.is_cut = True
        self.up.cut()
        self.down.cut()
        for told in self.on_cut:
            told()

    def stall(self, seconds: float) -> None:
        """Holds everything up in both directions."""
        self.up.stall(seconds)
        self.down.stall(seconds)

    def __aiter__(self) -> "Stream[M]":
        """What the worker says, for the servicer."""
        return self

    async def __anext__(self) -> Any:
        """The next thing that it says."""
        message = await self.up.next()
        if message is None:
            raise StopAsyncIteration
        return message


class Broker:
    """NATS: it loses, repeats and reorders, goes away, and forgets everything."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.is_up = True
        self.buses: list[SimulatedBus] = []

    def spread(self, subject: str, data: bytes) -> None:
        """Delivers a message to whoever listens."""
        chance, loop = self._network.chance, self._network.loop
        for bus in list(self.buses):
            for pattern, listener in bus.listeners:
                if not _matches(pattern, subject):
                    continue
                times = 1
                if self._network.unsteady:
                    times = chance.choices((0, 1, 3), (0.1, 0.85, 0.05))[0]
                for _ in range(times):
                    loop.call_later(self._network.delay(), bus.deliver, listener, data, context=NOBODY)

    def go_away(self) -> None:
        """Until it comes back, nothing is delivered."""
        self.is_up = False

    def come_back(self) -> None:
        """It has forgotten everything, and who listens is told that something may have been missed."""
        self.is_up = True
        for bus in list(self.buses):
            for _, listener in bus.listeners:
                bus.deliver(listener, b"")


class SimulatedBus:
    """One process's connection to the broker."""

    def __init__(self, broker: Broker, chance: random.Random, is_alive: Callable[[], bool]) -> None:
        self._broker = broker
        self._chance = chance
        self._is_alive = is_alive
        self.listeners: list[tuple[str, Listener]] = []
        broker.buses.append(self)

    @property
    def is_connected(self) -> bool:
        """Whether the broker is there."""
        return self._broker.is_up

    def close(self) -> None:
        """Listens no longer."""
        if self in self._broker.buses:
            self._broker.buses.remove(self)

    def subscribe(self, subject: str, listener: Listener) -> None:
        """Listens."""
        self.listeners.append((subject, listener))

    async def publish_wake(self, subject: str, data: bytes = b"") -> bool:
        """Sends a message that nobody may depend on."""
        if not self._broker.is_up or not self._is_alive():
            return False
        self._broker.spread(subject, data)
        return True

    async def publish_all(
        self, stream: object, messages: Sequence[OutgoingMessage], *, timeout: float
    ) -> int:
        """Publishes events; some of them may not be acknowledged."""
        if not self._broker.is_up or not self._is_alive():
            return 0
        for message in messages:
            self._broker.spread(message.subject, message.data)
        await asyncio.sleep(0.002)
        if not self._is_alive() or not self._broker.is_up:
            return 0
        return len(messages) if self._chance.random() < 0.9 else self._chance.randrange(len(messages) + 1)

    def deliver(self, listener: Listener, data: bytes) -> None:
        """Hands a message to a listener."""
        if self._is_alive():
            listener(data)


def _matches(pattern: str, subject: str) -> bool:
    return subject == pattern or (pattern.endswith(".>") and subject.startswith(pattern[:-1]))
