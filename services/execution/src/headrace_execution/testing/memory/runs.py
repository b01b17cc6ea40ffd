"""Runs in memory."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from uuid import UUID

from headrace_execution.domain.connection_limits import Limits, Usage
from headrace_execution.domain.run import Purpose, Run, Stage
from headrace_execution.domain.states import (
    RUN_LEAPS,
    STAGE_LEAPS,
    StageState,
    check_run_step,
    check_stage_step,
    check_task_step,
)
from headrace_execution.domain.triggers import Peer
from headrace_execution.store.port import Claim, ConcurrentChange, Lease, TriggerKey
from headrace_execution.testing.memory.data import Link, Transaction
from headrace_execution.testing.memory.tables import RUN_OF_STAGE, RUNS, WORKERS


class MemoryRuns:
    """Runs, stages and tasks of one transaction."""

    def __init__(self, tx: Transaction, link: Link) -> None:
        self._tx = tx
        self._link = link

    async def insert(self, runs: Sequence[Run]) -> None:
        """See the port."""
        if not runs:
            return
        await self._link.statement(self._tx)
        for run in runs:
            if self._tx.get(RUNS, run.id) is not None:
                raise ValueError(f"run {run.id} exists")
            await self._tx.lock(RUNS, run.id)
            self._tx.put(RUNS, run.id, run)
            for stage in run.stages:
                self._tx.put(RUN_OF_STAGE, stage.id, run.id)

    async def lock(self, run_ids: Collection[UUID]) -> dict[UUID, Run]:
        """See the port."""
        if not run_ids:
            return {}
        await self._link.statement(self._tx)
        return await self._locked(run_ids)

    async def lock_of(self, stage_ids: Collection[UUID]) -> dict[UUID, Run]:
        """See the port."""
        if not stage_ids:
            return {}
        await self._link.statement(self._tx)
        return await self._locked(self._of(stage_ids))

    async def lock_idle(self, run_ids: Collection[UUID]) -> dict[UUID, Run]:
        """See the port."""
        if not run_ids:
            return {}
        await self._link.statement(self._tx)
        return self._idle(run_ids)

    async def lock_idle_of(self, stage_ids: Collection[UUID]) -> dict[UUID, Run]:
        """See the port."""
        if not stage_ids:
            return {}
        await self._link.statement(self._tx)
        return self._idle(self._of(stage_ids))

    def _of(self, stage_ids: Collection[UUID]) -> set[UUID]:
        found = (self._tx.get(RUN_OF_STAGE, stage_id) for stage_id in stage_ids)
        return {run_id for run_id in found if run_id is not None}

    async def _locked(self, run_ids: Iterable[UUID]) -> dict[UUID, Run]:
        runs: dict[UUID, Run] = {}
        for run_id in sorted(run_ids):
            run = await self._tx.lock(RUNS, run_id)
            if run is not None:
                runs[run_id] = run
        return runs

    def _idle(self, run_ids: Iterable[UUID]) -> dict[UUID, Run]:
        free = [run_id for run_id in sorted(run_ids) if self._tx.try_lock(RUNS, run_id)]
        found = (self._tx.get(RUNS, run_id) for run_id in free)
        return {run.id: run for run in found if run is not None}

    async def claim(self, limit: int) -> tuple[list[Claim], dict[UUID, Run]]:
        """See the port."""
        if limit <= 0:
            return [], {}
        await self._link.statement(self._tx)
        seen = self._ready()
        # The rows are locked after they were looked at: others may have changed them between the two.
        await self._link.statement(self._tx)
        claims: list[Claim] = []
        runs: dict[UUID, Run] = {}
        usage = await self._usage(any(limits for _, _, limits in seen))
        for run_id, stage_id, limits in seen:
            if len(claims) == limit:
                break
            if limits and (usage is None or not usage.room(limits)):
                continue
            if not self._tx.try_lock(RUNS, run_id):
                continue
            if usage is not None:
                usage.take(limits)
            run = self._tx.get(RUNS, run_id)
            if run is not None:
                runs[run_id] = run
                claims.append(Claim(run_id, stage_id, self._tx.data.next("fences")))
        return claims, runs

    async def _usage(self, limited_wait: bool) -> Usage | None:
        """How many stages use each limited connection, under the lock of those who claim such stages; None
        where another transaction has it."""
        if not limited_wait or not self._tx.data.locks.try_take(self._tx, ("limited",)):
            return None
        await self._link.statement(self._tx)
        return Usage(_limits(run, stage) for run, stage in self._leased())

    def _ready(self) -> list[tuple[UUID, UUID, Limits]]:
        found = [
            (
                stage.purpose is not Purpose.SETTLE,
                -run.priority,
                stage.ready_at,
                stage.id,
                run.id,
                _limits(run, stage),
            )
            for run in self._tx.rows(RUNS)
            if not run.is_final
            for stage in run.stages
            if stage.state is StageState.READY
        ]
        return [(run_id, stage_id, limits) for _, _, _, stage_id, run_id, limits in sorted(found)]

    async def save(self, changes: Sequence[tuple[Run, Run]]) -> None:
        """See the port."""
        changed = [(before, after) for before, after in changes if before != after]
        if not changed:
            return
        await self._link.statement(self._tx)
        for before, after in changed:
            stored = await self._tx.lock(RUNS, after.id)
            if stored is None or not _is_as_read(stored, before):
                raise ConcurrentChange(f"run {after.id} is not as it was read")
            _check_steps(stored, after)
            self._tx.put(RUNS, after.id, replace(after, revision=before.revision + 1))

    async def fences(self, count: int, *, unless_ready: bool = False) -> list[int]:
        """See the port."""
        if not count:
            return []
        await self._link.statement(self._tx)
        if unless_ready and any(not limits for _, _, limits in self._ready()):
            return []
        return [self._tx.data.next("fences") for _ in range(count)]

    async def due(self, limit: int) -> list[UUID]:
        """See the port."""
        await self._link.statement(self._tx)
        found = sorted(
            (due, run.id)
            for run in self._tx.rows(RUNS)
            for due in (run.due_at, *(stage.due_at for stage in run.stages))
            if due is not None and due <= self._tx.now
        )
        return list(dict.fromkeys(run_id for _, run_id in found[:limit]))

    async def leases(self, workers: Collection[UUID]) -> list[Lease]:
        """See the port."""
        await self._link.statement(self._tx)
        return [_lease(run, stage) for run, stage in self._leased() if stage.worker in workers]

    async def stops(self, workers: Collection[UUID]) -> list[Lease]:
        """See the port."""
        return [lease for lease in await self.leases(workers) if lease.stop is not None]

    async def expired(self, limit: int) -> list[Lease]:
        """See the port."""
        await self._link.statement(self._tx)
        return [_lease(run, stage) for run, stage in self._leased() if self._is_expired(stage)][:limit]

    def _leased(self) -> list[tuple[Run, Stage]]:
        return [
            (run, stage)
            for run in self._tx.rows(RUNS)
            if not run.is_final
            for stage in run.stages
            if stage.state is StageState.LEASED
        ]

    def _is_expired(self, stage: Stage) -> bool:
        worker = self._tx.get(WORKERS, stage.worker) if stage.worker else None
        return worker is None or worker.lease_until < self._tx.now

    async def ids_of(self, pipeline: UUID, limit: int) -> list[UUID]:
        """See the port."""
        await self._link.statement(self._tx)
        return live_of(self._tx, pipeline)[:limit]

    async def live_of(self, triggers: Collection[TriggerKey]) -> dict[TriggerKey, list[Peer]]:
        """See the port."""
        found: dict[TriggerKey, list[Peer]] = {}
        if triggers:
            await self._link.statement(self._tx)
            for run in sorted(self._tx.rows(RUNS), key=lambda run: (run.created_at, run.id)):
                key = (run.pipeline, run.trigger.id or "")
                if run.trigger.id is not None and not run.is_final and key in triggers:
                    found.setdefault(key, []).append(Peer(run.id, run.held))
        return found

    async def live_of_roots(self, roots: Collection[UUID]) -> dict[UUID, UUID]:
        """See the port."""
        if not roots:
            return {}
        await self._link.statement(self._tx)
        return {
            run.root: run.id
            for run in self._tx.rows(RUNS)
            if run.root in roots and run.root and not run.is_final
        }


def live_of(tx: Transaction, pipeline: UUID) -> list[UUID]:
    """Live runs of a pipeline, oldest first."""
    live = [
        (run.created_at, run.id) for run in tx.rows(RUNS) if run.pipeline == pipeline and not run.is_final
    ]
    return [run_id for _, run_id in sorted(live)]


def _limits(run: Run, stage: Stage) -> Limits:
    return run.spec(stage).limits if stage.purpose is Purpose.RUN else ()


def _is_as_read(stored: Run, before: Run) -> bool:
    return stored.revision == before.revision and all(
        (mine.state, mine.fence) == (theirs.state, theirs.fence)
        for mine, theirs in zip(stored.stages, before.stages, strict=True)
    )


def _check_steps(stored: Run, after: Run) -> None:
    if (stored.state, after.state) not in RUN_LEAPS:
        check_run_step(stored.state, after.state)
    for old, new in zip(stored.stages, after.stages, strict=True):
        if (old.state, new.state) not in STAGE_LEAPS:
            check_stage_step(old.state, new.state)
        for old_task, new_task in zip(old.tasks, new.tasks, strict=True):
            check_task_step(old_task.state, new_task.state)


def _lease(run: Run, stage: Stage) -> Lease:
    if stage.worker is None or stage.leased_at is None:
        raise ValueError(f"stage {stage.id} is leased to nobody")
    return Lease(stage.worker, stage.id, run.id, stage.fence, stage.leased_at, stage.stop)
