"""Where OpenLineage events go: a service that takes them over HTTP, or a file of JSON lines."""

import asyncio
import fcntl
import os
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from headrace_chassis.forwarder import EventRefused, ReceiverAway
from headrace_outbound.posting import AddressRefused, CallFailed, GuardedPoster, InvalidUrl

TIMEOUT_SECONDS: Final = 10.0

_LATER: Final = frozenset({401, 403, 404, 405, 407, 408, 421, 423, 425, 429, 502, 503, 504})
"""Answers that say nothing about the event: the service is away or busy, or the address or the key is wrong.
Somebody will mend it, and nothing must be lost until then."""

_PATIENCE: Final = 3
"""How often an event is tried that is answered with another 4xx: it will hardly be taken next time."""

_PATIENCE_WITH_ERRORS: Final = 12
"""How often an event is tried that is answered with another 5xx: the event may be the reason, or the service
itself."""

_BLOCK = 64 * 1024


class HttpEndpoint:
    """Posts each event as JSON, as OpenLineage's HTTP transport does; the key, if there is one, as a bearer
    token. The file of the key is read each time: a new key counts at once.
    """

    def __init__(self, url: str, key_file: Path | None, poster: GuardedPoster) -> None:
        self._url = url
        self._key_file = key_file
        self._poster = poster

    async def send(self, message: bytes) -> None:
        """Posts an event. Raises ReceiverAway and EventRefused."""
        try:
            answer = await self._poster.post(self._url, message, self._headers())
        except (AddressRefused, CallFailed, InvalidUrl) as error:
            raise ReceiverAway(str(error)) from error
        if answer.is_success:
            return
        told = f"the service answered {answer.status}"
        if answer.status in _LATER or answer.status < 400:
            raise ReceiverAway(told, retry_after=answer.retry_after)
        raise EventRefused(told, patience=_PATIENCE if answer.status < 500 else _PATIENCE_WITH_ERRORS)

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json"}
        if self._key_file is not None:
            try:
                key = self._key_file.read_text(encoding="utf-8").strip()
            except OSError as error:
                raise ReceiverAway(f"the file of the API key cannot be read: {error.strerror}") from error
            headers["Authorization"] = f"Bearer {key}"
        return headers


class FileEndpoint:
    """Appends each event to a file as one line, and returns when it is on disk.

    Several processes may append to one file. A line that one of them could not finish before it died is
    removed: its event comes again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._appending = asyncio.Lock()

    async def send(self, message: bytes) -> None:
        """Appends an event. Raises ReceiverAway."""
        try:
            async with self._appending:
                await asyncio.to_thread(self._append, message)
        except OSError as error:
            raise ReceiverAway(f"the file cannot be written: {error.strerror}") from error

    def _append(self, message: bytes) -> None:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            # Another process that holds it may stand still: rather come back later than wait in a thread.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            end = _end_of_lines(file.fileno())
            file.truncate(end)
            line = message + b"\n"
            written = 0
            while written < len(line):
                written += os.pwrite(file.fileno(), line[written:], end + written)
            os.fsync(file.fileno())


def file_path(url: str) -> Path | None:
    """The file that a file:// URL names; None for another URL. Raises ValueError for one without an absolute
    path."""
    parts = urlsplit(url)
    if parts.scheme != "file":
        return None
    path = Path(unquote(parts.path))
    if parts.netloc or not path.is_absolute():
        raise ValueError("file:///folder/file is expected")
    return path


def _end_of_lines(descriptor: int) -> int:
    """Where the last whole line of a file ends."""
    end = os.fstat(descriptor).st_size
    while end:
        begin = max(0, end - _BLOCK)
        newline = os.pread(descriptor, end - begin, begin).rfind(b"\n")
        if newline >= 0:
            return begin + newline + 1
        end = begin
    return 0
