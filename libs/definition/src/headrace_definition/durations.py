"""Lengths of time as people write them: `5m`, `1h30m`, `PT5M`, or a whole number of seconds."""

import re
from datetime import timedelta

MAX_DURATION = timedelta(days=36_500)

_COMPACT = re.compile(r"(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?(?:(\d+)ms)?", re.ASCII)
_ISO = re.compile(
    r"P(?:(\d+)W)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)(?:\.(\d{1,6}))?S)?)?",
    re.ASCII | re.IGNORECASE,
)
_EXPECTED = "expected a duration such as 30s, 5m, 1h30m, 2d, PT5M or a whole number of seconds"


def parse_duration(value: str | int) -> timedelta:
    """The duration that `value` names; integers, and strings of digits, are seconds.

    Compact parts run from large to small (w, d, h, m, s, ms). Of ISO 8601, years and months are refused
    because their length is not fixed.

    Raises:
        ValueError: when it is none of these, negative, or longer than a hundred years.
    """
    if isinstance(value, bool):
        raise ValueError(_EXPECTED)
    if isinstance(value, int):
        return _bounded(seconds=value)
    text = value.strip()
    if text.isascii() and text.isdigit():
        return _bounded(seconds=_number(text))
    if text and (match := _COMPACT.fullmatch(text)):
        weeks, days, hours, minutes, seconds, millis = (_number(part) for part in match.groups(default="0"))
        return _bounded(
            weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds, milliseconds=millis
        )
    if (match := _ISO.fullmatch(text)) and any(match.groups()) and text[-1] not in "Tt":
        *whole, fraction = match.groups(default="0")
        weeks, days, hours, minutes, seconds = (_number(part) for part in whole)
        micros = int(fraction.ljust(6, "0"))
        return _bounded(
            weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds, microseconds=micros
        )
    raise ValueError(_EXPECTED)


def format_duration(value: timedelta) -> str:
    """The shortest compact spelling: `parse_duration(format_duration(d)) == d` for whole milliseconds.

    Smaller fractions, which only ISO 8601 can write, are written so.
    """
    total = value // timedelta(microseconds=1)
    if total == 0:
        return "0s"
    if total % 1000:
        return f"PT{total // 1_000_000}.{total % 1_000_000:06d}S"
    parts = []
    rest = total // 1000
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def _number(digits: str) -> int:
    if len(digits) > 18:
        raise ValueError("the duration is longer than a hundred years")
    return int(digits)


def _bounded(**parts: int) -> timedelta:
    try:
        duration = timedelta(**parts)
    except OverflowError:
        raise ValueError("the duration is longer than a hundred years") from None
    if duration < timedelta(0):
        raise ValueError("a duration cannot be negative")
    if duration > MAX_DURATION:
        raise ValueError("the duration is longer than a hundred years")
    return duration
