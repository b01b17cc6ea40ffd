"""The rules of runs, without anything around them."""

from dataclasses import replace
from datetime import timedelta

import pytest
from headrace_execution.domain.assignments import (
    assign,
    finish,
    give_back,
    lose_worker,
    report_progress,
)
from headrace_execution.domain.changes import CursorMove, EventKind, cursor_moves, event, failure_summary
from headrace_execution.domain.lifecycle import RunFinished, accept, let_go, request_cancel
from headrace_execution.domain.recipe import Priority
from headrace_execution.domain.retries import LONGEST_DELAY, retry_delay
from headrace_execution.domain.run import (
    CursorValue,
    ErrorClass,
    Failure,
    Outcome,
    Purpose,
    Run,
    Stage,
    StageResult,
    StopReason,
    TaskReport,
    Warned,
)
from headrace_execution.domain.states import IllegalTransition, RunState, TaskState
from headrace_execution.domain.timers import run_due

from .factories import (
    NOW,
    OTHER_WORKER,
    WORKER,
    accepted,
    at,
    completed,
    failed,
    leased,
    order,
    policy,
    receipt,
    recipe,
)


def states(run: Run) -> list[str]:
    return [stage.state.value for stage in run.stages]


def tasks(run: Run) -> list[str]:
    return [task.state.value for stage in run.stages for task in stage.tasks]


def first(run: Run) -> Stage:
    return run.stages[0]


def end(run: Run, result: StageResult, *, fence: int = 1, seconds: float = 1, stage: int = 0) -> Run:
    return finish(run, run.stages[stage].id, WORKER, fence, result, at(seconds))


def settle_claimed(run: Run, fence: int = 9, seconds: float = 30) -> Run:
    return assign(run, first(run).id, OTHER_WORKER, fence, at(seconds))


class TestAcceptance:
    def test_stages_without_dependencies_are_ready_and_others_blocked(self) -> None:
        run = accepted(recipe((), (), (0, 1)))

        assert (run.state, states(run)) == (RunState.PENDING, ["READY", "READY", "BLOCKED"])

    def test_a_held_run_has_nothing_ready_until_it_is_let_go(self) -> None:
        held = accept(order(), NOW, held=True)

        assert states(held) == ["BLOCKED"]
        assert states(let_go(held, NOW)) == ["READY"]

    def test_a_recipe_without_stages_is_no_run(self) -> None:
        empty = replace(recipe(), stages=())

        with pytest.raises(ValueError, match="at least one stage"):
            accept(order(empty), NOW)

    def test_a_run_that_waits_is_told_as_accepted_and_one_that_starts_at_once_as_started(self) -> None:
        waiting, started = event(None, accepted()), event(None, leased())

        assert waiting is not None
        assert started is not None
        assert (waiting.kind, started.kind) == (EventKind.ACCEPTED, EventKind.STARTED)


