"""Names of time zones."""

from difflib import get_close_matches
from functools import cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones


def check_timezone(name: str) -> ZoneInfo:
    """The zone of the tz database that the name is.

    Raises:
        ValueError: when it is none, with the nearest name where there is one.
    """
    # The name becomes a path inside the database, so what it is not in is never opened.
    if name not in _names():
        near = get_close_matches(name[:64], sorted(_names()), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{name[:64]!r} is not a time zone of the tz database, such as Europe/Warsaw{hint}")
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, OSError) as error:
        raise ValueError(f"the time zone {name!r} cannot be read: {error}") from error


_NO_PLACE: Final = frozenset({"Factory", "localtime"})
"""What a database on disk may hold beside zones: the setting of one machine, and what stands for none."""


@cache
def _names() -> frozenset[str]:
    # Walks the whole database on disk: once is enough for a process.
    return frozenset(available_timezones()) - _NO_PLACE
