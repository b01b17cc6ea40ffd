"""The verification of callers' tokens.

Every service verifies the caller's token itself and believes nothing else. Verification follows RFC 8725 (JWT
best current practices): the algorithms are the server's fixed list, a key is found by nothing but a lookup of
`kid` in a key set that the operator configured, and `exp` is demanded. A verified token is remembered until
it expires, so that asking again costs a dictionary lookup.
"""

import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt

from headrace_chassis import keys
from headrace_chassis.errors import Unauthenticated
from headrace_chassis.identity import (
    API_KEY_ISSUER,
    API_KEY_PREFIX,
    INTERNAL_AUDIENCE,
    INTERNAL_ISSUER,
    LEEWAY_SECONDS,
    MAXIMUM_INTERNAL_SECONDS,
    Bound,
    Kind,
    Principal,
    Role,
)
from headrace_chassis.ids import NIL
from headrace_chassis.key_sets import KeySet
from headrace_chassis.settings import AuthSettings

MAXIMUM_TOKEN = 16 * 1024
"""The longest token that is looked at, in characters."""

REMEMBERED_SECONDS = 300.0
"""How long a verified token is believed without looking at its key again."""

MAXIMUM_API_KEY_SECONDS = 60
"""The longest life of such a token that is believed: how long a revoked key could be used at the worst."""

_USER_ROLES: Mapping[str, Role] = {"viewer": Role.VIEWER, "editor": Role.EDITOR, "admin": Role.ADMIN}


