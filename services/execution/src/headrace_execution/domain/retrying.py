"""Trying a run again: a new run that goes on where the other one ended.

Both have one root, under which their loads stand in the ledgers of their targets: what has landed there is
never loaded again, whichever of them has done it.
"""

from collections.abc import Sequence
from uuid import UUID

from headrace_execution.domain.lifecycle import Order
from headrace_execution.domain.recipe import Priority
from headrace_execution.domain.run import Purpose, Receipt, ReceivedSignal, Run, Stage
from headrace_execution.domain.states import RunState, StageState
from headrace_execution.domain.triggers import Trigger, TriggerKind
from headrace_execution.domain.values import replace

RETRYABLE = frozenset({RunState.FAILED, RunState.CANCELLED})


def retry_order(
    run: Run,
    *,
    run_id: UUID,
    stage_ids: Sequence[UUID],
    triggered_by: str,
    trigger_label: str | None = None,
    priority: Priority | None = None,
    traceparent: str = "",
) -> Order:
    """The order of a run that tries another one again: of the same recipe, parameters and interval.

    It belongs to the trigger of the other one, but no overlap rule holds it: somebody asks for it now.

    Raises:
        ValueError: for a run that has neither failed nor was cancelled.
    """
    if run.state not in RETRYABLE:
        raise ValueError(f"run {run.id} is {run.state}")
    return Order(
        run_id=run_id,
        stage_ids=tuple(stage_ids),
        tenant=run.tenant,
        workspace=run.workspace,
        pipeline=run.pipeline,
        pipeline_version=run.pipeline_version,
        recipe=run.recipe,
        parameters=run.parameters,
        variables=run.variables,
        triggered_by=triggered_by,
        trigger_label=trigger_label,
        priority=run.priority if priority is None else priority,
        full_refresh=run.full_refresh,
        traceparent=traceparent,
        trigger=Trigger(TriggerKind.RETRY, run.trigger.id),
        logical_date=run.logical_date,
        interval_start=run.interval_start,
        interval_end=run.interval_end,
        root=run.root_id,
        retry_of=run.id,
        taken_over=taken_over(run),
        outputs=landed_outputs(run),
        signals=kept_signals(run),
    )


def kept_signals(run: Run) -> dict[int, ReceivedSignal]:
    """The signals that a run has received, by the stages that wait for them. One that refused it is not kept:
    who tries the run again asks again."""
    return {
        stage.position: stage.signal
        for stage in run.stages
        if stage.signal is not None and stage.signal.refusal is None
    }


def landed_outputs(run: Run) -> dict[int, tuple[Receipt, ...]]:
    """The outputs that the stages of a run have landed: they have no ledger but their receipts, and are not
    written again either.
    """
    return {
        stage.position: outputs
        for stage in run.stages
        if (outputs := tuple(receipt for receipt in stage.receipts if receipt.output is not None))
    }


def taken_over(run: Run) -> tuple[Stage, ...]:
    """The stages that need not run again: those that have completed, unless one that runs again depends on
    them, for the rows that they leave are those of their own run.

    What was waited for need not be waited for again: signals are of the chain of retries, as loads are. And a
    stage that waits needs no rows of others.
    """
    again: set[int] = set()
    for stage in reversed(run.stages):  # each comes after those it depends on
        spec, completed = run.spec(stage), stage.state is StageState.COMPLETED
        if not completed or (stage.position in again and spec.wait is None):
            again.add(stage.position)
            again.update(spec.depends_on if spec.wait is None else ())
        else:
            again.discard(stage.position)
    return tuple(_as_it_ended(stage) for stage in run.stages if stage.position not in again)


def _as_it_ended(stage: Stage) -> Stage:
    """A completed stage in the run that takes it over: never leased there, with what it has brought about."""
    return replace(
        stage,
        tasks=tuple(replace(task, attempt=0) for task in stage.tasks),
        purpose=Purpose.RUN,
        verdict=None,
        fence=0,
        attempt=0,
        failures=0,
        lost=0,
        error=None,
        slot_us=0,
    )
