"""The errors that only metadata raises."""

# ruff: noqa: N818 - an error here is named for what happened, as its reason is

from collections.abc import Iterable, Sequence
from uuid import UUID

from headrace.common.v1 import reasons_pb2
from headrace_chassis.errors import HeadraceError, InvalidRequest, Problem
from headrace_definition import Problem as DefinitionProblem


class PipelineDeleting(HeadraceError):
    """The pipeline is being deleted and takes no changes."""

    reason = reasons_pb2.REASON_PIPELINE_DELETING

    def __init__(self, pipeline_id: UUID) -> None:
        super().__init__(
            f"pipeline {pipeline_id} is being deleted", metadata={"pipelineId": str(pipeline_id)}
        )


class DeletionGoesOn(HeadraceError):
    """The pipeline is marked for deletion, and its runs had not ended in time; the deletion is carried on."""

    reason = reasons_pb2.REASON_UNAVAILABLE

    def __init__(self, pipeline_id: UUID, retry_after: float) -> None:
        super().__init__(
            f"pipeline {pipeline_id} could not be closed in time; its deletion is carried on, ask again",
            metadata={"pipelineId": str(pipeline_id)},
            retry_after=retry_after,
            may_repeat=False,
        )


class ConnectionInUse(HeadraceError):
    """Latest versions of pipelines refer to the connection."""

    reason = reasons_pb2.REASON_IN_USE

    def __init__(self, name: str, pipelines: Sequence[str], *, more: bool) -> None:
        named = ", ".join(repr(pipeline) for pipeline in pipelines) + (" and more" if more else "")
        super().__init__(
            f"connection {name!r} is used by: {named}; give force=true to delete it all the same",
            problems=[Problem("IN_USE", "id", f"used by pipeline {pipeline!r}") for pipeline in pipelines],
        )


class SecretRequired(HeadraceError):
    """Where a connection points is changed, and its secret was not given again."""

    reason = reasons_pb2.REASON_SECRET_REQUIRED

    def __init__(self) -> None:
        message = (
            "changing the type, host, port, path or options of a connection demands its secret again "
            "(secret or secretRef), so that a stored one is not sent elsewhere"
        )
        super().__init__(message, problems=[Problem("SECRET_REQUIRED", "secret", message)])


class SecretReferenceForbidden(HeadraceError):
    """A secret reference points at what the operator has not opened to users."""

    reason = reasons_pb2.REASON_SECRET_REFERENCE_FORBIDDEN

    def __init__(self, message: str) -> None:
        super().__init__(
            f"secretRef: {message}", problems=[Problem("SECRET_REFERENCE_FORBIDDEN", "secretRef", message)]
        )


class SystemNotReadable(HeadraceError):
    """A worker could not read the system behind a connection: it is away for now, or the connection is
    wrong."""

    def __init__(self, code: str, kind: str, message: str) -> None:
        transient = kind == "TRANSIENT"
        super().__init__(
            message,
            reason=reasons_pb2.REASON_UNAVAILABLE if transient else reasons_pb2.REASON_INVALID_REQUEST,
            problems=[Problem(code, "id", message)],
            retry_after=5.0 if transient else None,
        )


class KeysMakeNoKeys(HeadraceError):
    """An API key was used to make one, which would live on when the first is revoked."""

    reason = reasons_pb2.REASON_ROLE_REQUIRED

    def __init__(self) -> None:
        super().__init__("API keys are made by users: an API key cannot make another")


class QuotaExceeded(HeadraceError):
    """The tenant has as many objects of a kind as it may have; one must go before another comes."""

    reason = reasons_pb2.REASON_QUOTA_EXCEEDED

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(
            f"a tenant may have {limit} {what}; remove one first",
            metadata={"limit": str(limit)},
            retry_after=60.0,
        )


def told(problems: Iterable[DefinitionProblem]) -> list[Problem]:
    """Findings of the definition and the domain, in the form in which errors carry them."""
    return [
        Problem(each.code, each.path, each.message, each.line, each.column, each.suggestion)
        for each in problems
    ]


def refuse(problems: Sequence[DefinitionProblem]) -> None:
    """Raises InvalidRequest where there are problems with a request."""
    if problems:
        raise InvalidRequest(told(problems))
