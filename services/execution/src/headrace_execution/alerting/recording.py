"""Writing what rules have found: alerts with their events, in one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from headrace_chassis.ids import uuid7

from headrace_execution.domain.alerts import Alert, AlertBook, AlertChanged, Finding, Healing, Rule
from headrace_execution.store.port import Tx


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found at one moment, and what it heals."""

    findings: Sequence[Finding]
    healing: Healing | None = None


async def record(tx: Tx, verdicts: Sequence[Verdict]) -> list[AlertChanged]:
    """Opens, counts up and resolves alerts, verdict by verdict, and tells events. Costs a read where nothing
    is found and nothing is open. Returns what was opened and resolved.
    """
    found = {finding.pipeline for verdict in verdicts for finding in verdict.findings}
    healed = {verdict.healing.pipeline for verdict in verdicts if verdict.healing is not None}
    concerned = found | {alert.pipeline for alert in await tx.alerts.active(healed - found)}
    if not concerned:
        return []
    await tx.alerts.lock(concerned)
    book = AlertBook(await tx.alerts.active(concerned), uuid7)
    for verdict in verdicts:
        if verdict.healing is not None:
            book.heal(verdict.healing)
        for finding in verdict.findings:
            book.find(finding)
    return await _write(tx, book)


async def resolve(tx: Tx, pipeline: UUID, rule: Rule, name: str, value: str) -> list[AlertChanged]:
    """Resolves an alert that no run resolves, if its latest finding has this value among its details."""

    async def found() -> list[Alert]:
        active = await tx.alerts.active([pipeline])
        return [alert for alert in active if alert.rule is rule and alert.details.get(name) == value]

    if not await found():
        return []
    await tx.alerts.lock([pipeline])
    book = AlertBook(await found(), uuid7)
    book.resolve(pipeline, rule, tx.now)
    return await _write(tx, book)


async def _write(tx: Tx, book: AlertBook) -> list[AlertChanged]:
    await tx.alerts.save(book.changed)
    await tx.alerts.tell(book.told)
    return book.told
