"""Between the messages of the contract and the domain. Nothing is decided here."""

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from typing import Any
from uuid import UUID

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from headrace.common.v1 import paging_pb2, reasons_pb2
from headrace.metadata.v1 import connections_pb2, definitions_pb2, pipelines_pb2, workspaces_pb2
from headrace_chassis.errors import InvalidRequest, Problem
from headrace_definition import ColumnLineage
from headrace_definition import Problem as Finding

from headrace_metadata.application.validation import Verdict
from headrace_metadata.domain.connections import Connection, ConnectionChange, ConnectionType, Endpoint
from headrace_metadata.domain.names import normalise_name
from headrace_metadata.domain.pipelines import (
    Change,
    Given,
    Notification,
    Pipeline,
    Settings,
    Version,
    clean_tags,
)
from headrace_metadata.domain.workspaces import Workspace, WorkspaceChange
from headrace_metadata.errors import told

_STATUS = "PIPELINE_STATUS_"
_NOTIFICATION = "NOTIFICATION_TYPE_"
_CONNECTION = "CONNECTION_TYPE_"

_PLAIN_SETTINGS = (
    "description",
    "schedule_cron",
    "max_retries",
    "retry_delay_seconds",
    "timeout_seconds",
    "is_active",
    "version_label",
)
_ID_SETTINGS = ("source_connection_id", "target_connection_id")
_ENDPOINT_FIELDS = ("host", "port", "database", "username", "path")
_WORKSPACE_FIELDS = ("name", "country", "subdivision", "timezone", "deploy_on_push")

_CLEARABLE_OF_PIPELINE = frozenset({*_PLAIN_SETTINGS, *_ID_SETTINGS, "tags", "notifications"})
_CLEARABLE_OF_CONNECTION = frozenset({"description", *_ENDPOINT_FIELDS, "options", "secret", "secret_ref"})
_CLEARABLE_OF_WORKSPACE = frozenset({*_WORKSPACE_FIELDS, "holidays"})


def optional_id(text: str) -> UUID | None:
    """The id in a field that may be left empty."""
    return UUID(text) if text else None


def moment(value: datetime | None) -> Timestamp | None:
    """A point in time as a message."""
    if value is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(value)
    return stamp


def list_meta(limit: int, next_cursor: str | None, total: int | None) -> paging_pb2.ListMeta:
    """What a page says about itself."""
    return paging_pb2.ListMeta(limit=limit, next_cursor=next_cursor, total=total)


def problem_messages(problems: Iterable[Finding]) -> list[reasons_pb2.Problem]:
    """Findings of definitions and settings as messages."""
    return [problem.to_proto() for problem in told(problems)]


# Pipelines.


def given_settings(
    request: pipelines_pb2.CreatePipelineRequest | pipelines_pb2.UpdatePipelineRequest,
) -> dict[str, Any]:
    """The settings that a request gives, by their names in the domain."""
    given = {name: getattr(request, name) for name in _PLAIN_SETTINGS if request.HasField(name)}  # type: ignore[arg-type]
    given |= {name: UUID(getattr(request, name)) for name in _ID_SETTINGS if request.HasField(name)}  # type: ignore[arg-type]
    if request.tags:
        given["tags"] = clean_tags(request.tags)
    if request.notifications:
        given["notifications"] = tuple(_notification(each) for each in request.notifications)
    return given


def given_of_new(request: pipelines_pb2.CreatePipelineRequest) -> Given:
    """The settings of a pipeline to create."""
    return Given(**given_settings(request))


def pipeline_change(request: pipelines_pb2.UpdatePipelineRequest) -> Change:
    """What an update asks for.

    Raises:
        InvalidRequest: a field is to be cleared that cannot be.
    """
    return Change(
        name=normalise_name(request.name) if request.HasField("name") else None,
        text=request.yaml_definition if request.HasField("yaml_definition") else None,
        given=given_settings(request),
        cleared=_cleared(request, request.cleared_fields, _CLEARABLE_OF_PIPELINE),
    )


def status_word(value: "pipelines_pb2.PipelineStatus.ValueType") -> str:
    """The word of a status, empty for none."""
    return "" if not value else pipelines_pb2.PipelineStatus.Name(value).removeprefix(_STATUS)


