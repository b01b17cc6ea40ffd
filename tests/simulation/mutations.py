"""Rules, broken on purpose: what the simulation must notice."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

from headrace.execution.v1 import workers_pb2
from headrace_chassis.outbox import sequencer
from headrace_execution import recording, signalling
from headrace_execution.acceptance import acceptor, placing, starting
from headrace_execution.domain import assignments, lifecycle, retrying, timers, waits
from headrace_execution.domain.connection_limits import Usage
from headrace_execution.domain.moment import Moment
from headrace_execution.domain.recipe import Policy
from headrace_execution.domain.run import Failure, Run, Stage
from headrace_execution.domain.states import StageState
from headrace_execution.domain.steps import end_stage
from headrace_execution.domain.triggers import Turn
from headrace_execution.loops import dispatcher, result_folder
from headrace_execution.loops.due_timer import DueTimer
from headrace_execution.loops.result_folder import Reported, ResultFolder
from headrace_execution.testing.memory import pipelines
from headrace_execution.testing.memory.data import Transaction
from headrace_execution.testing.memory.locks import LockTable
from headrace_execution.testing.memory.outbox import OUTBOX
from headrace_execution.testing.memory.runs import MemoryRuns
from headrace_execution.testing.memory.starts import MemoryStarts
from headrace_execution.testing.memory.tables import STARTS, StartRow
from headrace_execution.workers.pool import WorkerPool

from . import chassis_database, simulation, target
from .target import Target

Mutation = Callable[[], Any]
"""A context within which a rule is broken."""


def fold_ignores_fences() -> Any:
    """Whoever says something about a leased stage is believed."""

    def holds(run: Run, stage_id: Any, worker: Any, fence: int) -> bool:
        stage = run.stage(stage_id)
        return stage is not None and stage.state is StageState.LEASED

    return mock.patch.object(assignments, "holds", holds)


def ledger_is_not_consulted() -> Any:
    """A commit lands whatever the ledger says."""
    return mock.patch.object(target, "check_commit", return_value=None)


def tombstones_are_not_written() -> Any:
    """Settling only looks at what has landed."""
    return mock.patch.object(Target, "tombstone", lambda self, key, fence: self.receipt(key))


def nothing_is_settled() -> Any:
    """A stage ends at once, although an attempt at it ended without a word."""

    def conclude(
        run: Run, stage: Stage, verdict: StageState, moment: Moment, error: Failure | None = None
    ) -> Stage:
        return end_stage(run, stage, verdict, moment.now, error=error or stage.error)

    return _all(
        *(mock.patch.object(module, "conclude", conclude) for module in (assignments, lifecycle, timers))
    )


def leases_run_out_at_once() -> Any:
    """The reaper takes every stage from every worker."""
    return mock.patch.object(MemoryRuns, "_is_expired", return_value=True)


def results_are_acknowledged_too_soon() -> Any:
    """A worker may forget a result before it is durable."""

    def submit(self: Any, reported: Reported, real: Any = ResultFolder.submit) -> None:
        real(self, reported)
        self._acknowledge([reported])

    return mock.patch.object(ResultFolder, "submit", submit)


def assignments_are_sent_too_soon() -> Any:
    """Workers hear of a lease before it is durable."""

    def sent_at_once(real: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def stage_handouts(tx: Any, *given: Any) -> Any:
            handouts = await real(tx, *given)
            for handout in handouts:
                batch = workers_pb2.AssignmentBatch(assignments=[handout.message])
                handout.session.send(workers_pb2.ConnectResponse(assignments=batch))
            return handouts

        return stage_handouts

    return _all(
        *(
            mock.patch.object(module, "stage_handouts", sent_at_once(module.stage_handouts))
            for module in (placing, dispatcher, result_folder)
        )
    )


def slots_are_freed_twice() -> Any:
    """A finished assignment gives back its slot, and one more."""

    def vacate(
        self: Any, worker: Any, assignment: Any, fence: int, real: Any = WorkerPool.vacate, **how: Any
    ) -> None:
        real(self, worker, assignment, fence, **how)
        session = self.get(worker)
        if session is not None:
            session.reserved -= 1

    return mock.patch.object(WorkerPool, "vacate", vacate)


def slots_leak() -> Any:
    """A finished assignment keeps its slot until the next heartbeat, and a reserved one for ever."""
    return mock.patch.object(WorkerPool, "hand_back")


def keys_are_forgotten() -> Any:
    """A request that comes again is a new one."""
    return mock.patch.object(acceptor, "_earlier", return_value=None)


def limits_are_not_kept() -> Any:
    """A run that ends lets all go that wait."""

    def may_go(policy: Policy, live: int) -> bool:
        return True

    return mock.patch.object(recording, "may_go", may_go)


def limits_are_not_locked() -> Any:
    """Live runs are counted while others change how many there are."""

    async def take(
        self: Any, holder: Any, name: Any, *, shared: bool = False, real: Any = LockTable.take
    ) -> None:
        if name[0] != "limit":
            await real(self, holder, name, shared=shared)

    return mock.patch.object(LockTable, "take", take)


def starts_are_forgotten() -> Any:
    """A start that comes again is a new one."""

    async def take(self: Any, tenant: Any, keys: Any) -> dict[str, Any]:
        for key in keys:
            self._tx.put(STARTS, (tenant, key), StartRow(tenant, key))
        return {}

    return mock.patch.object(MemoryStarts, "take", take)


def turns_are_not_kept() -> Any:
    """Held runs of a trigger all go at once."""
    return mock.patch.object(pipelines, "is_its_turn", return_value=True)


def overlap_is_not_looked_at() -> Any:
    """Every start is free to go."""
    return mock.patch.object(starting, "turn", return_value=(Turn.FREE, True))


def retries_are_not_counted() -> Any:
    """A run may be tried again by any number of others at once."""

    async def live_of_roots(self: Any, roots: Any) -> dict[Any, Any]:
        return {}

    return mock.patch.object(MemoryRuns, "live_of_roots", live_of_roots)


def roots_are_forgotten() -> Any:
    """A run that tries another one again knows nothing of its loads."""
    return mock.patch.object(Run, "root_id", property(lambda run: run.id))


def all_stages_are_taken_over() -> Any:
    """A stage whose rows are needed does not run again."""

    def taken_over(run: Run) -> tuple[Stage, ...]:
        done = (stage for stage in run.stages if stage.state is StageState.COMPLETED)
        return tuple(replace(stage, fence=0, attempt=0, receipts=()) for stage in done)

    return mock.patch.object(retrying, "taken_over", taken_over)


def later_signals_count_too() -> Any:
    """A signal takes the place of the one before."""

    def receive(run: Run, stage: Stage, signal: Any, moment: Any, real: Any = waits.receive) -> Run:
        taken: Run = real(run, replace(stage, signal=None), signal, moment)
        return taken

    return mock.patch.object(signalling, "receive", receive)


def deadlines_of_signals_are_missed() -> Any:
    """A signal is taken after its deadline, where nobody has noticed that yet."""

    def receive(run: Run, stage: Stage, signal: Any, moment: Any, real: Any = waits.receive) -> Run:
        taken: Run = real(run, replace(stage, timer=None), signal, moment)
        return taken

    return mock.patch.object(signalling, "receive", receive)


def retries_ask_again() -> Any:
    """A run that tries another one again knows nothing of its signals."""

    def retry_order(run: Run, real: Any = retrying.retry_order, **given: Any) -> Any:
        order = real(run, **given)
        stages = tuple(stage for stage in order.taken_over if run.spec(stage).wait is None)
        return replace(order, signals={}, taken_over=stages)

    return mock.patch.object(simulation, "retry_order", retry_order)


def connections_are_not_counted() -> Any:
    """There is always room for one more stage."""
    return mock.patch.object(Usage, "room", return_value=1)


def connections_are_not_locked() -> Any:
    """Stages that use a connection are counted while others are leased."""

    def try_take(
        self: Any, holder: Any, name: Any, *, shared: bool = False, real: Any = LockTable.try_take
    ) -> bool:
        return name == ("limited",) or bool(real(self, holder, name, shared=shared))

    return mock.patch.object(LockTable, "try_take", try_take)


def turns_at_targets_are_not_looked_at() -> Any:
    """A load of a run before lands whoever's turn it is, and nobody is told of the last one."""
    return _all(
        mock.patch.object(target, "check_turn"), mock.patch.object(Target, "take_turn", return_value=None)
    )


