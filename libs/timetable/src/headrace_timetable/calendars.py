"""Days on which nothing runs."""

from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from headrace_timetable import public_holidays

_SATURDAY_AND_SUNDAY = frozenset({5, 6})


class Reason(StrEnum):
    """Why a tick starts no run."""

    NON_BUSINESS_DAY = "NON_BUSINESS_DAY"
    """It falls on a weekend, as the country has it."""
    HOLIDAY = "HOLIDAY"
    """It falls on a public holiday, or on one of the workspace's own."""
    MAINTENANCE_WINDOW = "MAINTENANCE_WINDOW"
    """It fell into maintenance, and the catch-up strategy did not choose it afterwards."""
    CATCH_UP = "CATCH_UP"
    """It was missed, and the catch-up strategy did not choose it."""


@dataclass(frozen=True, slots=True)
class Exclusion:
    """Why a day is left out."""

    reason: Reason
    detail: str
    """The weekday, or the name of the holiday."""


@dataclass(frozen=True, slots=True)
class Calendar:
    """Which days count. The two rules are independent: a business day may be a holiday.

    Raises ValueError where holidays are to be skipped and none are known: no country, no dates of one's own.
    """

    business_days_only: bool = False
    skip_holidays: bool = False
    country: str | None = None
    """ISO 3166-1 alpha-2; without one, Saturday and Sunday are the weekend."""
    subdivision: str | None = None
    """ISO 3166-2 without the country, where holidays differ within it."""
    own_holidays: frozenset[date] = frozenset()
    """Holidays besides those of the country."""

    def __post_init__(self) -> None:
        if self.country is not None:
            public_holidays.check_place(self.country, self.subdivision)
        elif self.subdivision is not None:
            raise ValueError("a subdivision needs its country")
        if self.skip_holidays and self.country is None and not self.own_holidays:
            raise ValueError(
                "to skip holidays, a country is needed: the zone is of none whose holidays are known"
            )

    @property
    def excludes_some(self) -> bool:
        """Whether any day may be left out."""
        return self.business_days_only or self.skip_holidays

    def exclusion(self, day: date) -> Exclusion | None:
        """Why a day (of the schedule's zone) is left out; None where it counts."""
        if self.business_days_only and not self._is_business_day(day):
            return Exclusion(Reason.NON_BUSINESS_DAY, day.strftime("%A"))
        if self.skip_holidays and (name := self._holiday(day)) is not None:
            return Exclusion(Reason.HOLIDAY, name)
        return None

    def _is_business_day(self, day: date) -> bool:
        if self.country is None:
            return day.weekday() not in _SATURDAY_AND_SUNDAY
        year = public_holidays.year_of(self.country, self.subdivision, day.year)
        return day.weekday() not in year.weekend or day in year.worked_weekend

    def _holiday(self, day: date) -> str | None:
        if day in self.own_holidays:
            return "holiday of the workspace"
        if self.country is None:
            return None
        return public_holidays.year_of(self.country, self.subdivision, day.year).names.get(day)
