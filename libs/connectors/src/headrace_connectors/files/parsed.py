"""Columns whose texts the CSV parser may turn into values itself, in the one pass in which it splits them.

It does so only where it would never say something else than the strict conversion of
:mod:`headrace_connectors.canonical`: then a file that goes through has the same values either way.  Where the
parser stops, or cannot be trusted, the file is read again as text: only such files pay for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headrace_connectors.canonical import FLOATS
from headrace_connectors.errors import data
from headrace_connectors.files.infer import WRONG_GUESS, wrong_guess
from headrace_connectors.model import Column

_PARSED = {
    "SMALLINT": "int16",
    "INTEGER": "int32",
    "BIGINT": "int64",
    "FLOAT": "float32",
    "DOUBLE": "float64",
    "DATE": "date32",
}
"""Not the timestamps: the parser takes an hour without minutes for a time, which the strict conversion
refuses."""


def parsed_types(columns: Sequence[Column], declared: Mapping[str, str]) -> dict[int, str]:
    """The parser's types of those declared columns that it may read, by position."""
    return {
        index: _PARSED[column.type]
        for index, column in enumerate(columns)
        if column.name in declared and column.type in _PARSED
    }


def passed_on(index: int, kind: str) -> str:
    """SQL for a value that the parser has read: it takes a number too large for a float as infinite, and so
    an infinite one may have been written so or not."""
    if kind in FLOATS:
        return f"CASE WHEN isinf(c{index}) THEN {wrong_guess()} ELSE c{index} END"
    return f"c{index}"


def refusal(error: Exception) -> Exception:
    """What an error of the parser means: where it refuses a value, that the file must be read as text."""
    if "CSV conversion error" not in str(error) or "invalid UTF8" in str(error):
        return error
    return data(WRONG_GUESS, "a value that only the strict conversion can judge")
