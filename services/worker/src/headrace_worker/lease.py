"""Whether this worker may still believe that what it holds is its own."""

from __future__ import annotations

from collections.abc import Callable


class Lease:
    """The time until which the worker's assignments are its own, as far as it can know.

    The server counts from when it renewed the lease; the worker counts from when it asked for that, which is
    earlier: so it stops before the server may hand its work to another. The clock must go on while the
    process is stopped.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seconds = 0.0
        self._asked_at = float("-inf")

    def granted(self, seconds: float) -> None:
        """The server says how long a lease lasts."""
        self._seconds = seconds

    def renewed(self, asked_at: float) -> None:
        """The server has renewed the lease in answer to a message sent at `asked_at`."""
        self._asked_at = max(self._asked_at, asked_at)

    @property
    def valid(self) -> bool:
        """Whether the lease still stands."""
        return self._clock() < self._asked_at + self._seconds
