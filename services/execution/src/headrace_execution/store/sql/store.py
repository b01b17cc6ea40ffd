"""Transactions over the service's database, and reads outside of them."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from headrace_chassis import idempotency, outbox
from headrace_chassis.database import Database, driver
from headrace_chassis.idempotency import IdempotencyKey, Lookup
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_execution.domain.changes import RunChanged
from headrace_execution.domain.rollups import DayTotals
from headrace_execution.domain.run import Run
from headrace_execution.domain.starts import Decision, Standing
from headrace_execution.domain.states import RunState
from headrace_execution.store.port import LogIndex, RunFilter, RunSummary, Tx
from headrace_execution.store.sql.alerts import SqlAlerts
from headrace_execution.store.sql.deliveries import SqlDeliveries
from headrace_execution.store.sql.events import to_event
from headrace_execution.store.sql.limited import FREE, LIMITED
from headrace_execution.store.sql.logs import SqlLogs, read_index
from headrace_execution.store.sql.pipelines import SqlPipelines
from headrace_execution.store.sql.recipes import RecipeCache
from headrace_execution.store.sql.rollups import SqlRollups, read_days
from headrace_execution.store.sql.rows import to_trigger
from headrace_execution.store.sql.run_cache import RunCache
from headrace_execution.store.sql.runs import SqlRuns, read_one
from headrace_execution.store.sql.starts import SqlStarts, read_decisions, read_standings
from headrace_execution.store.sql.tickets import SqlTickets
from headrace_execution.store.sql.workers import SqlProbes, SqlWorkers

T = TypeVar("T")

_NOW = "SELECT clock_timestamp() + $1"
_REVISIONS = "SELECT id, revision FROM runs WHERE id = ANY ($1::uuid[])"
# By the two indexes of ready stages: no index has all of them, so that asking for all reads the whole table.
_HAS_WAITING = f"""
SELECT EXISTS (SELECT FROM stages AS s WHERE {FREE}) OR EXISTS (SELECT FROM stages AS s WHERE {LIMITED})
    OR EXISTS (SELECT FROM probes WHERE state = 'READY')
"""
_SUMMARY = (
    "SELECT id, workspace, pipeline, pipeline_version, state, engine, task_count, warning_count, created_at, "
    "started_at, finished_at, triggered_by, summary, cancel_requested_at IS NOT NULL AND finished_at IS NULL "
    "AS cancel_requested, trigger, trigger_id, start_key, overlap, logical_date, interval_start, "
    "interval_end FROM runs"
)


class SqlStore:
    """The store in PostgreSQL. `skew` moves its clock: tests travel in time with it."""

    def __init__(self, db: Database, *, recipe_capacity: int = 2000) -> None:
        self._db = db
        self._recipes = RecipeCache(recipe_capacity)
        self._live = RunCache()
        self.skew = timedelta()

    async def run(self, work: Callable[[Tx], Awaitable[T]]) -> T:
        """See the port."""
        after_commit: list[Callable[[], None]] = []

        async def attempt(conn: AsyncConnection) -> T:
            after_commit.clear()
            return await work(await self.join(conn, after_commit))

        result = await self._db.run(attempt)
        for effect in after_commit:
            effect()
        return result

    async def join(
        self, conn: AsyncConnection, after_commit: list[Callable[[], None]] | None = None
    ) -> "SqlTx":
        """The store's operations within a transaction that somebody else has begun."""
        raw = driver(conn)
        now = await raw.fetchval(_NOW, self.skew)
        effects = after_commit if after_commit is not None else []
        return SqlTx(conn, raw, now, self._recipes, self._live, effects)

    async def has_waiting(self) -> bool:
        """See the port."""
        async with self._db.read() as conn:
            return bool(await driver(conn).fetchval(_HAS_WAITING))

    async def get(self, tenant: UUID, run_id: UUID) -> Run | None:
        """See the port."""
        async with self._db.read() as conn:
            return await read_one(driver(conn), run_id, tenant, self._recipes)

    async def revisions(self, run_ids: Collection[UUID]) -> dict[UUID, int]:
        """See the port."""
        async with self._db.read() as conn:
            rows = await driver(conn).fetch(_REVISIONS, list(run_ids))
        return {row["id"]: row["revision"] for row in rows}

    async def list_runs(
        self, narrow: RunFilter, *, limit: int, offset: int, after: tuple[datetime, UUID] | None
    ) -> list[RunSummary]:
        """See the port."""
        where, values = _where(narrow)
        if after is not None:
            where += f" AND (created_at, id) < (${len(values) + 1}, ${len(values) + 2})"
            values += after
        page = f"LIMIT ${len(values) + 1} OFFSET ${len(values) + 2}"
        async with self._db.read() as conn:
            rows = await driver(conn).fetch(
                f"{_SUMMARY} WHERE {where} ORDER BY created_at DESC, id DESC {page}", *values, limit, offset
            )
        return [_summary(row) for row in rows]

    async def count_runs(self, narrow: RunFilter) -> int:
        """See the port."""
        where, values = _where(narrow)
        async with self._db.read() as conn:
            count: int = await driver(conn).fetchval(f"SELECT count(*) FROM runs WHERE {where}", *values)
        return count

    async def decisions(self, tenant: UUID, keys: Collection[str]) -> list[Decision]:
        """See the port."""
        async with self._db.read() as conn:
            return await read_decisions(driver(conn), tenant, keys)

    async def standings(self, tenant: UUID, run_ids: Collection[UUID]) -> dict[UUID, Standing]:
        """See the port."""
        async with self._db.read() as conn:
            return await read_standings(driver(conn), tenant, run_ids)

    async def log_index(
        self, run: UUID, *, after: Mapping[tuple[UUID, int], int], notes_after: int
    ) -> LogIndex:
        """See the port."""
        async with self._db.read() as conn:
            return await read_index(driver(conn), run, after, notes_after)

    async def days(self, tenant: UUID, pipeline: UUID, first: date, last: date) -> list[DayTotals]:
        """See the port."""
        async with self._db.read() as conn:
            return await read_days(driver(conn), tenant, pipeline, first, last)


