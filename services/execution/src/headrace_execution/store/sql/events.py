"""Events of runs and alerts as the log has them."""

from typing import Final

from headrace.execution.v1 import alerts_pb2, events_pb2, runs_pb2
from headrace_chassis.messages import timestamp
from headrace_chassis.outbox import NewEvent

from headrace_execution.convert import figures
from headrace_execution.domain.alerts import AlertChanged
from headrace_execution.domain.changes import EventKind, RunChanged
from headrace_execution.domain.deliveries import is_told

ENDED: Final = tuple(
    f"io.headrace.run.{kind}.v1" for kind in (EventKind.COMPLETED, EventKind.FAILED, EventKind.CANCELLED)
)
"""The types of events that tell ends of runs."""


def to_event(change: RunChanged) -> NewEvent:
    """The event that tells a change of state."""
    run = change.run
    payload = events_pb2.RunEvent(
        run_id=str(run.id),
        pipeline_id=str(run.pipeline),
        workspace_id=str(run.workspace),
        state=runs_pb2.RunState.Value(f"RUN_STATE_{run.state}"),
        pipeline_version=run.pipeline_version or 0,
        warning_count=run.warning_count,
        created_at=timestamp(run.created_at),
        finished_at=timestamp(run.finished_at),
        interval_start=timestamp(run.interval_start),
        interval_end=timestamp(run.interval_end),
        trigger=runs_pb2.TriggerKind.Value(f"TRIGGER_KIND_{run.trigger.kind}"),
        trigger_id=run.trigger.id or "",
        start_key=run.trigger.start_key or "",
        triggered_by=run.triggered_by,
        started_at=timestamp(run.started_at),
        figures=figures(run) if run.is_final else None,
        retry_of=str(run.retry_of or ""),
        full_refresh=run.full_refresh,
        notified=is_told(run),
    )
    return NewEvent(
        type=f"io.headrace.run.{change.kind}.v1",
        tenant=run.tenant,
        subject=str(run.id),
        data=payload.SerializeToString(),
        traceparent=run.traceparent,
    )


def to_alert_event(change: AlertChanged) -> NewEvent:
    """The event that tells that an alert was opened, acknowledged or resolved."""
    alert = change.alert
    payload = events_pb2.AlertEvent(
        alert_id=str(alert.id),
        pipeline_id=str(alert.pipeline),
        workspace_id=str(alert.workspace),
        rule=alerts_pb2.AlertRule.Value(f"ALERT_RULE_{alert.rule}"),
        severity=alerts_pb2.AlertSeverity.Value(f"ALERT_SEVERITY_{alert.severity}"),
        status=alerts_pb2.AlertStatus.Value(f"ALERT_STATUS_{alert.state}"),
        run_id=str(alert.run or ""),
        count=alert.count,
    )
    return NewEvent(
        type=f"io.headrace.alert.{change.kind}.v1",
        tenant=alert.tenant,
        subject=str(alert.id),
        data=payload.SerializeToString(),
    )