class TestAssignments:
    def test_the_first_assignment_starts_the_run(self) -> None:
        run = leased()

        assert (run.state, run.started_at, first(run).attempt) == (RunState.RUNNING, NOW, 1)

    def test_a_stage_that_is_not_ready_cannot_be_handed_out(self) -> None:
        run = leased()

        with pytest.raises(IllegalTransition):
            assign(run, first(run).id, WORKER, 5, at())

    def test_a_fence_that_does_not_grow_is_refused(self) -> None:
        run = leased(fence=7)
        run = give_back(run, first(run).id, WORKER, 7, at(), certain=True)

        with pytest.raises(ValueError, match="does not grow"):
            assign(run, first(run).id, WORKER, 7, at())

    def test_completion_unblocks_what_depends_on_it_and_the_last_one_ends_the_run(self) -> None:
        run = leased(recipe((), (0,)))

        run = end(run, completed(run))
        assert (run.state, states(run)) == (RunState.RUNNING, ["COMPLETED", "READY"])

        run = assign(run, run.stages[1].id, WORKER, 2, at(2))
        run = end(run, completed(run, 1, 2), fence=2, stage=1)
        assert (run.state, set(tasks(run))) == (RunState.COMPLETED, {"COMPLETED"})

    @pytest.mark.parametrize(
        ("worker", "fence"), [(OTHER_WORKER, 1), (WORKER, 0), (WORKER, 2)], ids=["worker", "old", "new"]
    )
    def test_a_result_of_another_worker_or_fence_changes_nothing(self, worker: object, fence: int) -> None:
        run = leased()

        assert finish(run, first(run).id, worker, fence, completed(run), at()) is run  # type: ignore[arg-type]

    def test_a_repeated_result_changes_nothing(self) -> None:
        run = leased()
        once = end(run, completed(run))

        assert end(once, completed(run)) is once
        assert end(once, failed()) is once

    def test_progress_shows_rows_and_no_task_is_final_before_its_stage(self) -> None:
        run = leased()
        reports = (TaskReport("t0_0", TaskState.COMPLETED, NOW, NOW, rows_out=5),)

        run = report_progress(run, first(run).id, WORKER, 1, reports)

        assert (tasks(run), first(run).tasks[0].rows_out) == (["RUNNING", "PENDING"], 5)
        assert [task.shown for task in first(run).tasks] == ["COMPLETED", "PENDING"]

    def test_a_stage_that_fails_leaves_each_task_as_it_was_seen(self) -> None:
        run = leased(recipe(tasks_each=4))
        reports = (
            TaskReport("t0_0", TaskState.COMPLETED, NOW, NOW, rows_out=5),
            TaskReport("t0_1", TaskState.RUNNING, NOW),
            TaskReport("t0_2", TaskState.RUNNING, NOW),
        )
        run = report_progress(run, first(run).id, WORKER, 1, reports)

        run = end(run, failed(ErrorClass.DATA, task="t0_2"))

        assert tasks(run) == ["COMPLETED", "CANCELLED", "FAILED", "SKIPPED"]

    def test_every_task_that_told_of_a_failure_failed(self) -> None:
        why = Failure("QUALITY_CHECK_FAILED", ErrorClass.DATA, "some rows are bad")
        reports = tuple(TaskReport(key, TaskState.FAILED, NOW, NOW, error=why) for key in ("t0_0", "t0_1"))

        run = leased(recipe(tasks_each=3))
        run = end(run, replace(failed(ErrorClass.DATA, task="t0_0"), tasks=reports))

        assert tasks(run) == ["FAILED", "FAILED", "SKIPPED"]

    def test_a_crash_is_not_blamed_on_what_was_done(self) -> None:
        run = leased(recipe(loads=False, max_lost=1))
        run = report_progress(
            run, first(run).id, WORKER, 1, (TaskReport("t0_0", TaskState.COMPLETED, NOW, NOW),)
        )

        run = lose_worker(run, first(run).id, WORKER, 1, at(20))

        assert tasks(run) == ["COMPLETED", "FAILED"]

    def test_another_attempt_shows_no_task_as_done_that_is_to_do_again(self) -> None:
        run = leased()
        reports = (TaskReport("t0_0", TaskState.COMPLETED, NOW, NOW, rows_out=5),)
        run = report_progress(run, first(run).id, WORKER, 1, reports)

        run = lose_worker(run, first(run).id, WORKER, 1, at(20))

        assert [(task.shown, task.rows_out) for task in first(run).tasks] == [("PENDING", 0)] * 2

    def test_work_given_back_costs_no_attempt(self) -> None:
        run = leased()
        run = give_back(run, first(run).id, WORKER, 1, at(1), certain=True)

        assert (states(run), first(run).failures, first(run).lost) == (["READY"], 0, 0)
        assert first(assign(run, first(run).id, WORKER, 2, at(2))).attempt == 1


