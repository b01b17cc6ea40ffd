"""What is usual of the runs of a pipeline: how long they take, and how many rows they land.

Judged by the median of the latest runs and by how far runs usually are from it (the median absolute
deviation): one run that was quite different moves neither, as it would move a mean and its deviation.
A lasting change becomes what is usual once half of the runs that are remembered are like it.
"""

from dataclasses import dataclass
from statistics import median

REMEMBERED = 30
"""How many runs are remembered."""
LEAST = 10
"""How many are needed to judge another one."""
SPREADS = 4.0
"""How many times its usual distance from the median a value may be away from it."""
TO_DEVIATION = 1.4826
"""What makes a median absolute deviation of normally distributed values their standard deviation."""
SHARE = 0.5
"""A value that is away from the median by less than this part of it is never unusual."""
LEAST_MS = 10_000
"""Durations that differ by less than this are never unusual, in milliseconds."""
LEAST_ROWS = 10
"""Numbers of rows that differ by less than this are never unusual."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What is remembered of a completed run."""

    duration_ms: int
    rows: int


@dataclass(frozen=True, slots=True)
class Range:
    """What is usual, both ends included."""

    low: float
    middle: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Usual:
    """The runs of a pipeline that are remembered, the oldest first."""

    samples: tuple[Sample, ...] = ()

    def after(self, sample: Sample) -> "Usual":
        """With another run."""
        return Usual((*self.samples, sample)[-REMEMBERED:])

    @property
    def expected_ms(self) -> int | None:
        """How long another run will probably take, in milliseconds: as long as half of those that are
        remembered did at the most; None where none is."""
        return round(median(sample.duration_ms for sample in self.samples)) if self.samples else None

    @property
    def durations(self) -> Range | None:
        """How long runs usually take, in milliseconds; None where too few are known."""
        return _range([sample.duration_ms for sample in self.samples], LEAST_MS)

    @property
    def rows(self) -> Range | None:
        """How many rows they usually land; None where too few are known."""
        return _range([sample.rows for sample in self.samples], LEAST_ROWS)

    def unusual_duration(self, milliseconds: int) -> Range | None:
        """What is usual, where this is longer. A run that was quick is good news: that it did too little
        shows in its rows."""
        if milliseconds <= LEAST_MS:
            return None  # whatever is usual: most runs need no more than this comparison
        usual = self.durations
        return usual if usual is not None and milliseconds > usual.high else None

    def unusual_rows(self, rows: int) -> Range | None:
        """What is usual, where this is far more or less."""
        if all(abs(rows - sample.rows) <= LEAST_ROWS for sample in self.samples):
            return None
        usual = self.rows
        return usual if usual is not None and rows not in usual else None


def _range(values: list[int], least: int) -> Range | None:
    if len(values) < LEAST:
        return None
    middle = median(values)
    spread = median(abs(value - middle) for value in values) * TO_DEVIATION
    width = max(SPREADS * spread, SHARE * middle, least)
    return Range(middle - width, middle, middle + width)