def pipeline_message(
    pipeline: Pipeline, *, with_text: bool = True, warnings: Iterable[Finding] = ()
) -> pipelines_pb2.Pipeline:
    """A pipeline at its latest version."""
    content = pipeline.latest.content
    settings = content.settings
    last_run = None
    if pipeline.last_run is not None:
        last_run = pipelines_pb2.LastRun(
            run_id=str(pipeline.last_run.run_id),
            status=_status(pipeline.last_run.status),
            started_at=moment(pipeline.last_run.started_at),
            finished_at=moment(pipeline.last_run.finished_at),
        )
    return pipelines_pb2.Pipeline(
        id=str(pipeline.id),
        workspace_id=str(pipeline.workspace_id),
        name=content.name,
        yaml_definition=content.text if with_text else None,
        version=pipeline.version,
        status=_status(pipeline.status),
        created_at=moment(pipeline.created_at),
        updated_at=moment(pipeline.updated_at),
        created_by=pipeline.created_by,
        last_run=last_run,
        warnings=problem_messages(warnings),
        **_settings(settings),
    )


def version_message(version: Version, *, with_text: bool) -> pipelines_pb2.PipelineVersion:
    """One version."""
    return pipelines_pb2.PipelineVersion(
        pipeline_id=str(version.pipeline_id),
        version=version.number,
        name=version.content.name,
        yaml_definition=version.content.text if with_text else None,
        created_at=moment(version.created_at),
        created_by=version.created_by,
        **_settings(version.content.settings),
    )


def definition_message(workspace_id: UUID, version: Version) -> definitions_pb2.Definition:
    """What a run needs to know of a version."""
    settings = version.content.settings
    return definitions_pb2.Definition(
        pipeline_id=str(version.pipeline_id),
        workspace_id=str(workspace_id),
        name=version.content.name,
        version=version.number,
        text=version.content.text,
        source_connection_id=_text(settings.source_connection_id),
        target_connection_id=_text(settings.target_connection_id),
        max_retries=settings.max_retries,
        retry_delay_seconds=settings.retry_delay_seconds,
        timeout_seconds=settings.timeout_seconds,
        is_active=settings.is_active,
    )


def verdict_message(verdict: Verdict) -> pipelines_pb2.ValidatePipelineResponse:
    """What is right and wrong with a definition."""
    message = pipelines_pb2.ValidatePipelineResponse(
        valid=verdict.sound is not None,
        errors=problem_messages(verdict.errors),
        warnings=problem_messages(verdict.warnings),
    )
    if verdict.sound is not None:
        message.engine = verdict.sound.engine
        message.tasks.extend(verdict.sound.tasks)
        message.canonical_definition = verdict.sound.canonical
        message.lineage.extend(map(_lineage_message, verdict.sound.lineage))
    return message


def _lineage_message(lineage: ColumnLineage) -> pipelines_pb2.ColumnLineage:
    return pipelines_pb2.ColumnLineage(
        task=lineage.task,
        column=lineage.column,
        origins=[
            pipelines_pb2.ColumnOrigin(task=origin.task, column=origin.column) for origin in lineage.origins
        ],
    )


def _settings(settings: Settings) -> dict[str, Any]:
    return {
        "description": settings.description,
        "schedule_cron": settings.schedule_cron,
        "tags": settings.tags,
        "source_connection_id": _text(settings.source_connection_id),
        "target_connection_id": _text(settings.target_connection_id),
        "max_retries": settings.max_retries,
        "retry_delay_seconds": settings.retry_delay_seconds,
        "timeout_seconds": settings.timeout_seconds,
        "notifications": [
            pipelines_pb2.Notification(
                on=[_status(word) for word in each.on],
                type=pipelines_pb2.NotificationType.Value(_NOTIFICATION + each.type),
                target=each.target,
            )
            for each in settings.notifications
        ],
        "is_active": settings.is_active,
        "version_label": settings.version_label,
    }


def _notification(message: pipelines_pb2.Notification) -> Notification:
    return Notification(
        on=tuple(status_word(value) for value in message.on),
        type=pipelines_pb2.NotificationType.Name(message.type).removeprefix(_NOTIFICATION),
        target=message.target,
    )


def _status(word: str) -> "pipelines_pb2.PipelineStatus.ValueType":
    return pipelines_pb2.PipelineStatus.Value(_STATUS + word)


# Connections.


def new_connection(
    request: connections_pb2.CreateConnectionRequest,
    identity: UUID,
    tenant: UUID,
    workspace_id: UUID,
    created_by: str,
) -> Connection:
    """A connection to create; whether it has a secret follows the request."""
    return Connection(
        id=identity,
        tenant=tenant,
        workspace_id=workspace_id,
        name=normalise_name(request.name),
        description=request.description if request.HasField("description") else None,
        endpoint=Endpoint(
            type=_connection_type(request.type), options=dict(request.options), **_endpoint_fields(request)
        ),
        secret_ref=request.secret_ref if request.HasField("secret_ref") else None,
        has_secret=request.HasField("secret"),
        created_by=created_by,
    )


