"""How many assignments a worker is sent beyond its slots.

A stage that takes a millisecond keeps its slot idle while its result travels and the next stage is written:
short stages are therefore sent ahead, and wait in their worker. How far ahead follows from how long stages
have taken of late; those that take long are never queued for.
"""

LONGEST_WAIT = 0.1
"""What a stage that is sent ahead may wait in its worker, in seconds, if it goes on as of late."""
DEEPEST = 32
"""The most that is sent for each slot."""
WEIGHT = 0.2
"""How much of the estimate the latest stage makes up."""
SHORTEST_SAMPLE = 0.001
LONGEST_SAMPLE = 1.0
"""Stages that took less or more count as this many seconds: clocks are coarse, and a long stage is to be
forgotten after some short ones.
"""


class Window:
    """How many assignments one worker may have at once; `busy` and `waited` are of those it has now."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._seconds = LONGEST_WAIT
        """How long a slot has been taken for by a stage of late."""

    def returned(self, seconds: float, ahead: int) -> None:
        """A stage came back so many seconds after it was sent, when its worker had so many others."""
        turns = ahead // self._slots + 1
        sample = min(max(seconds / turns, SHORTEST_SAMPLE), LONGEST_SAMPLE)
        self._seconds += WEIGHT * (sample - self._seconds)

    def overran(self) -> None:
        """The worker gave back what it could not start in time: nothing is sent ahead until stages are short
        again.
        """
        self._seconds = max(self._seconds, LONGEST_WAIT)

    def size(self, long: int) -> int:
        """How many assignments the worker may have, of which so many have taken long already: no other is
        queued for their slots.
        """
        depth = min(int(LONGEST_WAIT / self._seconds), DEEPEST) if self._seconds < LONGEST_WAIT else 1
        return self._slots + max(self._slots - long, 0) * (depth - 1)
