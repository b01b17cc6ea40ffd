"""Numbers that Python's int and float cannot carry without loss."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import orjson

JSON_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")


@dataclass(frozen=True, slots=True)
class NumberText:
    """A JSON number by its text. Where a value is embedded as raw JSON, its digits stay as the caller wrote
    them."""

    text: str


def exact_number(text: str) -> float | int | NumberText:
    """Returns a JSON number as a value that is written again with the same meaning: as its text if need
    be."""
    if text.lstrip("-").isdigit():
        return int(text) if len(text) <= 18 else NumberText(text)
    return NumberText(text)


def dump_exact(value: object) -> bytes:
    """Returns a decoded JSON value as JSON text again."""
    return orjson.dumps(value, default=_fragment, option=orjson.OPT_PASSTHROUGH_DATACLASS)


def _fragment(value: object) -> orjson.Fragment:
    if isinstance(value, NumberText):
        return orjson.Fragment(value.text)
    raise TypeError(f"not a JSON value: {type(value).__name__}")
