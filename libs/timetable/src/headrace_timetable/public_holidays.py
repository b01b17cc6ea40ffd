"""Public holidays and weekends by country, from the package `holidays`, and the country of a time zone.

Apart from the rest, since the package takes a third of a second to import.
"""

from dataclasses import dataclass
from datetime import date
from difflib import get_close_matches
from functools import cache, lru_cache
from importlib.resources import files

import holidays


@dataclass(frozen=True, slots=True)
class Year:
    """A year of a country, or of a subdivision of it."""

    names: dict[date, str]
    """Its public holidays, named in English where the package knows English names."""
    weekend: frozenset[int]
    """The days of its weekend; 0 is Monday."""
    worked_weekend: frozenset[date]
    """Days of a weekend that are worked in exchange for others."""


@lru_cache(maxsize=4096)
def year_of(country: str, subdivision: str | None, year: int) -> Year:
    """What is known of a year. Raises ValueError for a place that the package does not know."""
    check_place(country, subdivision)
    known = holidays.country_holidays(country, subdiv=subdivision, years=year, expand=False, language="en_US")
    return Year(
        {day: name for day, name in known.items() if day.year == year},
        frozenset(known.weekend),
        frozenset(day for day in known.weekend_workdays if day.year == year),
    )


def check_place(country: str, subdivision: str | None) -> None:
    """Demands a country (ISO 3166-1 alpha-2) and subdivision (ISO 3166-2, without the country) whose
    holidays are known.

    Raises:
        ValueError: naming the nearest that is known.
    """
    known = _places()
    if country not in known:
        raise ValueError(
            f"holidays of the country {country[:20]!r} are not known; give an ISO 3166-1 code, such as PL"
        )
    if subdivision is not None and subdivision not in known[country]:
        if not known[country]:
            raise ValueError(f"holidays of {country} do not differ by subdivision")
        near = get_close_matches(subdivision[:20], known[country], n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        some = ", ".join(known[country][:20])
        raise ValueError(f"{subdivision[:20]!r} is not a subdivision of {country} ({some}){hint}")


def country_of(zone_name: str) -> str | None:
    """The country (ISO 3166-1 alpha-2) that a zone of the tz database is for, None for UTC and the like, and
    for a country whose holidays are not known."""
    country = _countries().get(_links().get(zone_name, zone_name)) or _countries().get(zone_name)
    return country if country in _places() else None


@cache
def _places() -> dict[str, list[str]]:
    return holidays.list_supported_countries(include_aliases=True)


@cache
def _countries() -> dict[str, str]:
    """Countries by zone, from the table of the tz database that has one country a zone."""
    lines = _database_file("zone.tab")
    rows = [line.split("\t") for line in lines if line and not line.startswith("#")]
    return {row[2]: row[0] for row in rows}


@cache
def _links() -> dict[str, str]:
    """The zones that old names of zones stand for."""
    found: dict[str, str] = {}
    for line in _database_file("tzdata.zi"):
        if line.startswith("L "):
            _, target, name = line.split(" ")
            # `zone.tab` names many zones that are links themselves; those need no other name.
            if name not in _countries():
                found[name] = target
    return found


def _database_file(name: str) -> list[str]:
    return files("tzdata.zoneinfo").joinpath(name).read_text(encoding="utf-8").splitlines()
