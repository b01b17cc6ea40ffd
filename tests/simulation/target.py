"""A user's target system: rows, and the ledger beside them that makes loads land once.

The rules of the ledger are the connectors' own; that they were kept is judged from what the rows look like.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from headrace_connectors.ledger import (
    FOREVER,
    Entry,
    after_turn,
    buried,
    check_claim,
    check_commit,
    check_turn,
)
from headrace_connectors.model import LoadKey, Receipt, Series


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
        self.series: dict[Series, Entry] = {}
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

    def take_turn(self, series: Series, fence: int) -> Receipt | None:
        """An attempt at a load of a series begins. Returns the receipt of the last one that landed."""
        self.series[series] = after_turn(self.series.get(series), fence)
        return self.series[series].receipt

    def commit(
        self,
        key: LoadKey,
        fence: int,
        rows: int,
        checksum: str,
        cursor: bytes | None,
        series: Series | None = None,
    ) -> Receipt:
        """Makes rows visible, with their receipt. Raises FencedOut."""
        entry = self.entries.get(key)
        receipt = check_commit(key, fence, entry)
        if receipt is not None:
            return receipt
        if series is not None:
            check_turn(series, fence, self.series.get(series))
        landed = Receipt(rows, rows * 10, checksum, cursor, fence, self._clock())
        self.entries[key] = replace(entry or Entry(fence, False, None), receipt=landed)
        if series is not None:
            self.series[series] = Entry(fence, False, landed)
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