class TestRetries:
    def test_a_transient_failure_waits_for_its_delay_and_goes_on(self) -> None:
        run = leased(recipe(max_retries=1))

        run = end(run, failed(task="load0"))
        assert (states(run), tasks(run)) == (["WAITING"], ["WAITING", "WAITING"])
        assert first(run).tasks[1].error is not None
        assert run_due(run, at(10.9)) == run

        run = run_due(run, at(11))
        assert (states(run), tasks(run)) == (["READY"], ["PENDING", "PENDING"])

        run = assign(run, first(run).id, WORKER, 2, at(12))
        assert (first(run).attempt, first(run).tasks[1].error) == (2, None)

    def test_retries_end_and_the_named_task_is_the_one_that_failed(self) -> None:
        run = leased(recipe(max_retries=0))

        run = end(run, failed(task="load0"))

        assert (run.state, tasks(run)) == (RunState.FAILED, ["SKIPPED", "FAILED"])
        assert failure_summary(run) == "load0: it broke"

    @pytest.mark.parametrize("kind", [kind for kind in ErrorClass if kind is not ErrorClass.TRANSIENT])
    def test_other_failures_are_not_tried_again(self, kind: ErrorClass) -> None:
        run = leased(recipe(max_retries=5))

        assert end(run, failed(kind)).state is RunState.FAILED

    def test_the_delay_doubles_and_jitter_only_adds(self) -> None:
        rules = policy(retry_delay=timedelta(seconds=10))

        delays = [retry_delay(n, rules, 0.0).total_seconds() for n in range(4)]

        assert delays == [10, 20, 40, 80]
        assert retry_delay(2, rules, 0.99) > retry_delay(2, rules, 0.0)
        assert retry_delay(5000, rules, 0.0) == LONGEST_DELAY

    def test_a_failure_skips_what_has_not_started_and_lets_the_rest_go_on(self) -> None:
        run = leased(recipe((), (), (), (1,)))
        run = assign(run, run.stages[1].id, WORKER, 2, at())

        run = end(run, failed(ErrorClass.DATA))
        assert (run.state, states(run)) == (RunState.RUNNING, ["FAILED", "LEASED", "SKIPPED", "SKIPPED"])

        run = end(run, completed(run, 1, 2), fence=2, stage=1)
        assert (run.state, states(run)) == (RunState.FAILED, ["FAILED", "COMPLETED", "SKIPPED", "SKIPPED"])


class TestLostWorkers:
    def test_the_stage_is_offered_again_and_its_retries_are_not_touched(self) -> None:
        run = leased(recipe(max_retries=0))

        run = lose_worker(run, first(run).id, WORKER, 1, at(30))

        assert (states(run), first(run).lost, first(run).failures) == (["READY"], 1, 0)
        assert end(run, completed(run)) is run

    def test_a_worker_that_shuts_down_costs_no_retry(self) -> None:
        run = leased(recipe(max_retries=0))

        run = end(run, failed(code="WORKER_SHUTDOWN"))

        assert (states(run), first(run).failures, first(run).lost) == (["READY"], 0, 1)
        assert first(run).unsettled

    def test_a_poison_stage_is_parked_with_the_reason_after_it_was_settled(self) -> None:
        run = leased(recipe(max_lost=2))
        run = lose_worker(run, first(run).id, WORKER, 1, at(30))
        run = assign(run, first(run).id, WORKER, 2, at(31))
        run = lose_worker(run, first(run).id, WORKER, 2, at(60))
        assert (states(run), first(run).purpose) == (["READY"], Purpose.SETTLE)

        run = settle_claimed(run, 3, 61)
        run = finish(run, first(run).id, OTHER_WORKER, 3, StageResult(Outcome.COMPLETED), at(62))

        error = first(run).error
        assert error is not None
        assert (run.state, error.code) == (RunState.FAILED, "WORKER_LOST")
        assert "parked after 2 attempts" in error.message

    def test_a_load_that_had_landed_completes_the_parked_stage(self) -> None:
        run = leased(recipe(max_lost=1))
        run = settle_claimed(lose_worker(run, first(run).id, WORKER, 1, at(30)))
        landed = StageResult(Outcome.COMPLETED, receipts=(receipt(run),))

        run = finish(run, first(run).id, OTHER_WORKER, 9, landed, at(31))

        assert (run.state, set(tasks(run))) == (RunState.COMPLETED, {"COMPLETED"})

    def test_a_stage_without_loads_needs_no_settling(self) -> None:
        run = leased(recipe(loads=False, max_lost=1))

        assert lose_worker(run, first(run).id, WORKER, 1, at(30)).state is RunState.FAILED

    def test_a_crash_of_the_stage_counts_as_a_lost_worker(self) -> None:
        run = leased(recipe(max_retries=0))

        run = end(run, failed(code="STAGE_CRASHED"))

        assert (states(run), first(run).lost) == (["READY"], 1)

    def test_a_fenced_stage_gets_a_higher_fence_and_not_for_ever(self) -> None:
        run = leased(recipe(max_lost=2, loads=False))
        run = end(run, StageResult(Outcome.FENCED))
        run = assign(run, first(run).id, WORKER, 2, at(2))
        run = end(run, StageResult(Outcome.FENCED), fence=2)

        assert (run.state, failure_summary(run) or "") == (
            RunState.FAILED,
            "t0_0: parked after 2 attempts that ended without a result; the last: another attempt owns the "
            "load: a higher fence or a tombstone stands in the target",
        )


