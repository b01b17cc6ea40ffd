"""Alerts: what is wrong with a pipeline, told once for each rule however often it is found.

OPEN when it is first found, ACKNOWLEDGED when somebody has taken it on, RESOLVED by the next good run. While
it is not resolved, further findings of the same rule count it up; afterwards they make a new alert.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from headrace_execution.domain.run import NO_DETAILS


class Rule(StrEnum):
    """What is found."""

    RUN_FAILED = "RUN_FAILED"
    QUALITY_FAILED = "QUALITY_FAILED"
    """A quality check was not met; the run failed or completed with a warning."""
    WORKER_LOST = "WORKER_LOST"
    """A stage was parked: its workers were lost, or its processes died, again and again."""
    RUN_WARNING = "RUN_WARNING"
    RUN_LATE = "RUN_LATE"
    """A run is going on for longer than runs of its pipeline usually take."""
    DURATION_UNUSUAL = "DURATION_UNUSUAL"
    ROWS_UNUSUAL = "ROWS_UNUSUAL"
    SCHEDULE_MISSED = "SCHEDULE_MISSED"
    """Ticks of a schedule passed without a run, since nothing could decide them in time."""
    START_REFUSED = "START_REFUSED"
    """A run that a schedule or upstreams were to start was refused, and will be until somebody mends it."""
    UPSTREAM_DELETED = "UPSTREAM_DELETED"
    """A pipeline that it depended on was deleted: it does not wait for it any more."""
    NOTIFICATION_FAILED = "NOTIFICATION_FAILED"
    """A notification could not be delivered and was given up."""


class Severity(StrEnum):
    """How bad it is."""

    WARNING = "WARNING"
    CRITICAL = "CRITICAL"


class AlertState(StrEnum):
    """How an alert stands."""

    OPEN = "OPEN"
    ACKNOWLEDGED = "ACKNOWLEDGED"
    RESOLVED = "RESOLVED"


HEALED_BY_OWN_STARTS = frozenset({Rule.SCHEDULE_MISSED, Rule.START_REFUSED})
"""What only a good run that a schedule or upstreams started resolves: others do not show that the pipeline
starts by itself again."""
HEALED_ONCE_ACKNOWLEDGED = frozenset({Rule.UPSTREAM_DELETED})
"""What no run heals: somebody has to see it, and then the next good run resolves it."""
NOT_HEALED_BY_RUNS = frozenset({Rule.NOTIFICATION_FAILED})
ONCE_A_RUN = frozenset({Rule.RUN_LATE})
"""What may be found again and again of one run: a run counts once, and not after a later one."""


class AlertResolved(Exception):  # noqa: N818 - it names a fact, as the other domain errors do
    """A resolved alert cannot be acknowledged."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a rule has found."""

    rule: Rule
    severity: Severity
    tenant: UUID
    workspace: UUID
    pipeline: UUID
    message: str
    at: datetime
    as_of: datetime
    """What it is about is as old as this: only runs that were accepted at that time or later can be the good
    run that resolves it. For a run, its acceptance."""
    run: UUID | None = None
    details: Mapping[str, str] = field(default_factory=lambda: NO_DETAILS)


@dataclass(frozen=True, slots=True)
class Healing:
    """A run has completed: what may be resolved by that."""

    pipeline: UUID
    run: UUID
    accepted_at: datetime
    at: datetime
    found: frozenset[Rule]
    """What was found of this very run."""
    is_own_start: bool
    """Whether a schedule or upstreams started it."""


@dataclass(frozen=True, slots=True)
class Alert:
    """What a rule has found of a pipeline, as it stands."""

    id: UUID
    tenant: UUID
    workspace: UUID
    pipeline: UUID
    rule: Rule
    severity: Severity
    """The highest of its findings."""
    state: AlertState
    message: str
    """That of the latest finding."""
    details: Mapping[str, str]
    run: UUID | None
    """The run of the latest finding."""
    count: int
    opened_at: datetime
    last_seen_at: datetime
    as_of: datetime
    acknowledged_at: datetime | None = None
    acknowledged_by: str | None = None
    note: str | None = None
    resolved_at: datetime | None = None
    resolved_by: UUID | None = None
    """The run that resolved it."""


