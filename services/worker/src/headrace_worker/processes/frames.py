"""What the supervisor and a stage process say to each other: length-prefixed frames over a socket pair.

Bodies are the protobuf messages of the worker protocol, so that what travels from the server to the engine is
packed and unpacked once. A stage process knows these messages and nothing of gRPC.
"""

from __future__ import annotations

import enum
import socket
import struct

_HEADER = struct.Struct(">IB")
_MAX_BODY = 64 * 1024 * 1024  # four times the largest message that the server sends


ALL_LANDED = b'{"landed":"all"}'
"""The answer of a settle chore whose stage had landed all its loads."""


class Frame(enum.IntEnum):
    """What a frame holds."""

    ASSIGN = 1
    """To the stage process: an Assignment to start."""
    STOP = 2
    """To the stage process: end what it runs; the body is one of the words of `StopReason`."""
    SECRETS = 3
    """To the stage process: the answer to NEED_SECRETS, a ResolveSecretsResponse."""
    SECRETS_REFUSED = 4
    """To the stage process: the answer to NEED_SECRETS, a TaskError that says why there are none."""
    COMMIT_ANSWER = 5
    """To the stage process: the answer to MAY_COMMIT, one byte: 1 is yes."""
    PROGRESS = 6
    """From the stage process: an AssignmentProgress."""
    RESULT = 7
    """From the stage process: an AssignmentResult; the process takes the next assignment."""
    LAST_RESULT = 8
    """From the stage process: an AssignmentResult; the process ends after it."""
    NEED_SECRETS = 9
    """From the stage process: asks for the connections of its assignment."""
    MAY_COMMIT = 10
    """From the stage process: asks whether the lease is still believed valid."""
    STORE_OUTPUT = 12
    """From the stage process: asks for a file of its folder to be kept, as {"task": …, "file": …} in JSON."""
    OUTPUT_STORED = 13
    """To the stage process: the answer to STORE_OUTPUT, {"key": …, "bytes": …, "sha256": …} in JSON."""
    OUTPUT_REFUSED = 14
    """To the stage process: the answer to STORE_OUTPUT, a TaskError that says why it is not kept."""
    LOG = 11
    """From the stage process: a LogChunk with nothing but its lines."""


class StopReason(enum.StrEnum):
    """Why a stage process shall end what it runs."""

    CANCELLED = "CANCELLED"
    """A user cancelled the run: nothing of it may land any more."""
    TIMED_OUT = "TIMED_OUT"
    """The attempt took too long."""
    LEASE_LOST = "LEASE_LOST"
    """Somebody else has the assignment: nobody waits for a result."""
    SHUTDOWN = "SHUTDOWN"
    """The worker goes down, and the stage would take too long."""


class FrameError(Exception):
    """The peer sent something that is no frame."""


def pack(kind: Frame, body: bytes = b"") -> bytes:
    """A frame as it goes over the wire.

    Raises:
        FrameError: when the body is larger than any frame may be.
    """
    if len(body) > _MAX_BODY:
        raise FrameError(f"a frame of {len(body)} bytes is more than the {_MAX_BODY} that are allowed")
    return _HEADER.pack(len(body), kind) + body


class FrameBuffer:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> list[tuple[Frame, bytes]]:
        """The frames that are complete with `data`.

        Raises:
            FrameError: when the stream holds something that is no frame.
        """
        self._data += data
        frames: list[tuple[Frame, bytes]] = []
        start = 0
        while len(self._data) - start >= _HEADER.size:
            kind, length = _parse_header(self._data, start)
            end = start + _HEADER.size + length
            if len(self._data) < end:
                break
            frames.append((kind, bytes(self._data[start + _HEADER.size : end])))
            start = end
        del self._data[:start]
        return frames


def read_frame(connection: socket.socket) -> tuple[Frame, bytes] | None:
    """The next frame of a blocking socket, or None when the peer is gone.

    Raises:
        FrameError: when the peer sent something that is no frame, or half of one.
    """
    header = _read_exactly(connection, _HEADER.size)
    if header is None:
        return None
    kind, length = _parse_header(header, 0)
    body = _read_exactly(connection, length) if length else b""
    if body is None:
        raise FrameError("the peer went away within a frame")
    return kind, bytes(body)


def _parse_header(data: bytearray, start: int) -> tuple[Frame, int]:
    length, kind = _HEADER.unpack_from(data, start)
    if length > _MAX_BODY:
        raise FrameError(f"a frame of {length} bytes is more than the {_MAX_BODY} that are allowed")
    try:
        return Frame(kind), length
    except ValueError:
        raise FrameError(f"{kind} is no kind of frame") from None


def _read_exactly(connection: socket.socket, size: int) -> bytearray | None:
    data = bytearray()
    while len(data) < size:
        chunk = connection.recv(size - len(data))
        if not chunk:
            if data:
                raise FrameError("the peer went away within a frame")
            return None
        data += chunk
    return data
