"""What the rules of alerts find of a run that has ended, or that goes on for too long."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from headrace_execution.domain.alerts import Finding, Healing, Rule, Severity
from headrace_execution.domain.changes import failure_summary
from headrace_execution.domain.rollups import RunEnd
from headrace_execution.domain.run import NO_DETAILS, Failure, Run, Warned
from headrace_execution.domain.states import RunState, StageState
from headrace_execution.domain.usual import Range, Sample, Usual

CHECK_FAILED = "QUALITY_CHECK_FAILED"
"""The code by which workers report that a quality check was not met."""
LONGEST_MESSAGE = 2000
"""How many characters of what is told of a run an alert keeps."""


@dataclass(frozen=True, slots=True)
class Ended(RunEnd):
    """A run that has ended, with what the rules look at."""

    run: UUID
    workspace: UUID
    accepted_at: datetime
    is_own_start: bool
    """Whether a schedule or upstreams started it."""
    is_comparable: bool
    """Whether it did what runs of its pipeline usually do: it tries no other run again, and does not start
    its cursors anew."""

    @property
    def is_troubled(self) -> bool:
        """Whether the rules need to look at what went wrong with it."""
        return self.state is RunState.FAILED or (self.state is RunState.COMPLETED and self.warning_count > 0)

    @property
    def sample(self) -> Sample | None:
        """What is remembered of it; None where it says nothing about others."""
        if self.state is not RunState.COMPLETED or not self.is_comparable or self.started_at is None:
            return None
        took = self.finished_at - self.started_at
        return Sample(max(round(took.total_seconds() * 1000), 0), self.figures.rows_written)


@dataclass(frozen=True, slots=True)
class Going:
    """A run that goes on, and what is usual of its pipeline."""

    run: UUID
    tenant: UUID
    workspace: UUID
    pipeline: UUID
    accepted_at: datetime
    started_at: datetime
    usual: Usual


def findings(ended: Ended, run: Run | None, usual: Usual) -> list[Finding]:
    """What the rules find. `run` is needed of one that failed or has warnings; where it is not kept any more,
    there is nobody to tell."""
    found: list[Finding] = []
    if run is not None and ended.state is RunState.FAILED:
        found.append(_failed(ended, run))
    if run is not None and ended.state is RunState.COMPLETED:
        found += _warned(ended, run)
    sample = ended.sample
    if sample is not None:
        found += _unusual(ended, sample, usual)
    return found


def healing(ended: Ended, found: list[Finding]) -> Healing | None:
    """What a completed run resolves; None of any other."""
    if ended.state is not RunState.COMPLETED:
        return None
    return Healing(
        pipeline=ended.pipeline,
        run=ended.run,
        accepted_at=ended.accepted_at,
        at=ended.finished_at,
        found=frozenset(finding.rule for finding in found),
        is_own_start=ended.is_own_start,
    )


def late(going: Going, now: datetime) -> Finding | None:
    """Whether a run takes longer than runs of its pipeline usually do."""
    usual = going.usual.durations
    took = (now - going.started_at).total_seconds() * 1000
    if usual is None or took <= usual.high:
        return None
    return Finding(
        rule=Rule.RUN_LATE,
        severity=Severity.WARNING,
        tenant=going.tenant,
        workspace=going.workspace,
        pipeline=going.pipeline,
        message=f"the run has been going on for {_seconds(took)}; usually it takes {_seconds(usual.middle)}",
        at=now,
        as_of=going.accepted_at,
        run=going.run,
        details=_range_details("Ms", took, usual),
    )


def _failed(ended: Ended, run: Run) -> Finding:
    failure = _cause(run)
    code = failure.code if failure is not None else ""
    message = failure_summary(run) or (failure.message if failure is not None else "the run failed")
    rule = Rule.RUN_FAILED
    if code == CHECK_FAILED:
        rule = Rule.QUALITY_FAILED
    elif any(
        stage.state is StageState.FAILED and stage.lost >= run.recipe.policy.max_lost for stage in run.stages
    ):
        rule = Rule.WORKER_LOST
    details = {"code": code, "class": str(failure.kind)} if failure is not None else {}
    return _finding(ended, rule, Severity.CRITICAL, message, details)


def _cause(run: Run) -> Failure | None:
    """Why it failed: as a whole, or the first task or stage that did."""
    if run.error is not None:
        return run.error
    failed = [stage for stage in run.stages if stage.state is StageState.FAILED]
    tasks = [task.error for stage in failed for task in stage.tasks if task.error is not None]
    return next(iter([*tasks, *(stage.error for stage in failed if stage.error is not None)]), None)


def _warned(ended: Ended, run: Run) -> list[Finding]:
    warnings = [warning for stage in run.stages for warning in stage.warnings]
    checks = [warning for warning in warnings if warning.code == CHECK_FAILED]
    others = [warning for warning in warnings if warning.code != CHECK_FAILED]
    return [
        _finding(
            ended, rule, Severity.WARNING, _told(of_rule), {"code": of_rule[0].code, "task": of_rule[0].task}
        )
        for rule, of_rule in ((Rule.QUALITY_FAILED, checks), (Rule.RUN_WARNING, others))
        if of_rule
    ]


def _told(warnings: list[Warned]) -> str:
    more = f" (and {len(warnings) - 1} more)" if len(warnings) > 1 else ""
    return f"{warnings[0].message}{more}"


def _unusual(ended: Ended, sample: Sample, usual: Usual) -> list[Finding]:
    found: list[Finding] = []
    durations, rows = usual.unusual_duration(sample.duration_ms), usual.unusual_rows(sample.rows)
    if durations is not None:
        message = (
            f"the run took {_seconds(sample.duration_ms)}; usually it takes {_seconds(durations.middle)}"
        )
        details = _range_details("Ms", sample.duration_ms, durations)
        found.append(_finding(ended, Rule.DURATION_UNUSUAL, Severity.WARNING, message, details))
    if rows is not None:
        message = f"the run landed {sample.rows} rows; usually it lands {rows.middle:.0f}"
        details = _range_details("Rows", sample.rows, rows)
        found.append(_finding(ended, Rule.ROWS_UNUSUAL, Severity.WARNING, message, details))
    return found


def _range_details(unit: str, value: float, usual: Range) -> dict[str, str]:
    return {
        f"actual{unit}": f"{value:.0f}",
        f"usual{unit}": f"{usual.middle:.0f}",
        f"least{unit}": f"{max(usual.low, 0):.0f}",
        f"most{unit}": f"{usual.high:.0f}",
    }


def _finding(
    ended: Ended, rule: Rule, severity: Severity, message: str, details: Mapping[str, str] = NO_DETAILS
) -> Finding:
    return Finding(
        rule=rule,
        severity=severity,
        tenant=ended.tenant,
        workspace=ended.workspace,
        pipeline=ended.pipeline,
        message=_short(message),
        at=ended.finished_at,
        as_of=ended.accepted_at,
        run=ended.run,
        details=details,
    )


def _short(text: str) -> str:
    """Of a long text the beginning; without NUL, which a database's text does not hold."""
    clean = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    return clean if len(clean) <= LONGEST_MESSAGE else f"{clean[:LONGEST_MESSAGE]} …"


def _seconds(milliseconds: float) -> str:
    seconds = milliseconds / 1000
    return f"{seconds:.1f} seconds" if seconds < 120 else f"{seconds / 60:.0f} minutes"
