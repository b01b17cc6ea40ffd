"""The errors that the gateway itself raises; those of the services come through as they are."""

# ruff: noqa: N818 - an error here is named for what happened, as its reason is

from __future__ import annotations

from collections.abc import Iterable

from headrace.common.v1 import reasons_pb2
from headrace_chassis.errors import HeadraceError, Problem, summary


def malformed(
    message: str,
    *,
    line: int | None = None,
    column: int | None = None,
    code: str = "MALFORMED_BODY",
    path: str = "",
) -> HeadraceError:
    """Returns the error of a body that is no well-formed JSON or YAML; line and column count from 1."""
    problem = Problem(code=code, path=path, message=message, line=line, column=column)
    place = f" (line {line}, column {column})" if line is not None else ""
    return HeadraceError(f"{message}{place}", reason=reasons_pb2.REASON_MALFORMED_BODY, problems=[problem])


def refused(problems: list[Problem], unknown: int) -> HeadraceError:
    """Returns the error of a request with these problems, of which so many are names that nothing knows."""
    only_unknown = unknown == len(problems)
    reason = reasons_pb2.REASON_UNKNOWN_FIELD if only_unknown else reasons_pb2.REASON_INVALID_REQUEST
    return HeadraceError(summary(problems, "the request is not valid"), reason=reason, problems=problems)


class HttpError(HeadraceError):
    """An error with an HTTP status or headers of its own beside what the catalogue says of its reason."""

    status: int | None = None

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Returns the headers that the answer needs."""
        return []


class NoSuchRoute(HttpError):
    """The path is not served."""

    reason = reasons_pb2.REASON_NO_SUCH_ROUTE

    def __init__(self) -> None:
        super().__init__("this path is not served; /docs lists what is")


class MethodNotAllowed(HttpError):
    """The path is served, but not with this method (RFC 9110, 15.5.6)."""

    reason = reasons_pb2.REASON_METHOD_NOT_ALLOWED

    def __init__(self, allowed: Iterable[str]) -> None:
        self.allowed = ", ".join(allowed)
        super().__init__(f"this path is served with {self.allowed} only")

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [(b"allow", self.allowed.encode("ascii"))]


class UpgradeRequired(HttpError):
    """The path is served as a WebSocket only (RFC 9110, 15.5.22)."""

    reason = reasons_pb2.REASON_UPGRADE_REQUIRED

    def __init__(self) -> None:
        super().__init__("this path is a WebSocket: ask for an upgrade (RFC 6455)")

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [(b"upgrade", b"websocket"), (b"connection", b"Upgrade")]


class UnsupportedMediaType(HttpError):
    """The body is of a type or encoding that is not understood (RFC 9110, 15.5.16)."""

    reason = reasons_pb2.REASON_UNSUPPORTED_MEDIA_TYPE

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [(b"accept", b"application/json, application/yaml")]


class BodyTimeout(HttpError):
    """The body did not arrive in time (RFC 9110, 15.5.9)."""

    reason = reasons_pb2.REASON_DEADLINE_EXCEEDED
    status = 408

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the body did not arrive within {seconds:g} s")

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [(b"connection", b"close")]


class EntityTagMismatch(HttpError):
    """If-Match names a version that the object cannot be at."""

    reason = reasons_pb2.REASON_VERSION_MISMATCH

    def __init__(self, given: str) -> None:
        super().__init__(f"If-Match names {given}, which is no entity tag of this object")
