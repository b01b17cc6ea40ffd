"""What the runs of a pipeline come to, day by day: totals to which each run is added once, when it has
ended."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import TypeAlias
from uuid import UUID

from headrace_execution.domain.durations import Durations
from headrace_execution.domain.figures import Figures
from headrace_execution.domain.states import RunState


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
    def of(cls, end: RunEnd) -> "Totals":
        """One run."""
        return cls(
            completed=int(end.state is RunState.COMPLETED),
            failed=int(end.state is RunState.FAILED),
            cancelled=int(end.state is RunState.CANCELLED),
            warned=int(end.state is RunState.COMPLETED and end.warning_count > 0),
            durations=_duration(end),
            figures=end.figures,
            last_state=end.state,
            last_at=end.finished_at,
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
    found: dict[Day, DayTotals] = {}
    for end in ends:
        key = (end.pipeline, day_of(end.finished_at))
        before = found[key].totals if key in found else Totals()
        found[key] = DayTotals(end.tenant, *key, before + Totals.of(end))
    return [found[key] for key in sorted(found)]


def added(days: Iterable[DayTotals], known: Mapping[Day, Totals]) -> list[DayTotals]:
    """Totals of days with what was known of these days before."""
    return [
        DayTotals(
            day.tenant, day.pipeline, day.day, known[day.key] + day.totals if day.key in known else day.totals
        )
        for day in days
    ]


def _duration(end: RunEnd) -> Durations:
    if end.started_at is None:
        return Durations()
    return Durations.of(max(round((end.finished_at - end.started_at).total_seconds() * 1000), 0))


def _last(totals: Totals) -> tuple[bool, datetime]:
    return totals.last_at is not None, totals.last_at or datetime.min.replace(tzinfo=UTC)
