"""Tickets in SQL."""

from datetime import datetime, timedelta
from typing import Any

from headrace_execution.domain.tickets import StreamTicket

_SWEPT = 20

# Whoever makes a ticket sweeps up some that nobody has used: where none are made, there is nothing to do.
_ADD = """
WITH old AS (
    DELETE FROM stream_tickets WHERE hash = ANY (ARRAY(
        SELECT hash FROM stream_tickets WHERE expires_at < $7 ORDER BY expires_at LIMIT $8
        FOR UPDATE SKIP LOCKED
    ))
)
INSERT INTO stream_tickets (hash, run, tenant, subject, workspaces, token_expires_at, expires_at)
VALUES ($1, $2, $3, $4, $5::uuid[], $6, $9)
"""
_TAKE = """
DELETE FROM stream_tickets WHERE hash = $1
RETURNING run, tenant, subject, workspaces, token_expires_at, expires_at
"""


class SqlTickets:
    """Tickets of one transaction."""

    def __init__(self, conn: Any, now: datetime) -> None:
        self._conn = conn
        self._now = now

    async def add(self, digest: bytes, ticket: StreamTicket, life: timedelta) -> None:
        """See the port."""
        await self._conn.execute(
            _ADD,
            digest,
            ticket.run,
            ticket.tenant,
            ticket.subject,
            None if ticket.workspaces is None else sorted(ticket.workspaces),
            ticket.token_expires_at,
            self._now,
            _SWEPT,
            self._now + life,
        )

    async def take(self, digest: bytes) -> StreamTicket | None:
        """See the port."""
        row = await self._conn.fetchrow(_TAKE, digest)
        if row is None or row["expires_at"] <= self._now:
            return None
        workspaces = row["workspaces"]
        return StreamTicket(
            row["run"],
            row["tenant"],
            row["subject"],
            None if workspaces is None else frozenset(workspaces),
            row["token_expires_at"],
        )
