"""The OpenAPI 3.1 document of a set of routes: their paths, parameters, bodies, answers and errors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor, ServiceDescriptor
from headrace.common.v1 import options_pb2

from headrace_gateway.codec.fields import rules
from headrace_gateway.codec.parameters import query_fields
from headrace_gateway.http.problems import problem_types
from headrace_gateway.routes import Route, scalar_field
from headrace_gateway.socket_routes import SocketRoute

from .schemas import Schema, Schemas
from .sockets import socket_operation

API_VERSION: Final = "1.0.0"
"""The version of the contracts: the major number stands in the paths."""

_ABOUT: Final = """\
Describe data pipelines in YAML; version, run and watch them.

Send a JSON Web Token as `Authorization: Bearer …`. Its `roles` decide what it may call: a `viewer` reads, an
`editor` also writes and runs, an `admin` also manages workspaces and secrets; each operation names the least
role. An API key (`hr_…`) is sent in the same way, instead of a token.

Bodies are `application/json` or the same in `application/yaml`; fields that an operation does not know are
refused. Errors are problem documents (RFC 9457) with a stable `code` and, where it helps, a list of places in
`errors`.
"""

_PROBLEM: Final[Schema] = {
    "type": "object",
    "description": "What went wrong (RFC 9457).",
    "properties": {
        "type": {"type": "string", "format": "uri", "description": "Names the kind of problem."},
        "title": {"type": "string", "description": "The kind of problem in words."},
        "status": {"type": "integer", "description": "The HTTP status."},
        "detail": {"type": "string", "description": "What went wrong this time, and what was expected."},
        "instance": {"type": "string", "description": "The path that was asked."},
        "code": {"type": "string", "description": "A stable word that programs may branch on."},
        "requestId": {"type": "string", "description": "Finds the request in the logs."},
        "context": {
            "type": "object",
            "additionalProperties": {"type": "string"},
            "description": "Facts for programs: ids, names, versions.",
        },
        "errors": {
            "type": "array",
            "description": "Every problem that was found, with its place.",
            "items": {
                "type": "object",
                "properties": {
                    "code": {"type": "string", "description": "A stable word for the kind of problem."},
                    "path": {"type": "string", "description": "The place, for example `sinks[0].mode`."},
                    "message": {"type": "string", "description": "What is wrong and what was expected."},
                    "line": {"type": "integer", "description": "The line in a definition's text, from 1."},
                    "column": {"type": "integer", "description": "The column in that line, from 1."},
                    "suggestion": {"type": "string", "description": "The nearest valid word."},
                },
                "required": ["code", "path", "message"],
            },
        },
    },
    "required": ["type", "title", "status", "detail", "instance", "code", "requestId"],
}

_PROBLEMS: Final[dict[str, tuple[int, str]]] = {
    "BadRequest": (400, "The request is not valid; `errors` lists every problem with its place."),
    "Unauthenticated": (401, "There is no token, or it does not verify."),
    "Forbidden": (403, "The role does not suffice, or the workspace may not be used."),
    "NotFound": (404, "There is no such object for this caller."),
    "Conflict": (409, "The state of the object does not allow it; `code` says why."),
    "VersionMismatch": (412, "The object has changed since the version that If-Match names."),
    "TooLarge": (413, "The body is too large."),
    "UnsupportedMediaType": (415, "The body is neither JSON nor YAML."),
    "KeyReused": (422, "The idempotency key was used with another request."),
    "TooManyRequests": (429, "Too many requests; `Retry-After` says when to come back."),
    "Unavailable": (503, "Something that the call needs is away; `Retry-After` says when to come back."),
    "Timeout": (504, "The call took longer than its deadline allowed."),
}

_PARAMETERS: Final[dict[str, Schema]] = {
    "IdempotencyKey": {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "A repeat of this request with the same key gets the first answer, for 24 hours.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    },
    "IfMatch": {
        "name": "If-Match",
        "in": "header",
        "description": "The `ETag` that the caller has seen; a write is refused where it is not the latest.",
        "schema": {"type": "string"},
        "example": '"3"',
    },
    "IfNoneMatch": {
        "name": "If-None-Match",
        "in": "header",
        "description": "The `ETag` that the caller has; the answer is 304 where it is still the latest.",
        "schema": {"type": "string"},
    },
    "Range": {
        "name": "Range",
        "in": "header",
        "description": "Which part to send, for example `bytes=0-1023` (RFC 9110, 14.2).",
        "schema": {"type": "string"},
    },
    "IfRange": {
        "name": "If-Range",
        "in": "header",
        "description": "The `ETag` of which the caller has a part; another one is sent as a whole.",
        "schema": {"type": "string"},
    },
}

_CARRIED: Final = {"range": "Range", "if-range": "IfRange"}
_BINARY: Final[Schema] = {"schema": {"type": "string", "format": "binary"}}

_HEADERS: Final[dict[str, Schema]] = {
    "RequestId": {"description": "Finds the request in the logs.", "schema": {"type": "string"}},
    "ETag": {
        "description": "The version, as a strong entity tag.",
        "schema": {"type": "string"},
        "example": '"3"',
    },
    "Location": {"description": "Where the object is.", "schema": {"type": "string"}},
    "RetryAfter": {"description": "When to come back, in seconds.", "schema": {"type": "integer"}},
}


def openapi_document(
    routes: Iterable[Route], sockets: Iterable[SocketRoute], comments: Mapping[str, str]
) -> dict[str, Any]:
    """Returns the document of these routes and WebSockets. It depends on nothing else, so that equal
    contracts make equal documents.

    Raises SchemaConflictError where two messages would have the same name.
    """
    schemas = Schemas(comments)
    paths: dict[str, dict[str, Any]] = {}
    services: dict[str, ServiceDescriptor] = {}
    socket_of = {socket.route: socket for socket in sockets}
    for route in sorted([*routes, *socket_of], key=lambda route: (route.template.text, route.http_method)):
        service = route.rpc.containing_service
        services[_tag(service)] = service
        operation = _operation(route, schemas)
        if route in socket_of:
            operation = socket_operation(operation, socket_of[route], schemas.answer(route.rpc.output_type))
        paths.setdefault(_path(route), {})[route.http_method.lower()] = operation
    schemas.components["Problem"] = {**_PROBLEM, "properties": {**_PROBLEM["properties"], "code": _codes()}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Headrace", "version": API_VERSION, "description": _ABOUT},
        "servers": [{"url": "/"}],
        "tags": [
            {"name": tag, "description": schemas.describe(services[tag].full_name)}
            for tag in sorted(services)
        ],
        "security": [{"bearerAuth": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"bearerAuth": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
            "parameters": _PARAMETERS,
            "headers": _HEADERS,
            "responses": {name: _problem_response(*told) for name, told in _PROBLEMS.items()},
            "schemas": dict(sorted(schemas.components.items())),
        },
    }


def _operation(route: Route, schemas: Schemas) -> dict[str, Any]:
    about = schemas.describe(route.rpc.full_name)
    role = options_pb2.Role.Name(route.role).removeprefix("ROLE_").lower()
    operation: dict[str, Any] = {
        "operationId": route.operation_id,
        "tags": [_tag(route.rpc.containing_service)],
        "summary": re.split(r"(?<=\.)\s", about, maxsplit=1)[0].rstrip("."),
        "description": f"{about}\n\nNeeds the role `{role}`.".strip(),
        "x-role": role,
    }
    parameters = [
        *_path_parameters(route, schemas),
        *_query_parameters(route, schemas),
        *_header_parameters(route),
    ]
    if parameters:
        operation["parameters"] = parameters
    if route.body:
        operation["requestBody"] = _request_body(route, schemas)
    operation["responses"] = _responses(route, schemas)
    return operation


def _path(route: Route) -> str:
    """Returns the path as OpenAPI writes it: variables by their JSON names."""
    return route.template.fill(
        {v.field_path: f"{{{_json_name(route, v.field_path)}}}" for v in route.template.variables}
    )


def _json_name(route: Route, field_path: str) -> str:
    return ".".join(field.json_name for field in scalar_field(route.rpc.input_type, field_path) or ())


def _path_parameters(route: Route, schemas: Schemas) -> list[Schema]:
    chains = [scalar_field(route.rpc.input_type, v.field_path) or [] for v in route.template.variables]
    return [
        _parameter(".".join(field.json_name for field in chain), "path", chain[-1], schemas, required=True)
        for chain in chains
    ]


def _query_parameters(route: Route, schemas: Schemas) -> list[Schema]:
    if not route.query_allowed:
        return []
    bound = route.template.fields | ({route.body} if route.body else set())
    return [
        _parameter(name, "query", chain[-1], schemas, required=all(rules(field).required for field in chain))
        for name, chain in query_fields(route.rpc.input_type, frozenset(bound)).items()
    ]


def _parameter(name: str, place: str, field: FieldDescriptor, schemas: Schemas, *, required: bool) -> Schema:
    parameter: Schema = {"name": name, "in": place}
    described = schemas.field(field, "request", clearable=False).get("description")
    if described:
        parameter["description"] = described
    if required:
        parameter["required"] = True
    return {**parameter, "schema": schemas.parameter(field)}


def _header_parameters(route: Route) -> list[Schema]:
    names = []
    if route.http_method == "POST":
        names.append("IdempotencyKey")
    if route.if_match_field:
        names.append("IfMatch")
    if route.http_method == "GET" and (route.etag_field or "if-none-match" in route.request_headers):
        names.append("IfNoneMatch")
    names += [name for header, name in _CARRIED.items() if header in route.request_headers]
    return [{"$ref": f"#/components/parameters/{name}"} for name in names]


def _request_body(route: Route, schemas: Schemas) -> Schema:
    message = route.rpc.input_type
    if route.body == "*":
        bound = frozenset(name for name in route.template.fields if "." not in name)
        schema = schemas.request(message, bound)
        required = bool(schemas.components[message.name].get("required"))
    else:
        field = message.fields_by_name[route.body]
        schema = schemas.field(field, "request", clearable=False)
        required = rules(field).required
    content = {"application/json": {"schema": schema}, "application/yaml": {"schema": schema}}
    return {"required": required, "content": content}


def _responses(route: Route, schemas: Schemas) -> dict[str, Any]:
    headers: dict[str, Any] = {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}}
    if route.etag_field:
        headers["ETag"] = {"$ref": "#/components/headers/ETag"}
    if route.location:
        headers["Location"] = {"$ref": "#/components/headers/Location"}
    success: dict[str, Any] = {"description": "Done.", "headers": headers}
    if route.answers_bytes:
        success["description"] = "The bytes, sent as they come."
        success["content"] = dict.fromkeys(route.media_types or ("application/octet-stream",), _BINARY)
    elif not route.answers_nothing:
        media_type = "application/x-ndjson" if route.is_streamed else "application/json"
        success["description"] = schemas.describe(route.rpc.output_type.full_name) or "Done."
        success["content"] = {media_type: {"schema": schemas.answer(route.rpc.output_type)}}
        if route.stream is not None:
            lines = {"schema": schemas.answer(route.stream.rpc.output_type)}
            success["content"]["application/x-ndjson"] = lines
    responses: dict[str, Any] = {str(route.success_status): success}
    if route.http_method == "GET" and (route.etag_field or "if-none-match" in route.request_headers):
        responses["304"] = {"description": "The caller has the latest version."}
    if "range" in route.request_headers:
        responses["206"] = {**success, "description": "The part that `Range` asks for."}
        responses["416"] = {"description": "There is no such part; `Content-Range` tells the size."}
    for name in _problems_of(route):
        responses[str(_PROBLEMS[name][0])] = {"$ref": f"#/components/responses/{name}"}
    responses["default"] = {
        "description": "Any other problem.",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    return responses


def _problems_of(route: Route) -> list[str]:
    writes = route.http_method != "GET"
    there = {
        "NotFound": bool(route.template.variables),
        "Conflict": writes and not route.no_effect,
        "VersionMismatch": bool(route.if_match_field),
        "TooLarge": bool(route.body),
        "UnsupportedMediaType": bool(route.body),
        "KeyReused": route.http_method == "POST" and not route.no_effect,
    }
    return [name for name in _PROBLEMS if there.get(name, True)]


def _problem_response(status: int, description: str) -> Schema:
    response: Schema = {
        "description": description,
        "headers": {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}},
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    if status in (429, 503):
        response["headers"]["Retry-After"] = {"$ref": "#/components/headers/RetryAfter"}
    return response


def _codes() -> Schema:
    return {
        "type": "string",
        "description": "A stable word that programs may branch on.",
        "enum": list(problem_types()),
    }


def _tag(service: ServiceDescriptor) -> str:
    """Returns "Pipelines" for PipelineService."""
    name = service.name.removesuffix("Service")
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name) + "s"
