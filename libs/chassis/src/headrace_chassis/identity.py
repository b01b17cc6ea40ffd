"""Who is calling: principals, and the tokens by which our own services and workers say who they are."""

import enum
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import jwt
from headrace.common.v1 import options_pb2

from headrace_chassis import keys
from headrace_chassis.errors import Unauthenticated
from headrace_chassis.ids import NIL

INTERNAL_ISSUER = "headrace-internal"
"""The `iss` of tokens that services and workers sign for themselves."""

INTERNAL_AUDIENCE = "headrace"
"""The `aud` of those tokens."""

MAXIMUM_INTERNAL_SECONDS = 3600
"""The longest life of an internal token that is believed."""

LEEWAY_SECONDS = 5.0
"""How far clocks may differ when `exp`, `nbf` and `iat` are compared."""


class Role(enum.IntEnum):
    """What a caller may do. The numbers are those of headrace.common.v1.Role."""

    VIEWER = options_pb2.ROLE_VIEWER
    EDITOR = options_pb2.ROLE_EDITOR
    ADMIN = options_pb2.ROLE_ADMIN
    SERVICE = options_pb2.ROLE_SERVICE
    WORKER = options_pb2.ROLE_WORKER


Kind = Literal["user", "api_key", "service", "worker"]

API_KEY_PREFIX = "apikey:"
"""How the `sub` of a token begins that stands for an API key; the key's id follows."""

API_KEY_ISSUER = "service:metadata"
"""The service that exchanges API keys for tokens: with its key, and no other, such tokens are signed."""


@dataclass(frozen=True, slots=True)
class Bound:
    """What a bound token is good for, and nothing else: one RPC (its path) about one object."""

    rpc: str
    object: str


@dataclass(frozen=True, slots=True)
class Principal:
    """A verified caller. `workspaces` is None where all of the tenant's may be used; `workspace_order` are
    the same ones as the token lists them, so that the first is what a request that names none means.

    `subject` is the `sub` of a user, or "apikey:<id>", "service:<name>" and "worker:<name>". `on_behalf_of`
    tells for whom a service acts. `token` is the token itself, to be handed on; it is never shown.
    """

    subject: str
    tenant: uuid.UUID
    workspaces: frozenset[uuid.UUID] | None
    role: Role
    kind: Kind
    on_behalf_of: str | None = None
    workspace_order: tuple[uuid.UUID, ...] = ()
    bound_to: Bound | None = None
    token: str = field(default="", repr=False, compare=False)
    expires_at: float = field(default=0.0, compare=False)

    @property
    def name(self) -> str:
        """The name of a service or worker, the id of an API key, or the subject of a user."""
        return self.subject.partition(":")[2] if self.kind != "user" else self.subject

    @property
    def acts_as(self) -> str:
        """Whom a record of this call names: the one on whose behalf a service acts, else the caller."""
        return self.on_behalf_of or self.subject

    def may_use(self, workspace: uuid.UUID) -> bool:
        """Tells whether the caller may use a workspace of its own tenant."""
        return self.workspaces is None or workspace in self.workspaces

    def may_call(self, rpc: str, role: int) -> bool:
        """Tells whether the caller may call an RPC (its path) that needs a role. Which object a bound token
        is good for, the RPC itself checks."""
        if self.bound_to is not None:
            return self.bound_to.rpc == rpc and self.role >= role
        return self.has(role)

    def has(self, role: int) -> bool:
        """Tells whether the caller may call what needs a role.

        The roles of users and API keys contain one another. A service acts for a tenant with the rights of an
        admin and is the only one that may call what needs SERVICE; a worker may call what needs WORKER and
        nothing else. A bound token has no role at all.
        """
        if self.bound_to is not None:
            return False
        if self.kind == "worker" or role == Role.WORKER:
            return self.kind == "worker" and role == Role.WORKER
        if self.kind == "service" or role == Role.SERVICE:
            return self.kind == "service"
        return self.role >= role


_principal: ContextVar[Principal] = ContextVar("headrace_principal")


def current_principal() -> Principal:
    """Returns who made the call that is being handled; raises Unauthenticated outside of a call."""
    principal = _principal.get(None)
    if principal is None:
        raise Unauthenticated("there is no authenticated caller here")
    return principal


def set_principal(principal: Principal) -> None:
    """Says who made the call that this task handles."""
    _principal.set(principal)


class InternalTokens:
    """Signs the tokens of one service or worker, with its own key and for its own subject."""

    lifetime_seconds: float = 300.0

    def __init__(self, subject: str, key_file: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._subject = subject
        self._key = keys.read(key_file)
        self._clock = clock
        self._minted: OrderedDict[tuple[uuid.UUID, str | None], tuple[str, float]] = OrderedDict()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._subject!r})"

    def _token(self, tenant: uuid.UUID, on_behalf_of: str | None) -> str:
        """Returns a token that lives for at least half of its life yet."""
        now = self._clock()
        cached = self._minted.get((tenant, on_behalf_of))
        if cached is not None and cached[1] > now + self.lifetime_seconds / 2:
            return cached[0]
        expires = now + self.lifetime_seconds
        claims: dict[str, Any] = {
            "iss": INTERNAL_ISSUER,
            "aud": INTERNAL_AUDIENCE,
            "sub": self._subject,
            "tenant": str(tenant),
            "iat": int(now),
            "exp": int(expires),
        }
        if on_behalf_of is not None:
            claims["act"] = on_behalf_of
        token = jwt.encode(claims, self._key, algorithm="EdDSA", headers={"kid": self._subject})
        self._minted[tenant, on_behalf_of] = (token, expires)
        while len(self._minted) > _MINTED_CAPACITY:
            self._minted.popitem(last=False)
        return token


_MINTED_CAPACITY = 1000


class ServiceTokens(InternalTokens):
    """The tokens of a service: minutes long, for one tenant, saying on whose behalf it calls."""

    def __init__(self, service_name: str, key_file: Path, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__(f"service:{service_name}", key_file, clock=clock)

    def token(self, tenant: uuid.UUID = NIL, on_behalf_of: str | None = None) -> str:
        """Returns a token for calls within a tenant; without one, for calls that belong to no tenant (event
        logs)."""
        return self._token(tenant, on_behalf_of)


class WorkerTokens(InternalTokens):
    """The credential of a worker: it belongs to no tenant."""

    def __init__(self, worker_name: str, key_file: Path, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__(f"worker:{worker_name}", key_file, clock=clock)

    def token(self) -> str:
        """Returns a token that lives for at least half of its life yet."""
        return self._token(NIL, None)