class TokenVerifier:
    """Turns a bearer token into a Principal, or raises Unauthenticated.

    `capacity` bounds how many verified tokens are remembered. The clock is Unix time in seconds.
    """

    def __init__(
        self,
        settings: AuthSettings,
        *,
        capacity: int = 10_000,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._capacity = capacity
        self._verified: OrderedDict[str, tuple[Principal, float]] = OrderedDict()
        self._users = (
            KeySet(settings.jwt_jwks, monotonic=monotonic) if settings.jwt_jwks is not None else None
        )
        self._internal = KeySet(str(settings.internal_jwks), monotonic=monotonic)
        self._secret = _shared_secret(settings.jwt_hs256_secret_file)

    async def start(self) -> None:
        """Reads the key sets, so that a malformed one fails the start. A URL that is away is asked again
        later."""
        await self._internal.load()
        if self._users is not None:
            await self._users.load()

    def remembered(self, token: str) -> Principal | None:
        """Returns the principal of a token that was verified some minutes ago at most, and has not
        expired."""
        found = self._verified.get(token)
        if found is None:
            return None
        principal, until = found
        if until <= self._clock():
            del self._verified[token]
            return None
        return principal

    async def verify(self, token: str) -> Principal:
        """Returns whose token it is.

        Raises Unauthenticated where it is malformed, not signed by a known key with an allowed algorithm,
        expired or not yet valid, for another issuer or audience, or without the claims of its kind; raises
        Unavailable where the users' key set cannot be fetched.
        """
        principal = self.remembered(token)
        if principal is not None:
            return principal
        if len(token) > MAXIMUM_TOKEN:
            raise Unauthenticated(f"the token is longer than {MAXIMUM_TOKEN} characters")
        header, issuer = _peek(token)
        if issuer == INTERNAL_ISSUER:
            principal = await self._verify_internal(token, header)
        else:
            principal = await self._verify_user(token, header)
        self._remember(token, principal)
        return principal

    def _remember(self, token: str, principal: Principal) -> None:
        expires = principal.expires_at + LEEWAY_SECONDS
        self._verified[token] = (principal, min(expires, self._clock() + REMEMBERED_SECONDS))
        while len(self._verified) > self._capacity:
            self._verified.popitem(last=False)

    async def _verify_internal(self, token: str, header: Mapping[str, Any]) -> Principal:
        if header.get("alg") != "EdDSA":
            raise Unauthenticated("the token's algorithm is not allowed")
        kid = _kid(header)
        candidates = [found.key for found in await self._internal.find(kid, "EdDSA")]
        claims = self._decode(token, candidates, "EdDSA", INTERNAL_ISSUER, INTERNAL_AUDIENCE)
        subject = claims["sub"]
        if "bound" in claims:
            return self._bound(token, kid, claims)
        if kid == API_KEY_ISSUER and subject.startswith(API_KEY_PREFIX):
            return self._api_key(token, claims)
        if subject != kid:
            raise Unauthenticated("the token's subject is not the owner of its key")
        if claims["exp"] > self._clock() + MAXIMUM_INTERNAL_SECONDS + LEEWAY_SECONDS:
            raise Unauthenticated("the token lives longer than an internal token may")
        kind, _, name = subject.partition(":")
        if kind not in ("service", "worker") or not name:
            raise Unauthenticated("the token's subject is neither a service nor a worker")
        on_behalf_of = claims.get("act")
        return Principal(
            subject=subject,
            tenant=_uuid(claims.get("tenant", str(NIL)), "tenant"),
            workspaces=None if kind == "service" else frozenset(),
            role=Role.SERVICE if kind == "service" else Role.WORKER,
            kind="service" if kind == "service" else "worker",
            on_behalf_of=on_behalf_of if isinstance(on_behalf_of, str) and kind == "service" else None,
            token=token,
            expires_at=float(claims["exp"]),
        )

    def _bound(self, token: str, kid: str, claims: Mapping[str, Any]) -> Principal:
        """Whom a bound token describes: a user, whom a service has let call one RPC of its own."""
        kind, _, name = kid.partition(":")
        match claims["bound"]:
            case {"rpc": str(rpc), "object": str(thing)} if kind == "service":
                bound = Bound(rpc, thing)
            case _:
                raise Unauthenticated("the token is bound to nothing")
        if not rpc.startswith(f"/headrace.{name}."):
            raise Unauthenticated("the token is bound to an RPC that its maker does not serve")
        if claims["exp"] > self._clock() + MAXIMUM_INTERNAL_SECONDS + LEEWAY_SECONDS:
            raise Unauthenticated("the token lives longer than an internal token may")
        return replace(_user(token, claims, "user"), bound_to=bound)

    def _api_key(self, token: str, claims: Mapping[str, Any]) -> Principal:
        if claims["exp"] > self._clock() + MAXIMUM_API_KEY_SECONDS + LEEWAY_SECONDS:
            raise Unauthenticated("the token lives longer than one for an API key may")
        return _user(token, claims, "api_key")

    async def _verify_user(self, token: str, header: Mapping[str, Any]) -> Principal:
        algorithm = header.get("alg")
        candidates: list[Any]
        if algorithm == "HS256" and self._secret is not None:
            candidates = [self._secret]
        elif algorithm in self._settings.jwt_algorithms and self._users is not None:
            candidates = [found.key for found in await self._users.find(_kid(header), algorithm)]
        else:
            raise Unauthenticated("the token's algorithm is not allowed")
        claims = self._decode(
            token, candidates, algorithm, self._settings.jwt_issuer, self._settings.jwt_audience
        )
        if claims["sub"].startswith(API_KEY_PREFIX):
            raise Unauthenticated("the token's sub is one of an API key")
        return _user(token, claims, "user")

    def _decode(
        self, token: str, candidates: list[Any], algorithm: str, issuer: str, audience: str
    ) -> dict[str, Any]:
        """Verifies signature and registered claims; several keys may bear one `kid` while they are
        rotated."""
        refused: Exception | None = None
        for key in candidates:
            try:
                claims: dict[str, Any] = jwt.decode(
                    token,
                    key,
                    algorithms=[algorithm],
                    issuer=issuer,
                    audience=audience,
                    # Time is compared below, by the clock that this object was given.
                    options={
                        "require": ["exp", "sub", "iss", "aud"],
                        "verify_exp": False,
                        "verify_nbf": False,
                        "verify_iat": False,
                    },
                )
            except (jwt.PyJWTError, ValueError, TypeError) as error:
                refused = error
                continue
            self._check_times(claims)
            if not claims["sub"]:
                raise Unauthenticated("the token's sub is empty")
            return claims
        raise Unauthenticated(_told(refused)) from None

    def _check_times(self, claims: Mapping[str, Any]) -> None:
        now = self._clock()
        for name in ("exp", "nbf", "iat"):
            value = claims.get(name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise Unauthenticated(f"the token's {name} is no number")
        if claims["exp"] + LEEWAY_SECONDS <= now:
            raise Unauthenticated("the token has expired")
        if claims.get("nbf", now) > now + LEEWAY_SECONDS:
            raise Unauthenticated("the token is not valid yet")


def _user(token: str, claims: Mapping[str, Any], kind: Kind) -> Principal:
    """Whom the claims of a user, or of an API key that stands for one, describe."""
    workspaces = _workspaces(claims.get("workspaces"))
    return Principal(
        subject=claims["sub"],
        tenant=_uuid(claims.get("tenant"), "tenant"),
        workspaces=None if workspaces is None else frozenset(workspaces),
        workspace_order=workspaces or (),
        role=_user_role(claims.get("roles")),
        kind=kind,
        token=token,
        expires_at=float(claims["exp"]),
    )


def _shared_secret(path: Path | None) -> bytes | None:
    return None if path is None else keys.read_shared("JWT_HS256_SECRET_FILE", path)


def _peek(token: str) -> tuple[Mapping[str, Any], object]:
    """Reads header and issuer without believing them: they only choose which key set is asked."""
    try:
        parts = jwt.decode_complete(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise Unauthenticated("the token is malformed") from None
    header: Mapping[str, Any] = parts["header"]
    return header, parts["payload"].get("iss")


def _kid(header: Mapping[str, Any]) -> str:
    kid = header.get("kid")
    if not isinstance(kid, str) or not kid:
        raise Unauthenticated("the token names no key (kid)")
    return kid


def _told(error: Exception | None) -> str:
    match error:
        case jwt.InvalidAudienceError():
            return "the token is for another audience"
        case jwt.InvalidIssuerError():
            return "the token is from another issuer"
        case jwt.MissingRequiredClaimError():
            return f"the token lacks the claim {error.claim}"
        case _:
            return "the token's signature does not verify"


def _uuid(value: object, claim: str) -> uuid.UUID:
    try:
        return uuid.UUID(value) if isinstance(value, str) else _refuse(claim)
    except ValueError:
        return _refuse(claim)


def _refuse(claim: str) -> uuid.UUID:
    raise Unauthenticated(f"the token's claim {claim} is no UUID")


def _workspaces(value: object) -> tuple[uuid.UUID, ...] | None:
    if value in ("*", ["*"]):
        return None
    if not isinstance(value, list):
        raise Unauthenticated("the token's claim workspaces is neither a list of UUIDs nor '*'")
    return tuple(dict.fromkeys(_uuid(item, "workspaces") for item in value))


def _user_role(value: object) -> Role:
    names = value if isinstance(value, list) else [value]
    roles = [_USER_ROLES[name] for name in names if isinstance(name, str) and name in _USER_ROLES]
    if not roles:
        raise Unauthenticated("the token bears none of the roles viewer, editor and admin")
    return max(roles)
