"""The catalogue is complete, and an error crosses a call with all its facts."""

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from headrace.common.v1 import reasons_pb2
from headrace_chassis import errors
from headrace_chassis.catalogue import CATALOGUE
from headrace_chassis.channels import failure_of
from headrace_chassis.errors import HeadraceError, Problem, from_rpc_error, to_status


def crossed(error: HeadraceError) -> HeadraceError:
    """The error as a caller gets it."""
    status = to_status(error)
    return from_rpc_error(
        grpc.aio.AioRpcError(
            status.code, grpc.aio.Metadata(), grpc.aio.Metadata(*status.trailing_metadata), status.message
        )
    )


def test_every_reason_has_its_row() -> None:
    assert set(CATALOGUE) == set(reasons_pb2.Reason.values())


# google.rpc.Code's mapping to HTTP (google/rpc/code.proto), which the finer reasons below depart from.
USUAL = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.FAILED_PRECONDITION: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}
FINER = {
    reasons_pb2.REASON_VERSION_MISMATCH: 412,
    reasons_pb2.REASON_IDEMPOTENCY_KEY_REUSED: 422,
    reasons_pb2.REASON_TOO_LARGE: 413,
    reasons_pb2.REASON_UNSUPPORTED_MEDIA_TYPE: 415,
    reasons_pb2.REASON_METHOD_NOT_ALLOWED: 405,
    reasons_pb2.REASON_UPGRADE_REQUIRED: 426,
}


@pytest.mark.parametrize("reason", sorted(CATALOGUE))
def test_http_status_follows_the_code_unless_the_reason_is_finer(
    reason: "reasons_pb2.Reason.ValueType",
) -> None:
    entry = CATALOGUE[reason]
    assert entry.http == FINER.get(reason, USUAL[entry.code])


def test_every_class_has_a_reason_of_its_own_words() -> None:
    classes = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, HeadraceError)
    ]
    assert len(classes) > 15
    for kind in classes:
        assert kind.__doc__, kind
        assert kind.reason in CATALOGUE


def test_all_facts_arrive() -> None:
    sent = HeadraceError(
        "two things are wrong",
        reason=reasons_pb2.REASON_INVALID_DEFINITION,
        problems=[Problem("A", "sinks[0].mode", "x", 3, 7, "merge"), Problem("B", "", "y")],
        metadata={"pipelineId": "p"},
        retry_after=1.5,
    )
    got = crossed(sent)
    assert got.reason == sent.reason
    assert (got.message, got.problems, got.metadata) == (sent.message, sent.problems, sent.metadata)
    assert got.retry_after == 1.5


def test_the_details_are_those_that_others_know() -> None:
    status = status_pb2.Status.FromString(
        dict(to_status(errors.NotFound("pipeline", "p")).trailing_metadata)["grpc-status-details-bin"]
    )
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain, dict(info.metadata)) == (
        "NOT_FOUND",
        "headrace.io",
        {"kind": "pipeline", "id": "p"},
    )


def test_what_may_have_happened_is_not_repeated_by_grpc() -> None:
    assert ("grpc-retry-pushback-ms", "-1") in to_status(
        errors.OutcomeUnknown("the database")
    ).trailing_metadata
    assert len(to_status(errors.Unavailable("the database")).trailing_metadata) == 1


def test_what_another_service_raised_is_not_repeated_by_our_callers() -> None:
    bare = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata())
    handed_on = to_status(failure_of(bare))
    assert handed_on.code == grpc.StatusCode.UNAVAILABLE
    assert ("grpc-retry-pushback-ms", "-1") in handed_on.trailing_metadata


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_a_bare_status_keeps_its_kind_and_loses_its_text(code: grpc.StatusCode) -> None:
    bare = grpc.aio.AioRpcError(
        code, grpc.aio.Metadata(), grpc.aio.Metadata(), "ipv4:10.0.0.7:5432 went away"
    )
    got = from_rpc_error(bare)
    assert "10.0.0.7" not in got.message
    assert got.reason in CATALOGUE
    if code in (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
    ):
        assert got.entry.code == code


def test_a_reason_of_a_newer_peer_is_internal() -> None:
    status = status_pb2.Status(code=9, message="new")
    detail = status.details.add()
    detail.Pack(error_details_pb2.ErrorInfo(reason="FROM_THE_FUTURE", domain=errors.DOMAIN))
    trailing = grpc.aio.Metadata((errors.DETAILS_KEY, status.SerializeToString()))
    got = from_rpc_error(
        grpc.aio.AioRpcError(grpc.StatusCode.FAILED_PRECONDITION, grpc.aio.Metadata(), trailing)
    )
    assert got.reason == reasons_pb2.REASON_INTERNAL
