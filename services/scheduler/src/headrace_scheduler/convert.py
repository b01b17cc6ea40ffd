"""Messages of the contract to and from the domain."""

from collections.abc import Iterable
from datetime import UTC
from typing import Any

from headrace.execution.v1 import runs_pb2
from headrace.scheduler.v1 import schedules_pb2 as pb
from headrace_chassis.errors import InvalidRequest
from headrace_chassis.messages import cleared, timestamp
from headrace_timetable.rules import Run, Skip, interval_of

from headrace_scheduler.application.execution import Decided
from headrace_scheduler.application.schedules import NewTerms, catchup_problems
from headrace_scheduler.domain.schedules import (
    CLEARABLE,
    DEFAULT_QUEUE_LIMIT,
    Catchup,
    Change,
    LastTick,
    Overlap,
    Schedule,
    Status,
    Terms,
    Times,
    Window,
)
from headrace_scheduler.domain.timing import timetable_of

_STATUS = "SCHEDULE_STATUS_"
_OVERLAP = "OVERLAP_STRATEGY_"
_CATCHUP = "CATCHUP_STRATEGY_"
_DAY = "DAY_OF_WEEK_"
_DECISION = "TICK_DECISION_"
_MANAGED_BY = "MANAGED_BY_"
_DECISIONS = {"DUE": "STARTING", "HELD": "HELD", "FIRED": "FIRED", "SKIPPED": "SKIPPED"}

_PLAIN = (
    "cron_expression",
    "timezone",
    "business_days_only",
    "skip_holidays",
    "country",
    "subdivision",
    "queue_limit",
    "catchup_limit",
)
_RENAMED = {"maintenance_windows": "windows"}


def new_terms(request: pb.CreateScheduleRequest) -> NewTerms:
    """The terms of a schedule to create."""
    terms = Terms(
        times=Times(
            cron_expression=request.cron_expression.strip(),
            timezone=request.timezone,
            business_days_only=request.business_days_only,
            skip_holidays=request.skip_holidays,
            country=request.country if request.HasField("country") else None,
            subdivision=request.subdivision if request.HasField("subdivision") else None,
            windows=_windows(request.maintenance_windows),
        ),
        overlap=_overlap(request.overlap_strategy) or Overlap.SKIP,
        queue_limit=request.queue_limit if request.HasField("queue_limit") else DEFAULT_QUEUE_LIMIT,
        catchup=catchup(request.catchup_strategy) or Catchup.SKIP_TO_CURRENT,
        catchup_limit=request.catchup_limit if request.HasField("catchup_limit") else None,
        parameters=request.parameters.decode() or "{}",
    )
    return NewTerms(terms, status(request.status) or Status.ACTIVE, request.HasField("queue_limit"))


def change(request: pb.UpdateScheduleRequest) -> Change:
    """What an update asks for, but for the status.

    Raises:
        InvalidRequest: a field is to be cleared that cannot be.
    """
    given: dict[str, Any] = {name: getattr(request, name) for name in _PLAIN if request.HasField(name)}  # type: ignore[arg-type]
    if "cron_expression" in given:
        given["cron_expression"] = given["cron_expression"].strip()
    if request.maintenance_windows:
        given["windows"] = _windows(request.maintenance_windows)
    if found := _overlap(request.overlap_strategy):
        given["overlap"] = found
    if strategy := catchup(request.catchup_strategy):
        given["catchup"] = strategy
    if request.parameters:
        given["parameters"] = request.parameters.decode()
    return Change(given, cleared(request, request.cleared_fields, CLEARABLE, _RENAMED))


def resumption(request: pb.ResumeScheduleRequest) -> tuple[Catchup | None, int | None]:
    """What a resumption says of missed ticks.

    Raises:
        InvalidRequest: the number does not go with the strategy.
    """
    strategy = catchup(request.catchup)
    limit = request.catchup_limit if request.HasField("catchup_limit") else None
    if problems := catchup_problems(strategy, limit):
        raise InvalidRequest(problems)
    return strategy, limit


def status(value: "pb.ScheduleStatus.ValueType") -> Status | None:
    """A status; None where none was said."""
    return Status(pb.ScheduleStatus.Name(value).removeprefix(_STATUS)) if value else None


def catchup(value: "pb.CatchupStrategy.ValueType") -> Catchup | None:
    """A strategy; None where none was said."""
    return Catchup(pb.CatchupStrategy.Name(value).removeprefix(_CATCHUP)) if value else None


