"""The errors that cross service borders, as typed classes and as gRPC statuses.

A servicer raises one of the small classes; the error interceptor turns it into a status with `google.rpc`
details (the convention of AIP-193), and `from_rpc_error` turns that back into the same facts on the caller's
side. Which gRPC code and HTTP status a reason has is said by the catalogue.
"""

# ruff: noqa: N818 - an error here is named for what happened ("NameTaken"), as its reason is

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from headrace.common.v1 import reasons_pb2

from headrace_chassis.catalogue import CATALOGUE, Entry

__all__ = ["CATALOGUE", "DOMAIN", "Entry", "HeadraceError", "Problem", "from_rpc_error", "to_status"]

DOMAIN = "headrace.io"
"""The domain of every `google.rpc.ErrorInfo` of ours."""

DETAILS_KEY = "grpc-status-details-bin"
"""The trailing metadata in which gRPC carries the serialized google.rpc.Status."""

PUSHBACK_KEY = "grpc-retry-pushback-ms"
"""The trailing metadata that steers a client's retry policy; a negative value forbids the retry (gRPC
proposal A6)."""

_PREFIX = "REASON_"


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem at one place of a request or definition.

    `code` is a stable word in UPPER_SNAKE, `path` a path of JSON names ("sinks[0].mode"); `line` and `column`
    count from 1 and are there only for a definition's text; `suggestion` is the nearest valid word.
    """

    code: str
    path: str
    message: str
    line: int | None = None
    column: int | None = None
    suggestion: str | None = None

    def to_proto(self) -> reasons_pb2.Problem:
        """Returns the form that travels in status details."""
        return reasons_pb2.Problem(
            code=self.code,
            path=self.path,
            message=self.message,
            line=self.line,
            column=self.column,
            suggestion=self.suggestion,
        )

    @staticmethod
    def from_proto(problem: reasons_pb2.Problem) -> "Problem":
        """Returns the problem that travelled in status details."""
        return Problem(
            code=problem.code,
            path=problem.path,
            message=problem.message,
            line=problem.line if problem.HasField("line") else None,
            column=problem.column if problem.HasField("column") else None,
            suggestion=problem.suggestion if problem.HasField("suggestion") else None,
        )


class HeadraceError(Exception):
    """Why a call failed, in a form that is safe to tell the caller.

    `metadata` holds facts for machines (ids, versions) and never a secret. `retry_after` is seconds until
    another try makes sense. `may_repeat` is False where the effect may have happened, or the wait was long:
    then no layer below the caller may repeat the call by itself.
    """

    reason: "reasons_pb2.Reason.ValueType" = reasons_pb2.REASON_INTERNAL

    def __init__(
        self,
        message: str,
        *,
        reason: "reasons_pb2.Reason.ValueType | None" = None,
        problems: Iterable[Problem] = (),
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
        may_repeat: bool = True,
    ) -> None:
        super().__init__(message)
        self.message = message
        if reason is not None:
            self.reason = reason
        self.problems: tuple[Problem, ...] = tuple(problems)
        self.metadata: dict[str, str] = dict(metadata or {})
        self.retry_after = retry_after
        self.may_repeat = may_repeat

    @property
    def code(self) -> str:
        """The reason as clients see it: "NAME_TAKEN"."""
        return reasons_pb2.Reason.Name(self.reason).removeprefix(_PREFIX)

    @property
    def entry(self) -> Entry:
        """The catalogue's row of the reason."""
        return CATALOGUE[self.reason]


class InvalidRequest(HeadraceError):
    """Fields of the request are missing, malformed or out of bounds; every problem is listed with its
    place."""

    reason = reasons_pb2.REASON_INVALID_REQUEST

    def __init__(self, problems: Sequence[Problem], message: str | None = None) -> None:
        super().__init__(message or summary(problems, "the request is not valid"), problems=problems)


class InvalidDefinition(HeadraceError):
    """The definition has errors; each is listed with its place."""

    reason = reasons_pb2.REASON_INVALID_DEFINITION

    def __init__(self, problems: Sequence[Problem], message: str | None = None) -> None:
        super().__init__(message or summary(problems, "the definition is not valid"), problems=problems)


class InvalidParameters(HeadraceError):
    """The values given for a run's parameters do not fit their declarations."""

    reason = reasons_pb2.REASON_INVALID_PARAMETERS

    def __init__(self, problems: Sequence[Problem], message: str | None = None) -> None:
        super().__init__(message or summary(problems, "the parameters are not valid"), problems=problems)


class InvalidCursor(HeadraceError):
    """The page cursor was altered, or another list made it."""

    reason = reasons_pb2.REASON_INVALID_CURSOR

    def __init__(self) -> None:
        message = "the cursor was not made by this list; begin again without one"
        super().__init__(message, problems=[Problem("INVALID_CURSOR", "cursor", message)])


class Unauthenticated(HeadraceError):
    """There are no credentials, or they do not verify. The message never says more than the caller needs."""

    reason = reasons_pb2.REASON_UNAUTHENTICATED


