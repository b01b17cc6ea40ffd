"""How each run must have ended, from nothing but what was asked for and what was done to it."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from uuid import UUID

from headrace_connectors.model import LoadKey
from headrace_execution.acceptance.starting import CANCEL_REASON
from headrace_execution.domain.recipe import OnTimeout
from headrace_execution.domain.run import Run, Stage
from headrace_execution.domain.states import RunState, StageState
from headrace_execution.domain.triggers import Overlap

from .scripts import Manner, Pipeline, Plan, Request
from .target import Target

HOPELESS = frozenset({Manner.BROKEN, Manner.POISON, Manner.DEADLY})


def allowed(request: Request, run: Run, blamed: Mapping[tuple[int, int], int]) -> set[RunState]:
    """The states in which a run of a request may end."""
    policy = request.pipeline.recipe.policy
    must_fail = may_fail = False
    for position, script in enumerate(request.pipeline.stages):
        must_fail |= script.manner in HOPELESS or script.times > policy.max_retries
        may_fail |= script.times + blamed.get((request.number, position), 0) > policy.max_retries
    must_fail |= any(_expired(run, stage, OnTimeout.FAIL) for stage in run.stages)
    states = {RunState.FAILED} if must_fail else {RunState.COMPLETED}
    if may_fail or _ran_out_of_time(run):
        states.add(RunState.FAILED)
    if run.cancel_requested_at is not None:
        states.add(RunState.CANCELLED)
    return states


def _expired(run: Run, stage: Stage, action: OnTimeout) -> bool:
    """Whether a stage had to be given up that waited for a signal, and this is what that does to its run."""
    wait, begun, ended = run.spec(stage).wait, stage.tasks[0].started_at, stage.tasks[0].finished_at
    if wait is None or wait.on_timeout is not action or stage.signal is not None:
        return False
    return begun is not None and ended is not None and ended - begun >= wait.timeout


def _signals(request: Request, run: Run) -> Iterator[str]:
    """Who was told that a signal was taken has sent the one that the run has; and nobody else was."""
    by_name = {wait.signal: stage for stage in run.stages if (wait := run.spec(stage).wait) is not None}
    told = {word.signal: word.taken_by for word in request.words}
    for name, stage in by_name.items():
        sender = [stage.signal.sent_by] if stage.signal is not None else []
        if told.get(name, []) != sender:
            yield f"request {request.number}: {name} is that of {sender}, and {told.get(name)} were told so"
        refused = any(word.refuses for word in request.words if word.signal == name and word.taken_by)
        if refused != (stage.signal is not None and stage.signal.refusal is not None):
            yield f"request {request.number}: whether {name} refuses it came out wrong"
        if refused and run.cancel_requested_at is None:
            yield f"request {request.number}: {name} refuses it, and it was not cancelled"


def _ran_out_of_time(run: Run) -> bool:
    """Whether it had to be given up, for it had waited or run for longer than it may."""
    policy = run.recipe.policy
    if run.error is None or run.finished_at is None:
        return False
    begun, limit = {
        "QUEUE_TIMEOUT": (run.created_at, policy.queue_timeout),
        "RUN_TIMEOUT": (run.started_at, policy.total_timeout),
    }.get(run.error.code, (None, None))
    return begun is not None and limit is not None and run.finished_at - begun >= limit


def findings(
    plan: Plan, runs: Mapping[UUID, Run], target: Target, blamed: Mapping[tuple[int, int], int]
) -> Iterator[str]:
    """What is not as it must be, when all is quiet."""
    for request in plan.requests:
        if request.run_id is None:
            if request.refused is None:
                yield f"request {request.number} was never answered"
            continue
        run = runs.get(request.run_id)
        if run is None:
            yield f"request {request.number} was accepted, and its run {request.run_id} does not exist"
            continue
        states = allowed(request, run, blamed)
        if run.state not in states:
            yield f"request {request.number}: its run {run.id} is {run.state}, expected {sorted(states)}"
        if request.told_final is not None and request.told_final != run.state:
            yield f"request {request.number}: somebody was told {request.told_final}, and it is {run.state}"
        if (
            run.state is RunState.CANCELLED
            and not request.cancel_sent
            and request.pipeline not in (plan.closes.values())
            and not _was_replaced(request, run)
            and not any(_expired(run, stage, OnTimeout.CANCEL) for stage in run.stages)
            and not any(stage.signal is not None and stage.signal.refusal for stage in run.stages)
        ):
            yield f"request {request.number}: nobody has cancelled its run {run.id}"
        yield from _rows(request, run, target)
        yield from _signals(request, run)
        for retried in request.retries:
            yield from _retry(request, runs.get(retried), target, blamed)
    for pipeline in plan.pipelines:
        if pipeline.incremental:
            yield from _chain(pipeline, runs, target)


def _retry(
    request: Request, run: Run | None, target: Target, blamed: Mapping[tuple[int, int], int]
) -> Iterator[str]:
    """A run that tries another one again ends as one that runs for the first time."""
    if run is None:
        yield f"request {request.number} was tried again, and that run does not exist"
        return
    states = allowed(request, run, blamed)
    if run.state not in states:
        yield f"request {request.number}: run {run.id}, a retry, is {run.state}, expected {sorted(states)}"
    yield from _rows(request, run, target)


def _was_replaced(request: Request, run: Run) -> bool:
    """Whether the next tick of its schedule may have cancelled it."""
    schedule = request.schedule
    replaces = schedule is not None and schedule.overlap is Overlap.CANCEL_RUNNING
    return replaces and run.cancel_reason == CANCEL_REASON


def _rows(request: Request, run: Run, target: Target) -> Iterator[str]:
    """The target must look as after an undisturbed run, wherever a stage has completed."""
    if request.pipeline.incremental:
        return
    for stage in run.stages:
        for load in run.spec(stage).loads:
            landed = [each for each in target.landings if each.key == LoadKey(str(run.root_id), load)]
            expected = [(10, f"{request.number}/{load}")] if stage.state is StageState.COMPLETED else landed
            if stage.state is StageState.COMPLETED and [(e.rows, e.checksum) for e in landed] != expected:
                yield f"request {request.number}: the rows of {load} are {landed}, expected {expected}"


def _chain(pipeline: Pipeline, runs: Mapping[UUID, Run], target: Target) -> Iterator[str]:
    """What incremental loads have brought joins without a gap and without an overlap."""
    mine = {str(run.root_id): run for run in runs.values() if run.pipeline == pipeline.id}
    reached = 0
    for landing in target.landings:
        if landing.key.root_run_id not in mine:
            continue
        begun, _, end = landing.checksum.partition("-")
        if int(begun) != reached:
            yield f"pipeline {pipeline.id}: rows {landing.checksum} follow those up to {reached}"
        reached = int(end)


def longest() -> timedelta:
    """After this much time without faults every run must have ended."""
    return timedelta(minutes=40)
