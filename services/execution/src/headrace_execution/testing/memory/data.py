"""What is committed, and the transactions that change it."""

import asyncio
import itertools
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar, cast

from headrace_chassis import ids
from headrace_chassis.errors import Unavailable

from headrace_execution.testing.memory.locks import Deadlock, Holder, LockTable

__all__ = ["Data", "Deadlock", "Link", "Table", "Transaction"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Table(Generic[K, V]):
    """The name of a table, with the types of its keys and rows. Rows are never changed, only replaced."""

    name: str


class Link:
    """How a process reaches its database: here at once, but others get their turn at each statement.

    The simulation has one that takes time, breaks, and tells when a process dies.
    """

    async def statement(self, tx: "Transaction") -> None:
        """Before each statement. Raises Unavailable when the database is away."""
        await asyncio.sleep(0)

    async def commit(self, tx: "Transaction", apply: Callable[[], None]) -> None:
        """Commits. Raises OutcomeUnknown when the connection broke before the answer."""
        await self.statement(tx)
        apply()

    async def back_off(self, attempt: int) -> None:
        """Before a transaction is tried again."""
        await asyncio.sleep(0)


class Data:
    """One database: its tables, its locks, its sequences and its clock."""

    def __init__(
        self,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        new_id: Callable[[], uuid.UUID] = ids.uuid7,
    ) -> None:
        self.clock = clock
        self.new_id = new_id
        self.tables: dict[str, dict[Any, Any]] = defaultdict(dict)
        self.locks = LockTable()
        self.on_commit: list[Callable[[Transaction], None]] = []
        """Called with each transaction right before what it wrote is there for all."""
        self._sequences: dict[str, Iterator[int]] = {}
        self.open: dict[Transaction, None] = {}

    def next(self, sequence: str) -> int:
        """The next number of a sequence; a transaction that rolls back does not give it back."""
        return next(self._sequences.setdefault(sequence, itertools.count(1)))

    def begin(self, now: datetime | None = None) -> "Transaction":
        """A new transaction."""
        tx = Transaction(self, now or self.clock())
        self.open[tx] = None
        return tx

    def commit(self, tx: "Transaction") -> None:
        """Makes what a transaction wrote what everybody sees, all at once."""
        if tx not in self.open:
            raise RuntimeError("this transaction has ended")
        for watch in self.on_commit:
            watch(tx)
        for name, rows in tx.writes.items():
            table = self.tables[name]
            for key, row in rows.items():
                if row is None:
                    table.pop(key, None)
                else:
                    table[key] = row
        self.end(tx)

    def break_off(self, tx: "Transaction") -> None:
        """Ends a transaction of somebody else's, as the server does when it goes down."""
        self.locks.dismiss(tx, Unavailable("the database"))
        self.end(tx)

    def end(self, tx: "Transaction") -> None:
        """Ends a transaction: what it has written and not committed is gone, and so are its locks."""
        self.open.pop(tx, None)
        self.locks.release(tx)


class Transaction(Holder):
    """What one transaction has written and locked. `now` is the clock at its beginning."""

    def __init__(self, data: Data, now: datetime) -> None:
        super().__init__()
        self.data = data
        self.now = now
        self.writes: dict[str, dict[Any, Any]] = {}

    def get(self, table: Table[K, V], key: K) -> V | None:
        """A row as it stands now: as this transaction wrote it, else as it is committed."""
        mine = self.writes.get(table.name)
        if mine is not None and key in mine:
            return cast("V | None", mine[key])
        return cast("V | None", self.data.tables[table.name].get(key))

    def put(self, table: Table[K, V], key: K, row: V | None) -> None:
        """Writes a row; None removes it."""
        self.writes.setdefault(table.name, {})[key] = row

    def rows(self, table: Table[K, V]) -> Collection[V]:
        """All rows as they stand now."""
        mine = self.writes.get(table.name)
        theirs = self.data.tables[table.name]
        if not mine:
            return cast("Collection[V]", theirs.values())
        return [row for row in {**theirs, **mine}.values() if row is not None]

    async def lock(self, table: Table[K, V], key: K) -> V | None:
        """Locks a row for this transaction, and returns it as it is then."""
        await self.data.locks.take(self, (table.name, key))
        found: V | None = self.get(table, key)
        return found

    def try_lock(self, table: Table[K, V], key: K) -> bool:
        """Locks a row unless another transaction has it."""
        return self.data.locks.try_take(self, (table.name, key))
