"""What the chassis keeps in every service's database, in memory: its outbox, and what its consumers know.

The chassis' parts speak SQL. They run over this unchanged, since each statement that they have is answered by
a function here; a statement that is not known is an error, so that none can change unnoticed.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, TypeVar, cast
from uuid import UUID

import asyncpg
from headrace_chassis import consumer
from headrace_chassis.database import ATTEMPTS, Database
from headrace_chassis.errors import OutcomeUnknown, Unavailable
from headrace_chassis.outbox import publisher, reading, sequencer
from headrace_execution.testing.memory.data import Data, Deadlock, Link, Table, Transaction
from headrace_execution.testing.memory.outbox import OUTBOX, EventRow

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class HeadRow:
    """How far the outbox is."""

    position: int = 0
    published: int = 0
    publisher: str | None = None
    publisher_until: datetime | None = None


HEAD: Table[int, HeadRow] = Table("outbox_head")
POSITIONS: Table[tuple[str, str], int] = Table("consumer_position")
INBOX: Table[tuple[str, UUID], bool] = Table("inbox")
PARKED: Table[tuple[str, UUID], str] = Table("parked_event")

Row = Mapping[str, Any]
_LOCK_TIMEOUT_SECONDS = 0.2


def _as_read(row: EventRow) -> Row:
    return {
        "position": row.position,
        "event_id": row.event_id,
        "type": row.event.type,
        "tenant": row.event.tenant,
        "subject": row.event.subject,
        "data": row.event.data,
        "traceparent": "",
        "created_at": row.created_at,
    }


def _head(tx: Transaction) -> HeadRow:
    return tx.get(HEAD, 0) or HeadRow()


def _unsequenced(tx: Transaction) -> list[EventRow]:
    return sorted((row for row in tx.rows(OUTBOX) if row.position is None), key=lambda row: row.id)


def _sequenced(tx: Transaction, after: int) -> list[EventRow]:
    found = (row for row in tx.rows(OUTBOX) if row.position is not None and row.position > after)
    return sorted(found, key=lambda row: row.position or 0)


async def _waiting(tx: Transaction) -> list[Row]:
    oldest = next(iter(_unsequenced(tx)), None)
    age = -1.0 if oldest is None else (tx.now - oldest.created_at).total_seconds()
    return [{"age": age}]


async def _take_turn(tx: Transaction, lock: int) -> list[Row]:
    return [{"taken": tx.data.locks.try_take(tx, ("advisory", lock))}]


async def _wait_a_little(tx: Transaction) -> list[Row]:
    return []


async def _wait_for_turn(tx: Transaction, lock: int) -> list[Row]:
    try:
        async with asyncio.timeout(_LOCK_TIMEOUT_SECONDS):
            await tx.data.locks.take(tx, ("advisory", lock))
    except TimeoutError:
        raise asyncpg.LockNotAvailableError("canceling statement due to lock timeout") from None
    return []


async def _assign(tx: Transaction, limit: int) -> list[Row]:
    await tx.lock(HEAD, 0)
    head = _head(tx)
    fresh = _unsequenced(tx)[:limit]
    for number, row in enumerate(fresh, start=head.position + 1):
        tx.put(OUTBOX, row.id, replace(row, position=number))
    tx.put(HEAD, 0, replace(head, position=head.position + len(fresh)))
    return [{} for _ in fresh]


async def _claim(tx: Transaction, me: str, seconds: float) -> list[Row]:
    await tx.lock(HEAD, 0)
    head = _head(tx)
    mine = head.publisher in (None, me)
    if head.published >= head.position or not (
        mine or (head.publisher_until is not None and head.publisher_until < tx.now)
    ):
        return []
    tx.put(HEAD, 0, replace(head, publisher=me, publisher_until=tx.now + timedelta(seconds=seconds)))
    return [{"published": head.published}]


async def _published(tx: Transaction, me: str, position: int) -> list[Row]:
    await tx.lock(HEAD, 0)
    head = _head(tx)
    if head.publisher != me:
        return []
    tx.put(HEAD, 0, replace(head, published=max(head.published, position)))
    return [{}]


async def _list(tx: Transaction, after: int, limit: int, types: Sequence[str], window: int) -> list[Row]:
    head = {"head": _head(tx).position, "pruned": 0}
    page = [
        {**head, **_as_read(row)}
        for row in _sequenced(tx, after)
        if (row.position or 0) <= after + window and (not types or row.event.type in types)
    ]
    return [*page[:limit]] or [{**head, "position": None}]


async def _position(tx: Transaction, name: str, source: str) -> list[Row]:
    found = tx.get(POSITIONS, (name, source))
    return [] if found is None else [{"position": found}]


async def _begin(tx: Transaction, name: str, source: str) -> list[Row]:
    if await tx.lock(POSITIONS, (name, source)) is None:
        tx.put(POSITIONS, (name, source), 0)
    return []


async def _lock_position(tx: Transaction, name: str, source: str) -> list[Row]:
    found = await tx.lock(POSITIONS, (name, source))
    return [] if found is None else [{"position": found}]


async def _move_position(tx: Transaction, name: str, source: str, position: int) -> list[Row]:
    tx.put(POSITIONS, (name, source), position)
    return [{}]


async def _receive(tx: Transaction, name: str, event_ids: Sequence[str]) -> list[Row]:
    fresh: list[Row] = []
    for event_id in map(UUID, event_ids):
        if await tx.lock(INBOX, (name, event_id)) is None:
            tx.put(INBOX, (name, event_id), True)
            fresh.append({"event_id": event_id})
    return fresh


async def _park(
    tx: Transaction, name: str, event_id: str, source: str, event: bytes, error: str
) -> list[Row]:
    tx.put(PARKED, (name, UUID(event_id)), error)
    return [{}]


Answer = Callable[..., Awaitable[list[Row]]]

STATEMENTS: dict[str, Answer] = {
    sequencer._WAITING: _waiting,
    sequencer._TAKE_TURN: _take_turn,
    sequencer._WAIT_A_LITTLE: _wait_a_little,
    sequencer._WAIT_FOR_TURN: _wait_for_turn,
    sequencer._ASSIGN: _assign,
    publisher._CLAIM: _claim,
    publisher._MOVE: _published,
    reading._LIST: _list,
    consumer._POSITION: _position,
    consumer._BEGIN: _begin,
    consumer._LOCK: _lock_position,
    consumer._MOVE: _move_position,
    consumer._RECEIVE: _receive,
    consumer._PARK: _park,
}
"""Each statement of the chassis' outbox and consumers, by its text, and what it does."""


