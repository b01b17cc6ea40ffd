"""Making, revoking and exchanging API keys."""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from headrace_chassis.api_key_tokens import ApiKeyTokens
from headrace_chassis.database import Database, now
from headrace_chassis.errors import InvalidRequest, NotFound, Problem, RoleRequired, Unauthenticated
from headrace_chassis.identity import Principal, Role
from headrace_chassis.ids import uuid7
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_metadata.application import audit, workspaces
from headrace_metadata.domain.api_keys import (
    SECRET_BYTES,
    ApiKey,
    KeyRole,
    is_key,
    key_digest,
    key_id,
    key_text,
)
from headrace_metadata.domain.names import name_flaw
from headrace_metadata.errors import KeysMakeNoKeys, QuotaExceeded
from headrace_metadata.store import api_keys as store

TOKEN_SECONDS = 5.0
"""How long the token of an exchange lives. Whoever calls with a key asks again so often; a revoked key opens
nothing when this, and what clocks may differ, has passed."""

_NOTED_EVERY = timedelta(minutes=5)


@dataclass(frozen=True)
class NewKey:
    """A key to make; no workspaces mean all that its maker may use."""

    name: str
    role: KeyRole
    workspaces: tuple[UUID, ...]
    expires_at: datetime | None


class ApiKeys:
    """The API keys of all tenants. `per_tenant` bounds how many of a tenant are valid at a time."""

    def __init__(self, db: Database, tokens: ApiKeyTokens, per_tenant: int) -> None:
        self._db = db
        self._tokens = tokens
        self._per_tenant = per_tenant

    async def create(self, conn: AsyncConnection, principal: Principal, new: NewKey) -> tuple[ApiKey, str]:
        """Makes a key; returns it with its text, which is not kept.

        Raises:
            InvalidRequest: the name is no name, the key would have expired before it is made, or its maker
                may use no workspace.
            KeysMakeNoKeys: the caller is a key itself.
            RoleRequired: the key would be able to do more than its maker.
            NotFound, WorkspaceForbidden: of a workspace that is named.
            QuotaExceeded: the tenant has as many valid keys as it may have.
        """
        if principal.kind == "api_key":
            raise KeysMakeNoKeys
        if not principal.has(Role[new.role]):
            raise RoleRequired(new.role.lower())
        at = await now(conn)
        self._check(new, at)
        for workspace_id in new.workspaces:
            await workspaces.named(conn, principal, workspace_id)
        allowed = new.workspaces or principal.workspace_order or None
        if allowed is None and principal.workspaces is not None:
            raise InvalidRequest([Problem("NOT_ALLOWED", "workspaceIds", "the caller may use no workspace")])
        if await store.count_valid(conn, principal.tenant) >= self._per_tenant:
            raise QuotaExceeded("valid API keys", self._per_tenant)
        identity = uuid7()
        text = key_text(identity, secrets.token_bytes(SECRET_BYTES))
        key = ApiKey(
            id=identity,
            tenant=principal.tenant,
            name=new.name,
            role=new.role,
            workspaces=None if allowed is None else tuple(dict.fromkeys(allowed)),
            expires_at=new.expires_at,
            created_by=principal.acts_as,
            created_at=at,
        )
        added = await store.add(conn, key, key_digest(text))
        await audit.api_key_was(conn, principal, "created", added)
        return added, text

    async def revoke(self, conn: AsyncConnection, principal: Principal, identity: UUID) -> ApiKey:
        """Revokes a key.

        Raises:
            NotFound: there is no such key for the caller, or it is revoked already.
        """
        scope = workspaces.scope_of(principal)
        revoked = await store.revoke(conn, scope, identity, principal.acts_as)
        if revoked is None:
            raise NotFound("API key", identity)
        await audit.api_key_was(conn, principal, "revoked", revoked)
        return revoked

    async def exchange(self, text: str) -> tuple[str, float]:
        """A token for a key, and when it expires, in Unix seconds.

        Raises:
            Unauthenticated: the text is no key, or one that is unknown, expired or revoked; always alike.
        """
        identity = key_id(text)
        if identity is None:
            raise _refused()
        async with self._db.read() as conn:
            found = await store.find(conn, identity)
            if found is None or not is_key(text, found.digest) or not found.key.is_valid(found.now):
                raise _refused()
            key = found.key
            if key.last_used_at is None or key.last_used_at < found.now - _NOTED_EVERY:
                await store.touch(conn, identity, _NOTED_EVERY)
        until = None if key.expires_at is None else key.expires_at.timestamp()
        return self._tokens.token(key.id, key.tenant, Role[key.role], key.workspaces, until)

    @staticmethod
    def _check(new: NewKey, at: datetime) -> None:
        problems: list[Problem] = []
        if flaw := name_flaw(new.name):
            problems.append(Problem("INVALID_NAME", "name", flaw))
        if new.expires_at is not None and new.expires_at <= at:
            problems.append(Problem("OUT_OF_RANGE", "expiresAt", "must be in the future"))
        if problems:
            raise InvalidRequest(problems)


def _refused() -> Unauthenticated:
    return Unauthenticated("the API key is not valid")
