"""Limits of connections: how many stages may use one at once. How many do is counted when it is asked."""

from collections import Counter
from collections.abc import Iterable

Limits = tuple[tuple[str, int], ...]
"""Connections (by id), each with the most stages that may use it at once, as it was at acceptance."""


class Usage:
    """How many stages use each connection that has a limit, while further ones are chosen."""

    def __init__(self, running: Iterable[Limits]) -> None:
        self._used = Counter(connection for limits in running for connection, _ in limits)

    def room(self, limits: Limits) -> int:
        """How many further stages of these limits may run."""
        return max(min(most - self._used[connection] for connection, most in limits), 0)

    def take(self, limits: Limits) -> bool:
        """Whether one more may run; if so it counts from now on."""
        if limits and not self.room(limits):
            return False
        self._used.update(connection for connection, _ in limits)
        return True


def to_words(limits: Limits) -> str | None:
    """Limits as one text, the same for the same limits; none are None."""
    return " ".join(f"{connection}:{most}" for connection, most in sorted(limits)) or None


def from_words(text: str) -> Limits:
    """Limits again."""
    pairs = (word.rpartition(":") for word in text.split())
    return tuple((connection, int(most)) for connection, _, most in pairs)
