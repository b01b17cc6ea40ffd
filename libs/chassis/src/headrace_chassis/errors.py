"""The errors that cross service borders, as typed classes and as gRPC statuses.

A servicer raises one of the small classes; the error interceptor turns it into a status with `google.rpc`
details (the convention of AIP-193), and `from_rpc_error` turns that back into the same facts on the caller's
side. Which gRPC code and HTTP status a reason has is said by the catalogue.
"""

# ruff: noqa: N818 - an error here is named for what happened ("NameTaken"), as its reason is

from collections.abc import Sequence

from headrace.common.v1 import reasons_pb2

from headrace_chassis.catalogue import CATALOGUE, Entry
from headrace_chassis.failure import HeadraceError, Internal, Problem, summary
from headrace_chassis.statuses import DETAILS_KEY, DOMAIN, from_rpc_error, to_status

__all__ = [
    "CATALOGUE",
    "DETAILS_KEY",
    "DOMAIN",
    "Entry",
    "HeadraceError",
    "Internal",
    "Problem",
    "from_rpc_error",
    "summary",
    "to_status",
]


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
