"""What the runs of a pipeline come to, day by day: totals to which each run is added once, when it has
ended."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TypeAlias
from uuid import UUID

from headrace_execution.domain.durations import Durations
from headrace_execution.domain.figures import Figures, sum_of
from headrace_execution.domain.states import RunState

_MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class RunEnd:
    """A run that has ended, as its event tells it."""

    tenant: UUID
    pipeline: UUID
    state: RunState
    finished_at: datetime
    started_at: datetime | None
    """None where it ended before it had started."""
    warning_count: int
    figures: Figures

    @property
    def duration_ms(self) -> int | None:
        """How long it took, in milliseconds; None where it had not started."""
        if self.started_at is None:
            return None
        return max((self.finished_at - self.started_at) // _MILLISECOND, 0)


@dataclass(frozen=True, slots=True)
class Totals:
    """What some runs come to."""

    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    warned: int = 0
    """How many of those that completed had warnings."""
    durations: Durations = field(default_factory=Durations)
    """From start to end, of those that had started."""
    figures: Figures = field(default_factory=Figures)
    last_state: RunState | None = None
    """How the run ended that ended last."""
    last_at: datetime | None = None
    """When that was."""

    @classmethod
    def of(cls, ends: Sequence[RunEnd]) -> "Totals":
        """These runs, at least one."""
        states = Counter(end.state for end in ends)
        last = max(ends, key=_finished)
        return cls(
            completed=states[RunState.COMPLETED],
            failed=states[RunState.FAILED],
            cancelled=states[RunState.CANCELLED],
            warned=sum(end.state is RunState.COMPLETED and end.warning_count > 0 for end in ends),
            durations=Durations.of([end.duration_ms for end in ends if end.duration_ms is not None]),
            figures=sum_of([end.figures for end in ends]),
            last_state=last.state,
            last_at=last.finished_at,
        )

    def __add__(self, other: "Totals") -> "Totals":
        later = max(self, other, key=_last)
        return Totals(
            self.completed + other.completed,
            self.failed + other.failed,
            self.cancelled + other.cancelled,
            self.warned + other.warned,
            self.durations + other.durations,
            self.figures + other.figures,
            later.last_state,
            later.last_at,
        )

    @property
    def runs(self) -> int:
        """How many runs there are."""
        return self.completed + self.failed + self.cancelled

    @property
    def success_rate(self) -> float | None:
        """The share of those that completed among those that completed or failed: who cancels a run says
        nothing of its pipeline."""
        told = self.completed + self.failed
        return self.completed / told if told else None


Day: TypeAlias = tuple[UUID, date]
"""A pipeline, and a day in UTC: whoever looks at it, from wherever, its runs add up to the same."""


@dataclass(frozen=True, slots=True)
class DayTotals:
    """What the runs of a pipeline that ended on a day come to."""

    tenant: UUID
    pipeline: UUID
    day: date
    totals: Totals

    @property
    def key(self) -> Day:
        """What it is the totals of."""
        return self.pipeline, self.day


def day_of(moment: datetime) -> date:
    """The day on which something is counted."""
    return moment.astimezone(UTC).date()


def by_day(ends: Iterable[RunEnd]) -> list[DayTotals]:
    """The totals of runs that have ended, one for each day of each pipeline, in the order of their keys."""
    found: dict[Day, list[RunEnd]] = {}
    for end in ends:
        found.setdefault((end.pipeline, day_of(end.finished_at)), []).append(end)
    return [DayTotals(found[key][0].tenant, *key, Totals.of(found[key])) for key in sorted(found)]


def added(days: Iterable[DayTotals], known: Mapping[Day, Totals]) -> list[DayTotals]:
    """Totals of days with what was known of these days before."""
    return [
        DayTotals(
            day.tenant, day.pipeline, day.day, known[day.key] + day.totals if day.key in known else day.totals
        )
        for day in days
    ]


def _finished(end: RunEnd) -> datetime:
    return end.finished_at


def _last(totals: Totals) -> tuple[bool, datetime]:
    return totals.last_at is not None, totals.last_at or datetime.min.replace(tzinfo=UTC)
