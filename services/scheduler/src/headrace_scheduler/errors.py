"""The errors that only the scheduler raises."""

# ruff: noqa: N818 - an error here is named for what happened, as its reason is

from collections.abc import Sequence
from uuid import UUID

from headrace.common.v1 import reasons_pb2
from headrace_chassis.errors import HeadraceError, InvalidRequest, Problem

from headrace_scheduler.domain.backfills import BackfillStatus
from headrace_scheduler.domain.timing import BadTimes

_NOTHING_LEFT = ": each of its intervals has completed, so there is nothing to go on with or to try again"


class ScheduleManaged(HeadraceError):
    """The schedule follows its pipeline's scheduleCron."""

    reason = reasons_pb2.REASON_SCHEDULE_MANAGED

    def __init__(self, schedule_id: UUID, pipeline_id: UUID) -> None:
        super().__init__(
            f"schedule {schedule_id} follows the scheduleCron of pipeline {pipeline_id}: change or clear it "
            "there",
            metadata={"scheduleId": str(schedule_id), "pipelineId": str(pipeline_id)},
        )


class BackfillFinished(HeadraceError):
    """The backfill has ended in a way that does not allow what was asked."""

    reason = reasons_pb2.REASON_BACKFILL_ENDED

    def __init__(self, backfill_id: UUID, status: BackfillStatus) -> None:
        why = _NOTHING_LEFT if status is BackfillStatus.COMPLETED else ""
        super().__init__(
            f"backfill {backfill_id} is {status}{why}",
            metadata={"backfillId": str(backfill_id), "status": str(status)},
        )


class CrossWorkspaceDependency(HeadraceError):
    """The pipelines are of different workspaces."""

    reason = reasons_pb2.REASON_CROSS_WORKSPACE_DEPENDENCY

    def __init__(self) -> None:
        super().__init__("a pipeline can depend on pipelines of its own workspace only")


class DependencyCycle(HeadraceError):
    """The pipelines would depend on one another in a circle. `path` leads along it, back to where it
    begins."""

    reason = reasons_pb2.REASON_DEPENDENCY_CYCLE

    def __init__(self, path: Sequence[UUID]) -> None:
        way = " → ".join(str(pipeline) for pipeline in path)
        super().__init__(f"the pipelines would wait for one another: {way}", metadata={"path": way})


class DependencyExists(HeadraceError):
    """The one pipeline depends on the other already."""

    reason = reasons_pb2.REASON_DEPENDENCY_EXISTS

    def __init__(self, upstream: UUID, downstream: UUID) -> None:
        super().__init__(
            f"pipeline {downstream} depends on pipeline {upstream} already; remove that dependency to change "
            "its type"
        )


class TooManyDependencies(HeadraceError):
    """A pipeline has as many dependencies as it may have."""

    reason = reasons_pb2.REASON_QUOTA_EXCEEDED

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"a pipeline may depend on {limit} others, and {limit} may depend on it; remove one first",
            metadata={"limit": str(limit)},
        )


def invalid(bad: BadTimes) -> InvalidRequest:
    """Bad times as the error of a request."""
    return InvalidRequest([Problem(flaw.code, flaw.path, flaw.message) for flaw in bad.flaws])