def connection_change(request: connections_pb2.UpdateConnectionRequest) -> ConnectionChange:
    """What an update asks for.

    Raises:
        InvalidRequest: a field is to be cleared that cannot be.
    """
    fields: dict[str, Any] = _endpoint_fields(request)
    if request.type:
        fields["type"] = _connection_type(request.type)
    if request.options:
        fields["options"] = dict(request.options)
    return ConnectionChange(
        name=normalise_name(request.name) if request.HasField("name") else None,
        description=request.description if request.HasField("description") else None,
        fields=fields,
        secret=request.secret if request.HasField("secret") else None,
        secret_ref=request.secret_ref if request.HasField("secret_ref") else None,
        cleared=_cleared(request, request.cleared_fields, _CLEARABLE_OF_CONNECTION),
    )


def connection_message(connection: Connection) -> connections_pb2.Connection:
    """A connection, without its secret."""
    return connections_pb2.Connection(
        id=str(connection.id),
        workspace_id=str(connection.workspace_id),
        name=connection.name,
        description=connection.description,
        type=connections_pb2.ConnectionType.Value(_CONNECTION + connection.endpoint.type.upper()),
        options=connection.endpoint.options,
        secret_ref=connection.secret_ref,
        has_secret=connection.has_secret,
        created_at=moment(connection.created_at),
        updated_at=moment(connection.updated_at),
        created_by=connection.created_by,
        **{name: getattr(connection.endpoint, name) for name in _ENDPOINT_FIELDS},
    )


def resolved_message(
    reference: str, connection: Connection, secret: str | None
) -> definitions_pb2.ResolvedConnection:
    """A connection with its secret, under the word by which it was asked for."""
    endpoint = connection.endpoint
    return definitions_pb2.ResolvedConnection(
        reference=reference,
        id=str(connection.id),
        name=connection.name,
        type=endpoint.type,
        host=endpoint.host or "",
        port=endpoint.port or 0,
        database=endpoint.database or "",
        username=endpoint.username or "",
        secret=secret or "",
        secret_ref=connection.secret_ref or "",
        path=endpoint.path or "",
        options=endpoint.options,
    )


def connection_type_filter(value: "connections_pb2.ConnectionType.ValueType") -> ConnectionType | None:
    """The type that a list is narrowed to."""
    return _connection_type(value) if value else None


def test_message(answer: Mapping[str, Any]) -> connections_pb2.TestConnectionResponse:
    """A worker's answer to a test, as execution's contract describes it."""
    return connections_pb2.TestConnectionResponse(
        success=bool(answer.get("success")),
        message=str(answer.get("message", "")),
        code=answer.get("code"),
        latency_ms=None if answer.get("latencyMs") is None else round(answer["latencyMs"]),
        server_version=answer.get("serverVersion"),
    )


def table_message(table: Mapping[str, Any]) -> connections_pb2.Table:
    """A table of a worker's answer."""
    return connections_pb2.Table(
        schema=table.get("schema"),
        name=table["name"],
        kind=table["kind"],
        estimated_rows=table.get("estimatedRows"),
        columns=[
            connections_pb2.TableColumn(name=column["name"], type=column["type"], nullable=column["nullable"])
            for column in table.get("columns", ())
        ],
    )


def _connection_type(value: "connections_pb2.ConnectionType.ValueType") -> ConnectionType:
    return ConnectionType(connections_pb2.ConnectionType.Name(value).removeprefix(_CONNECTION).lower())


def _endpoint_fields(
    request: connections_pb2.CreateConnectionRequest | connections_pb2.UpdateConnectionRequest,
) -> dict[str, Any]:
    return {name: getattr(request, name) for name in _ENDPOINT_FIELDS if request.HasField(name)}  # type: ignore[arg-type]


# Workspaces.


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
    return WorkspaceChange(given, _cleared(request, request.cleared_fields, _CLEARABLE_OF_WORKSPACE))


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
        created_at=moment(workspace.created_at),
        updated_at=moment(workspace.updated_at),
    )


def _dates(texts: Iterable[str]) -> tuple[date, ...]:
    return tuple(sorted({date.fromisoformat(text) for text in texts}))


def _text(identity: UUID | None) -> str | None:
    return None if identity is None else str(identity)


def _cleared(request: Message, names: Iterable[str], clearable: frozenset[str]) -> frozenset[str]:
    """The fields to clear, which arrive by their JSON names, by their names in the domain."""
    by_json = {field.json_name: field.name for field in request.DESCRIPTOR.fields}
    cleared = set()
    problems = []
    for name in names:
        field = by_json.get(name, name)
        if field in clearable:
            cleared.add(field)
        else:
            problems.append(
                Problem("NOT_CLEARABLE", name, "must not be null; leave it out to keep its value")
            )
    if problems:
        raise InvalidRequest(problems)
    return frozenset(cleared)
