"""Errors as problem documents (RFC 9457): `application/problem+json`."""

from __future__ import annotations

import math
from typing import Any, Final

import orjson
from headrace.common.v1 import reasons_pb2
from headrace_chassis.errors import HeadraceError, Problem

from .exchange import Answer, Header
from .failures import HttpError

TYPE_BASE: Final = "https://headrace.io/problems/"
"""What `type` begins with; the rest is the code in lower case with hyphens."""

CONTENT_TYPE: Final = b"application/problem+json"
_DEFAULT_RETRY_SECONDS: Final = 1.0


def problem_answer(error: HeadraceError, instance: str, request_id: str) -> Answer:
    """Returns the answer for an error. `instance` is the path that was asked."""
    entry = error.entry
    status = error.status if isinstance(error, HttpError) and error.status else entry.http
    document: dict[str, Any] = {
        "type": problem_type(error.code),
        "title": entry.title,
        "status": status,
        "detail": error.message,
        "instance": instance,
        "code": error.code,
        "requestId": request_id,
    }
    if error.problems:
        document["errors"] = [_written(problem) for problem in error.problems]
    if error.metadata:
        document["context"] = error.metadata
    headers: list[Header] = [(b"content-type", CONTENT_TYPE)]
    if isinstance(error, HttpError):
        headers += error.headers()
    if status == 401:
        headers.append((b"www-authenticate", _challenge(error)))
    if status in (429, 503) or error.retry_after is not None:
        seconds = math.ceil(error.retry_after if error.retry_after is not None else _DEFAULT_RETRY_SECONDS)
        headers.append((b"retry-after", str(max(seconds, 1)).encode("ascii")))
    return Answer(status, orjson.dumps(document), headers)


def problem_type(code: str) -> str:
    """Returns the URI that names a kind of problem: ".../problems/name-taken"."""
    return TYPE_BASE + code.lower().replace("_", "-")


def problem_types() -> dict[str, str]:
    """Returns the URI of every reason by its code, in the order of the catalogue."""
    codes = [name.removeprefix("REASON_") for name in reasons_pb2.Reason.keys()]  # noqa: SIM118 - no mapping
    return {code: problem_type(code) for code in codes if code != "UNSPECIFIED"}


def _written(problem: Problem) -> dict[str, object]:
    where = {"line": problem.line, "column": problem.column, "suggestion": problem.suggestion}
    told: dict[str, object] = {"code": problem.code, "path": problem.path, "message": problem.message}
    return told | {name: value for name, value in where.items() if value is not None}


def _challenge(error: HeadraceError) -> bytes:
    """Returns the challenge of RFC 6750, section 3; what is wrong stands in the document."""
    return b'Bearer realm="headrace"' + (b', error="invalid_token"' if error.metadata.get("given") else b"")
