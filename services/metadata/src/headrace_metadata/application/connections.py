"""Writing connections: who may, what is checked, and how their secrets are kept."""

from dataclasses import replace
from uuid import UUID

import sqlalchemy as sa
from headrace_chassis import outbox
from headrace_chassis.database import constraint_name
from headrace_chassis.errors import InvalidRequest, NameTaken, NotFound, Problem, RoleRequired
from headrace_chassis.identity import Principal, Role
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_metadata.application import audit
from headrace_metadata.application.events import connection_event
from headrace_metadata.application.workspaces import scope_of
from headrace_metadata.domain.connections import Connection, ConnectionChange, endpoint_problems
from headrace_metadata.domain.names import name_flaw
from headrace_metadata.domain.secret_references import (
    ForbiddenReference,
    InvalidReference,
    ReferencePolicy,
    looks_like_reference,
)
from headrace_metadata.errors import (
    ConnectionInUse,
    SecretReferenceForbidden,
    SecretRequired,
    told,
)
from headrace_metadata.keyring import Keyring, Sealed
from headrace_metadata.store import connections as store
from headrace_metadata.store import references

_NAMED_USERS = 20


class ConnectionWriter:
    """Creates, changes and deletes connections, each in the caller's transaction, with the event of it."""

    def __init__(self, keyring: Keyring, policy: ReferencePolicy) -> None:
        self._keyring = keyring
        self._policy = policy

    async def create(
        self, conn: AsyncConnection, principal: Principal, connection: Connection, secret: str | None
    ) -> Connection:
        """Adds a connection.

        Raises:
            RoleRequired: a secret or a reference is given by someone who is no admin.
            InvalidRequest: fields do not fit the type, all of them listed.
            SecretReferenceForbidden: the reference points outside what the operator allows.
            NameTaken: the workspace has a connection of that name.
        """
        if secret is not None or connection.secret_ref is not None:
            _demand_admin(principal)
        self._check(connection, secret)
        sealed = self._seal(connection, secret)
        added = await store.add(conn, connection, sealed)
        if added is None:
            raise NameTaken("connection", connection.name)
        await outbox.append(conn, [connection_event("created", added)])
        await audit.connection_was(conn, principal, "created", added, secret_given=secret is not None)
        return added

    async def update(
        self, conn: AsyncConnection, principal: Principal, connection_id: UUID, change: ConnectionChange
    ) -> Connection:
        """Changes a connection; changes nothing, and tells nobody, where all is as it was.

        Raises:
            NotFound: there is no such connection for the caller.
            RoleRequired: a secret or a reference is given or cleared by someone who is no admin.
            SecretRequired: it would point elsewhere, and its secret was not given again.
            InvalidRequest, SecretReferenceForbidden, NameTaken: as `create`.
        """
        before = await store.lock(conn, scope_of(principal), connection_id)
        if before is None:
            raise NotFound("connection", connection_id)
        if change.touches_secret:
            _demand_admin(principal)
        after = _changed(before, change)
        self._check(after, change.secret)
        if (
            before.has_credentials
            and after.has_credentials
            and after.endpoint.leads_elsewhere(before.endpoint)
            and change.secret is None
            and change.secret_ref is None
        ):
            raise SecretRequired
        if after == before and change.secret is None:
            return before
        if after.name != before.name and await store.name_is_taken(conn, after.workspace_id, after.name):
            raise NameTaken("connection", after.name)
        try:
            saved = await store.save(
                conn, after, self._seal(after, change.secret), secret_changed=change.touches_secret
            )
        except sa.exc.IntegrityError as error:
            if constraint_name(error) == "connection_name_key":
                raise NameTaken("connection", after.name) from None
            raise
        await outbox.append(conn, [connection_event("updated", saved)])
        given = change.secret is not None or "secret" in change.cleared
        await audit.connection_was(conn, principal, "updated", saved, before, secret_given=given)
        return saved

    async def delete(
        self, conn: AsyncConnection, principal: Principal, connection_id: UUID, *, force: bool
    ) -> None:
        """Removes a connection with its secret.

        Raises:
            NotFound: there is no such connection for the caller.
            ConnectionInUse: latest versions of pipelines refer to it, and `force` is not given.
        """
        connection = await store.lock(conn, scope_of(principal), connection_id)
        if connection is None:
            raise NotFound("connection", connection_id)
        if not force:
            users = await references.pipelines_using(
                conn, connection.workspace_id, connection.name, connection.id, _NAMED_USERS + 1
            )
            if users:
                raise ConnectionInUse(connection.name, users[:_NAMED_USERS], more=len(users) > _NAMED_USERS)
        await store.remove(conn, connection)
        await outbox.append(conn, [connection_event("deleted", connection)])
        await audit.connection_was(conn, principal, "deleted", connection)

    def _check(self, connection: Connection, secret: str | None) -> None:
        problems: list[Problem] = []
        if flaw := name_flaw(connection.name):
            problems.append(Problem("INVALID_NAME", "name", flaw))
        problems += told(endpoint_problems(connection.endpoint, credentials=connection.has_credentials))
        if secret is not None and connection.secret_ref is not None:
            problems.append(Problem("NOT_ALLOWED", "secretRef", "give either secret or secretRef, not both"))
        if secret is not None and (not secret or looks_like_reference(secret)):
            problems.append(
                Problem("INVALID_VALUE", "secret", "must not be empty; a reference belongs into secretRef")
            )
        forbidden: ForbiddenReference | None = None
        if connection.secret_ref is not None:
            try:
                self._policy.check(connection.secret_ref)
            except InvalidReference as error:
                problems.append(Problem("INVALID_REFERENCE", "secretRef", str(error)))
            except ForbiddenReference as error:
                forbidden = error
        if problems:
            raise InvalidRequest(problems)
        if forbidden is not None:
            raise SecretReferenceForbidden(str(forbidden))

    def _seal(self, connection: Connection, secret: str | None) -> Sealed | None:
        return None if secret is None else self._keyring.seal(secret, connection.tenant, connection.id)


def _demand_admin(principal: Principal) -> None:
    if not principal.has(Role.ADMIN):
        raise RoleRequired("admin")


def _changed(before: Connection, change: ConnectionChange) -> Connection:
    """The connection after a change. A new secret takes the place of a reference, and the other way round."""
    has_secret, secret_ref = before.has_secret, before.secret_ref
    if "secret" in change.cleared or change.secret_ref is not None:
        has_secret = False
    if "secret_ref" in change.cleared or change.secret is not None:
        secret_ref = None
    if change.secret is not None:
        has_secret = True
    if change.secret_ref is not None:
        secret_ref = change.secret_ref
    description = None if "description" in change.cleared else before.description
    limit = None if "max_concurrent_stages" in change.cleared else before.max_concurrent_stages
    return replace(
        before,
        name=before.name if change.name is None else change.name,
        description=description if change.description is None else change.description,
        endpoint=change.endpoint_after(before.endpoint),
        secret_ref=secret_ref,
        has_secret=has_secret,
        max_concurrent_stages=limit if change.max_concurrent_stages is None else change.max_concurrent_stages,
    )
