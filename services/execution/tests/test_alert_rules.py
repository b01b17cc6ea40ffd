"""What the rules find, and what becomes of alerts."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from headrace_chassis.ids import uuid7
from headrace_execution.domain.alerts import (
    Alert,
    AlertBook,
    AlertResolved,
    AlertState,
    Finding,
    Healing,
    Rule,
    Severity,
    acknowledge,
)
from headrace_execution.domain.assignments import assign, finish, lose_worker
from headrace_execution.domain.figures import Figures
from headrace_execution.domain.judging import Ended, Going, findings, healing, late
from headrace_execution.domain.run import ErrorClass, Run, StageResult, Warned
from headrace_execution.domain.states import RunState
from headrace_execution.domain.usual import REMEMBERED, Sample, Usual

from .factories import NOW, TENANT, WORKER, at, completed, failed, leased, recipe

PIPELINE, WORKSPACE = uuid7(), uuid7()


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def finding(rule: Rule = Rule.RUN_FAILED, second: float = 0.0, **changes: Any) -> Finding:
    made = Finding(
        rule,
        Severity.WARNING,
        TENANT,
        WORKSPACE,
        PIPELINE,
        "it broke",
        later(second + 1),
        later(second),
        uuid7(),
    )
    return replace(made, **changes)


def good(second: float = 100.0, **changes: Any) -> Healing:
    made = Healing(PIPELINE, uuid7(), later(second), later(second + 1), frozenset(), is_own_start=False)
    return replace(made, **changes)


def book(*active: Alert) -> AlertBook:
    return AlertBook(active, uuid7)


def opened(rule: Rule = Rule.RUN_FAILED) -> Alert:
    made = book()
    made.find(finding(rule))
    return made.changed[0]


def ended(run: Run | None = None, *, took: float = 1.0, rows: int = 100, **changes: Any) -> Ended:
    state = run.state if run is not None else RunState.COMPLETED
    warnings = run.warning_count if run is not None else 0
    values: dict[str, Any] = {
        "run": uuid7(),
        "tenant": TENANT,
        "workspace": WORKSPACE,
        "pipeline": PIPELINE,
        "state": state,
        "accepted_at": NOW,
        "started_at": NOW,
        "finished_at": later(took),
        "figures": Figures(rows_written=rows),
        "warning_count": warnings,
        "is_own_start": False,
        "is_comparable": True,
    }
    return Ended(**{**values, **changes})


def history(*durations: float, rows: int = 100) -> Usual:
    usual = Usual()
    for seconds in durations:
        usual = usual.after(Sample(round(seconds * 1000), rows))
    return usual


class TestBook:
    def test_a_finding_opens_an_alert_and_further_ones_count_it_up(self) -> None:
        made = book()
        made.find(finding())
        made.find(finding(second=5, severity=Severity.CRITICAL, message="again"))
        made.find(finding(second=9))

        (alert,) = made.changed
        assert (alert.state, alert.count, alert.severity) == (AlertState.OPEN, 3, Severity.CRITICAL)
        assert (alert.opened_at, alert.last_seen_at) == (later(1), later(10))
        assert [told.kind for told in made.told] == ["opened"]

    def test_the_next_good_run_resolves_it_and_a_later_finding_opens_another(self) -> None:
        before = opened()
        made = book(before)
        healer = good()
        made.heal(healer)
        made.find(finding(second=200))

        after, other = made.changed
        assert (after.id, after.state, after.resolved_by) == (before.id, AlertState.RESOLVED, healer.run)
        assert (other.state, other.count) == (AlertState.OPEN, 1)
        assert [told.kind for told in made.told] == ["resolved", "opened"]

    @pytest.mark.parametrize(
        ("rule", "run", "is_resolved"),
        [
            (Rule.RUN_FAILED, good(second=-1), False),  # accepted before what it was found of
            (Rule.RUN_FAILED, good(second=0), True),
            (Rule.ROWS_UNUSUAL, good(found=frozenset({Rule.ROWS_UNUSUAL})), False),
            (Rule.SCHEDULE_MISSED, good(), False),
            (Rule.SCHEDULE_MISSED, good(is_own_start=True), True),
            (Rule.START_REFUSED, good(), False),
            (Rule.START_REFUSED, good(is_own_start=True), True),
            (Rule.UPSTREAM_DELETED, good(), False),
            (Rule.NOTIFICATION_FAILED, good(), False),
            (Rule.RUN_FAILED, good(pipeline=uuid7()), False),
        ],
    )
    def test_which_run_resolves_what(self, rule: Rule, run: Healing, is_resolved: bool) -> None:
        made = book(opened(rule))
        made.heal(run)
        assert bool(made.changed) is is_resolved

    def test_what_no_run_heals_is_resolved_once_somebody_has_seen_it(self) -> None:
        made = book(acknowledge(opened(Rule.UPSTREAM_DELETED), "ada", None, later(5)))
        made.heal(good())
        assert made.changed[0].state is AlertState.RESOLVED

    def test_a_late_run_counts_once(self) -> None:
        made = book()
        for second in (0.0, 0.0, 7.0, 0.0):
            made.find(finding(Rule.RUN_LATE, second))
        assert made.changed[0].count == 2

    def test_acknowledging_keeps_the_first_and_needs_an_unresolved_alert(self) -> None:
        alert = opened()
        taken = acknowledge(alert, "ada", "on it", later(5))
        assert (taken.state, taken.acknowledged_by, taken.note) == (AlertState.ACKNOWLEDGED, "ada", "on it")
        assert acknowledge(taken, "grace", None, later(6)) is taken
        made = book(taken)
        made.find(finding(second=8))
        assert made.changed[0].state is AlertState.ACKNOWLEDGED, "it stays taken on"
        made.heal(good())
        with pytest.raises(AlertResolved):
            acknowledge(made.changed[0], "ada", None, later(9))


class TestEnds:
    def test_a_failed_run(self) -> None:
        run = leased()
        run = finish(run, run.stages[0].id, WORKER, 1, failed(ErrorClass.DATA, "BAD", "t0_0"), at(1))
        (found,) = findings(ended(run), run, Usual())
        assert (found.rule, found.severity, found.message) == (
            Rule.RUN_FAILED,
            Severity.CRITICAL,
            "t0_0: it broke",
        )
        assert found.details == {"code": "BAD", "class": "DATA"}
        assert healing(ended(run), [found]) is None

    def test_a_failed_quality_check_is_told_as_such(self) -> None:
        run = leased()
        result = failed(ErrorClass.DATA, "QUALITY_CHECK_FAILED", "t0_0")
        run = finish(run, run.stages[0].id, WORKER, 1, result, at(1))
        assert [found.rule for found in findings(ended(run), run, Usual())] == [Rule.QUALITY_FAILED]

    def test_a_parked_stage_is_told_as_such(self) -> None:
        run = leased(recipe(loads=False, max_lost=1))
        run = lose_worker(run, run.stages[0].id, WORKER, 1, at(1))
        assert run.state is RunState.FAILED
        assert [found.rule for found in findings(ended(run), run, Usual())] == [Rule.WORKER_LOST]

    def test_warnings_of_checks_and_others(self) -> None:
        run = leased()
        done = completed(run)
        warnings = (
            Warned("check", "QUALITY_CHECK_FAILED", "3 of 9 rows"),
            Warned("load", "AT_LEAST_ONCE", "x\0" + "y" * 9000),
            Warned("load", "OTHER", "z"),
        )
        result = StageResult(done.outcome, receipts=done.receipts, warnings=warnings)
        run = finish(run, run.stages[0].id, WORKER, 1, result, at(1))
        quality, other = findings(ended(run), run, Usual())
        assert (quality.rule, quality.severity) == (Rule.QUALITY_FAILED, Severity.WARNING)
        assert other.rule is Rule.RUN_WARNING
        assert "\0" not in other.message
        assert len(other.message) < 2100

    def test_a_plain_run_finds_nothing_and_heals(self) -> None:
        assert findings(ended(), None, history(*[1.0] * 10)) == []
        assert healing(ended(), []) is not None
        assert healing(ended(state=RunState.CANCELLED), []) is None

    def test_a_run_that_lost_a_worker_and_failed_otherwise_is_a_failed_run(self) -> None:
        run = leased(recipe(loads=False))
        run = lose_worker(run, run.stages[0].id, WORKER, 1, at(1))
        run = assign(run, run.stages[0].id, WORKER, 2, at(2))
        run = finish(run, run.stages[0].id, WORKER, 2, failed(ErrorClass.DATA), at(3))
        assert [found.rule for found in findings(ended(run), run, Usual())] == [Rule.RUN_FAILED]


class TestUsual:
    def test_nothing_is_unusual_before_enough_is_known(self) -> None:
        assert findings(ended(took=9000, rows=0), None, history(*[60.0] * 9)) == []
        found = findings(ended(took=9000, rows=0), None, history(*[60.0] * 10))
        assert {each.rule for each in found} == {Rule.DURATION_UNUSUAL, Rule.ROWS_UNUSUAL}

    def test_one_that_was_quite_different_does_not_move_what_is_usual(self) -> None:
        usual = history(*[60.0] * 10, 86_400.0)
        assert usual.durations is not None
        assert usual.durations.high == pytest.approx(90_000)

    def test_what_varies_may_vary(self) -> None:
        usual = history(*[60.0, 600.0] * 8)
        assert findings(ended(took=900), None, usual) == []

    def test_small_differences_are_never_unusual(self) -> None:
        assert findings(ended(took=9.0, rows=5), None, history(*[0.02] * 20, rows=1)) == []

    def test_a_quick_run_is_no_alert(self) -> None:
        assert findings(ended(took=0.1), None, history(*[600.0] * 20)) == []

    def test_runs_that_do_something_else_are_neither_judged_nor_remembered(self) -> None:
        other = ended(took=9000, is_comparable=False)
        assert other.sample is None
        assert findings(other, None, history(*[1.0] * 20)) == []
        assert ended(state=RunState.FAILED).sample is None

    def test_only_the_latest_are_remembered(self) -> None:
        assert len(history(*[1.0] * 100).samples) == REMEMBERED

    def test_a_run_that_goes_on_is_late_beyond_what_is_usual(self) -> None:
        going = Going(uuid7(), TENANT, WORKSPACE, PIPELINE, NOW, later(10), history(*[60.0] * 10))
        assert late(going, later(100)) is None
        found = late(going, later(101))
        assert found is not None
        assert (found.rule, found.run, found.as_of) == (Rule.RUN_LATE, going.run, NOW)
        assert late(replace(going, usual=Usual()), later(9999)) is None
