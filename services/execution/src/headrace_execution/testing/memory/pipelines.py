"""Pipelines in memory."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from headrace_execution.domain.changes import CursorMove
from headrace_execution.domain.run import Run, StandingCursor
from headrace_execution.store.port import Closing
from headrace_execution.testing.memory.alerts import purge_alerts
from headrace_execution.testing.memory.data import Link, Transaction
from headrace_execution.testing.memory.deliveries import purge_deliveries
from headrace_execution.testing.memory.logs import purge_logs
from headrace_execution.testing.memory.rollups import purge_days
from headrace_execution.testing.memory.runs import live_of
from headrace_execution.testing.memory.tables import (
    CLOSED,
    CURSORS,
    REFUSED,
    RUN_OF_STAGE,
    RUNS,
    ClosedRow,
    CursorRow,
    RefusedRow,
)


def is_its_turn(run: Run, live: Collection[Run]) -> bool:
    """Whether the overlap rule of a held run lets it go while these runs of its pipeline are live."""
    if run.trigger.overlap is None:
        return True
    return not any(
        other.trigger.id == run.trigger.id
        and (not other.held or (other.created_at, other.id) < (run.created_at, run.id))
        for other in live
    )


class MemoryPipelines:
    """What is kept of pipelines, in one transaction."""

    def __init__(self, tx: Transaction, link: Link) -> None:
        self._tx = tx
        self._link = link

    async def enter(self, pipelines: Collection[UUID]) -> frozenset[UUID]:
        """See the port."""
        await self._link.statement(self._tx)
        for pipeline in sorted(pipelines):
            await self._tx.data.locks.take(self._tx, ("gate", pipeline), shared=True)
        await self._link.statement(self._tx)
        return frozenset(pipeline for pipeline in pipelines if self._tx.get(CLOSED, pipeline) is not None)

    async def close(
        self, pipeline: UUID, tenant: UUID, *, attempt: int, despite_live: bool, limit: int
    ) -> Closing:
        """See the port."""
        await self._link.statement(self._tx)
        await self._tx.data.locks.take(self._tx, ("gate", pipeline))
        await self._link.statement(self._tx)
        live = live_of(self._tx, pipeline)[:limit]
        refused = self._tx.get(REFUSED, pipeline)
        if attempt and refused is not None and refused.attempt >= attempt:
            return Closing(False, live)
        if live and not despite_live:
            if attempt:
                await self._tx.lock(REFUSED, pipeline)
                self._tx.put(REFUSED, pipeline, RefusedRow(attempt))
            return Closing(False, live)
        await self._close(ClosedRow(pipeline, tenant))
        return Closing(True, live)

    async def _close(self, row: ClosedRow) -> ClosedRow:
        found = await self._tx.lock(CLOSED, row.pipeline)
        if found is None:
            self._tx.put(CLOSED, row.pipeline, row)
        return found or row

    async def live_counts(self, pipelines: Collection[UUID]) -> dict[UUID, int]:
        """See the port."""
        if not pipelines:
            return {}
        await self._link.statement(self._tx)
        for pipeline in sorted(pipelines):
            await self._tx.data.locks.take(self._tx, ("limit", pipeline))
        await self._link.statement(self._tx)
        counts = dict.fromkeys(pipelines, 0)
        for run in self._tx.rows(RUNS):
            if run.pipeline in counts and not run.is_final and not run.held:
                counts[run.pipeline] += 1
        return counts

    async def held(self, pipeline: UUID, limit: int) -> list[UUID]:
        """See the port."""
        await self._link.statement(self._tx)
        mine = [run for run in self._tx.rows(RUNS) if run.pipeline == pipeline and not run.is_final]
        waiting = sorted(
            (-run.priority, run.created_at, run.id) for run in mine if run.held and is_its_turn(run, mine)
        )
        free = (run_id for _, _, run_id in waiting if self._tx.try_lock(RUNS, run_id))
        return [run_id for _, run_id in zip(range(limit), free, strict=False)]

    async def pipelines_with_held(self, limit: int) -> list[UUID]:
        """See the port."""
        await self._link.statement(self._tx)
        return sorted({run.pipeline for run in self._tx.rows(RUNS) if run.held})[:limit]

    async def cursors(
        self, loads: Collection[tuple[UUID, str]]
    ) -> dict[tuple[UUID, str], list[StandingCursor]]:
        """See the port."""
        found: dict[tuple[UUID, str], list[StandingCursor]] = {}
        if loads:
            await self._link.statement(self._tx)
            for key, row in sorted(self._tx.rows(CURSORS), key=lambda item: item[0]):
                pipeline, sink, source = key
                if (pipeline, sink) in loads:
                    found.setdefault((pipeline, sink), []).append(
                        StandingCursor(sink, source, row.value, row.fence)
                    )
        return found

    async def move_cursors(self, moves: Sequence[CursorMove]) -> None:
        """See the port."""
        if not moves:
            return
        await self._link.statement(self._tx)
        for move in sorted(moves, key=lambda move: (move.pipeline, move.cursor.sink, move.cursor.source)):
            key = (move.pipeline, move.cursor.sink, move.cursor.source)
            found = await self._tx.lock(CURSORS, key)
            if found is None or found[1].fence < move.fence:
                self._tx.put(CURSORS, key, (key, CursorRow(move.cursor.value, move.fence)))

    async def ask_purge(self, pipelines: Mapping[UUID, UUID]) -> None:
        """See the port."""
        if not pipelines:
            return
        await self._link.statement(self._tx)
        for pipeline, tenant in pipelines.items():
            row = await self._close(ClosedRow(pipeline, tenant))
            self._tx.put(CLOSED, pipeline, replace(row, purge_asked_at=row.purge_asked_at or self._tx.now))

    async def to_purge(self, limit: int) -> list[tuple[UUID, UUID]]:
        """See the port."""
        await self._link.statement(self._tx)
        found = sorted(
            (row.purge_asked_at, row.pipeline, row.tenant)
            for row in self._tx.rows(CLOSED)
            if row.purge_asked_at is not None and row.purged_at is None
        )
        return [(pipeline, tenant) for _, pipeline, tenant in found[:limit]]

    async def purge(self, pipeline: UUID, limit: int) -> bool:
        """See the port."""
        await self._link.statement(self._tx)
        await self._tx.data.locks.take(self._tx, ("gate", pipeline))
        await self._link.statement(self._tx)
        newest = sorted(
            (run for run in self._tx.rows(RUNS) if run.pipeline == pipeline),
            key=lambda run: (run.created_at, run.id),
            reverse=True,
        )[:limit]
        for run in newest:
            await self._tx.lock(RUNS, run.id)
            self._tx.put(RUNS, run.id, None)
            purge_logs(self._tx, run.id)
            for stage in run.stages:
                self._tx.put(RUN_OF_STAGE, stage.id, None)
        if len(newest) == limit:
            return False
        for key, _ in list(self._tx.rows(CURSORS)):
            if key[0] == pipeline:
                await self._tx.lock(CURSORS, key)
                self._tx.put(CURSORS, key, None)
        await purge_alerts(self._tx, pipeline)
        await purge_days(self._tx, pipeline)
        await purge_deliveries(self._tx, pipeline)
        await self._tx.lock(REFUSED, pipeline)
        self._tx.put(REFUSED, pipeline, None)
        return True

    async def purged(self, pipeline: UUID) -> None:
        """See the port."""
        await self._link.statement(self._tx)
        row = await self._tx.lock(CLOSED, pipeline)
        if row is not None and row.purged_at is None:
            self._tx.put(CLOSED, pipeline, replace(row, purged_at=self._tx.now))

    async def forget_purged(self, age: timedelta, limit: int) -> int:
        """See the port."""
        await self._link.statement(self._tx)
        old = [row for row in self._tx.rows(CLOSED) if row.purged_at and row.purged_at < self._tx.now - age]
        for row in old[:limit]:
            await self._tx.lock(CLOSED, row.pipeline)
            self._tx.put(CLOSED, row.pipeline, None)
        return len(old[:limit])
