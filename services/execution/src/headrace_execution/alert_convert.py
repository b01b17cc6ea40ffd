"""Between the contract's alerts and the domain's."""

from headrace.execution.v1 import alerts_pb2
from headrace_chassis.messages import timestamp

from headrace_execution.domain.alerts import Alert, AlertState, Rule, Severity


def alert_message(alert: Alert) -> alerts_pb2.Alert:
    """An alert as users see it."""
    return alerts_pb2.Alert(
        id=str(alert.id),
        rule=alerts_pb2.AlertRule.Value(f"ALERT_RULE_{alert.rule}"),
        severity=alerts_pb2.AlertSeverity.Value(f"ALERT_SEVERITY_{alert.severity}"),
        status=alerts_pb2.AlertStatus.Value(f"ALERT_STATUS_{alert.state}"),
        pipeline_id=str(alert.pipeline),
        workspace_id=str(alert.workspace),
        run_id=str(alert.run) if alert.run is not None else None,
        message=alert.message,
        details=alert.details,
        count=alert.count,
        opened_at=timestamp(alert.opened_at),
        last_seen_at=timestamp(alert.last_seen_at),
        acknowledged_at=timestamp(alert.acknowledged_at),
        acknowledged_by=alert.acknowledged_by,
        note=alert.note,
        resolved_at=timestamp(alert.resolved_at),
        resolved_by_run_id=str(alert.resolved_by) if alert.resolved_by is not None else None,
    )


def state_of(value: "alerts_pb2.AlertStatus.ValueType") -> AlertState | None:
    """The state that a filter names, if it names one."""
    return AlertState(alerts_pb2.AlertStatus.Name(value).removeprefix("ALERT_STATUS_")) if value else None


def severity_of(value: "alerts_pb2.AlertSeverity.ValueType") -> Severity | None:
    """The severity that a filter names, if it names one."""
    return Severity(alerts_pb2.AlertSeverity.Name(value).removeprefix("ALERT_SEVERITY_")) if value else None


def rule_of(value: "alerts_pb2.AlertRule.ValueType") -> Rule | None:
    """The rule that a filter names, if it names one."""
    return Rule(alerts_pb2.AlertRule.Name(value).removeprefix("ALERT_RULE_")) if value else None
