"""The store of runs, over one database in memory."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import TypeVar
from uuid import UUID

from headrace_chassis.database import ATTEMPTS
from headrace_chassis.errors import OutcomeUnknown, Unavailable
from headrace_chassis.idempotency import IdempotencyKey, Lookup, Standing

from headrace_execution.domain.changes import RunChanged, failure_summary
from headrace_execution.domain.rollups import DayTotals
from headrace_execution.domain.run import Run
from headrace_execution.domain.starts import Decision
from headrace_execution.domain.starts import Standing as RunStanding
from headrace_execution.domain.states import StageState
from headrace_execution.store.port import LogIndex, RunFilter, RunSummary, Tx
from headrace_execution.store.sql.events import to_event
from headrace_execution.testing.memory.alerts import MemoryAlerts
from headrace_execution.testing.memory.data import Data, Deadlock, Link, Transaction
from headrace_execution.testing.memory.deliveries import MemoryDeliveries
from headrace_execution.testing.memory.logs import MemoryLogs, index_of
from headrace_execution.testing.memory.outbox import append_events
from headrace_execution.testing.memory.pipelines import MemoryPipelines
from headrace_execution.testing.memory.rollups import MemoryRollups, days_of
from headrace_execution.testing.memory.runs import MemoryRuns
from headrace_execution.testing.memory.starts import MemoryStarts
from headrace_execution.testing.memory.tables import ANSWERS, PROBES, RUNS, STARTS, AnswerRow
from headrace_execution.testing.memory.tickets import MemoryTickets
from headrace_execution.testing.memory.workers import MemoryProbes, MemoryWorkers

T = TypeVar("T")


class MemoryStore:
    """One process's view of a database. `skew` moves its clock: tests travel in time with it."""

    def __init__(self, data: Data | None = None, link: Link | None = None) -> None:
        self.data = data or Data()
        self.skew = timedelta()
        self._link = link or Link()

    async def run(self, work: Callable[[Tx], Awaitable[T]]) -> T:
        """See the port. What certainly did not happen is tried again, as often as the chassis does."""
        for attempt in range(1, ATTEMPTS):
            try:
                return await self._once(work)
            except OutcomeUnknown:
                raise
            except (Unavailable, Deadlock):
                await self._link.back_off(attempt)
        return await self._once(work)

    async def _once(self, work: Callable[[Tx], Awaitable[T]]) -> T:
        tx = self._begin()
        try:
            await self._link.statement(tx)
            result = await work(MemoryTx(tx, self._link))
            await self._link.commit(tx, lambda: self.data.commit(tx))
        finally:
            self.data.end(tx)
        return result

    def _begin(self) -> Transaction:
        return self.data.begin(self.data.clock() + self.skew)

    async def has_waiting(self) -> bool:
        """See the port."""
        tx = self._begin()
        try:
            await self._link.statement(tx)
            return any(row.state == "READY" for row in tx.rows(PROBES)) or any(
                stage.state is StageState.READY
                for run in tx.rows(RUNS)
                if not run.is_final
                for stage in run.stages
            )
        finally:
            self.data.end(tx)

    async def get(self, tenant: UUID, run_id: UUID) -> Run | None:
        """See the port."""
        tx = self._begin()
        try:
            await self._link.statement(tx)
            run = tx.get(RUNS, run_id)
        finally:
            self.data.end(tx)
        return run if run is not None and run.tenant == tenant else None

    async def revisions(self, run_ids: Collection[UUID]) -> dict[UUID, int]:
        """See the port."""
        tx = self._begin()
        try:
            await self._link.statement(tx)
            found = [tx.get(RUNS, run_id) for run_id in run_ids]
        finally:
            self.data.end(tx)
        return {run.id: run.revision for run in found if run is not None}

    async def list_runs(
        self, narrow: RunFilter, *, limit: int, offset: int, after: tuple[datetime, UUID] | None
    ) -> list[RunSummary]:
        """See the port."""
        runs = sorted(await self._matching(narrow), key=_age, reverse=True)
        page = [run for run in runs if after is None or _age(run) < after]
        return [_summary(run) for run in page[offset : offset + limit]]

    async def count_runs(self, narrow: RunFilter) -> int:
        """See the port."""
        return len(await self._matching(narrow))

    async def decisions(self, tenant: UUID, keys: Collection[str]) -> list[Decision]:
        """See the port."""
        tx = self._begin()
        try:
            await self._link.statement(tx)
            rows = [tx.get(STARTS, (tenant, key)) for key in sorted(set(keys))]
        finally:
            self.data.end(tx)
        return [row.decision for row in rows if row is not None and row.decision is not None]

    async def standings(self, tenant: UUID, run_ids: Collection[UUID]) -> dict[UUID, RunStanding]:
        """See the port."""
        tx = self._begin()
        try:
            await self._link.statement(tx)
            runs = [tx.get(RUNS, run_id) for run_id in run_ids]
        finally:
            self.data.end(tx)
        return {run.id: _standing(run) for run in runs if run is not None and run.tenant == tenant}

    async def log_index(
        self, run: UUID, *, after: Mapping[tuple[UUID, int], int], notes_after: int
    ) -> LogIndex:
        """See the port."""
        tx = self._begin()
        try:
            await self._link.statement(tx)
            return index_of(tx, run, after, notes_after)
        finally:
            self.data.end(tx)

    async def days(self, tenant: UUID, pipeline: UUID, first: date, last: date) -> list[DayTotals]:
        """See the port."""
        tx = self._begin()
        try:
            await self._link.statement(tx)
            return days_of(tx, tenant, pipeline, first, last)
        finally:
            self.data.end(tx)

    async def _matching(self, narrow: RunFilter) -> list[Run]:
        tx = self._begin()
        try:
            await self._link.statement(tx)
            return [run for run in tx.rows(RUNS) if _matches(run, narrow)]
        finally:
            self.data.end(tx)


