"""Carries what attempts log to the server: in order, in chunks, again until each is acknowledged.

An attempt has one chunk on its way at a time; what it logs meanwhile gathers into the next one. What gathers
is bounded: where the server takes it too slowly or not at all, lines are left out and counted, and nothing
else ever waits for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from headrace.execution.v1 import logs_pb2, workers_pb2

from headrace_worker.engine.run_log import WARNING, log_line

LARGEST_CHUNK = 64 * 1024
PAUSE_SECONDS = 0.4
"""How long lines gather at least between two chunks of an attempt."""
REPEAT_SECONDS = 5.0
MOST_WAITING = 512 * 1024
"""Bytes that wait for one attempt."""
MOST_WAITING_IN_ALL = 16 * 1024 * 1024
FORGET_SECONDS = 300.0
"""How long it is tried to deliver the log of an attempt that has ended."""

_Key = tuple[str, int]


class Outbox(Protocol):
    """Where messages to the server go; what cannot be sent now may be lost."""

    def send(self, request: workers_pb2.ConnectRequest) -> None:
        """Send as soon as there is a stream."""


@dataclass
class _Log:
    """The log of one attempt."""

    ref: workers_pb2.AssignmentRef
    attempt: int
    lines: list[logs_pb2.LogLine] = field(default_factory=list)
    size: int = 0
    left_out: int = 0
    sequence: int = 0
    """That of the chunk on its way, or of the next one."""
    chunk: workers_pb2.LogChunk | None = None
    """The chunk on its way."""
    sent_at: float = float("-inf")
    ended_at: float | None = None

    @property
    def is_delivered(self) -> bool:
        """Whether nothing of it waits or is on its way."""
        return self.chunk is None and not self.lines and not self.left_out


class LogCourier:
    """The logs of all attempts of this worker. `clock` is in seconds. No call blocks."""

    def __init__(
        self,
        outbox: Outbox,
        clock: Callable[[], float],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._outbox = outbox
        self._clock = clock
        self._now = now
        self._logs: dict[_Key, _Log] = {}
        self._waiting = 0

    @property
    def is_idle(self) -> bool:
        """Whether all that was logged has been delivered."""
        return all(log.is_delivered for log in self._logs.values())

    def take(self, assignment: workers_pb2.Assignment, lines: Iterable[logs_pb2.LogLine]) -> None:
        """Lines of an attempt, in their order."""
        log = self._logs.get(_key(assignment.ref))
        if log is None:
            log = self._logs[_key(assignment.ref)] = _Log(assignment.ref, assignment.attempt)
        for line in lines:
            size = line.ByteSize()
            if log.size + size > MOST_WAITING or self._waiting + size > MOST_WAITING_IN_ALL:
                log.left_out += 1
                continue
            if log.left_out:
                self._count_left_out(log)
            log.lines.append(line)
            log.size += size
            self._waiting += size

    def write(
        self, assignment: workers_pb2.Assignment, level: logs_pb2.LogLevel.ValueType, message: str
    ) -> None:
        """A line of the worker's own about an attempt, about none of its tasks."""
        self.take(assignment, [log_line(self._now(), level, "", assignment.attempt, message, {})])

    def ended(self, ref: workers_pb2.AssignmentRef) -> None:
        """The attempt is over: what it has logged is delivered without a pause, and then forgotten."""
        log = self._logs.get(_key(ref))
        if log is not None:
            log.ended_at = self._clock()
            self._send(log)

    def send_due(self) -> None:
        """Send what has gathered, and again what was not acknowledged in time."""
        now = self._clock()
        for key, log in list(self._logs.items()):
            if log.ended_at is not None and (log.is_delivered or now - log.ended_at > FORGET_SECONDS):
                self._waiting -= log.size
                del self._logs[key]
            elif log.chunk is None and now - log.sent_at >= PAUSE_SECONDS:
                self._send(log)
            elif log.chunk is not None and now - log.sent_at >= REPEAT_SECONDS:
                self._post(log)

    def reconnected(self) -> None:
        """There is a new stream: what was on its way may have been lost."""
        for log in self._logs.values():
            if log.chunk is not None:
                self._post(log)

    def acknowledged(self, ack: workers_pb2.LogAck) -> None:
        """A chunk need not be sent again."""
        log = self._logs.get(_key(ack.ref))
        if log is None or log.chunk is None or log.sequence != ack.sequence:
            return
        log.chunk, log.sequence = None, log.sequence + 1
        if log.ended_at is not None:
            self._send(log)

    def _send(self, log: _Log) -> None:
        """Make the next chunk, if there is none on its way and something to be told."""
        if log.chunk is not None:
            return
        if log.left_out and not log.lines:
            self._count_left_out(log)
        if not log.lines:
            return
        lines = _first(log.lines, LARGEST_CHUNK)
        del log.lines[: len(lines)]
        size = sum(line.ByteSize() for line in lines)
        log.size -= size
        self._waiting -= size
        log.chunk = workers_pb2.LogChunk(ref=log.ref, attempt=log.attempt, sequence=log.sequence, lines=lines)
        self._post(log)

    def _post(self, log: _Log) -> None:
        log.sent_at = self._clock()
        self._outbox.send(workers_pb2.ConnectRequest(log=log.chunk))

    def _count_left_out(self, log: _Log) -> None:
        message = f"{log.left_out} lines are left out here: the server did not take them in time"
        log.left_out = 0
        line = log_line(self._now(), WARNING, "", log.attempt, message, {})
        log.lines.append(line)
        log.size += line.ByteSize()
        self._waiting += line.ByteSize()


def _first(lines: Sequence[logs_pb2.LogLine], size: int) -> list[logs_pb2.LogLine]:
    """The first lines, as many as go into so many bytes, and one at least."""
    taken: list[logs_pb2.LogLine] = []
    for line in lines:
        size -= line.ByteSize()
        if taken and size < 0:
            break
        taken.append(line)
    return taken


def _key(ref: workers_pb2.AssignmentRef) -> _Key:
    return ref.assignment_id, ref.fence
