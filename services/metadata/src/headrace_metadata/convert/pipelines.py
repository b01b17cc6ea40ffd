"""Pipelines, versions, definitions and verdicts."""

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from headrace.metadata.v1 import definitions_pb2, pipelines_pb2
from headrace_chassis.messages import cleared, timestamp
from headrace_definition import ColumnLineage
from headrace_definition import Problem as Finding

from headrace_metadata.application.graphs import GraphText
from headrace_metadata.application.validation import Verdict
from headrace_metadata.convert.fields import id_text, problem_messages
from headrace_metadata.domain.connections import NamedConnection
from headrace_metadata.domain.names import normalise_name
from headrace_metadata.domain.pipelines import (
    Change,
    Given,
    LastRun,
    Notification,
    Pipeline,
    Settings,
    Version,
    clean_tags,
)

_STATUS = "PIPELINE_STATUS_"
_NOTIFICATION = "NOTIFICATION_TYPE_"
_PLAIN_SETTINGS = (
    "description",
    "schedule_cron",
    "max_retries",
    "retry_delay_seconds",
    "timeout_seconds",
    "is_active",
    "version_label",
)
_ID_SETTINGS = ("source_connection_id", "target_connection_id", "connector_id", "schema_id")
_CLEARABLE = frozenset({*_PLAIN_SETTINGS, *_ID_SETTINGS, "tags", "notifications", "layout"})


def given_settings(
    request: pipelines_pb2.CreatePipelineRequest | pipelines_pb2.UpdatePipelineRequest,
) -> dict[str, Any]:
    """The settings that a request gives, by their names in the domain."""
    given = {name: getattr(request, name) for name in _PLAIN_SETTINGS if request.HasField(name)}  # type: ignore[arg-type]
    if "schedule_cron" in given:
        given["schedule_cron"] = given["schedule_cron"].strip()
    given |= {name: UUID(getattr(request, name)) for name in _ID_SETTINGS if request.HasField(name)}  # type: ignore[arg-type]
    if request.layout:
        # What is no UTF-8 is kept for the check of layouts to refuse.
        given["layout"] = request.layout.decode(errors="surrogateescape")
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
        cleared=cleared(request, request.cleared_fields, _CLEARABLE),
    )


def status_word(value: "pipelines_pb2.PipelineStatus.ValueType") -> str:
    """The word of a status, empty for none."""
    return "" if not value else pipelines_pb2.PipelineStatus.Name(value).removeprefix(_STATUS)


def pipeline_message(
    pipeline: Pipeline,
    *,
    with_text: bool = True,
    warnings: Iterable[Finding] = (),
    graph: GraphText | None = None,
) -> pipelines_pb2.Pipeline:
    """A pipeline at its latest version."""
    content = pipeline.latest.content
    settings = content.settings
    return pipelines_pb2.Pipeline(
        id=str(pipeline.id),
        workspace_id=str(pipeline.workspace_id),
        name=content.name,
        yaml_definition=content.text if with_text else None,
        version=pipeline.version,
        status=_status(pipeline.status),
        created_at=timestamp(pipeline.created_at),
        updated_at=timestamp(pipeline.updated_at),
        created_by=pipeline.created_by,
        created_by_label=pipeline.created_by_label,
        last_run=last_run_message(pipeline.last_run),
        next_run_at=timestamp(pipeline.next_run_at),
        warnings=problem_messages(warnings),
        graph=graph_message(graph),
        **_settings(settings),
    )


def last_run_message(run: LastRun | None) -> pipelines_pb2.LastRun | None:
    """The latest run of a pipeline, where there was one."""
    if run is None:
        return None
    return pipelines_pb2.LastRun(
        run_id=str(run.run_id),
        status=_status(run.status),
        started_at=timestamp(run.started_at),
        finished_at=timestamp(run.finished_at),
    )


def version_message(
    version: Version, *, with_text: bool, graph: GraphText | None = None
) -> pipelines_pb2.PipelineVersion:
    """One version."""
    return pipelines_pb2.PipelineVersion(
        pipeline_id=str(version.pipeline_id),
        version=version.number,
        name=version.content.name,
        yaml_definition=version.content.text if with_text else None,
        created_at=timestamp(version.created_at),
        created_by=version.created_by,
        graph=graph_message(graph),
        **_settings(version.content.settings),
    )


def graph_message(graph: GraphText | None) -> pipelines_pb2.PipelineGraph | None:
    """A definition as nodes and edges, where that was asked for."""
    if graph is None:
        return None
    return pipelines_pb2.PipelineGraph(
        nodes=[
            pipelines_pb2.GraphNode(
                id=node.id,
                node_type=node.node_type,
                label=node.label,
                config=config,
                position=position,
            )
            for node, config, position in graph.nodes
        ],
        edges=[
            pipelines_pb2.GraphEdge(id=edge.id, source=edge.source, target=edge.target, label=edge.label)
            for edge in graph.edges
        ],
        settings=graph.settings,
    )


def definition_message(
    workspace_id: UUID, version: Version, connections: Mapping[str, NamedConnection]
) -> definitions_pb2.Definition:
    """What a run needs to know of a version."""
    settings = version.content.settings
    return definitions_pb2.Definition(
        pipeline_id=str(version.pipeline_id),
        workspace_id=str(workspace_id),
        name=version.content.name,
        version=version.number,
        text=version.content.text,
        source_connection_id=id_text(settings.source_connection_id),
        target_connection_id=id_text(settings.target_connection_id),
        max_retries=settings.max_retries,
        retry_delay_seconds=settings.retry_delay_seconds,
        timeout_seconds=settings.timeout_seconds,
        is_active=settings.is_active,
        notifications=[_notification_message(each) for each in settings.notifications],
        connection_types={word: named.type for word, named in connections.items()},
        connection_limits={
            word: definitions_pb2.ConnectionLimit(
                connection_id=str(named.id), max_concurrent_stages=named.max_concurrent_stages
            )
            for word, named in connections.items()
            if named.max_concurrent_stages is not None
        },
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
        message.lineage.extend(map(column_lineage_message, verdict.sound.lineage))
    return message


def column_lineage_message(lineage: ColumnLineage) -> pipelines_pb2.ColumnLineage:
    """A column and its origins."""
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
        "source_connection_id": id_text(settings.source_connection_id),
        "target_connection_id": id_text(settings.target_connection_id),
        "max_retries": settings.max_retries,
        "retry_delay_seconds": settings.retry_delay_seconds,
        "timeout_seconds": settings.timeout_seconds,
        "notifications": [_notification_message(each) for each in settings.notifications],
        "is_active": settings.is_active,
        "version_label": settings.version_label,
        "layout": (settings.layout or "").encode(),
        "connector_id": id_text(settings.connector_id),
        "schema_id": id_text(settings.schema_id),
    }


def _notification(message: pipelines_pb2.Notification) -> Notification:
    return Notification(
        on=tuple(status_word(value) for value in message.on),
        type=pipelines_pb2.NotificationType.Name(message.type).removeprefix(_NOTIFICATION),
        target=message.target,
        signing_secret=message.signing_secret if message.HasField("signing_secret") else None,
    )


def _notification_message(notification: Notification) -> pipelines_pb2.Notification:
    return pipelines_pb2.Notification(
        on=[_status(word) for word in notification.on],
        type=pipelines_pb2.NotificationType.Value(_NOTIFICATION + notification.type),
        target=notification.target,
        signing_secret=notification.signing_secret,
    )


def _status(word: str) -> "pipelines_pb2.PipelineStatus.ValueType":
    return pipelines_pb2.PipelineStatus.Value(_STATUS + word)
