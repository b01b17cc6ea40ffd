"""A user's target system: rows, and the ledger beside them that makes loads land once.

The rules of the ledger are the connectors' own; that they were kept is judged from what the rows look like.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from headrace_connectors.ledger import FOREVER, Entry, buried, check_claim, check_commit
from headrace_connectors.model import LoadKey, Receipt


@dataclass(frozen=True, slots=True)
class Landing:
    """Rows that became visible."""

    key: LoadKey
    fence: int
    rows: int
    checksum: str
    cursor: bytes | None


class Target:
    """One target. Each call is one of its transactions, and happens at once."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self.entries: dict[LoadKey, Entry] = {}
        self.landings: list[Landing] = []
        self.buried: dict[LoadKey, int] = {}
        """The highest fence that was ever shut out, written down apart from the ledger."""
        self.on_landing: list[Callable[[Landing], None]] = []

    def claim(self, key: LoadKey, fence: int) -> Receipt | None:
        """An attempt begins. Raises FencedOut."""
        receipt = check_claim(key, fence, self.entries.get(key))
        if receipt is None:
            self.entries[key] = Entry(fence, False, None)
        return receipt

    def commit(self, key: LoadKey, fence: int, rows: int, checksum: str, cursor: bytes | None) -> Receipt:
        """Makes rows visible, with their receipt. Raises FencedOut."""
        entry = self.entries.get(key)
        receipt = check_commit(key, fence, entry)
        if receipt is not None:
            return receipt
        landed = Receipt(rows, rows * 10, checksum, cursor, fence, self._clock())
        self.entries[key] = replace(entry or Entry(fence, False, None), receipt=landed)
        landing = Landing(key, fence, rows, checksum, cursor)
        self.landings.append(landing)
        for told in self.on_landing:
            told(landing)
        return landed

    def receipt(self, key: LoadKey) -> Receipt | None:
        """The receipt of a load, if it landed."""
        entry = self.entries.get(key)
        return entry.receipt if entry is not None else None

    def tombstone(self, key: LoadKey, fence: int | None) -> Receipt | None:
        """Shuts attempts out up to a fence. Returns the receipt of what had landed before."""
        entry = buried(self.entries.get(key), fence)
        self.entries[key] = entry
        if entry.receipt is None:
            self.buried[key] = max(self.buried.get(key, 0), FOREVER if fence is None else fence)
        return entry.receipt
