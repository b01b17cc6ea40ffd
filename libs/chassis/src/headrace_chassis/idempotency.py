"""Idempotency keys: a write that is asked for twice with one key happens once and is answered alike.

The answer is stored in the transaction of the effect, under tenant, principal, RPC and key, with a hash of
the request; so it exists exactly when the effect does. Only successes are stored: a call that failed had no
effect, and asking again tries again. Rows are kept for 24 hours.

The hash is keyed: from a plain one, whoever reads the table could find a weak password that was part of a
request, by trying.
"""

import hashlib
import hmac
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from google.protobuf.message import Message
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_chassis.database import Database, driver
from headrace_chassis.errors import IdempotencyInFlight, IdempotencyKeyReused

KEPT_SECONDS = 24 * 3600

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A key in its scope, and the hash of the request that it came with."""

    tenant: uuid.UUID
    principal: str
    rpc: str
    key: str
    body_hash: bytes

    def scope(self) -> tuple[uuid.UUID, str, str, str]:
        """Returns what makes two keys the same."""
        return (self.tenant, self.principal, self.rpc, self.key)

    def lock(self) -> int:
        """Returns the advisory lock of the key: 64 bits of a hash of its scope."""
        text = "\0".join(str(part) for part in self.scope())
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big", signed=True)


_current: ContextVar[IdempotencyKey | None] = ContextVar("headrace_idempotency_key", default=None)


def current_key() -> IdempotencyKey | None:
    """Returns the idempotency key of the call that this task handles, if it came with one."""
    return _current.get()


def set_current_key(key: IdempotencyKey | None) -> None:
    """Says which idempotency key the call has."""
    _current.set(key)


class Standing(Enum):
    """How a key stands."""

    NEW = "new"
    """Nobody has used it, and it is locked for this transaction."""
    STORED = "stored"
    """The same request has been answered; the answer is at hand."""
    REUSED = "reused"
    """Another request has been answered under it."""
    IN_FLIGHT = "in flight"
    """Another transaction is handling a request with it."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """What was found for one key; `answer` is the serialized response where it is STORED."""

    standing: Standing
    answer: bytes = b""

    def answered(self, response_type: type[M]) -> M | None:
        """The answer that was given before; None where there is none, and the request is to be handled.

        Raises IdempotencyInFlight and IdempotencyKeyReused.
        """
        match self.standing:
            case Standing.STORED:
                return response_type.FromString(self.answer)
            case Standing.REUSED:
                raise IdempotencyKeyReused
            case Standing.IN_FLIGHT:
                raise IdempotencyInFlight
            case Standing.NEW:
                return None


# Two statements, since a statement sees what was committed when it began: the rows must be read after the
# locks are held. Keys are locked without waiting, so that the order of locks cannot matter.
_LOCK = """
SELECT pg_try_advisory_xact_lock(lock) FROM unnest($1::bigint[]) WITH ORDINALITY AS t(lock, n) ORDER BY n
"""

_FIND = """
SELECT i.body_hash, i.answer
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[])
     WITH ORDINALITY AS t(tenant, principal, rpc, key, n)
LEFT JOIN idempotency AS i USING (tenant, principal, rpc, key)
ORDER BY n
"""

_STORE = """
INSERT INTO idempotency (tenant, principal, rpc, key, body_hash, answer)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bytea[], $6::bytea[])
"""

_PRUNE = """
DELETE FROM idempotency WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM idempotency WHERE created_at < clock_timestamp() - $1 * interval '1 second'
    ORDER BY created_at LIMIT $2
))
"""


async def lookup_many(conn: AsyncConnection, keys: Sequence[IdempotencyKey]) -> list[Lookup]:
    """Locks the keys for this transaction and tells how each stands.

    Of several equal keys only the first can be NEW: the others are IN_FLIGHT.
    """
    if not keys:
        return []
    raw = driver(conn)
    locked = [bool(row[0]) for row in await raw.fetch(_LOCK, [key.lock() for key in keys])]
    found = await raw.fetch(_FIND, *_columns(keys))
    seen: set[tuple[uuid.UUID, str, str, str]] = set()
    lookups: list[Lookup] = []
    for key, is_locked, row in zip(keys, locked, found, strict=True):
        if row["body_hash"] is not None:
            same = row["body_hash"] == key.body_hash
            lookups.append(Lookup(Standing.STORED, row["answer"]) if same else Lookup(Standing.REUSED))
        elif is_locked and key.scope() not in seen:
            seen.add(key.scope())
            lookups.append(Lookup(Standing.NEW))
        else:
            lookups.append(Lookup(Standing.IN_FLIGHT))
    return lookups


async def store_many(conn: AsyncConnection, answers: Sequence[tuple[IdempotencyKey, bytes]]) -> None:
    """Stores the serialized answers of keys that were NEW, in the transaction of their effects."""
    if not answers:
        return
    keys = [key for key, _ in answers]
    await driver(conn).execute(
        _STORE, *_columns(keys), [key.body_hash for key in keys], [answer for _, answer in answers]
    )


def _columns(
    keys: Sequence[IdempotencyKey],
) -> tuple[list[uuid.UUID], list[str], list[str], list[str]]:
    return (
        [key.tenant for key in keys],
        [key.principal for key in keys],
        [key.rpc for key in keys],
        [key.key for key in keys],
    )


class IdempotentWrites:
    """Runs writes so that the idempotency key of the call, if it has one, is honoured."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def run(
        self,
        response_type: type[M],
        apply: Callable[[AsyncConnection], Awaitable[M]],
        *,
        stored: Callable[[M], M] = lambda response: response,
    ) -> M:
        """Returns what `apply` returns, or what it returned when this key was first used.

        `apply` runs in a transaction and may run again (see Database.run), so its only effects are in the
        database. `stored` turns a response into what is kept of it: a secret that is shown once is left out
        there. Raises IdempotencyInFlight and IdempotencyKeyReused.
        """
        key = current_key()

        async def work(conn: AsyncConnection) -> M:
            if key is None:
                return await apply(conn)
            (lookup,) = await lookup_many(conn, [key])
            earlier = lookup.answered(response_type)
            if earlier is not None:
                return earlier
            response = await apply(conn)
            await store_many(conn, [(key, stored(response).SerializeToString())])
            return response

        return await self._db.run(work)


class RequestHasher:
    """Makes the hashes by which two requests are compared: HMAC-SHA256 of their deterministic serialization.

    The key is derived from one that all replicas share, so that a hash made for this purpose and a tag made
    for another never meet.
    """

    def __init__(self, shared_key: bytes) -> None:
        self._key = hmac.digest(shared_key, b"headrace idempotency", "sha256")

    def __repr__(self) -> str:
        return "RequestHasher()"

    def digest(self, request: Message) -> bytes:
        """Returns the hash of a request; equal for equal requests, on every replica."""
        return hmac.digest(self._key, request.SerializeToString(deterministic=True), "sha256")


async def prune(db: Database, *, batch: int = 1000) -> int:
    """Removes some keys that are older than 24 hours; returns how many, `batch` at the most."""
    async with db.transaction() as conn:
        status: str = await driver(conn).execute(_PRUNE, KEPT_SECONDS, batch)
    return int(status.rpartition(" ")[2])
