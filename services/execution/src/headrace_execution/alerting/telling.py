"""Writing down who is to be told of what, in the transaction of its cause. Sending it is left to others."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from headrace_chassis.ids import uuid7

from headrace_execution.alerting.recording import Verdict, record
from headrace_execution.domain.alerts import AlertChanged, Finding, Rule, Severity
from headrace_execution.domain.deliveries import Delivery, is_told_alert, of_alert, of_run
from headrace_execution.domain.states import RunState
from headrace_execution.store.deliveries_port import MOST_WAITING
from headrace_execution.store.port import Tx


@dataclass(frozen=True, slots=True)
class Reached:
    """A run has reached a state that somebody is to be told of."""

    run: UUID
    pipeline: UUID
    state: RunState
    at: datetime


RECEIVER = "receiver"
"""By what of an alert's details it is known whom a notification did not reach."""


async def tell_of_runs(tx: Tx, reached: Sequence[Reached]) -> None:
    """Notes what is to be told of runs."""
    if not reached:
        return
    runs = await tx.alerts.runs({each.run for each in reached})
    await _add(
        tx,
        [
            delivery
            for each in reached
            if each.run in runs
            for delivery in of_run(runs[each.run], each.state, each.at, uuid7)
        ],
    )


async def tell_of_alerts(tx: Tx, changes: Sequence[AlertChanged]) -> None:
    """Notes what is to be told of alerts, to those whom the latest runs of their pipelines name."""
    told = [change for change in changes if is_told_alert(change)]
    if not told:
        return
    notices = await tx.deliveries.notices({change.alert.pipeline for change in told})
    await _add(
        tx,
        [
            delivery
            for change in told
            if change.alert.pipeline in notices
            for delivery in of_alert(change, notices[change.alert.pipeline], uuid7)
        ],
    )


def failed(delivery: Delivery, message: str, at: datetime) -> Finding:
    """What is found where a notification does not reach its receiver."""
    return Finding(
        rule=Rule.NOTIFICATION_FAILED,
        severity=Severity.WARNING,
        tenant=delivery.tenant,
        workspace=delivery.workspace,
        pipeline=delivery.pipeline,
        message=message,
        at=at,
        as_of=at,
        details={"type": str(delivery.channel), RECEIVER: delivery.receiver},
    )


async def _add(tx: Tx, deliveries: Sequence[Delivery]) -> None:
    refused = await tx.deliveries.add(deliveries)
    if refused:
        message = (
            f"{MOST_WAITING} notifications of the pipeline wait to be delivered: further ones are not sent"
        )
        await record(tx, [Verdict([failed(each, message, tx.now) for each in refused])])
