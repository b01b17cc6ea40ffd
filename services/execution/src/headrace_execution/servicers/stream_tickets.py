"""StreamTicketService."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import grpc
from headrace.execution.v1 import stream_tickets_pb2, stream_tickets_pb2_grpc
from headrace_chassis.bound_tokens import BoundTokens
from headrace_chassis.errors import Unauthenticated
from headrace_chassis.identity import Bound, Role, current_principal
from headrace_chassis.messages import timestamp

from headrace_execution.domain.tickets import SECRET_BYTES, StreamTicket, ticket_hash, ticket_text
from headrace_execution.store.port import Store, Tx
from headrace_execution.visibility import visible_run

Context = grpc.aio.ServicerContext[object, object]

WATCH_RUN: Final = "/headrace.execution.v1.RunService/WatchRun"
"""What a ticket opens."""


class StreamTicketServicer(stream_tickets_pb2_grpc.StreamTicketServiceServicer):
    """Makes tickets that are good for `life`, and takes them. `random` gives so many random bytes."""

    def __init__(
        self, store: Store, tokens: BoundTokens, life: timedelta, random: Callable[[int], bytes]
    ) -> None:
        self._store = store
        self._tokens = tokens
        self._life = life
        self._random = random

    async def CreateStreamTicket(
        self, request: stream_tickets_pb2.CreateStreamTicketRequest, context: Context
    ) -> stream_tickets_pb2.StreamTicket:
        """See the contract."""
        principal = current_principal()
        run = await visible_run(self._store, principal, UUID(request.run_id))
        text = ticket_text(self._random(SECRET_BYTES))
        ticket = StreamTicket(
            run=run.id,
            tenant=principal.tenant,
            subject=principal.acts_as,
            workspaces=principal.workspaces,
            token_expires_at=datetime.fromtimestamp(principal.expires_at, UTC),
        )

        async def add(tx: Tx) -> datetime:
            await tx.tickets.add(ticket_hash(text), ticket, self._life)
            return tx.now + self._life

        expires_at = await self._store.run(add)
        return stream_tickets_pb2.StreamTicket(ticket=text, expires_at=timestamp(expires_at))

    async def RedeemStreamTicket(
        self, request: stream_tickets_pb2.RedeemStreamTicketRequest, context: Context
    ) -> stream_tickets_pb2.RedeemStreamTicketResponse:
        """See the contract."""

        async def take(tx: Tx) -> StreamTicket | None:
            return await tx.tickets.take(ticket_hash(request.ticket))

        ticket = await self._store.run(take)
        if ticket is None or ticket.run != UUID(request.run_id):
            raise Unauthenticated("the ticket is not valid; make a new one")
        token, expires_at = self._tokens.token(
            Bound(WATCH_RUN, str(ticket.run)),
            subject=ticket.subject,
            tenant=ticket.tenant,
            workspaces=ticket.workspaces,
            role=Role.VIEWER,
            until=ticket.token_expires_at.timestamp(),
        )
        shown = timestamp(datetime.fromtimestamp(expires_at, UTC))
        return stream_tickets_pb2.RedeemStreamTicketResponse(token=token, expires_at=shown)
