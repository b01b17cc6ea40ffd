"""Giving connections with their secrets in the clear to execution, for one stage of a run."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_metadata.domain.connections import Connection
from headrace_metadata.keyring import Keyring
from headrace_metadata.store import connections as store


@dataclass(frozen=True)
class Resolved:
    """A connection under the word by which it was asked for. Its repr does not show the secret."""

    reference: str
    connection: Connection
    secret: str | None = field(repr=False)


async def resolve(
    conn: AsyncConnection, keyring: Keyring, tenant: UUID, workspace_id: UUID, references: Iterable[str]
) -> list[Resolved]:
    """The connections of a workspace that go by these names or ids; those that do not exist are left out.

    A name wins over an id that reads the same.

    Raises:
        KeyringError, SealBroken: a secret cannot be opened; a mistake of the operator, or a tampered row.
    """
    wanted = set(references)
    found = await store.sealed_by_words(conn, tenant, workspace_id, wanted)
    by_word = {str(each.connection.id): each for each in found}
    by_word |= {each.connection.name: each for each in found}
    resolved = []
    for word in sorted(wanted & by_word.keys()):
        connection, sealed = by_word[word].connection, by_word[word].sealed
        secret = None if sealed is None else keyring.open(sealed, tenant, connection.id)
        resolved.append(Resolved(word, connection, secret))
    return resolved
