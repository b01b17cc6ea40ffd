"""What must hold after every step, whatever happens."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import cast
from uuid import UUID

from headrace.execution.v1 import workers_pb2
from headrace_connectors.model import LoadKey
from headrace_execution.domain.changes import EventKind, event
from headrace_execution.domain.recipe import OnTimeout, WaitSpec
from headrace_execution.domain.run import Purpose, Run, Stage
from headrace_execution.domain.states import StageState
from headrace_execution.testing.memory import Data
from headrace_execution.testing.memory.data import Transaction
from headrace_execution.testing.memory.tables import CURSORS, PROBES, RUNS, STARTS, WORKERS

from .scripts import Manner, Plan, Request, number_of
from .stages import Surroundings
from .target import Landing, Target

UNSETTLED = frozenset({"UNSETTLED"})
"""Warnings that say that a load may land after its run has ended: then it is told, and no defect."""


class Judge:
    """Watches every commit, landing and message; the first thing that is wrong ends the simulation."""

    def __init__(self, data: Data, target: Target, plan: Plan, around: Surroundings) -> None:
        self.wrong_is: asyncio.Future[str] = around.loop.create_future()
        self.told: dict[UUID, list[EventKind]] = {}
        """The events of each run, as its changes of state were committed."""
        self.is_calm = True
        """Whether nothing has been made to go wrong."""
        self._data = data
        self._target = target
        self._around = around
        self._requests: dict[int, Request] = {request.number: request for request in plan.requests}
        self._limits = {pipeline.id: pipeline.limit for pipeline in plan.pipelines if pipeline.limit}
        self._fences: set[int] = set()
        self._sent: set[tuple[str, int]] = set()
        self._results: set[tuple[UUID, UUID, int]] = set()
        """Who has reported a result of what, under which fence."""
        self._accepted: dict[int, UUID] = {}
        self._lapsed: dict[UUID, datetime] = {}
        """When workers last renewed a lease that had run out."""
        data.on_commit.append(self._committed)
        target.on_landing.append(self._landed)

    def wrong(self, what: str) -> None:
        """Something is not as it must be."""
        self._around.note(f"WRONG: {what}")
        if not self.wrong_is.done():
            self.wrong_is.set_result(what)

    def run_of(self, run_id: UUID) -> Run | None:
        """A run as it is committed."""
        return cast("Run | None", self._data.tables[RUNS.name].get(run_id))

    def _committed(self, tx: Transaction) -> None:
        for worker, renewed in tx.writes.get(WORKERS.name, {}).items():
            known = self._data.tables[WORKERS.name].get(worker)
            if renewed is not None and known is not None and known.lease_until < tx.now:
                self._lapsed[worker] = tx.now
        changed = tx.writes.get(RUNS.name)
        if changed:
            for run_id, after in changed.items():
                self._changed(tx, self.run_of(run_id), after)
            for pipeline in {run.pipeline for run in changed.values()}:
                self._check_limit(tx, pipeline)
                self._check_turns(tx, pipeline)
            self._check_connections(tx)
            self._check_chains(tx)
        self._check_starts(tx)
        for key, row in tx.writes.get(CURSORS.name, {}).items():
            self._check_cursor(key, row[1].value, row[1].fence)

    def _changed(self, tx: Transaction, before: Run | None, after: Run) -> None:
        told = event(before, after)
        if told is not None:
            self.told.setdefault(after.id, []).append(told.kind)
            self._around.note(f"run {_short(after.id)} is {after.state}{' (held)' if after.held else ''}")
        if before is None:
            self._inserted(after)
        elif before.is_final and before != after:
            self.wrong(f"run {after.id} was {before.state} and changed to {after.state}")
        for stage in after.stages:
            old = before.stages[stage.position] if before is not None else None
            if old is not stage:
                self._stage_changed(tx, after, old, stage)
        if not after.is_final:
            for stage in after.stages:
                if not _has_wake_up(after, stage):
                    self.wrong(f"run {after.id}: nothing will ever look at {_told(stage)}")
        else:
            self._ended(after)

    def _inserted(self, run: Run) -> None:
        number = number_of(run.parameters)
        if run.retry_of is not None:
            self._note_taken_over(run)
            return
        if number in self._accepted:
            self.wrong(f"request {number} became two runs, {self._accepted[number]} and {run.id}")
        self._accepted[number] = run.id

    def _note_taken_over(self, run: Run) -> None:
        before = self.run_of(run.retry_of) if run.retry_of is not None else None
        for stage in run.stages:
            if not stage.was_taken_over:
                continue
            self._around.note(f"  run {_short(run.id)} takes over stage {stage.position}")
            earlier = before.stages[stage.position] if before is not None else None
            if earlier is None or earlier.state is not StageState.COMPLETED:
                self.wrong(f"run {run.id} took over stage {stage.position}, which had not completed")
            elif earlier.receipts != stage.receipts:
                self.wrong(f"run {run.id} took over stage {stage.position} with other receipts")
        for stage in run.stages:
            said = before.stages[stage.position].signal if before is not None else None
            if stage.signal != (None if said is not None and said.refusal else said):
                self.wrong(f"run {run.id} has other signals than the one that it tries again")

    def _stage_changed(self, tx: Transaction, run: Run, old: Stage | None, stage: Stage) -> None:
        if old is None or old.state is not stage.state:
            self._around.note(f"  run {_short(run.id)} {_told(stage)}")
        if old is not None:
            if old.is_final and old != stage:
                self.wrong(f"run {run.id}: {_told(old)} was final and changed to {_told(stage)}")
            if stage.failures > old.failures or stage.is_final:
                self._note_timeout(run, stage)
            self._check_loss(tx, run, old, stage)
            if run.spec(stage).wait is None:
                self._check_result(run, old, stage)
        if (wait := run.spec(stage).wait) is not None:
            for what in _wrong_wait(wait, old, stage, tx.now):
                self.wrong(f"run {run.id}: {_told(stage)}, {what}")
        if stage.fence != (old.fence if old is not None else 0):
            if stage.fence in self._fences or (old is not None and stage.fence < old.fence):
                self.wrong(f"run {run.id}: fence {stage.fence} was given out twice")
            self._fences.add(stage.fence)
        for receipt in stage.receipts:
            proof = self._target.receipt(LoadKey(str(run.root_id), receipt.sink))
            if proof is None or (proof.fence, proof.checksum) != (receipt.fence, receipt.checksum):
                self.wrong(f"run {run.id}: {_told(stage)} has a receipt that its target does not have")
            for cursor in receipt.cursors:
                standing = tx.get(CURSORS, (run.pipeline, cursor.sink, cursor.source))
                if standing is None or standing[1].fence < receipt.fence:
                    self.wrong(f"run {run.id}: a receipt of {receipt.sink} has not moved its cursor")

    def _check_loss(self, tx: Transaction, run: Run, old: Stage, stage: Stage) -> None:
        lost = stage.lost > old.lost and stage.error is not None and stage.error.code == "WORKER_LOST"
        if not lost or old.worker is None or old.leased_at is None:
            return
        worker = self._data.tables[WORKERS.name].get(old.worker)
        lapsed = self._lapsed.get(old.worker)
        if worker is not None and worker.lease_until >= tx.now and (lapsed is None or lapsed < old.leased_at):
            self.wrong(f"run {run.id}: {_told(old)}, and was taken from a worker whose lease is valid")

    def _check_result(self, run: Run, old: Stage, stage: Stage) -> None:
        completed = stage.state is StageState.COMPLETED and old.state is not StageState.COMPLETED
        failed = stage.failures > old.failures and stage.error and stage.error.code != "ATTEMPT_TIMEOUT"
        if not completed and not failed:
            return
        if old.worker is None or (old.worker, stage.id, old.fence) not in self._results:
            self.wrong(f"run {run.id}: {_told(old)} became {_told(stage)}, which its worker has not said")

    def _note_timeout(self, run: Run, stage: Stage) -> None:
        # A stage that was disturbed for long enough has taken too long: no fault of its own.
        request = self._requests[number_of(run.parameters)]
        script = request.pipeline.stages[stage.position]
        late = stage.error is not None and stage.error.code == "ATTEMPT_TIMEOUT"
        if late and script.manner is not Manner.SLOW and not self.is_calm:
            self._around.blame(request.number, stage.position)

    def _ended(self, run: Run) -> None:
        for stage in run.stages:
            landed = [self._target.receipt(LoadKey(str(run.root_id), load)) for load in run.spec(stage).loads]
            complete = stage.state is StageState.COMPLETED
            if complete and None in landed:
                self.wrong(f"run {run.id}: {_told(stage)}, and not all of its loads have landed")
            # A stage that runs again for its rows may fail, although its loads had landed the first time.
            first = run.retry_of is None
            if first and not complete and landed and None not in landed and not _is_warned(stage):
                self.wrong(f"run {run.id}: {_told(stage)}, and all of its loads have landed")

    def _check_limit(self, tx: Transaction, pipeline: UUID) -> None:
        limit = self._limits.get(pipeline)
        if limit is None:
            return
        live = [
            run for run in tx.rows(RUNS) if run.pipeline == pipeline and not run.is_final and not run.held
        ]
        if len(live) > limit:
            self.wrong(f"pipeline {pipeline} has {len(live)} live runs, and its limit is {limit}")

    def _check_turns(self, tx: Transaction, pipeline: UUID) -> None:
        """Of runs that an overlap rule lets go one after another only one is live and not held."""
        going = Counter(
            run.trigger.id
            for run in tx.rows(RUNS)
            if run.pipeline == pipeline and run.trigger.overlap and not run.is_final and not run.held
        )
        for trigger, count in going.items():
            if count > 1:
                self.wrong(f"{trigger} of pipeline {pipeline} has {count} runs that are live at once")

    def _check_connections(self, tx: Transaction) -> None:
        """No more stages use a connection at once than may."""
        used = Counter(
            limit
            for run in tx.rows(RUNS)
            if not run.is_final
            for stage in run.stages
            if stage.state is StageState.LEASED and stage.purpose is Purpose.RUN
            for limit in run.spec(stage).limits
        )
        for (connection, most), count in used.items():
            if count > most:
                self.wrong(f"{count} stages use {connection}")

    def _check_chains(self, tx: Transaction) -> None:
        """Of a run and those that try it again only one is live."""
        live = Counter(run.root_id for run in tx.rows(RUNS) if not run.is_final)
        for root, count in live.items():
            if count > 1:
                self.wrong(f"{count} runs of the chain of {root} are live at once")

    def _check_starts(self, tx: Transaction) -> None:
        """A decision never changes, and its run begins to exist with it."""
        for scope, row in tx.writes.get(STARTS.name, {}).items():
            before = self._data.tables[STARTS.name].get(scope)
            if before is not None and row != before:
                self.wrong(f"{scope} was decided, and is decided again")
            elif row.decision is None:
                self.wrong(f"{scope} was taken and not decided")
            elif before is None and row.decision.run is not None:
                run = tx.writes.get(RUNS.name, {}).get(row.decision.run)
                if run is None or run.trigger.start_key != row.key:
                    self.wrong(f"{scope} was decided without its run")

    def _check_cursor(self, key: tuple[UUID, str, str], value: bytes, fence: int) -> None:
        if not any(
            landing.fence == fence and landing.cursor == value and landing.key.task == key[1]
            for landing in self._target.landings
        ):
            self.wrong(f"cursor {key[1:]} moved to {value!r}, which nothing that landed has come to")

    def _landed(self, landing: Landing) -> None:
        self._around.note(f"  run {_short(UUID(landing.key.root_run_id))} lands {landing.key.task}")
        if sum(each.key == landing.key for each in self._target.landings) > 1:
            self.wrong(f"{landing.key} has landed twice")
        if self._target.buried.get(landing.key, 0) >= landing.fence:
            self.wrong(f"{landing.key} has landed under fence {landing.fence}, after a tombstone")
        root = UUID(landing.key.root_run_id)
        chain = [run for run in self._data.tables[RUNS.name].values() if run.root_id == root]
        warned = any(_is_warned(stage) for run in chain for stage in run.stages)
        if not chain:
            self.wrong(f"{landing.key} has landed, and there is no such run")
        elif all(run.is_final for run in chain) and not warned:
            self.wrong(f"{landing.key} has landed, and its run is {chain[-1].state} already")

    def heard(self, worker: UUID, request: workers_pb2.ConnectRequest) -> None:
        """A worker says something to a replica."""
        told = [request.result] if request.HasField("result") else request.results.results
        for ref in (result.ref for result in told):
            self._results.add((worker, UUID(ref.assignment_id), ref.fence))

    def sent(self, worker: UUID, message: workers_pb2.ConnectResponse) -> None:
        """A replica says something to a worker."""
        for assignment in message.assignments.assignments:
            self._handed_out(worker, assignment)
        for ref in message.result_ack.refs:
            stage = self._stage(UUID(ref.assignment_id))
            if stage is not None and stage.state is StageState.LEASED and stage.fence == ref.fence:
                self.wrong(f"a result was acknowledged and is not durable: {_told(stage)}")

    def _handed_out(self, worker: UUID, assignment: workers_pb2.Assignment) -> None:
        ref = (assignment.ref.assignment_id, assignment.ref.fence)
        if ref in self._sent:
            self.wrong(f"assignment {ref} was sent twice")
        self._sent.add(ref)
        stage = self._stage(UUID(ref[0]))
        if stage is None:
            return
        if stage.fence < ref[1]:
            self.wrong(f"assignment {ref} was sent before its lease was durable: {_told(stage)}")
        if stage.fence == ref[1] and stage.state is StageState.LEASED and stage.worker != worker:
            self.wrong(f"assignment {ref} was sent to another worker than it is leased to")

    def _stage(self, stage_id: UUID) -> Stage | None:
        if stage_id in self._data.tables[PROBES.name]:
            return None
        run = next((run for run in self._data.tables[RUNS.name].values() if run.stage(stage_id)), None)
        return run.stage(stage_id) if run is not None else None


def _wrong_wait(wait: WaitSpec, old: Stage | None, stage: Stage, now: datetime) -> Iterator[str]:
    """What is wrong about the change of a stage that waits for a signal."""
    if stage.worker is not None or stage.fence:
        yield "and a worker has it"
    if stage.state is StageState.WAITING and (stage.signal is not None or stage.timer is None):
        yield "and has nothing to wait for"
    if old is None:
        return
    expired = old.timer is not None and old.timer <= now
    if old.signal is not None and stage.signal != old.signal:
        yield "and its signal is another one now"
    if old.signal is None and stage.signal is not None and (expired or old.is_final):
        yield "and its signal was taken too late"
    if old.state is stage.state:
        return
    by_time = {StageState.COMPLETED: OnTimeout.CONTINUE, StageState.FAILED: OnTimeout.FAIL}.get(stage.state)
    if by_time is not None and stage.signal is None and not (expired and wait.on_timeout is by_time):
        yield "before its time"
    if stage.state is StageState.FAILED and stage.signal is not None:
        yield "although its signal has come"


def _has_wake_up(run: Run, stage: Stage) -> bool:
    """Whether somebody, or a due-time, will come back to a stage of a live run."""
    match stage.state:
        case StageState.BLOCKED:
            needed = [run.stages[position].state for position in run.spec(stage).depends_on]
            return run.held or any(state is not StageState.COMPLETED for state in needed)
        case StageState.READY:
            return stage.ready_at is not None and (
                stage.purpose is Purpose.RUN or stage.settle_by is not None
            )
        case StageState.LEASED:
            return stage.worker is not None and stage.due_at is not None
        case StageState.WAITING:
            return stage.timer is not None
        case _:
            return True


def _is_warned(stage: Stage) -> bool:
    return any(warning.code in UNSETTLED for warning in stage.warnings)


def _told(stage: Stage) -> str:
    purpose = " to settle" if stage.purpose is Purpose.SETTLE and not stage.is_final else ""
    owner = f" by {_short(stage.worker)} under {stage.fence}" if stage.worker else ""
    error = f" ({stage.error.code})" if stage.error is not None else ""
    return f"stage {stage.position} is {stage.state}{purpose}{owner}{error}"


def _short(identity: UUID) -> str:
    return str(identity.int >> 80)
