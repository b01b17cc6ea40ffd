"""The events of metadata. They bear identities and names, never a text, a setting of a connection, or a
secret."""

from headrace.metadata.v1 import events_pb2
from headrace_chassis.outbox import NewEvent

from headrace_metadata.domain.connections import Connection
from headrace_metadata.domain.pipelines import Pipeline
from headrace_metadata.domain.workspaces import Workspace


def pipeline_event(what: str, pipeline: Pipeline) -> NewEvent:
    """The event that a pipeline was created or updated, is being deleted ("deleting"), or is "deleted"."""
    settings = pipeline.latest.content.settings
    payload = events_pb2.PipelineEvent(
        pipeline_id=str(pipeline.id),
        workspace_id=str(pipeline.workspace_id),
        name=pipeline.latest.content.name,
        version=pipeline.version,
        schedule_cron=settings.schedule_cron or "",
        is_active=settings.is_active,
        changed_by=pipeline.latest.created_by,
    )
    return NewEvent(
        type=f"io.headrace.pipeline.{what}.v1",
        tenant=pipeline.tenant,
        subject=str(pipeline.id),
        data=payload.SerializeToString(),
    )


def connection_event(what: str, connection: Connection) -> NewEvent:
    """The event that a connection was created, updated or deleted."""
    payload = events_pb2.ConnectionEvent(
        connection_id=str(connection.id), workspace_id=str(connection.workspace_id), name=connection.name
    )
    return NewEvent(
        type=f"io.headrace.connection.{what}.v1",
        tenant=connection.tenant,
        subject=str(connection.id),
        data=payload.SerializeToString(),
    )


def workspace_event(what: str, workspace: Workspace) -> NewEvent:
    """The event that a workspace was created or updated."""
    payload = events_pb2.WorkspaceEvent(
        workspace_id=str(workspace.id),
        slug=workspace.slug,
        timezone=workspace.timezone,
        country=workspace.country,
        subdivision=workspace.subdivision,
        holidays=[day.isoformat() for day in workspace.holidays],
    )
    if workspace.updated_at is not None:
        payload.updated_at.FromDatetime(workspace.updated_at)
    return NewEvent(
        type=f"io.headrace.workspace.{what}.v1",
        tenant=workspace.tenant,
        subject=str(workspace.id),
        data=payload.SerializeToString(),
    )
