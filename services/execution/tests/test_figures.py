"""What runs moved and took: whatever their attempts came to, and nothing that another run has done."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from headrace_chassis.ids import uuid7
from headrace_execution.domain.assignments import assign, finish, lose_worker, refuse_to_stop, report_progress
from headrace_execution.domain.figures import Figures, run_figures
from headrace_execution.domain.lifecycle import accept, request_cancel
from headrace_execution.domain.retrying import retry_order
from headrace_execution.domain.run import ErrorClass, Outcome, Run, StageResult, TaskReport
from headrace_execution.domain.states import RunState, TaskState
from headrace_execution.domain.timers import run_due

from .factories import NOW, WORKER, at, completed, failed, leased, receipt, recipe

SECOND = 1_000_000


def reports(start: float, end: float | None = None, **more: Any) -> tuple[TaskReport, ...]:
    """The two tasks of the first stage, from so many seconds to so many after NOW."""
    state = TaskState.RUNNING if end is None else TaskState.COMPLETED
    started_at = NOW + timedelta(seconds=start)
    finished_at = None if end is None else NOW + timedelta(seconds=end)
    return (
        TaskReport("t0_0", state, started_at, finished_at, rows_out=7, bytes=70, **more),
        TaskReport("load0", state, started_at, finished_at, rows_in=7, rows_out=7, bytes=60),
    )


def ended(run: Run, seconds: float, result: StageResult, fence: int = 1) -> Run:
    """The run whose first stage's worker tells this result so many seconds after NOW."""
    return finish(run, run.stages[0].id, WORKER, fence, result, at(seconds))


def test_a_stage_takes_from_its_first_start_to_its_last_end_wherever_it_waited() -> None:
    run = leased(recipe())

    # Leased at 0, it waited two seconds in its worker, and its result one second for its turn.
    run = ended(run, 6, replace(completed(run), tasks=reports(2, 5)))

    assert run.state is RunState.COMPLETED
    assert run_figures(run) == Figures(
        rows_read=7, rows_written=10, bytes_read=70, bytes_written=100, slot_us=3 * SECOND
    )


def test_attempts_that_fail_and_workers_that_are_lost_cost_as_well() -> None:
    run = leased(recipe(max_retries=1))
    run = ended(run, 4, replace(failed(), tasks=reports(1)))  # three seconds
    run = run_due(run, at(14))
    run = assign(run, run.stages[0].id, WORKER, 2, at(20))
    run = report_progress(run, run.stages[0].id, WORKER, 2, reports(21))
    assert run_figures(run, NOW + timedelta(seconds=26)).slot_us == 8 * SECOND, "the one under way counts"

    run = lose_worker(run, run.stages[0].id, WORKER, 2, at(31))  # ten seconds
    run = assign(run, run.stages[0].id, WORKER, 3, at(40))
    run = ended(run, 45, replace(completed(run, fence=3), tasks=reports(40, 44)), fence=3)

    assert run_figures(run) == Figures(7, 10, 70, 100, 17 * SECOND)


def test_a_worker_that_does_not_stop_is_counted_until_its_lease_is_taken() -> None:
    run = leased(recipe(loads=False))
    run = report_progress(run, run.stages[0].id, WORKER, 1, reports(0))
    run = request_cancel(run, None, at(2))

    stage = refuse_to_stop(run, run.stages[0], at(9))

    assert stage.slot_us == 9 * SECOND


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.CANCELLED, Outcome.FENCED])
def test_an_attempt_that_never_started_costs_nothing(outcome: Outcome) -> None:
    run = ended(leased(recipe()), 9, StageResult(outcome))

    assert run_figures(run).slot_us == 0


def test_what_the_run_before_had_done_is_not_counted_again() -> None:
    run = leased(recipe((), ()))
    run = ended(run, 5, replace(completed(run), tasks=reports(1, 4)))
    run = assign(run, run.stages[1].id, WORKER, 2, at(6))
    run = finish(run, run.stages[1].id, WORKER, 2, failed(ErrorClass.DATA), at(8))
    assert run.state is RunState.FAILED

    again = accept(retry_order(run, run_id=uuid7(), stage_ids=[uuid7(), uuid7()], triggered_by="ada"), NOW)

    assert again.stages[0].was_taken_over
    assert run_figures(again) == Figures()


def test_what_had_landed_before_a_retry_is_not_its_own() -> None:
    run = leased(recipe())
    run = ended(run, 5, replace(failed(ErrorClass.DATA), receipts=(receipt(run),), tasks=reports(1)))
    order = retry_order(run, run_id=uuid7(), stage_ids=[uuid7()], triggered_by="ada")
    again = assign(accept(order, at(60).now), order.stage_ids[0], WORKER, 2, at(60))

    # Its worker found the receipt in the target's ledger, and had read the rows for nothing.
    result = replace(completed(again), receipts=(receipt(again),), tasks=reports(61, 64))
    again = finish(again, again.stages[0].id, WORKER, 2, result, at(65))

    assert run_figures(run).rows_written == 10
    assert run_figures(again) == Figures(rows_read=7, bytes_read=70, slot_us=3 * SECOND)
