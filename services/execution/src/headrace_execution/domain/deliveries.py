"""What is told to whom, and when it is tried again.

What is told is a JSON object in the form of Standard Webhooks: `type`, `timestamp` and `data`. It is made
once, with the event that it tells; each channel then has its own way of showing it.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from headrace_execution.domain.alerts import Alert, AlertChanged, AlertEvent, Rule
from headrace_execution.domain.changes import failure_summary
from headrace_execution.domain.recipe import Channel, Notices, Receiver
from headrace_execution.domain.run import Run
from headrace_execution.domain.states import RunState
from headrace_execution.domain.values import replace

DELAYS = (
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=24),
)
"""The waits after failed tries, as Standard Webhooks suggests them; after the last it is given up."""
JITTER = 0.1
LONGEST_WAIT = timedelta(hours=24)
"""The longest wait that a receiver may ask for."""
TELL_AFTER = 3
"""After how many failed tries the pipeline gets an alert, long before it is given up."""
LONGEST_MESSAGE = 2000
TOLD_ALERTS = frozenset(
    {
        Rule.RUN_LATE,
        Rule.DURATION_UNUSUAL,
        Rule.ROWS_UNUSUAL,
        Rule.SCHEDULE_MISSED,
        Rule.START_REFUSED,
        Rule.UPSTREAM_DELETED,
    }
)
"""Alerts that are told when they open; those of failures and warnings are told by the ends of their runs."""
ALERT_WORD = "WARNING"
"""Who wants to hear of warnings hears of these alerts too."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """Something to tell to one receiver."""

    id: UUID
    """The same however often it is sent, so that the receiver can tell repeats."""
    tenant: UUID
    workspace: UUID
    pipeline: UUID
    channel: Channel
    target: str = field(repr=False)
    signing_secret: str | None
    body: str
    """What is told, as JSON."""
    attempts: int = 0
    """How often it was tried, this time included."""

    @property
    def receiver(self) -> str:
        """What tells its receiver from others without showing it."""
        return hashlib.sha256(f"{self.channel} {self.target}".encode()).hexdigest()[:12]


def word_of(run: Run) -> str | None:
    """The word by which receivers ask for the state that a run has reached."""
    match run.state:
        case RunState.COMPLETED:
            return "WARNING" if run.warning_count else "SUCCESS"
        case RunState.PENDING:
            return None
        case state:
            return str(state)


def is_told(run: Run) -> bool:
    """Whether somebody is to be told of the state that a run has reached."""
    return run.recipe.notices is not None and any(_asking(run.recipe.notices, word_of(run)))


def of_run(run: Run, state: RunState, at: datetime, new_id: Callable[[], UUID]) -> list[Delivery]:
    """What is told of a state that a run has reached; it may have gone on since."""
    notices = run.recipe.notices
    if notices is None:
        return []
    if run.state is not state:
        run = replace(run, state=state, finished_at=None)
    word = word_of(run)
    body = _body(f"run.{(word or '').lower()}", at, _run_data(run, notices))
    return [
        _delivery(new_id(), run.tenant, run.workspace, run.pipeline, receiver, body)
        for receiver in _asking(notices, word)
    ]


def of_alert(change: AlertChanged, notices: Notices, new_id: Callable[[], UUID]) -> list[Delivery]:
    """What is told of an alert."""
    alert = change.alert
    if not is_told_alert(change):
        return []
    body = _body("alert.opened", alert.opened_at, _alert_data(alert, notices))
    return [
        _delivery(new_id(), alert.tenant, alert.workspace, alert.pipeline, receiver, body)
        for receiver in _asking(notices, ALERT_WORD)
    ]


def is_told_alert(change: AlertChanged) -> bool:
    """Whether a change of an alert is told."""
    return change.kind is AlertEvent.OPENED and change.alert.rule in TOLD_ALERTS


def next_try(attempts: int, chance: float, retry_after: float | None = None) -> timedelta | None:
    """The wait after so many failed tries; None where it is given up. A receiver that says when it wants to
    be asked again is not asked sooner."""
    if attempts > len(DELAYS):
        return None
    delay = DELAYS[attempts - 1]
    delay += delay * (JITTER * chance)
    asked = timedelta(seconds=min(retry_after or 0.0, LONGEST_WAIT.total_seconds()))
    return max(delay, asked)


def _asking(notices: Notices, word: str | None) -> Iterator[Receiver]:
    return (receiver for receiver in notices.receivers if word in receiver.on)


def _delivery(
    identity: UUID, tenant: UUID, workspace: UUID, pipeline: UUID, receiver: Receiver, body: str
) -> Delivery:
    return Delivery(
        identity,
        tenant,
        workspace,
        pipeline,
        receiver.channel,
        receiver.target,
        receiver.signing_secret,
        body,
    )


def _body(kind: str, at: datetime, data: Mapping[str, Any]) -> str:
    told = {name: value for name, value in data.items() if value is not None}
    return json.dumps({"type": kind, "timestamp": _instant(at), "data": told}, separators=(",", ":"))


def _run_data(run: Run, notices: Notices) -> dict[str, Any]:
    took = run.finished_at - run.started_at if run.finished_at and run.started_at else None
    error = failure_summary(run)
    return {
        "pipelineId": str(run.pipeline),
        "pipelineName": notices.pipeline_name,
        "workspaceId": str(run.workspace),
        "runId": str(run.id),
        "status": str(run.state),
        "warningCount": run.warning_count,
        "error": error[:LONGEST_MESSAGE] if error else None,
        "startedAt": _instant(run.started_at),
        "finishedAt": _instant(run.finished_at),
        "durationMs": round(took.total_seconds() * 1000) if took is not None else None,
        "logicalDate": _instant(run.logical_date),
        "intervalStart": _instant(run.interval_start),
        "intervalEnd": _instant(run.interval_end),
        "trigger": str(run.trigger.kind),
        "triggeredBy": run.triggered_by,
    }


def _alert_data(alert: Alert, notices: Notices) -> dict[str, Any]:
    return {
        "pipelineId": str(alert.pipeline),
        "pipelineName": notices.pipeline_name,
        "workspaceId": str(alert.workspace),
        "alertId": str(alert.id),
        "rule": str(alert.rule),
        "severity": str(alert.severity),
        "message": alert.message[:LONGEST_MESSAGE],
        "runId": str(alert.run) if alert.run is not None else None,
    }


def _instant(moment: datetime | None) -> str | None:
    return moment.isoformat().replace("+00:00", "Z") if moment is not None else None
