"""Messages about backfills to and from the domain."""

from headrace.scheduler.v1 import backfills_pb2 as pb
from headrace_chassis.messages import timestamp
from headrace_timetable.intervals import Granularity

from headrace_scheduler.application.backfills import NewBackfill
from headrace_scheduler.domain.backfills import (
    LIVE,
    Backfill,
    BackfillInterval,
    BackfillStatus,
    IntervalState,
    Priority,
)

_STATUS = "BACKFILL_STATUS_"
_STATE = "BACKFILL_INTERVAL_STATE_"
_GRANULARITY = "GRANULARITY_"
_PRIORITY = "BACKFILL_PRIORITY_"


def new_backfill(request: pb.CreateBackfillRequest) -> NewBackfill:
    """A backfill as it was asked for."""
    priority = pb.BackfillPriority.Name(request.priority).removeprefix(_PRIORITY)
    return NewBackfill(
        first=request.from_text,
        last=request.to_text,
        granularity=Granularity(pb.Granularity.Name(request.granularity).removeprefix(_GRANULARITY)),
        timezone=request.timezone,
        concurrency=request.concurrency if request.HasField("concurrency") else 1,
        priority=Priority(priority) if request.priority else Priority.MEDIUM,
        parameters=request.parameter_overrides.decode() or "{}",
    )


def status(value: "pb.BackfillStatus.ValueType") -> BackfillStatus | None:
    """A status; None where none was said."""
    return BackfillStatus(pb.BackfillStatus.Name(value).removeprefix(_STATUS)) if value else None


def states(value: "pb.BackfillIntervalState.ValueType", status: BackfillStatus) -> tuple[IntervalState, ...]:
    """The states of intervals that are shown as one, or as any where none was said, in a backfill of a
    status: what had not started when it was cancelled is shown as cancelled."""
    shown = pb.BackfillIntervalState.Name(value).removeprefix(_STATE)
    return tuple(state for state in IntervalState if not value or _shown(state, status) == shown)


def backfill_message(backfill: Backfill) -> pb.Backfill:
    """A backfill."""
    terms, counts = backfill.terms, backfill.counts
    return pb.Backfill(
        id=str(backfill.id),
        pipeline_id=str(backfill.pipeline_id),
        workspace_id=str(backfill.workspace_id),
        status=pb.BackfillStatus.Value(_STATUS + backfill.status),
        from_text=terms.first,
        to_text=terms.last,
        range_start=timestamp(terms.span.start),
        range_end=timestamp(terms.span.end),
        granularity=pb.Granularity.Value(_GRANULARITY + terms.granularity),
        timezone=terms.zone.key,
        concurrency=terms.concurrency,
        priority=pb.BackfillPriority.Value(_PRIORITY + terms.priority),
        parameter_overrides=terms.parameters.encode(),
        total_intervals=counts.total,
        pending_intervals=counts.pending,
        running_intervals=counts.live,
        completed_intervals=counts.completed,
        failed_intervals=counts.failed,
        cancelled_intervals=counts.cancelled,
        created_at=timestamp(backfill.created_at),
        started_at=timestamp(backfill.started_at),
        finished_at=timestamp(backfill.finished_at),
        created_by=backfill.created_by,
    )


def plan_message(backfill: Backfill, first: "list[BackfillInterval]") -> pb.Backfill:
    """The answer to a dry run."""
    message = backfill_message(backfill)
    message.ClearField("id")
    message.dry_run = True
    message.intervals.extend(interval_message(interval, backfill.status) for interval in first)
    return message


def interval_message(interval: BackfillInterval, status: BackfillStatus) -> pb.BackfillInterval:
    """An interval of a backfill of a status."""
    return pb.BackfillInterval(
        number=interval.number,
        start=timestamp(interval.interval.start),
        end=timestamp(interval.interval.end),
        state=pb.BackfillIntervalState.Value(_STATE + _shown(interval.state, status)),
        attempt=interval.attempt,
        run_id=None if interval.run_id is None else str(interval.run_id),
        reason=interval.reason,
        message=interval.message,
        finished_at=timestamp(interval.finished_at),
    )


def _shown(state: IntervalState, status: BackfillStatus) -> str:
    if state in LIVE:
        return IntervalState.RUNNING
    if state is IntervalState.PENDING and status is BackfillStatus.CANCELLED:
        return IntervalState.CANCELLED
    return state
