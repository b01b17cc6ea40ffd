"""How a caller of a WebSocket says who it is: by header, or, since scripts of browsers cannot set headers, as
a subprotocol."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from headrace_chassis.errors import Unauthenticated

from headrace_gateway.http.api_keys import PREFIX
from headrace_gateway.http.exchange import Request

BEARER: Final = "bearer"
"""The subprotocol that stands before the token: `Sec-WebSocket-Protocol: bearer, <token>`. It is the one that
the gateway chooses, so that the token is in no answer."""

_NEEDED: Final = (
    "a bearer token is needed: Authorization: Bearer …, or Sec-WebSocket-Protocol: bearer, …; "
    "never in the address"
)


@dataclass(frozen=True, slots=True)
class Credential:
    """What a caller has shown."""

    token: str = field(repr=False)
    in_subprotocol: bool

    @property
    def is_renewable(self) -> bool:
        """Whether it outlives the token that it stands for: an API key does."""
        return self.token.startswith(PREFIX)


def credential_of(request: Request) -> Credential:
    """Returns what a request shows. Raises Unauthenticated where it is nothing."""
    given = request.header(b"authorization")
    if given is not None:
        scheme, _, token = given.partition(" ")
        if scheme.lower() != BEARER or not token.strip():
            raise Unauthenticated(_NEEDED)
        return Credential(token.strip(), in_subprotocol=False)
    match request.scope.get("subprotocols", []):
        case [scheme, token, *_] if scheme.lower() == BEARER and token:
            return Credential(token, in_subprotocol=True)
    raise Unauthenticated(_NEEDED)