class TestCancel:
    def test_nothing_leased_is_cancelled_at_once(self) -> None:
        run = request_cancel(accepted(recipe((), (0,))), "no longer needed", at(1))

        assert (run.state, set(tasks(run)), run.cancel_reason) == (
            RunState.CANCELLED,
            {"CANCELLED"},
            "no longer needed",
        )

    def test_a_held_run_is_cancelled_at_once(self) -> None:
        run = request_cancel(accept(order(), NOW, held=True), None, at(1))

        assert (run.state, run.held) == (RunState.CANCELLED, False)

    def test_a_leased_stage_decides(self) -> None:
        run = request_cancel(leased(recipe((), (0,))), None, at(1))
        assert (run.state, states(run), first(run).stop) == (
            RunState.RUNNING,
            ["LEASED", "CANCELLED"],
            StopReason.CANCELLED,
        )

        assert end(run, StageResult(Outcome.CANCELLED)).state is RunState.CANCELLED
        late = end(run, completed(run))
        assert (late.state, states(late)) == (RunState.CANCELLED, ["COMPLETED", "CANCELLED"])

    def test_a_run_whose_last_load_won_the_race_is_completed(self) -> None:
        run = request_cancel(leased(), None, at(1))

        assert end(run, completed(run)).state is RunState.COMPLETED

    @pytest.mark.parametrize(
        "told",
        [
            failed(code="COMMIT_UNKNOWN"),
            failed(code="STAGE_CRASHED"),
            StageResult(Outcome.FENCED),
            StageResult(Outcome.CANCELLED, warnings=(Warned("load0", "CANCEL_UNSETTLED", "it is away"),)),
        ],
        ids=["commit unknown", "crashed", "fenced", "no tombstone"],
    )
    def test_what_may_still_land_is_settled_before_the_cancel_is_final(self, told: StageResult) -> None:
        run = end(request_cancel(leased(), None, at(1)), told)
        assert (states(run), first(run).purpose, run.is_final) == (["READY"], Purpose.SETTLE, False)

        run = settle_claimed(run, 9, 31)
        run = finish(run, first(run).id, OTHER_WORKER, 9, StageResult(Outcome.COMPLETED), at(32))

        assert (run.state, first(run).warnings) == (RunState.CANCELLED, ())

    def test_a_failure_during_a_cancel_is_a_cancel_and_never_retried(self) -> None:
        run = request_cancel(leased(recipe(max_retries=5)), None, at(1))

        assert end(run, failed()).state is RunState.CANCELLED

    def test_while_a_retry_waits(self) -> None:
        run = leased(recipe(max_retries=5))

        run = request_cancel(end(run, failed()), None, at(2))

        assert (run.state, set(tasks(run))) == (RunState.CANCELLED, {"CANCELLED"})

    def test_twice_changes_nothing(self) -> None:
        once = request_cancel(leased(), "first", at(1))

        assert request_cancel(once, "second", at(2)) is once
        ended = end(once, StageResult(Outcome.CANCELLED))
        assert request_cancel(ended, "third", at(3)) is ended

    def test_after_another_end_is_refused(self) -> None:
        run = leased()

        with pytest.raises(RunFinished):
            request_cancel(end(run, completed(run)), None, at(2))

    def test_a_worker_that_is_gone_is_settled_by_another(self) -> None:
        run = request_cancel(leased(), None, at(1))
        run = lose_worker(run, first(run).id, WORKER, 1, at(20))
        assert (run.state, states(run), first(run).purpose) == (RunState.RUNNING, ["READY"], Purpose.SETTLE)

        run = settle_claimed(run)
        nothing = finish(run, first(run).id, OTHER_WORKER, 9, StageResult(Outcome.COMPLETED), at(31))
        landed = StageResult(Outcome.COMPLETED, receipts=(receipt(run),))
        something = finish(run, first(run).id, OTHER_WORKER, 9, landed, at(31))

        assert (nothing.state, something.state) == (RunState.CANCELLED, RunState.COMPLETED)

    def test_a_worker_that_does_not_stop_is_taken_its_lease_away(self) -> None:
        run = request_cancel(leased(), None, at(1))

        run = run_due(run, at(21))

        assert (states(run), first(run).purpose) == (["READY"], Purpose.SETTLE)

    def test_settling_is_tried_again_and_given_up_with_a_warning(self) -> None:
        run = request_cancel(leased(), None, at(1))
        run = lose_worker(run, first(run).id, WORKER, 1, at(20))
        run = settle_claimed(run)
        run = finish(run, first(run).id, OTHER_WORKER, 9, failed(), at(31))
        assert states(run) == ["WAITING"]
        assert states(run_due(run, at(33))) == ["READY"]

        run = run_due(run, at(80))

        assert run.state is RunState.CANCELLED
        assert [warning.code for warning in first(run).warnings] == ["UNSETTLED"]

    def test_work_that_may_be_on_its_way_is_settled_before_it_is_cancelled(self) -> None:
        run = leased()
        run = give_back(run, first(run).id, WORKER, 1, at(5), certain=False)

        run = request_cancel(run, None, at(6))

        assert (run.state, first(run).purpose) == (RunState.RUNNING, Purpose.SETTLE)


