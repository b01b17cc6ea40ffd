"""Recording what is done, in the transaction in which it is done."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from headrace_chassis.call_context import current_request_id
from headrace_chassis.identity import Principal
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_metadata.domain.api_keys import ApiKey
from headrace_metadata.domain.audit import Deed, changed_fields, is_sound
from headrace_metadata.domain.connections import Connection
from headrace_metadata.domain.pipelines import Content, Pipeline
from headrace_metadata.domain.settings_checks import JSON_NAMES
from headrace_metadata.domain.workspaces import Workspace
from headrace_metadata.store import audit as store


class ChainBroken(Exception):  # noqa: N818 - it names what is the case
    """An event of an audit chain was altered, added or taken away."""

    def __init__(self, tenant: UUID, sequence: int) -> None:
        super().__init__(f"the audit chain of tenant {tenant} is broken at {sequence}")


async def pipeline_was(
    conn: AsyncConnection, principal: Principal, what: str, pipeline: Pipeline, before: Content | None = None
) -> None:
    """Records that a pipeline was created or updated, or is being deleted ("deleting")."""
    content = pipeline.latest.content
    label = pipeline.created_by_label
    known = {} if before is None else described_pipeline(before, label)
    fields = () if what == "deleting" else changed_fields(known, described_pipeline(content, label))
    await _append(conn, principal, "pipeline", what, pipeline.id, content.name, pipeline.workspace_id, fields)


async def pipeline_was_deleted(conn: AsyncConnection, pipeline: Pipeline, on_behalf_of: str) -> None:
    """Records that the deletion of a pipeline has come to its end, in whatever call or loop that was."""
    await store.append(
        conn,
        Deed(
            tenant=pipeline.tenant,
            actor=on_behalf_of,
            action="pipeline.deleted",
            object_type="pipeline",
            object_id=pipeline.id,
            object_name=pipeline.latest.content.name,
            workspace_id=pipeline.workspace_id,
            request_id=current_request_id(),
        ),
    )


async def connection_was(
    conn: AsyncConnection,
    principal: Principal,
    what: str,
    connection: Connection,
    before: Connection | None = None,
    *,
    secret_given: bool = False,
) -> None:
    """Records that a connection was created, updated or deleted. Of a secret it says that one was given."""
    known = {} if before is None else described_connection(before)
    fields = () if what == "deleted" else changed_fields(known, described_connection(connection))
    if secret_given:
        fields = (*fields, "secret")
    await _append(
        conn, principal, "connection", what, connection.id, connection.name, connection.workspace_id, fields
    )


async def workspace_was(
    conn: AsyncConnection,
    principal: Principal,
    what: str,
    workspace: Workspace,
    before: Workspace | None = None,
) -> None:
    """Records that a workspace was created or updated."""
    known = {} if before is None else described_workspace(before)
    fields = changed_fields(known, described_workspace(workspace))
    await _append(conn, principal, "workspace", what, workspace.id, workspace.slug, workspace.id, fields)


async def api_key_was(conn: AsyncConnection, principal: Principal, what: str, key: ApiKey) -> None:
    """Records that an API key was created or revoked."""
    only = key.workspaces[0] if key.workspaces is not None and len(key.workspaces) == 1 else None
    given = {"name": key.name, "role": key.role, "workspaceIds": key.workspaces, "expiresAt": key.expires_at}
    fields = changed_fields({}, given) if what == "created" else ()
    await _append(conn, principal, "api_key", what, key.id, key.name, only, fields)


async def verify(conn: AsyncConnection, tenant: UUID) -> int:
    """Looks at the whole chain of a tenant; returns how many events it has.

    Raises:
        ChainBroken: an event was altered, or one is missing or too many.
    """
    sequence, last = 0, b""
    async for event in store.chain(conn, tenant):
        sequence += 1
        if event.sequence != sequence or event.previous_hash != last or not is_sound(event):
            raise ChainBroken(tenant, sequence)
        last = event.hash
    if (sequence, last) != await store.end_of_chain(conn, tenant):
        raise ChainBroken(tenant, sequence + 1)
    return sequence


async def _append(
    conn: AsyncConnection,
    principal: Principal,
    kind: str,
    what: str,
    identity: UUID,
    name: str,
    workspace_id: UUID | None,
    fields: tuple[str, ...],
) -> None:
    await store.append(
        conn,
        Deed(
            tenant=principal.tenant,
            actor=principal.acts_as,
            action=f"{kind}.{what}",
            object_type=kind,
            object_id=identity,
            object_name=name,
            workspace_id=workspace_id,
            request_id=current_request_id(),
            fields=fields,
            via=principal.subject if principal.on_behalf_of is not None else None,
        ),
    )


def described_pipeline(content: Content, label: str | None) -> dict[str, Any]:
    """What may be written of a pipeline, by the names of the API; None for what was not given.

    `label` is what was said of its creator.
    """
    given = {json_name: getattr(content.given, name) for name, json_name in JSON_NAMES.items()}
    return {"name": content.name, "yamlDefinition": content.text, "createdBy": label, **given}


def described_connection(connection: Connection) -> dict[str, Any]:
    """What may be written of a connection, but for its secret."""
    endpoint = connection.endpoint
    return {
        "name": connection.name,
        "description": connection.description,
        "type": endpoint.type,
        "host": endpoint.host,
        "port": endpoint.port,
        "database": endpoint.database,
        "username": endpoint.username,
        "path": endpoint.path,
        "options": _filled(endpoint.options),
        "secretRef": connection.secret_ref,
        "maxConcurrentStages": connection.max_concurrent_stages,
    }


def described_workspace(workspace: Workspace) -> dict[str, Any]:
    """What may be written of a workspace."""
    return {
        "slug": workspace.slug,
        "name": workspace.name,
        "country": workspace.country,
        "subdivision": workspace.subdivision,
        "holidays": workspace.holidays or None,
        "timezone": workspace.timezone,
        "deployOnPush": workspace.deploy_on_push,
        "allowedVariables": workspace.allowed_variables or None,
    }


def _filled(options: Mapping[str, str]) -> dict[str, str] | None:
    return dict(options) or None