def cursors_stay() -> Any:
    """What a receipt carries moves no cursor."""
    return mock.patch.object(recording, "cursor_moves", return_value=())


def timers_are_forgotten() -> Any:
    """Nobody looks at what is due."""

    async def run_once(self: Any) -> bool:
        return False

    return mock.patch.object(DueTimer, "run_once", run_once)


def positions_pass_over_the_uncommitted() -> Any:
    """Events get positions in the order of their ids, whether all before them are committed or not."""

    async def assign(tx: Transaction, limit: int) -> list[Mapping[str, Any]]:
        await tx.lock(chassis_database.HEAD, 0)
        head = tx.get(chassis_database.HEAD, 0) or chassis_database.HeadRow()
        fresh = [row for row in tx.rows(OUTBOX) if row.position is None]
        for row in fresh:
            tx.put(OUTBOX, row.id, replace(row, position=row.id))
        reached = max([head.position, *(row.id for row in fresh)])
        tx.put(chassis_database.HEAD, 0, replace(head, position=reached))
        return [{} for _ in fresh]

    return mock.patch.dict(chassis_database.STATEMENTS, {sequencer._ASSIGN: assign})


@contextmanager
def _all(*patches: Any) -> Iterator[None]:
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()


MUTATIONS: tuple[Mutation, ...] = (
    fold_ignores_fences,
    ledger_is_not_consulted,
    tombstones_are_not_written,
    nothing_is_settled,
    leases_run_out_at_once,
    results_are_acknowledged_too_soon,
    assignments_are_sent_too_soon,
    slots_are_freed_twice,
    slots_leak,
    keys_are_forgotten,
    limits_are_not_kept,
    limits_are_not_locked,
    starts_are_forgotten,
    turns_are_not_kept,
    overlap_is_not_looked_at,
    retries_are_not_counted,
    roots_are_forgotten,
    all_stages_are_taken_over,
    later_signals_count_too,
    deadlines_of_signals_are_missed,
    retries_ask_again,
    connections_are_not_counted,
    connections_are_not_locked,
    turns_at_targets_are_not_looked_at,
    cursors_stay,
    timers_are_forgotten,
    positions_pass_over_the_uncommitted,
)
