"""What the runs of a pipeline come to over a period, with what they cost."""

from collections.abc import Sequence
from dataclasses import dataclass

from headrace_execution.domain.cost import Cost, Tariff, cost_of
from headrace_execution.domain.periods import Period
from headrace_execution.domain.rollups import DayTotals, Totals


@dataclass(frozen=True, slots=True)
class Report:
    """A period: its totals, and those of its days on which runs ended."""

    period: Period
    totals: Totals
    cost: Cost
    """The sum over its days, each at its own rates."""
    days: tuple["Report", ...] = ()
    """Reports of single days, oldest first."""


def report(period: Period, days: Sequence[DayTotals], tariff: Tariff) -> Report:
    """The report of a period, of days among which are all of its own."""
    found: list[Report] = []
    totals, cost = Totals(), Cost()
    for day in days:
        if period.first <= day.day <= period.last:
            priced = cost_of(day.totals.figures, tariff.on(day.day))
            found.append(Report(Period(day.day, day.day), day.totals, priced))
            totals += day.totals
            cost += priced
    return Report(period, totals, cost, tuple(found))
