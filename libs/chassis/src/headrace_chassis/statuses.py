"""Errors as gRPC statuses with `google.rpc` details (the convention of AIP-193), and back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from headrace.common.v1 import reasons_pb2

from headrace_chassis.catalogue import CATALOGUE
from headrace_chassis.failure import REASON_PREFIX, HeadraceError, Internal, Problem

DOMAIN = "headrace.io"
"""The domain of every `google.rpc.ErrorInfo` of ours."""

DETAILS_KEY = "grpc-status-details-bin"
"""The trailing metadata in which gRPC carries the serialized google.rpc.Status."""

MAXIMUM_METADATA = 64 * 1024
"""The most metadata that a call or its end takes, in bytes; gRPC's own limit is 8 KiB, and beyond it a caller
would learn nothing of the error but that it was too large."""

_PROBLEM_BYTES = 32 * 1024
_TEXT_CHARACTERS = 2_000

PUSHBACK_KEY = "grpc-retry-pushback-ms"
"""The trailing metadata that steers a client's retry policy; a negative value forbids the retry (gRPC
proposal A6)."""


@dataclass(frozen=True, slots=True)
class RpcStatus:
    """A failed call as gRPC takes it: `context.abort(code, message, trailing_metadata)`."""

    code: grpc.StatusCode
    message: str
    trailing_metadata: tuple[tuple[str, str | bytes], ...]


def to_status(error: HeadraceError) -> RpcStatus:
    """Returns the gRPC status of an error, with ErrorInfo, the list of problems and RetryInfo as its
    details: as many problems as metadata can carry, and what their texts say first."""
    entry = error.entry
    message = _shortened(error.message)
    status = status_pb2.Status(code=entry.code.value[0], message=message)
    _pack(status, error_details_pb2.ErrorInfo(reason=error.code, domain=DOMAIN, metadata=error.metadata))
    if error.problems:
        _pack(status, reasons_pb2.ProblemList(problems=_carried(error.problems)))
    if error.retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(int(error.retry_after * 1e9))
        _pack(status, retry)
    trailing: list[tuple[str, str | bytes]] = [(DETAILS_KEY, status.SerializeToString())]
    if not error.may_repeat:
        trailing.append((PUSHBACK_KEY, "-1"))
    return RpcStatus(entry.code, message, tuple(trailing))


def _carried(problems: Sequence[Problem]) -> list[reasons_pb2.Problem]:
    carried: list[reasons_pb2.Problem] = []
    room = _PROBLEM_BYTES
    for problem in problems:
        told = replace(problem, message=_shortened(problem.message), path=_shortened(problem.path)).to_proto()
        room -= told.ByteSize()
        if room < 0:
            left = len(problems) - len(carried)
            return [*carried, reasons_pb2.Problem(code="MORE_PROBLEMS", message=f"and {left} more")]
        carried.append(told)
    return carried


def _shortened(text: str) -> str:
    return text if len(text) <= _TEXT_CHARACTERS else text[:_TEXT_CHARACTERS] + "…"


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
    name = REASON_PREFIX + info.reason
    known = name in reasons_pb2.Reason.keys()  # noqa: SIM118 - an enum wrapper is no mapping
    return HeadraceError(
        status.message,
        # A newer peer may know reasons that this code does not.
        reason=reasons_pb2.Reason.Value(name) if known else reasons_pb2.REASON_INTERNAL,
        problems=problems,
        metadata=dict(info.metadata),
        retry_after=retry_after,
    )
