"""Holidays and weekends by country."""

from datetime import date

import pytest
from headrace_timetable.calendars import Calendar, Exclusion, Reason
from headrace_timetable.public_holidays import check_place, country_of


@pytest.mark.parametrize(
    ("zone", "country"),
    [
        ("Europe/Warsaw", "PL"),
        ("America/New_York", "US"),
        ("US/Eastern", "US"),
        ("Asia/Calcutta", "IN"),
        ("Europe/Oslo", "NO"),
        ("UTC", None),
        ("Etc/GMT+3", None),
    ],
)
def test_the_zone_tells_the_country(zone: str, country: str | None) -> None:
    assert country_of(zone) == country


@pytest.mark.parametrize(
    ("calendar", "day", "expected"),
    [
        (Calendar(skip_holidays=True, country="PL"), date(2025, 11, 11), Reason.HOLIDAY),
        (Calendar(skip_holidays=True, country="PL"), date(2025, 11, 8), None),
        (Calendar(skip_holidays=True, country="DE", subdivision="BY"), date(2025, 1, 6), Reason.HOLIDAY),
        (Calendar(skip_holidays=True, country="DE", subdivision="BE"), date(2025, 1, 6), None),
        (Calendar(business_days_only=True), date(2025, 11, 8), Reason.NON_BUSINESS_DAY),
        (Calendar(business_days_only=True, country="PL"), date(2025, 11, 11), None),
        # The weekend of Saudi Arabia is Friday and Saturday; China works some Sundays.
        (Calendar(business_days_only=True, country="SA"), date(2025, 11, 7), Reason.NON_BUSINESS_DAY),
        (Calendar(business_days_only=True, country="SA"), date(2025, 11, 9), None),
        (Calendar(business_days_only=True, country="CN"), date(2025, 1, 26), None),
        (Calendar(country="PL", own_holidays=frozenset({date(2025, 5, 5)})), date(2025, 5, 5), None),
    ],
)
def test_days_are_left_out(calendar: Calendar, day: date, expected: Reason | None) -> None:
    found = calendar.exclusion(day)
    assert (found.reason if found else None) is expected


def test_the_reason_names_the_day() -> None:
    holidays = Calendar(skip_holidays=True, country="US", own_holidays=frozenset({date(2025, 5, 5)}))
    assert holidays.exclusion(date(2025, 12, 25)) == Exclusion(Reason.HOLIDAY, "Christmas Day")
    assert holidays.exclusion(date(2025, 5, 5)) == Exclusion(Reason.HOLIDAY, "holiday of the workspace")
    weekends = Calendar(business_days_only=True)
    assert weekends.exclusion(date(2025, 11, 9)) == Exclusion(Reason.NON_BUSINESS_DAY, "Sunday")


def test_holidays_without_a_country_need_dates_of_ones_own() -> None:
    with pytest.raises(ValueError, match="country is needed"):
        Calendar(skip_holidays=True)
    own = Calendar(skip_holidays=True, own_holidays=frozenset({date(2025, 5, 5)}))
    assert own.exclusion(date(2025, 12, 25)) is None


@pytest.mark.parametrize(
    ("country", "subdivision", "message"),
    [
        ("XX", None, "'XX' are not known"),
        ("DE", "BX", "not a subdivision of DE .*BY"),
        ("SE", "AB", "do not differ by subdivision"),
    ],
)
def test_unknown_places_are_refused(country: str, subdivision: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_place(country, subdivision)