class AlertEvent(StrEnum):
    """What is told of an alert: the last word but one of its event's type."""

    OPENED = "opened"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class AlertChanged:
    """An alert was opened, acknowledged or resolved."""

    kind: AlertEvent
    alert: Alert


class AlertBook:
    """The unresolved alerts of some pipelines, and what becomes of them; `changed` is what is to be written,
    `told` what is to be told, in order."""

    def __init__(self, active: Iterable[Alert], new_id: Callable[[], UUID]) -> None:
        self._active = {(alert.pipeline, alert.rule): alert for alert in active}
        self._new_id = new_id
        self._changed: dict[UUID, Alert] = {}
        self.told: list[AlertChanged] = []

    @property
    def changed(self) -> list[Alert]:
        """The alerts that are new or have changed, as they stand at the end."""
        return list(self._changed.values())

    def find(self, finding: Finding) -> None:
        """Opens an alert, or counts up the one there is."""
        key = (finding.pipeline, finding.rule)
        alert = self._active.get(key)
        if alert is None:
            alert = _opened(finding, self._new_id())
            self.told.append(AlertChanged(AlertEvent.OPENED, alert))
        elif finding.rule in ONCE_A_RUN and finding.as_of <= alert.as_of:
            return
        else:
            alert = _seen_again(alert, finding)
        self._active[key] = self._changed[alert.id] = alert

    def heal(self, healing: Healing) -> None:
        """Resolves what a good run resolves."""
        for key, alert in list(self._active.items()):
            if key[0] == healing.pipeline and _heals(healing, alert):
                self._resolve(alert, healing.at, healing.run)

    def resolve(self, pipeline: UUID, rule: Rule, at: datetime) -> None:
        """Resolves an alert that no run resolves."""
        alert = self._active.get((pipeline, rule))
        if alert is not None:
            self._resolve(alert, at, None)

    def _resolve(self, alert: Alert, at: datetime, by: UUID | None) -> None:
        after = replace(alert, state=AlertState.RESOLVED, resolved_at=at, resolved_by=by)
        del self._active[alert.pipeline, alert.rule]
        self._changed[alert.id] = after
        self.told.append(AlertChanged(AlertEvent.RESOLVED, after))


def acknowledge(alert: Alert, by: str, note: str | None, at: datetime) -> Alert:
    """OPEN to ACKNOWLEDGED. One that is acknowledged already stays as it is.

    Raises AlertResolved.
    """
    if alert.state is AlertState.RESOLVED:
        raise AlertResolved
    if alert.state is AlertState.ACKNOWLEDGED:
        return alert
    return replace(
        alert, state=AlertState.ACKNOWLEDGED, acknowledged_at=at, acknowledged_by=by, note=note or None
    )


def _opened(finding: Finding, alert_id: UUID) -> Alert:
    return Alert(
        id=alert_id,
        tenant=finding.tenant,
        workspace=finding.workspace,
        pipeline=finding.pipeline,
        rule=finding.rule,
        severity=finding.severity,
        state=AlertState.OPEN,
        message=finding.message,
        details=finding.details,
        run=finding.run,
        count=1,
        opened_at=finding.at,
        last_seen_at=finding.at,
        as_of=finding.as_of,
    )


def _seen_again(alert: Alert, finding: Finding) -> Alert:
    return replace(
        alert,
        severity=Severity.CRITICAL
        if Severity.CRITICAL in (alert.severity, finding.severity)
        else alert.severity,
        message=finding.message,
        details=finding.details,
        run=finding.run,
        count=alert.count + 1,
        last_seen_at=max(alert.last_seen_at, finding.at),
        as_of=max(alert.as_of, finding.as_of),
    )


def _heals(healing: Healing, alert: Alert) -> bool:
    if alert.rule in NOT_HEALED_BY_RUNS or alert.rule in healing.found or healing.accepted_at < alert.as_of:
        return False
    if alert.rule in HEALED_BY_OWN_STARTS:
        return healing.is_own_start
    if alert.rule in HEALED_ONCE_ACKNOWLEDGED:
        return alert.state is AlertState.ACKNOWLEDGED
    return True