def schedule_message(schedule: Schedule) -> pb.Schedule:
    """A schedule."""
    terms, times, progress = schedule.terms, schedule.terms.times, schedule.progress
    return pb.Schedule(
        id=str(schedule.id),
        pipeline_id=str(schedule.pipeline_id),
        workspace_id=str(schedule.workspace_id),
        cron_expression=times.cron_expression,
        timezone=times.timezone,
        business_days_only=times.business_days_only,
        skip_holidays=times.skip_holidays,
        country=times.country,
        subdivision=times.subdivision,
        maintenance_windows=map(_window_message, times.windows),
        overlap_strategy=pb.OverlapStrategy.Value(_OVERLAP + terms.overlap),
        queue_limit=terms.queue_limit,
        catchup_strategy=pb.CatchupStrategy.Value(_CATCHUP + terms.catchup),
        catchup_limit=terms.catchup_limit,
        parameters=terms.parameters.encode(),
        status=pb.ScheduleStatus.Value(_STATUS + schedule.status),
        managed_by=pb.ManagedBy.Value(_MANAGED_BY + schedule.managed_by),
        next_run_at=timestamp(progress.next_run_at),
        held_until=timestamp(progress.held_until),
        last_tick=_tick_message(schedule.last_tick),
        version=schedule.version,
        created_at=timestamp(schedule.created_at),
        updated_at=timestamp(schedule.updated_at),
        created_by=schedule.created_by,
    )


def next_run_message(schedule: Schedule, entry: Run | Skip) -> pb.NextRun:
    """A tick to come."""
    at = entry.tick if isinstance(entry, Run) else entry.first
    begin, end = interval_of(timetable_of(schedule), at)
    message = pb.NextRun(
        schedule_id=str(schedule.id),
        pipeline_id=str(schedule.pipeline_id),
        run_at=timestamp(at),
        interval_start=timestamp(begin),
        interval_end=timestamp(end),
        skipped=isinstance(entry, Skip),
    )
    if isinstance(entry, Run):
        message.starts_at.FromDatetime(entry.starts_at)
    else:
        message.reason, message.message = entry.reason, entry.detail
        if entry.last > entry.first:
            message.skipped_through.FromDatetime(entry.last)
    return message


def trigger_message(schedule: Schedule, decided: Decided) -> pb.TriggerScheduleResponse:
    """The run that a trigger has started."""
    return pb.TriggerScheduleResponse(
        run_id=str(decided.run_id),
        schedule_id=str(schedule.id),
        pipeline_id=str(schedule.pipeline_id),
        status=runs_pb2.RUN_STATE_PENDING if decided.outcome == "HELD" else runs_pb2.RUN_STATE_RUNNING,
    )


def _tick_message(tick: LastTick | None) -> pb.Tick | None:
    if tick is None:
        return None
    return pb.Tick(
        at=timestamp(tick.at),
        decision=pb.TickDecision.Value(_DECISION + _DECISIONS[tick.state]),
        reason=tick.reason,
        message=tick.message,
        run_id=None if tick.run_id is None else str(tick.run_id),
        decided_at=timestamp(tick.decided_at),
        through=timestamp(tick.through) if tick.through > tick.at else None,
    )


def _overlap(value: "pb.OverlapStrategy.ValueType") -> Overlap | None:
    return Overlap(pb.OverlapStrategy.Name(value).removeprefix(_OVERLAP)) if value else None


def _windows(messages: Iterable[pb.MaintenanceWindow]) -> tuple[Window, ...]:
    return tuple(
        Window(
            start=message.start.ToDatetime(tzinfo=UTC) if message.HasField("start") else None,
            end=message.end.ToDatetime(tzinfo=UTC) if message.HasField("end") else None,
            days=tuple(pb.DayOfWeek.Name(day).removeprefix(_DAY) for day in message.days),
            from_time=message.from_time,
            to_time=message.to_time,
        )
        for message in messages
    )


def _window_message(window: Window) -> pb.MaintenanceWindow:
    return pb.MaintenanceWindow(
        start=timestamp(window.start),
        end=timestamp(window.end),
        days=[pb.DayOfWeek.Value(_DAY + day) for day in window.days],
        from_time=window.from_time,
        to_time=window.to_time,
    )
