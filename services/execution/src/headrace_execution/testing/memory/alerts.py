"""Alerts in memory."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from headrace_execution.domain.alerts import Alert, AlertChanged, AlertState, Rule
from headrace_execution.domain.judging import Going
from headrace_execution.domain.run import Run
from headrace_execution.domain.states import RunState
from headrace_execution.domain.usual import Usual
from headrace_execution.store.alerts_port import AlertFilter
from headrace_execution.store.sql.events import to_alert_event
from headrace_execution.testing.memory.data import Link, Transaction
from headrace_execution.testing.memory.outbox import append_events
from headrace_execution.testing.memory.tables import ALERTS, RUNS, USUAL


class MemoryAlerts:
    """Alerts of one transaction."""

    def __init__(self, tx: Transaction, link: Link) -> None:
        self._tx = tx
        self._link = link

    async def active(self, pipelines: Collection[UUID]) -> list[Alert]:
        """See the port."""
        await self._link.statement(self._tx)
        return [alert for alert in self._active() if alert.pipeline in pipelines]

    def _active(self) -> list[Alert]:
        return [alert for alert in self._tx.rows(ALERTS) if alert.state is not AlertState.RESOLVED]

    async def lock(self, pipelines: Collection[UUID]) -> None:
        """See the port."""
        await self._link.statement(self._tx)
        for pipeline in sorted(pipelines):
            await self._tx.data.locks.take(self._tx, ("alerts", pipeline))

    async def lock_one(self, tenant: UUID, alert: UUID) -> Alert | None:
        """See the port."""
        await self._link.statement(self._tx)
        found = self._tx.get(ALERTS, alert)
        if found is None or found.tenant != tenant:
            return None
        await self.lock([found.pipeline])
        return self._tx.get(ALERTS, alert)

    async def save(self, alerts: Sequence[Alert]) -> None:
        """See the port."""
        if not alerts:
            return
        await self._link.statement(self._tx)
        for alert in alerts:
            await self._tx.lock(ALERTS, alert.id)
            self._tx.put(ALERTS, alert.id, alert)
        kinds = [(alert.pipeline, alert.rule) for alert in self._active()]
        if len(set(kinds)) < len(kinds):
            raise ValueError("a pipeline has two alerts of one rule that are not resolved")

    async def tell(self, changes: Sequence[AlertChanged]) -> None:
        """See the port."""
        if changes:
            await self._link.statement(self._tx)
            append_events(self._tx, [to_alert_event(change) for change in changes])

    async def page(
        self, narrow: AlertFilter, *, limit: int, offset: int, after: tuple[datetime, UUID] | None
    ) -> list[Alert]:
        """See the port."""
        await self._link.statement(self._tx)
        found = sorted(self._matching(narrow), key=_age, reverse=True)
        page = [alert for alert in found if after is None or _age(alert) < after]
        return page[offset : offset + limit]

    async def count(self, narrow: AlertFilter) -> int:
        """See the port."""
        await self._link.statement(self._tx)
        return len(self._matching(narrow))

    def _matching(self, narrow: AlertFilter) -> list[Alert]:
        return [alert for alert in self._tx.rows(ALERTS) if _matches(alert, narrow)]

    async def usual(self, pipelines: Collection[UUID]) -> dict[UUID, Usual]:
        """See the port."""
        await self._link.statement(self._tx)
        found = {pipeline: self._tx.get(USUAL, pipeline) for pipeline in pipelines}
        return {pipeline: usual for pipeline, usual in found.items() if usual is not None}

    async def remember(self, usual: Mapping[UUID, Usual]) -> None:
        """See the port."""
        if not usual:
            return
        await self._link.statement(self._tx)
        for pipeline, each in usual.items():
            await self._tx.lock(USUAL, pipeline)
            self._tx.put(USUAL, pipeline, each)

    async def overdue(self, limit: int) -> list[Going]:
        """See the port."""
        await self._link.statement(self._tx)
        found = {alert.pipeline: alert.as_of for alert in self._active() if alert.rule is Rule.RUN_LATE}
        going: list[Going] = []
        for run in self._tx.rows(RUNS):
            usual = self._tx.get(USUAL, run.pipeline)
            if (
                usual is not None
                and self._is_overdue(run, usual)
                and (run.pipeline not in found or found[run.pipeline] < run.created_at)
            ):
                going.append(_going(run, usual))
        return going[:limit]

    def _is_overdue(self, run: Run, usual: Usual) -> bool:
        if run.state is not RunState.RUNNING or run.started_at is None or run.full_refresh:
            return False
        limit = usual.durations
        return limit is not None and run.started_at + timedelta(milliseconds=round(limit.high)) < self._tx.now

    async def runs(self, runs: Collection[UUID]) -> dict[UUID, Run]:
        """See the port."""
        if not runs:
            return {}
        await self._link.statement(self._tx)
        found = {run: self._tx.get(RUNS, run) for run in runs}
        return {run_id: run for run_id, run in found.items() if run is not None}

    async def forget_resolved(self, age: timedelta, limit: int) -> int:
        """See the port."""
        await self._link.statement(self._tx)
        old = [
            alert
            for alert in self._tx.rows(ALERTS)
            if alert.resolved_at is not None and alert.resolved_at < self._tx.now - age
        ]
        for alert in old[:limit]:
            await self._tx.lock(ALERTS, alert.id)
            self._tx.put(ALERTS, alert.id, None)
        return len(old[:limit])


async def purge_alerts(tx: Transaction, pipeline: UUID) -> None:
    """Removes what is kept of a pipeline."""
    for alert in [alert for alert in tx.rows(ALERTS) if alert.pipeline == pipeline]:
        await tx.lock(ALERTS, alert.id)
        tx.put(ALERTS, alert.id, None)
    await tx.lock(USUAL, pipeline)
    tx.put(USUAL, pipeline, None)


def _going(run: Run, usual: Usual) -> Going:
    if run.started_at is None:
        raise ValueError("the run has not started")
    return Going(run.id, run.tenant, run.workspace, run.pipeline, run.created_at, run.started_at, usual)


def _age(alert: Alert) -> tuple[datetime, UUID]:
    return alert.opened_at, alert.id


def _matches(alert: Alert, narrow: AlertFilter) -> bool:
    return (
        alert.tenant == narrow.tenant
        and (narrow.workspaces is None or alert.workspace in narrow.workspaces)
        and narrow.pipeline in (None, alert.pipeline)
        and narrow.state in (None, alert.state)
        and narrow.severity in (None, alert.severity)
        and narrow.rule in (None, alert.rule)
    )