class SqlTx:
    """One transaction of the store."""

    def __init__(
        self,
        conn: AsyncConnection,
        raw: Any,
        now: datetime,
        recipes: RecipeCache,
        live: RunCache,
        after_commit: list[Callable[[], None]],
    ) -> None:
        self._conn = conn
        self.now = now
        self.runs = SqlRuns(raw, now, recipes, live, after_commit)
        self.pipelines = SqlPipelines(raw, now)
        self.workers = SqlWorkers(raw, now, recipes)
        self.probes = SqlProbes(raw, now)
        self.answers = SqlAnswers(conn)
        self.tickets = SqlTickets(raw, now)
        self.starts = SqlStarts(raw, now)
        self.logs = SqlLogs(raw, now)
        self.alerts = SqlAlerts(conn, raw, now, recipes)
        self.rollups = SqlRollups(raw)
        self.deliveries = SqlDeliveries(raw, now, recipes)

    async def tell(self, events: Sequence[RunChanged]) -> None:
        """See the port."""
        await outbox.append(self._conn, [to_event(event) for event in events])


class SqlAnswers:
    """Answers under idempotency keys, as the chassis keeps them."""

    def __init__(self, conn: AsyncConnection) -> None:
        self._conn = conn

    async def lookup(self, keys: Sequence[IdempotencyKey]) -> list[Lookup]:
        """See the port."""
        return await idempotency.lookup_many(self._conn, keys)

    async def store(self, answers: Sequence[tuple[IdempotencyKey, bytes]]) -> None:
        """See the port."""
        await idempotency.store_many(self._conn, answers)


def _where(narrow: RunFilter) -> tuple[str, list[Any]]:
    values: list[Any] = [narrow.tenant]
    parts = ["tenant = $1"]
    if narrow.pipeline is not None:
        values.append(narrow.pipeline)
        parts.append(f"pipeline = ${len(values)}")
    if narrow.workspaces is not None:
        # One workspace as an equality, so that its index gives the order as well.
        values.append(
            list(narrow.workspaces) if len(narrow.workspaces) != 1 else next(iter(narrow.workspaces))
        )
        parts.append(f"workspace = {'ANY' if len(narrow.workspaces) != 1 else ''}(${len(values)})")
    if narrow.state is not None:
        values.append(narrow.state)
        parts.append(f"state = ${len(values)}")
    if narrow.trigger_id is not None:
        values.append(narrow.trigger_id)
        parts.append(f"trigger_id = ${len(values)}")
    return " AND ".join(parts), values


def _summary(row: Any) -> RunSummary:
    return RunSummary(
        id=row["id"],
        workspace=row["workspace"],
        pipeline=row["pipeline"],
        pipeline_version=row["pipeline_version"],
        state=RunState(row["state"]),
        engine=row["engine"],
        task_count=row["task_count"],
        warning_count=row["warning_count"],
        created_at=row["created_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        triggered_by=row["triggered_by"],
        summary=row["summary"],
        cancel_requested=row["cancel_requested"],
        trigger=to_trigger(row),
        logical_date=row["logical_date"],
        interval_start=row["interval_start"],
        interval_end=row["interval_end"],
    )