class TestTimeouts:
    def test_an_attempt_that_takes_too_long_is_stopped_and_tried_again(self) -> None:
        run = leased(recipe(max_retries=1))
        assert run_due(run, at(104)) == run

        run = run_due(run, at(105))
        assert first(run).stop is StopReason.TIMED_OUT

        run = end(run, StageResult(Outcome.CANCELLED), seconds=106)
        assert (states(run), (first(run).error or failed().error).code) == (["WAITING"], "ATTEMPT_TIMEOUT")  # type: ignore[union-attr]

    def test_the_last_one_is_settled_before_it_fails(self) -> None:
        run = run_due(leased(), at(105))

        run = end(run, StageResult(Outcome.CANCELLED), seconds=106)
        assert first(run).purpose is Purpose.SETTLE

        run = settle_claimed(run, 9, 107)
        run = finish(run, first(run).id, OTHER_WORKER, 9, StageResult(Outcome.COMPLETED), at(108))
        assert (run.state, (failure_summary(run) or "").split(":")[1]) == (
            RunState.FAILED,
            " the attempt took longer than 100 seconds",
        )

    def test_a_run_that_queues_too_long_fails(self) -> None:
        run = accepted(recipe(queue_timeout=timedelta(seconds=50)))
        assert run_due(run, at(49)) == run

        run = run_due(run, at(50))

        assert (run.state, (failure_summary(run) or "").split(":")[0]) == (RunState.FAILED, "QUEUE_TIMEOUT")

    def test_a_run_that_takes_too_long_in_all_is_stopped_and_fails(self) -> None:
        run = leased(recipe((), (0,), total_timeout=timedelta(seconds=50)))

        run = run_due(run, at(50))
        assert (states(run), first(run).stop) == (["LEASED", "CANCELLED"], StopReason.CANCELLED)

        run = end(run, StageResult(Outcome.CANCELLED), seconds=51)
        assert run.state is RunState.FAILED


class TestWhatFollows:
    def test_cursors_move_with_receipts_that_are_new(self) -> None:
        run = leased()
        cursor = CursorValue("load0", "t0_0", b"7")
        landed = StageResult(Outcome.COMPLETED, receipts=(receipt(run, cursors=(cursor,)),))

        after = end(run, landed)

        assert cursor_moves(run, after) == (CursorMove(run.pipeline, run.tenant, cursor, 1),)
        assert cursor_moves(after, after) == ()

    def test_each_end_is_told_once(self) -> None:
        run = leased()
        after = end(run, completed(run))
        told = event(run, after)

        assert told is not None
        assert told.kind is EventKind.COMPLETED
        assert event(after, after) is None

    def test_urgent_runs_are_ordered_before_others(self) -> None:
        assert sorted(Priority) == [Priority.LOW, Priority.NORMAL, Priority.HIGH]
