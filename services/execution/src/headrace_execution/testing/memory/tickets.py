"""Tickets in memory."""

from datetime import timedelta

from headrace_execution.domain.tickets import StreamTicket
from headrace_execution.testing.memory.data import Link, Transaction
from headrace_execution.testing.memory.tables import TICKETS, TicketRow


class MemoryTickets:
    """Tickets of one transaction."""

    def __init__(self, tx: Transaction, link: Link) -> None:
        self._tx = tx
        self._link = link

    async def add(self, digest: bytes, ticket: StreamTicket, life: timedelta) -> None:
        """See the port."""
        await self._link.statement(self._tx)
        self._tx.put(TICKETS, digest, TicketRow(ticket, self._tx.now + life))

    async def take(self, digest: bytes) -> StreamTicket | None:
        """See the port."""
        await self._link.statement(self._tx)
        row = await self._tx.lock(TICKETS, digest)
        if row is None:
            return None
        self._tx.put(TICKETS, digest, None)
        return row.ticket if row.expires_at > self._tx.now else None
