"""The errors that only the scheduler raises."""

# ruff: noqa: N818 - an error here is named for what happened, as its reason is

from uuid import UUID

from headrace.common.v1 import reasons_pb2
from headrace_chassis.errors import HeadraceError, InvalidRequest, Problem

from headrace_scheduler.domain.backfills import BackfillStatus
from headrace_scheduler.domain.timing import BadTimes


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
        super().__init__(
            f"backfill {backfill_id} is {status}",
            metadata={"backfillId": str(backfill_id), "status": str(status)},
        )


def invalid(bad: BadTimes) -> InvalidRequest:
    """Bad times as the error of a request."""
    return InvalidRequest([Problem(flaw.code, flaw.path, flaw.message) for flaw in bad.flaws])
