"""Workspaces."""

from collections.abc import Iterable
from datetime import date
from uuid import UUID

from headrace.metadata.v1 import workspaces_pb2
from headrace_chassis.messages import cleared, timestamp

from headrace_metadata.domain.names import normalise_name
from headrace_metadata.domain.workspaces import Workspace, WorkspaceChange

_WORKSPACE_FIELDS = ("name", "country", "subdivision", "timezone", "deploy_on_push")
_CLEARABLE = frozenset({*_WORKSPACE_FIELDS, "holidays", "allowed_variables"})


def new_workspace(request: workspaces_pb2.CreateWorkspaceRequest, identity: UUID, tenant: UUID) -> Workspace:
    """A workspace to create."""
    return Workspace(
        id=identity,
        tenant=tenant,
        slug=request.slug,
        name=normalise_name(request.name) or request.slug,
        country=request.country if request.HasField("country") else None,
        subdivision=request.subdivision if request.HasField("subdivision") else None,
        holidays=_dates(request.holidays),
        timezone=request.timezone or "UTC",
        deploy_on_push=request.deploy_on_push,
        allowed_variables=_names(request.allowed_variables),
    )


def workspace_change(request: workspaces_pb2.UpdateWorkspaceRequest) -> WorkspaceChange:
    """What an update asks for.

    Raises:
        InvalidRequest: a field is to be cleared that cannot be.
    """
    given = {name: getattr(request, name) for name in _WORKSPACE_FIELDS if request.HasField(name)}  # type: ignore[arg-type]
    if "name" in given:
        given["name"] = normalise_name(given["name"])
    if request.holidays:
        given["holidays"] = _dates(request.holidays)
    if request.allowed_variables:
        given["allowed_variables"] = _names(request.allowed_variables)
    return WorkspaceChange(given, cleared(request, request.cleared_fields, _CLEARABLE))


def workspace_message(workspace: Workspace) -> workspaces_pb2.Workspace:
    """A workspace."""
    return workspaces_pb2.Workspace(
        id=str(workspace.id),
        slug=workspace.slug,
        name=workspace.name,
        country=workspace.country,
        subdivision=workspace.subdivision,
        holidays=[day.isoformat() for day in workspace.holidays],
        timezone=workspace.timezone,
        deploy_on_push=workspace.deploy_on_push,
        allowed_variables=workspace.allowed_variables,
        created_at=timestamp(workspace.created_at),
        updated_at=timestamp(workspace.updated_at),
    )


def _names(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(texts)))


def _dates(texts: Iterable[str]) -> tuple[date, ...]:
    return tuple(sorted({date.fromisoformat(text) for text in texts}))
