"""How a caller of a WebSocket says who it is: by header, or, since scripts of browsers cannot set headers, as
a subprotocol or by a one-time ticket in the address."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from headrace_chassis.errors import Unauthenticated

from headrace_gateway.http.api_keys import PREFIX
from headrace_gateway.http.exchange import Request

BEARER: Final = "bearer"
"""The subprotocol that stands before the token: `Sec-WebSocket-Protocol: bearer, <token>`. It is the one that
the gateway chooses, so that the token is in no answer."""

TICKET: Final = "ticket"
"""The parameter of the query that is a ticket. A token never stands in an address: addresses are logged, kept
in histories, and told to others."""

_NEEDED: Final = (
    "a bearer token is needed (Authorization: Bearer …, or Sec-WebSocket-Protocol: bearer, …), or a ticket "
    "(?ticket=…) where the stream takes one; a token in the address is not looked at"
)


@dataclass(frozen=True, slots=True)
class Credential:
    """What a caller has shown: a token or an API key, or a ticket."""

    text: str = field(repr=False)
    in_subprotocol: bool = False
    is_ticket: bool = False

    @property
    def is_renewable(self) -> bool:
        """Whether it outlives the token that it stands for: an API key does."""
        return not self.is_ticket and self.text.startswith(PREFIX)


def take_ticket(request: Request) -> str | None:
    """Takes the ticket out of a request's query, so that what is left are the stream's own parameters."""
    tickets: list[str] = []
    others: list[bytes] = []
    for part in request.query.split(b"&"):
        name, _, value = part.partition(b"=")
        if name.decode("latin-1") == TICKET:
            tickets.append(value.decode("latin-1"))
        elif part:
            others.append(part)
    request.query = b"&".join(others)
    return tickets[0] if len(tickets) == 1 else None


def credential_of(request: Request, ticket: str | None) -> Credential:
    """Returns what a request shows; a token counts before a ticket. Raises Unauthenticated where it is
    nothing."""
    given = request.header(b"authorization")
    if given is not None:
        scheme, _, token = given.partition(" ")
        if scheme.lower() != BEARER or not token.strip():
            raise Unauthenticated(_NEEDED)
        return Credential(token.strip())
    match request.scope.get("subprotocols", []):
        case [scheme, token, *_] if scheme.lower() == BEARER and token:
            return Credential(token, in_subprotocol=True)
    if ticket is not None:
        return Credential(ticket, is_ticket=True)
    raise Unauthenticated(_NEEDED)