class MemoryTx:
    """One transaction of the store."""

    def __init__(self, tx: Transaction, link: Link) -> None:
        self._tx = tx
        self._link = link
        self.now = tx.now
        self.runs = MemoryRuns(tx, link)
        self.pipelines = MemoryPipelines(tx, link)
        self.workers = MemoryWorkers(tx, link)
        self.probes = MemoryProbes(tx, link)
        self.answers = MemoryAnswers(tx, link)
        self.tickets = MemoryTickets(tx, link)
        self.starts = MemoryStarts(tx, link)
        self.logs = MemoryLogs(tx, link)
        self.alerts = MemoryAlerts(tx, link)
        self.rollups = MemoryRollups(tx, link)
        self.deliveries = MemoryDeliveries(tx, link)

    async def tell(self, events: Sequence[RunChanged]) -> None:
        """See the port."""
        if events:
            await self._link.statement(self._tx)
            append_events(self._tx, [to_event(event) for event in events])


class MemoryAnswers:
    """Answers under idempotency keys."""

    def __init__(self, tx: Transaction, link: Link) -> None:
        self._tx = tx
        self._link = link

    async def lookup(self, keys: Sequence[IdempotencyKey]) -> list[Lookup]:
        """See the port."""
        if not keys:
            return []
        await self._link.statement(self._tx)
        locked = [self._tx.data.locks.try_take(self._tx, ("key", key.scope())) for key in keys]
        await self._link.statement(self._tx)
        seen = set()
        lookups = []
        for key, is_locked in zip(keys, locked, strict=True):
            row = self._tx.get(ANSWERS, key.scope())
            if row is not None:
                same = row.body_hash == key.body_hash
                lookups.append(Lookup(Standing.STORED, row.answer) if same else Lookup(Standing.REUSED))
            elif is_locked and key.scope() not in seen:
                seen.add(key.scope())
                lookups.append(Lookup(Standing.NEW))
            else:
                lookups.append(Lookup(Standing.IN_FLIGHT))
        return lookups

    async def store(self, answers: Sequence[tuple[IdempotencyKey, bytes]]) -> None:
        """See the port."""
        if not answers:
            return
        await self._link.statement(self._tx)
        for key, answer in answers:
            if await self._tx.lock(ANSWERS, key.scope()) is not None:
                raise ValueError("there is an answer under this key already")
            self._tx.put(ANSWERS, key.scope(), AnswerRow(key.body_hash, answer))


def _matches(run: Run, narrow: RunFilter) -> bool:
    return (
        run.tenant == narrow.tenant
        and (narrow.workspaces is None or run.workspace in narrow.workspaces)
        and (narrow.pipeline is None or run.pipeline == narrow.pipeline)
        and (narrow.state is None or run.state is narrow.state)
        and (narrow.trigger_id is None or run.trigger.id == narrow.trigger_id)
    )


def _age(run: Run) -> tuple[datetime, UUID]:
    return run.created_at, run.id


def _summary(run: Run) -> RunSummary:
    return RunSummary(
        id=run.id,
        workspace=run.workspace,
        pipeline=run.pipeline,
        pipeline_version=run.pipeline_version,
        state=run.state,
        engine=run.recipe.engine,
        task_count=len(run.recipe.tasks),
        warning_count=run.warning_count,
        created_at=run.created_at,
        started_at=run.started_at,
        finished_at=run.finished_at,
        triggered_by=run.triggered_by,
        summary=failure_summary(run),
        cancel_requested=run.cancel_requested_at is not None and not run.is_final,
        trigger=run.trigger,
        logical_date=run.logical_date,
        interval_start=run.interval_start,
        interval_end=run.interval_end,
    )


def _standing(run: Run) -> RunStanding:
    return RunStanding(
        run.id,
        run.state,
        run.finished_at,
        run.warning_count,
        run.cancel_requested_at is not None and not run.is_final,
    )
