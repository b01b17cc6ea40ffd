"""Connections, and what workers find behind them."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from headrace.metadata.v1 import connections_pb2, definitions_pb2
from headrace_chassis.messages import cleared, timestamp

from headrace_metadata.domain.connections import Connection, ConnectionChange, ConnectionType, Endpoint
from headrace_metadata.domain.names import normalise_name

_CONNECTION = "CONNECTION_TYPE_"
_ENDPOINT_FIELDS = ("host", "port", "database", "username", "path")
_CLEARABLE = frozenset(
    {"description", *_ENDPOINT_FIELDS, "options", "secret", "secret_ref", "max_concurrent_stages"}
)


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
        max_concurrent_stages=_max_concurrent_stages(request),
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
        max_concurrent_stages=_max_concurrent_stages(request),
        cleared=cleared(request, request.cleared_fields, _CLEARABLE),
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
        created_at=timestamp(connection.created_at),
        updated_at=timestamp(connection.updated_at),
        created_by=connection.created_by,
        max_concurrent_stages=connection.max_concurrent_stages,
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
        details=_details(answer),
    )


def _details(answer: Mapping[str, Any]) -> connections_pb2.ConnectionDetails | None:
    if "tables" not in answer:
        return None
    return connections_pb2.ConnectionDetails(schemas=answer["schemas"], tables=answer["tables"])


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


def _max_concurrent_stages(
    request: connections_pb2.CreateConnectionRequest | connections_pb2.UpdateConnectionRequest,
) -> int | None:
    return request.max_concurrent_stages if request.HasField("max_concurrent_stages") else None


def _endpoint_fields(
    request: connections_pb2.CreateConnectionRequest | connections_pb2.UpdateConnectionRequest,
) -> dict[str, Any]:
    return {name: getattr(request, name) for name in _ENDPOINT_FIELDS if request.HasField(name)}  # type: ignore[arg-type]
