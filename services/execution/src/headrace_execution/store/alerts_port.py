"""What the service asks of its store for alerts; the conventions are those of `port`.

Its locks come after gates and before everything else that a transaction with alerts takes.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from headrace_execution.domain.alerts import Alert, AlertChanged, AlertState, Rule, Severity
from headrace_execution.domain.judging import Going
from headrace_execution.domain.run import Run
from headrace_execution.domain.usual import Usual


@dataclass(frozen=True, slots=True)
class AlertFilter:
    """Which alerts to list; None does not narrow."""

    tenant: UUID
    workspaces: frozenset[UUID] | None = None
    pipeline: UUID | None = None
    state: AlertState | None = None
    severity: Severity | None = None
    rule: Rule | None = None


class Alerts(Protocol):
    """Alerts, and what is usual of the runs of pipelines."""

    async def active(self, pipelines: Collection[UUID]) -> list[Alert]:
        """The alerts of pipelines that are not resolved, as they stand."""

    async def lock(self, pipelines: Collection[UUID]) -> None:
        """Takes the alerts of pipelines for this transaction: what it reads of them next stays so."""

    async def lock_one(self, tenant: UUID, alert: UUID) -> Alert | None:
        """An alert of a tenant, with all of its pipeline locked."""

    async def save(self, alerts: Sequence[Alert]) -> None:
        """Writes alerts that are new or have changed; the caller has locked those of their pipelines."""

    async def tell(self, changes: Sequence[AlertChanged]) -> None:
        """Adds events of alerts to the log."""

    async def page(
        self, narrow: AlertFilter, *, limit: int, offset: int, after: tuple[datetime, UUID] | None
    ) -> list[Alert]:
        """A page of alerts, those that were opened last first."""

    async def count(self, narrow: AlertFilter) -> int:
        """How many alerts there are."""

    async def usual(self, pipelines: Collection[UUID]) -> dict[UUID, Usual]:
        """What is remembered of pipelines."""

    async def remember(self, usual: Mapping[UUID, Usual]) -> None:
        """Writes what is remembered of pipelines; one follower at a time does."""

    async def overdue(self, limit: int) -> list[Going]:
        """Some runs that go on for longer than usual and have not been found late."""

    async def runs(self, runs: Collection[UUID]) -> dict[UUID, Run]:
        """The runs that are kept, as they stand."""

    async def forget_resolved(self, age: timedelta, limit: int) -> int:
        """Removes alerts that were resolved so long ago; returns how many."""