class RoleRequired(HeadraceError):
    """The caller's role does not suffice."""

    reason = reasons_pb2.REASON_ROLE_REQUIRED

    def __init__(self, required: str) -> None:
        super().__init__(f"this needs the role {required}", metadata={"requiredRole": required})


class WorkspaceForbidden(HeadraceError):
    """The caller named a workspace of its tenant that it may not use."""

    reason = reasons_pb2.REASON_WORKSPACE_FORBIDDEN

    def __init__(self, workspace: object) -> None:
        super().__init__(f"workspace {workspace} may not be used", metadata={"workspaceId": str(workspace)})


class TenantForbidden(HeadraceError):
    """The caller named a tenant that is not its own."""

    reason = reasons_pb2.REASON_WORKSPACE_FORBIDDEN

    def __init__(self) -> None:
        super().__init__("the named tenant is not the one of the credentials")


class NotFound(HeadraceError):
    """There is no such object for this caller; objects of others are no different from ones that do not
    exist."""

    reason = reasons_pb2.REASON_NOT_FOUND

    def __init__(self, kind: str, identity: object) -> None:
        super().__init__(f"{kind} {identity} does not exist", metadata={"kind": kind, "id": str(identity)})


class NameTaken(HeadraceError):
    """The name is taken."""

    reason = reasons_pb2.REASON_NAME_TAKEN

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(
            f"a {kind} with the name {name!r} exists already", metadata={"kind": kind, "name": name}
        )


class VersionMismatch(HeadraceError):
    """The object has changed since the version that the caller named."""

    reason = reasons_pb2.REASON_VERSION_MISMATCH

    def __init__(self, expected: int, actual: int) -> None:
        super().__init__(
            f"version {expected} was expected, but the latest is {actual}",
            metadata={"expected": str(expected), "actual": str(actual)},
        )


class IdempotencyKeyReused(HeadraceError):
    """The idempotency key was used with another request."""

    reason = reasons_pb2.REASON_IDEMPOTENCY_KEY_REUSED

    def __init__(self) -> None:
        super().__init__("this idempotency key was used with another request; use a new key")


class IdempotencyInFlight(HeadraceError):
    """A request with this idempotency key is still being handled."""

    reason = reasons_pb2.REASON_IDEMPOTENCY_IN_FLIGHT

    def __init__(self) -> None:
        super().__init__("a request with this idempotency key is still being handled", retry_after=1.0)


class TooLarge(HeadraceError):
    """The body or a part of it is too large; `limit` and `size` are bytes."""

    reason = reasons_pb2.REASON_TOO_LARGE

    def __init__(self, what: str, limit: int, size: int | None = None) -> None:
        told = f"{what} is too large" if size is None else f"{what} has {size} bytes"
        super().__init__(f"{told}; at most {limit} bytes are accepted", metadata={"limit": str(limit)})


class RateLimited(HeadraceError):
    """Too many requests; `retry_after` is seconds."""

    reason = reasons_pb2.REASON_RATE_LIMITED

    def __init__(self, retry_after: float) -> None:
        super().__init__("too many requests", retry_after=retry_after)


class Unavailable(HeadraceError):
    """Something that the call needs is away for the moment."""

    reason = reasons_pb2.REASON_UNAVAILABLE

    def __init__(self, what: str, retry_after: float = 1.0) -> None:
        super().__init__(f"{what} is not available at the moment; try again", retry_after=retry_after)


class OutcomeUnknown(HeadraceError):
    """The connection was lost while the change was being committed: it may have happened or not.

    The caller may ask again; a write with an idempotency key is then answered as if nothing had gone wrong.
    No layer below the caller may repeat it by itself.
    """

    reason = reasons_pb2.REASON_UNAVAILABLE

    def __init__(self, what: str) -> None:
        super().__init__(
            f"the connection to {what} was lost while the change was being committed; it may have happened",
            retry_after=1.0,
            may_repeat=False,
        )


class DeadlineExceeded(HeadraceError):
    """The deadline passed."""

    reason = reasons_pb2.REASON_DEADLINE_EXCEEDED

    def __init__(self, what: str = "the call") -> None:
        super().__init__(f"{what} took longer than its deadline allowed")


class NotImplementedHere(HeadraceError):
    """The RPC or feature is not built."""

    reason = reasons_pb2.REASON_NOT_IMPLEMENTED

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is not part of this installation")


class Internal(HeadraceError):
    """An unexpected failure. Its text stays inside; the request id finds it in the log."""

    reason = reasons_pb2.REASON_INTERNAL

    def __init__(self) -> None:
        super().__init__("an unexpected failure; the request id finds it in the log")


def summary(problems: Sequence[Problem], otherwise: str) -> str:
    """Returns one sentence for several problems: the first with its place, and how many more there are."""
    if not problems:
        return otherwise
    first = problems[0]
    told = f"{first.path}: {first.message}" if first.path else first.message
    return told if len(problems) == 1 else f"{told} (and {len(problems) - 1} more)"


