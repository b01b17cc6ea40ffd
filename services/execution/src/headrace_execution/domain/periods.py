"""Periods that somebody asks about: days in UTC, and the same number of days before."""

import re
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from enum import StrEnum

LONGEST_DAYS = 366
EARLIEST = date(2000, 1, 1)
STABLE_SHARE = Decimal("0.1")
"""By which share of what it was a figure may change and still be called stable."""

_LENGTH = re.compile(r"[1-9][0-9]{0,3}[dw]")
_DAYS = {"d": 1, "w": 7}


class BadPeriod(ValueError):  # noqa: N818 - it names a fact
    """A period that is none: `place` is the word of the request that is at fault, `code` says in what way."""

    def __init__(self, place: str, message: str, code: str = "OUT_OF_RANGE") -> None:
        super().__init__(message)
        self.code = code
        self.place = place
        self.message = message


class Trend(StrEnum):
    """Where a figure goes."""

    STABLE = "STABLE"
    INCREASING = "INCREASING"
    DECREASING = "DECREASING"


@dataclass(frozen=True, slots=True)
class Period:
    """The days from the first to the last, both of them included."""

    first: date
    last: date

    @property
    def days(self) -> int:
        """How many there are."""
        return (self.last - self.first).days + 1

    @property
    def before(self) -> "Period":
        """As many days, right before."""
        return Period(self.first - timedelta(days=self.days), self.first - timedelta(days=1))

    def __str__(self) -> str:
        return f"{self.days}d"


def period_of(length: str, first: str, last: str, *, usual: str, today: date) -> Period:
    """The period that a request means: by its length up to the last day, or from the first one on. What it
    leaves out is empty; days that are given are dates.

    Raises:
        BadPeriod: where it gives both a length and a first day, ends before it begins, or is too long.
    """
    end = _day("to", last) if last else today
    if not first:
        count = _days(length or usual)
        _check_length("period", count)
        return Period(end - timedelta(days=count - 1), end)
    if length:
        raise BadPeriod("period", "only one of period, from may be given", "SEVERAL_GIVEN")
    period = Period(_day("from", first), end)
    if period.days < 1:
        raise BadPeriod("from", f"a day up to {end} is expected, on which the period ends")
    _check_length("from", period.days)
    return period


def _days(length: str) -> int:
    if _LENGTH.fullmatch(length) is None:
        message = "a number of days or weeks is expected, such as 7d or 4w"
        raise BadPeriod("period", message, "INVALID_FORMAT")
    return int(length[:-1]) * _DAYS[length[-1]]


def _day(place: str, text: str) -> date:
    day = date.fromisoformat(text)
    if day < EARLIEST:
        raise BadPeriod(place, f"a day from {EARLIEST} on is expected")
    return day


def _check_length(place: str, days: int) -> None:
    if days > LONGEST_DAYS:
        raise BadPeriod(place, f"at most {LONGEST_DAYS} days are allowed, {days} were asked for")


def trend(now: float | Decimal | None, before: float | Decimal | None) -> Trend | None:
    """Where a figure goes against what it was; None where there is nothing to compare."""
    if now is None or before is None:
        return None
    change = Decimal(now) - Decimal(before)
    if abs(change) <= abs(Decimal(before)) * STABLE_SHARE:
        return Trend.STABLE
    return Trend.INCREASING if change > 0 else Trend.DECREASING
