"""Random histories: whatever facts come in whatever order, the invariants hold after each."""

import random
from uuid import UUID

from headrace_execution.domain.assignments import (
    assign,
    finish,
    give_back,
    lose_worker,
    report_progress,
)
from headrace_execution.domain.changes import event
from headrace_execution.domain.lifecycle import RunFinished, request_cancel
from headrace_execution.domain.moment import Moment
from headrace_execution.domain.recipe import OnTimeout
from headrace_execution.domain.run import (
    ErrorClass,
    Outcome,
    Purpose,
    ReceivedSignal,
    Run,
    Stage,
    StageResult,
    TaskReport,
)
from headrace_execution.domain.states import RunState, StageState, TaskState
from headrace_execution.domain.timers import run_due
from headrace_execution.domain.waits import AlreadyCame, CameTooLate, receive
from hypothesis import given, settings
from hypothesis import strategies as st

from .factories import OTHER_WORKER, WORKER, accepted, at, failed, receipt, recipe, wait

SHAPES: list[list[tuple[int, ...]]] = [
    [()],
    [(), (0,)],
    [(), (), (0, 1)],
    [(), (0,), (0,), (1, 2)],
    [(), (), ()],
]
WAITING: list[tuple[list[tuple[int, ...]], list[int]]] = [
    ([(), (0,)], [0]),
    ([(), (0,), (0, 1)], [1]),
    ([(), (0,), (1,), (0, 2)], [1, 2]),
    ([(), (), (0, 1)], [0, 1]),
]
"""Shapes with the positions of stages that wait for signals."""
WORKERS = (WORKER, OTHER_WORKER)
FACTS = (
    "assign",
    "complete",
    "fail",
    "refuse",
    "stop",
    "progress",
    "lose",
    "return",
    "cancel",
    "wait",
    "stale",
    "signal",
)