@dataclass(frozen=True, slots=True)
class RpcStatus:
    """A failed call as gRPC takes it: `context.abort(code, message, trailing_metadata)`."""

    code: grpc.StatusCode
    message: str
    trailing_metadata: tuple[tuple[str, str | bytes], ...]


def to_status(error: HeadraceError) -> RpcStatus:
    """Returns the gRPC status of an error, with ErrorInfo, the list of problems and RetryInfo as its
    details."""
    entry = error.entry
    status = status_pb2.Status(code=entry.code.value[0], message=error.message)
    _pack(status, error_details_pb2.ErrorInfo(reason=error.code, domain=DOMAIN, metadata=error.metadata))
    if error.problems:
        _pack(status, reasons_pb2.ProblemList(problems=[problem.to_proto() for problem in error.problems]))
    if error.retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(int(error.retry_after * 1e9))
        _pack(status, retry)
    trailing: list[tuple[str, str | bytes]] = [(DETAILS_KEY, status.SerializeToString())]
    if not error.may_repeat:
        trailing.append((PUSHBACK_KEY, "-1"))
    return RpcStatus(entry.code, error.message, tuple(trailing))


def _pack(status: status_pb2.Status, detail: Any) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)
    status.details.append(packed)


# What a status without details of ours means: it comes from gRPC itself, or from a proxy on the way.
_BARE: Mapping[grpc.StatusCode, "reasons_pb2.Reason.ValueType"] = {
    grpc.StatusCode.INVALID_ARGUMENT: reasons_pb2.REASON_INVALID_REQUEST,
    grpc.StatusCode.OUT_OF_RANGE: reasons_pb2.REASON_INVALID_REQUEST,
    grpc.StatusCode.UNAUTHENTICATED: reasons_pb2.REASON_UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED: reasons_pb2.REASON_ROLE_REQUIRED,
    grpc.StatusCode.NOT_FOUND: reasons_pb2.REASON_NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS: reasons_pb2.REASON_NAME_TAKEN,
    grpc.StatusCode.RESOURCE_EXHAUSTED: reasons_pb2.REASON_TOO_LARGE,
    grpc.StatusCode.UNAVAILABLE: reasons_pb2.REASON_UNAVAILABLE,
    grpc.StatusCode.ABORTED: reasons_pb2.REASON_UNAVAILABLE,
    grpc.StatusCode.CANCELLED: reasons_pb2.REASON_UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: reasons_pb2.REASON_DEADLINE_EXCEEDED,
    grpc.StatusCode.UNIMPLEMENTED: reasons_pb2.REASON_NOT_IMPLEMENTED,
}


def from_rpc_error(error: grpc.RpcError) -> HeadraceError:
    """Returns what a failed call told, as the error that its servicer raised.

    A status that bears no details of ours comes from gRPC or from a proxy on the way: its code is kept, its
    text is not, since it may name addresses and types of the inside.
    """
    details = _details(error)
    for detail in details.details if details is not None else ():
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo()
            detail.Unpack(info)
            if details is not None and info.domain == DOMAIN:
                return _from_details(details, info)
    code = error.code() if isinstance(error, grpc.Call | grpc.aio.AioRpcError) else None
    reason = _BARE.get(code, reasons_pb2.REASON_INTERNAL) if code is not None else reasons_pb2.REASON_INTERNAL
    retry = 1.0 if reason == reasons_pb2.REASON_UNAVAILABLE else None
    if reason == reasons_pb2.REASON_INTERNAL:
        return Internal()
    told = CATALOGUE[reason].title.lower()
    return HeadraceError(f"the call failed: {told}", reason=reason, retry_after=retry)


def _details(error: grpc.RpcError) -> status_pb2.Status | None:
    if not isinstance(error, grpc.Call | grpc.aio.AioRpcError):
        return None
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            return status_pb2.Status.FromString(value)
    return None


def _from_details(status: status_pb2.Status, info: error_details_pb2.ErrorInfo) -> HeadraceError:
    problems: list[Problem] = []
    retry_after: float | None = None
    for detail in status.details:
        if detail.Is(reasons_pb2.ProblemList.DESCRIPTOR):
            listed = reasons_pb2.ProblemList()
            detail.Unpack(listed)
            problems = [Problem.from_proto(problem) for problem in listed.problems]
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo()
            detail.Unpack(retry)
            retry_after = retry.retry_delay.ToNanoseconds() / 1e9
    name = _PREFIX + info.reason
    known = name in reasons_pb2.Reason.keys()  # noqa: SIM118 - an enum wrapper is no mapping
    return HeadraceError(
        status.message,
        # A newer peer may know reasons that this code does not.
        reason=reasons_pb2.Reason.Value(name) if known else reasons_pb2.REASON_INTERNAL,
        problems=problems,
        metadata=dict(info.metadata),
        retry_after=retry_after,
    )
