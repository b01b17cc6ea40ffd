"""The outbox in memory: what `tell` writes, and what the simulation reads as the chassis does."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from headrace_chassis.outbox import NewEvent

from headrace_execution.testing.memory.data import Table, Transaction


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event of the outbox; its position is None until it was given one after its commit."""

    id: int
    event_id: UUID
    event: NewEvent
    created_at: datetime
    position: int | None = None


OUTBOX: Table[int, EventRow] = Table("outbox_event")


def append_events(tx: Transaction, events: Sequence[NewEvent]) -> None:
    """Appends events in a transaction. As with every sequence, the order of ids is not that of commits."""
    for event in events:
        number = tx.data.next("outbox")
        tx.put(OUTBOX, number, EventRow(number, tx.data.new_id(), event, tx.data.clock()))