class History:
    """One run and everything that happens to it, at random."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        shape, waiting = self.random.choice([*((shape, []) for shape in SHAPES), *WAITING])
        made = recipe(
            *shape,
            waits={
                position: wait(f"signal{position}", self.random.choice(list(OnTimeout)), 300)
                for position in waiting
            },
            loads=self.random.random() < 0.8,
            max_retries=self.random.randrange(3),
            max_lost=self.random.randrange(1, 4),
        )
        self.run = accepted(made)
        self.seconds = 0.0
        self.fence = 0
        self.landed: set[UUID] = set()
        self.events = [told.kind for told in [event(None, self.run)] if told is not None]

    def step(self) -> None:
        """Lets one thing happen, and looks whether all is well."""
        before = self.run
        self.seconds += self.random.choice([0.1, 1.0, 5.0, 30.0, 130.0])
        self._apply(self.random.choice(FACTS))
        told = event(before, self.run)
        if told is not None:
            self.events.append(told.kind)
        check(before, self.run)

    def _apply(self, fact: str) -> None:
        moment = at(self.seconds, self.random.random())
        leased = [stage for stage in self.run.stages if stage.state is StageState.LEASED]
        stage = self.random.choice(leased) if leased else None
        if fact == "assign":
            ready = [stage for stage in self.run.stages if stage.state is StageState.READY]
            if ready:
                self.fence += 1
                chosen = self.random.choice(ready)
                worker = self.random.choice(WORKERS)
                self.run = assign(self.run, chosen.id, worker, self.fence, moment)
        elif fact == "cancel":
            try:
                self.run = request_cancel(self.run, None, moment)
            except RunFinished:
                assert self.run.is_final
        elif fact == "signal":
            self._signal(moment)
        elif fact == "wait":
            self.run = run_due(self.run, moment)
        elif fact == "stale":
            for each in self.run.stages:
                assert finish(self.run, each.id, WORKER, -1, self._completed(each), moment) is self.run
        elif stage is not None and stage.worker is not None:
            self._of_worker(fact, stage, stage.worker)

    def _signal(self, moment: Moment) -> None:
        waiting = [stage for stage in self.run.stages if self.run.spec(stage).wait is not None]
        if not waiting:
            return
        stage = self.random.choice(waiting)
        late = stage.is_final or (stage.timer is not None and stage.timer <= moment.now)
        refusal = "no" if self.random.random() < 0.2 else None
        signal = ReceivedSignal(b"{}", moment.now, "grace", self.run.id, refusal)
        try:
            self.run = receive(self.run, stage, signal, moment)
        except AlreadyCame:
            assert stage.signal is not None
        except CameTooLate:
            assert late
        else:
            assert stage.signal is None
            assert not late
            assert (self.run.cancel_reason == "no") == (refusal == "no")

    def _of_worker(self, fact: str, stage: Stage, worker: UUID) -> None:
        moment = at(self.seconds, self.random.random())
        key = (stage.id, worker, stage.fence)
        if fact == "lose":
            self.run = lose_worker(self.run, *key, moment)
        elif fact == "return":
            self.run = give_back(self.run, *key, moment, certain=self.random.random() < 0.5)
        elif fact == "progress":
            name = self.run.recipe.tasks[stage.tasks[0].position].key
            report = TaskReport(name, self.random.choice(list(TaskState)), rows_out=self.random.randrange(9))
            self.run = report_progress(self.run, *key, (report,))
        else:
            result = {
                "complete": self._completed(stage),
                "fail": failed(self.random.choice(list(ErrorClass))),
                "refuse": StageResult(Outcome.FENCED),
                "stop": StageResult(Outcome.CANCELLED),
            }[fact]
            once = finish(self.run, *key, result, moment)
            assert finish(once, *key, result, moment) == once
            self.run = once

    def _completed(self, stage: Stage) -> StageResult:
        has_loads = bool(self.run.spec(stage).loads)
        settles_empty = stage.purpose is Purpose.SETTLE and self.random.random() < 0.5
        receipts = (receipt(self.run, stage.position),) if has_loads and not settles_empty else ()
        return StageResult(Outcome.COMPLETED, receipts=receipts)


def check(before: Run, after: Run) -> None:
    """What must hold after each step."""
    if before.is_final:
        assert after.state is before.state
        assert after.finished_at == before.finished_at
    for old, new in zip(before.stages, after.stages, strict=True):
        assert new.fence >= old.fence
        if old.is_final:
            assert new.state is old.state
        for old_task, new_task in zip(old.tasks, new.tasks, strict=True):
            assert not old_task.is_final or new_task.state is old_task.state
        assert (new.state is StageState.LEASED) == (new.worker is not None)
        assert (new.state is StageState.READY) == (new.ready_at is not None)
        assert new.is_final == all(task.is_final for task in new.tasks)
        if after.spec(new).wait is not None:
            assert new.worker is None
            assert new.fence == 0
            assert new.state is not StageState.READY
            assert new.signal == (old.signal or new.signal), "the first signal stays"
            assert new.signal is None or new.state is not StageState.WAITING
        if new.state in (StageState.LEASED, StageState.WAITING) and new.purpose is Purpose.RUN:
            assert new.timer is not None, "nothing would ever look at it again"
        if new.purpose is Purpose.SETTLE and not new.is_final:
            assert new.settle_by is not None, "nothing would ever give it up"
    assert after.is_final == all(stage.is_final for stage in after.stages)
    assert (after.finished_at is not None) == after.is_final
    completed = all(stage.state is StageState.COMPLETED for stage in after.stages)
    assert (after.state is RunState.COMPLETED) == completed
    if after.cancel_requested_at is None:
        assert after.state is not RunState.CANCELLED
    for stage in after.stages:
        if stage.state in (StageState.READY, StageState.LEASED):
            needed = [after.stages[position] for position in after.spec(stage).depends_on]
            assert all(each.state is StageState.COMPLETED for each in needed)


@settings(max_examples=400, deadline=None)
@given(seed=st.integers(0, 2**32), steps=st.integers(1, 60))
def test_invariants_hold_after_every_step(seed: int, steps: int) -> None:
    history = History(seed)

    for _ in range(steps):
        history.step()

    assert len(history.events) == len(set(history.events)), "each event of a run is told once"


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32), steps=st.integers(0, 30))
def test_every_history_can_be_brought_to_an_end(seed: int, steps: int) -> None:
    history = History(seed)
    for _ in range(steps):
        history.step()

    for _ in range(200):
        if history.run.is_final:
            break
        history.seconds += 200
        before = history.run
        history.run = run_due(before, at(history.seconds))
        check(before, history.run)
        for position in range(len(history.run.stages)):
            stage = history.run.stages[position]  # as it is now: the end of one may skip another
            if stage.state is StageState.READY:
                history.fence += 1
                history.run = assign(history.run, stage.id, WORKER, history.fence, at(history.seconds))
                result = history._completed(stage)
                history.run = finish(
                    history.run, stage.id, WORKER, history.fence, result, at(history.seconds)
                )

    assert history.run.is_final
