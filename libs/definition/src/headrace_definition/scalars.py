"""What a plain scalar means: the core schema of YAML 1.2.2, section 10.3.2.

`no`, `on` and `12:30:45` are strings, and `010` is ten; in YAML 1.1, which PyYAML follows, they are not.
"""

import math
import re

from headrace_definition.nodes import ScalarValue

MAX_INTEGER_DIGITS = 100

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
}
_INTEGER = re.compile(r"[-+]?[0-9]+", re.ASCII)
_OCTAL = re.compile(r"0o[0-7]+", re.ASCII)
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_INFINITY = re.compile(r"[-+]?\.(inf|Inf|INF)", re.ASCII)
_NAN = frozenset({".nan", ".NaN", ".NAN"})

# Only these can begin anything but a string; most scalars are settled by their first character.
_FIRST = frozenset("~nNtTfF-+.0123456789")


def resolve(text: str) -> ScalarValue:
    """The value of a plain scalar without a tag.

    Raises:
        ValueError: for a number that no system could hold.
    """
    if text and text[0] not in _FIRST:
        return text
    if text in _NULL:
        return None
    if (boolean := _BOOLEANS.get(text)) is not None:
        return boolean
    return _number(text)


def _number(text: str) -> ScalarValue:
    for pattern, base, skip in ((_INTEGER, 10, 0), (_OCTAL, 8, 2), (_HEXADECIMAL, 16, 2)):
        if pattern.fullmatch(text):
            if len(text) > MAX_INTEGER_DIGITS:
                raise ValueError(f"an integer of more than {MAX_INTEGER_DIGITS} digits")
            return int(text[skip:], base)
    if _FLOAT.fullmatch(text):
        value = float(text)
        if math.isinf(value):
            raise ValueError("a number beyond what a 64-bit float can hold")
        return value
    if _INFINITY.fullmatch(text):
        return -math.inf if text.startswith("-") else math.inf
    if text in _NAN:
        return math.nan
    return text
