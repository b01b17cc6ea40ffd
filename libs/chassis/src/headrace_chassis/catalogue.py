"""The one table from reasons to gRPC codes, HTTP statuses and titles.

HTTP statuses follow google.rpc.Code's mapping, except where HTTP is finer (412, 413, 415, 422). A test proves
that every reason of the contracts has its row.
"""

from collections.abc import Mapping
from typing import NamedTuple

from grpc import StatusCode
from headrace.common.v1 import reasons_pb2 as reasons


class Entry(NamedTuple):
    """What a reason is on the wire: its gRPC code, its HTTP status, and a title that reveals nothing."""

    code: StatusCode
    http: int
    title: str


CATALOGUE: Mapping["reasons.Reason.ValueType", Entry] = {
    reasons.REASON_UNSPECIFIED: Entry(StatusCode.INTERNAL, 500, "Internal error"),
    reasons.REASON_INVALID_REQUEST: Entry(StatusCode.INVALID_ARGUMENT, 400, "Invalid request"),
    reasons.REASON_UNKNOWN_FIELD: Entry(StatusCode.INVALID_ARGUMENT, 400, "Unknown field"),
    reasons.REASON_MALFORMED_BODY: Entry(StatusCode.INVALID_ARGUMENT, 400, "Malformed body"),
    reasons.REASON_INVALID_DEFINITION: Entry(StatusCode.INVALID_ARGUMENT, 400, "Invalid definition"),
    reasons.REASON_INVALID_PARAMETERS: Entry(StatusCode.INVALID_ARGUMENT, 400, "Invalid parameters"),
    reasons.REASON_INVALID_CURSOR: Entry(StatusCode.INVALID_ARGUMENT, 400, "Invalid cursor"),
    reasons.REASON_UNAUTHENTICATED: Entry(StatusCode.UNAUTHENTICATED, 401, "Not authenticated"),
    reasons.REASON_ROLE_REQUIRED: Entry(StatusCode.PERMISSION_DENIED, 403, "Role required"),
    reasons.REASON_WORKSPACE_FORBIDDEN: Entry(StatusCode.PERMISSION_DENIED, 403, "Workspace forbidden"),
    reasons.REASON_NOT_FOUND: Entry(StatusCode.NOT_FOUND, 404, "Not found"),
    reasons.REASON_NO_SUCH_ROUTE: Entry(StatusCode.NOT_FOUND, 404, "No such route"),
    reasons.REASON_METHOD_NOT_ALLOWED: Entry(StatusCode.UNIMPLEMENTED, 405, "Method not allowed"),
    reasons.REASON_UPGRADE_REQUIRED: Entry(StatusCode.FAILED_PRECONDITION, 426, "Upgrade required"),
    reasons.REASON_NAME_TAKEN: Entry(StatusCode.ALREADY_EXISTS, 409, "Name taken"),
    reasons.REASON_VERSION_MISMATCH: Entry(StatusCode.ABORTED, 412, "Version mismatch"),
    reasons.REASON_IDEMPOTENCY_KEY_REUSED: Entry(
        StatusCode.FAILED_PRECONDITION, 422, "Idempotency key reused"
    ),
    reasons.REASON_IDEMPOTENCY_IN_FLIGHT: Entry(StatusCode.ABORTED, 409, "Request in flight"),
    reasons.REASON_RUN_FINISHED: Entry(StatusCode.FAILED_PRECONDITION, 409, "Run finished"),
    reasons.REASON_PIPELINE_HAS_LIVE_RUNS: Entry(
        StatusCode.FAILED_PRECONDITION, 409, "Pipeline has live runs"
    ),
    reasons.REASON_PIPELINE_DELETING: Entry(StatusCode.FAILED_PRECONDITION, 409, "Pipeline is being deleted"),
    reasons.REASON_NOT_RETRYABLE: Entry(StatusCode.FAILED_PRECONDITION, 409, "Run cannot be tried again"),
    reasons.REASON_CONCURRENCY_LIMIT: Entry(StatusCode.FAILED_PRECONDITION, 409, "Concurrency limit reached"),
    reasons.REASON_ENGINE_NOT_AVAILABLE: Entry(StatusCode.FAILED_PRECONDITION, 409, "Engine not available"),
    reasons.REASON_IN_USE: Entry(StatusCode.FAILED_PRECONDITION, 409, "In use"),
    reasons.REASON_LEASE_LOST: Entry(StatusCode.FAILED_PRECONDITION, 409, "Lease lost"),
    reasons.REASON_RATE_LIMITED: Entry(StatusCode.RESOURCE_EXHAUSTED, 429, "Too many requests"),
    reasons.REASON_TOO_LARGE: Entry(StatusCode.INVALID_ARGUMENT, 413, "Too large"),
    reasons.REASON_UNSUPPORTED_MEDIA_TYPE: Entry(StatusCode.INVALID_ARGUMENT, 415, "Unsupported media type"),
    reasons.REASON_UNAVAILABLE: Entry(StatusCode.UNAVAILABLE, 503, "Unavailable"),
    reasons.REASON_NO_WORKER: Entry(StatusCode.UNAVAILABLE, 503, "No worker"),
    reasons.REASON_DEADLINE_EXCEEDED: Entry(StatusCode.DEADLINE_EXCEEDED, 504, "Deadline exceeded"),
    reasons.REASON_NOT_IMPLEMENTED: Entry(StatusCode.UNIMPLEMENTED, 501, "Not implemented"),
    reasons.REASON_INTERNAL: Entry(StatusCode.INTERNAL, 500, "Internal error"),
    reasons.REASON_SECRET_REQUIRED: Entry(StatusCode.FAILED_PRECONDITION, 409, "Secret required"),
    reasons.REASON_SECRET_REFERENCE_FORBIDDEN: Entry(
        StatusCode.INVALID_ARGUMENT, 400, "Secret reference forbidden"
    ),
    reasons.REASON_QUOTA_EXCEEDED: Entry(StatusCode.RESOURCE_EXHAUSTED, 429, "Quota exceeded"),
    reasons.REASON_ALERT_RESOLVED: Entry(StatusCode.FAILED_PRECONDITION, 409, "Alert resolved"),
    reasons.REASON_OUTPUT_NOT_LANDED: Entry(StatusCode.FAILED_PRECONDITION, 409, "Output not landed"),
    reasons.REASON_SCHEDULE_MANAGED: Entry(
        StatusCode.FAILED_PRECONDITION, 409, "Schedule managed by its pipeline"
    ),
    reasons.REASON_BACKFILL_ENDED: Entry(StatusCode.FAILED_PRECONDITION, 409, "Backfill has ended"),
    reasons.REASON_CROSS_WORKSPACE_DEPENDENCY: Entry(
        StatusCode.PERMISSION_DENIED, 403, "Dependency across workspaces"
    ),
    reasons.REASON_DEPENDENCY_CYCLE: Entry(StatusCode.FAILED_PRECONDITION, 409, "Dependency cycle"),
    reasons.REASON_DEPENDENCY_EXISTS: Entry(StatusCode.ALREADY_EXISTS, 409, "Dependency exists"),
    reasons.REASON_SIGNAL_RECEIVED: Entry(StatusCode.FAILED_PRECONDITION, 409, "Signal received already"),
    reasons.REASON_SIGNAL_TOO_LATE: Entry(StatusCode.FAILED_PRECONDITION, 409, "Signal too late"),
}
