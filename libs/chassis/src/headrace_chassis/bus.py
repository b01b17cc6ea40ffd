"""NATS, the nervous system: it carries wakings and events sooner, and nothing depends on it.

It may be away at the start, go away at any time, and forget everything: calls then do nothing, and whoever
waits for a message looks by itself every so often.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import nats
import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig

from headrace_chassis.jetstream import OutgoingMessage, StreamPublisher

_log = structlog.get_logger(__name__)

RECONNECT_SECONDS = 0.5
"""How long it waits between tries; nats-py declares whole seconds, but only sleeps that long."""

CONNECT_SECONDS = 2

Listener = Callable[[bytes], None]
"""Takes the data of a message; is also called, with nothing, whenever messages may have been missed."""


def events_wake(service: str) -> str:
    """The subject on which a service says that there are new events in its log."""
    return f"headrace.wake.{service}.events"


class Bus:
    """One connection to NATS, which comes and goes in the background. Without a URL it is always away."""

    def __init__(self, url: str | None, name: str) -> None:
        self._url = url
        self._name = name
        self._client: Client | None = None
        self._publisher: StreamPublisher | None = None
        self._listeners: list[tuple[str, Listener]] = []
        self._connecting: asyncio.Task[None] | None = None
        self._is_closed = False
        self._streams: set[str] = set()

    def __repr__(self) -> str:
        return f"Bus({self._name!r})"  # the URL holds a password

    @property
    def is_connected(self) -> bool:
        """Whether NATS can be reached now."""
        return self._client is not None and self._client.is_connected

    async def start(self) -> None:
        """Begins to connect, and returns at once. Starting again does nothing."""
        if self._url is not None and self._connecting is None:
            self._connecting = asyncio.create_task(self._connect(self._url), name="bus")

    async def close(self) -> None:
        """Leaves NATS. Closing again does nothing."""
        self._is_closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
            self._connecting = None
        if self._client is not None:
            await self._client.close()
            self._client = None

    def subscribe(self, subject: str, listener: Listener) -> None:
        """Calls the listener for each message of a subject, for as long as the bus lives; to be said before
        `start`."""
        self._listeners.append((subject, listener))

    async def publish_wake(self, subject: str, data: bytes = b"") -> bool:
        """Sends a message that nobody may depend on; returns whether NATS was there to take it."""
        client = self._client
        if client is None or not client.is_connected:
            return False
        try:
            await client.publish(subject, data)
        except (nats.errors.Error, OSError) as error:
            _log.info("wake was not sent", subject=subject, error=type(error).__name__)
            return False
        return True

    async def publish_all(
        self, stream: StreamConfig, messages: Sequence[OutgoingMessage], *, timeout: float
    ) -> int:
        """Publishes messages to a stream, all outstanding at once.

        Returns how many of the first messages the stream has acknowledged without a gap; 0 while NATS is
        away.
        """
        client, publisher = self._client, self._publisher
        if client is None or publisher is None or not client.is_connected:
            return 0
        if not await self._ensure(client.jetstream(timeout=timeout), stream):
            return 0
        try:
            acknowledged = await publisher.publish(stream.name or "", messages, timeout=timeout)
        except (nats.errors.Error, OSError) as error:
            _log.info("events were not published", stream=stream.name, error=type(error).__name__)
            return 0
        if not all(acknowledged):
            _log.info("events were not published", stream=stream.name, missing=acknowledged.count(False))
            self._streams.discard(stream.name or "")  # perhaps it was wiped: look again next time
        return acknowledged.index(False) if False in acknowledged else len(acknowledged)

    async def _ensure(self, context: JetStreamContext, stream: StreamConfig) -> bool:
        """Makes the stream where it is missing, and corrects one whose configuration has drifted."""
        name = stream.name or ""
        if name in self._streams:
            return True
        try:
            try:
                found = (await context.stream_info(name)).config
            except nats.js.errors.NotFoundError:
                await context.add_stream(stream)
            else:
                drifted = _drift(found, stream)
                if drifted:
                    _log.warning("stream had another configuration", stream=name, differences=drifted)
                    await context.update_stream(stream)
        except (nats.errors.Error, OSError, TimeoutError) as error:
            _log.warning("stream is not usable", stream=name, error=str(error) or type(error).__name__)
            return False
        self._streams.add(name)
        return True

    async def _connect(self, url: str) -> None:
        while not self._is_closed:
            client = Client()
            closed = asyncio.Event()
            try:
                await client.connect(
                    url,
                    name=self._name,
                    connect_timeout=CONNECT_SECONDS,
                    reconnect_time_wait=RECONNECT_SECONDS,  # type: ignore[arg-type]
                    max_reconnect_attempts=-1,
                    allow_reconnect=True,
                    error_cb=_on_error,
                    reconnected_cb=self._on_reconnected,
                    closed_cb=_setter(closed),
                )
                await self._listen(client)
            except (nats.errors.Error, OSError, TimeoutError) as error:
                _log.info("NATS is away", error=type(error).__name__)
                await client.close()
                await asyncio.sleep(RECONNECT_SECONDS)
                continue
            self._client, self._publisher = client, StreamPublisher(client)
            _log.info("NATS connected")
            self._tell_all()
            # The client reconnects by itself; should it give up all the same (credentials changed), begin
            # anew.
            await closed.wait()

    async def _listen(self, client: Client) -> None:
        for subject, listener in self._listeners:
            await client.subscribe(subject, cb=_callback(listener))

    async def _on_reconnected(self) -> None:
        self._streams.clear()
        self._tell_all()

    def _tell_all(self) -> None:
        for _, listener in self._listeners:
            listener(b"")


def stream_config(name: str, subjects: Sequence[str]) -> StreamConfig:
    """Returns the configuration of a stream of events: a day of them, 1 GiB at the most, on disk, oldest
    dropped."""
    return StreamConfig(
        name=name,
        subjects=list(subjects),
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        discard=DiscardPolicy.OLD,
        max_age=24 * 3600.0,
        max_bytes=1024**3,
        max_msg_size=1024**2,
        duplicate_window=120.0,
        num_replicas=1,
    )


_COMPARED = (
    "subjects",
    "retention",
    "storage",
    "discard",
    "max_age",
    "max_bytes",
    "max_msg_size",
    "duplicate_window",
)


def _drift(found: StreamConfig, wanted: StreamConfig) -> dict[str, str]:
    return {
        name: f"{getattr(found, name)} instead of {getattr(wanted, name)}"
        for name in _COMPARED
        if getattr(found, name) != getattr(wanted, name)
    }


def _callback(listener: Listener) -> Callable[[Msg], Any]:
    async def call(message: Msg) -> None:
        listener(message.data)

    return call


def _setter(event: asyncio.Event) -> Callable[[], Any]:
    async def call() -> None:
        event.set()

    return call


async def _on_error(error: Exception) -> None:
    _log.info("NATS error", error=type(error).__name__)