class MemoryConnection:
    """What the chassis takes for the driver's connection; `tx` is the transaction that it is in."""

    def __init__(self, data: Data, link: Link, tx: Transaction | None = None) -> None:
        self._data = data
        self._link = link
        self.tx = tx
        # `driver(conn)` looks for the driver's connection below SQLAlchemy's.
        self.sync_connection = SimpleNamespace(connection=SimpleNamespace(driver_connection=self))

    async def fetch(self, statement: str, *values: Any) -> list[Row]:
        """All rows."""
        answer = STATEMENTS[statement]
        if self.tx is not None:
            await self._link.statement(self.tx)
            return await answer(self.tx, *values)
        tx = self._data.begin()
        try:
            await self._link.statement(tx)
            rows = await answer(tx, *values)
            self._data.commit(tx)
        finally:
            self._data.end(tx)
        return rows

    async def fetchval(self, statement: str, *values: Any) -> Any:
        """The first value of the first row; None where there is no row."""
        rows = await self.fetch(statement, *values)
        return next(iter(rows[0].values())) if rows else None

    async def execute(self, statement: str, *values: Any) -> str:
        """The server's word for what it did, with the number of rows."""
        return f"DONE {len(await self.fetch(statement, *values))}"


class MemoryDatabase:
    """One process's view of a database, as the chassis' parts use one."""

    def __init__(self, data: Data, link: Link | None = None) -> None:
        self._data = data
        self._link = link or Link()

    def as_database(self) -> Database:
        """The same, for those who say that they want the chassis' own."""
        return cast("Database", self)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[MemoryConnection]:
        """A connection outside of a transaction."""
        yield MemoryConnection(self._data, self._link)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[MemoryConnection]:
        """A connection inside a transaction, which commits at the end of the block unless it raises."""
        tx = self._data.begin()
        try:
            yield MemoryConnection(self._data, self._link, tx)
            await self._link.commit(tx, lambda: self._data.commit(tx))
        finally:
            self._data.end(tx)

    async def run(self, work: Callable[[MemoryConnection], Awaitable[T]]) -> T:
        """Runs `work` in a transaction, again where it certainly did not happen."""
        for attempt in range(1, ATTEMPTS):
            try:
                async with self.transaction() as conn:
                    return await work(conn)
            except OutcomeUnknown:
                raise
            except (Unavailable, Deadlock):
                await self._link.back_off(attempt)
        async with self.transaction() as conn:
            return await work(conn)
