"""Single values: the slow and precise side of the compiled decoders, and values from paths and query strings.

The compiled code handles a value of the expected JSON type by itself and calls here for anything else.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable, Mapping
from typing import Final

from google.protobuf.descriptor import FieldDescriptor

from .fields import FLOATS, INTEGER_BOUNDS, enum_of, enum_words
from .findings import Findings, shown
from .numbers import NumberText

_INTEGER: Final = re.compile(r"[-+]?[0-9]{1,20}")
_DECIMAL: Final = re.compile(r"[-+]?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,4})?")
_NON_FINITE: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_MAX_FLOAT: Final = 3.4028234663852886e38


def read_int(value: object, path: str, found: Findings, low: int, high: int) -> int | None:
    """Returns a whole number within bounds; 3.0 is one, "3" and true are not."""
    number: object = value
    if isinstance(value, NumberText):
        number = int(value.text) if _INTEGER.fullmatch(value.text) else float(value.text)
    if isinstance(number, float):
        if not number.is_integer():
            found.add(path, f"expected a whole number, got {number}", code="WRONG_TYPE")
            return None
        number = int(number)
    if type(number) is not int:
        found.wrong_type(path, "a whole number", value)
        return None
    if not low <= number <= high:
        found.add(path, f"expected a whole number from {low} to {high}", code="OUT_OF_RANGE")
        return None
    return number


def read_double(value: object, path: str, found: Findings) -> float | None:
    """Returns a floating-point number, or what one of protobuf's words for non-finite ones stands for."""
    if isinstance(value, NumberText):
        value = float(value.text)
    if type(value) is str and value in _NON_FINITE:
        return _NON_FINITE[value]
    if type(value) not in (int, float):
        found.wrong_type(path, "a number", value)
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except OverflowError:
        number = math.inf
    if math.isinf(number):
        found.add(path, "the number is too large", code="OUT_OF_RANGE")
        return None
    return number


def read_float(value: object, path: str, found: Findings) -> float | None:
    """Returns a number that fits single precision."""
    number = read_double(value, path, found)
    if number is not None and math.isfinite(number) and abs(number) > _MAX_FLOAT:
        found.add(path, "the number is too large", code="OUT_OF_RANGE")
        return None
    return number


def read_decimal(value: object, path: str, found: Findings) -> str | None:
    """Returns the digits of a number as they were written."""
    if isinstance(value, NumberText):
        return value.text
    if type(value) not in (int, float):
        found.wrong_type(path, "a number", value)
        return None
    return repr(value)


def read_bytes(value: object, path: str, found: Findings) -> bytes | None:
    """Returns bytes from their base64 text (RFC 4648, standard alphabet)."""
    if type(value) is not str:
        found.wrong_type(path, "a base64 string", value)
        return None
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        found.add(path, "expected base64 text")
        return None


def read_enum(value: object, path: str, found: Findings, words: Mapping[str, int]) -> int | None:
    """Returns the number of an enum's word, in any case."""
    if type(value) is not str:
        found.wrong_type(path, "one of " + ", ".join(words), value)
        return None
    number = words.get(value) if value in words else words.get(value.upper())
    if number is None:
        suggestion = found.nearest(value, words)
        hint = f"; did you mean {suggestion!r}?" if suggestion else ""
        message = f"expected one of {', '.join(words)}, got {shown(value)}{hint}"
        found.add(path, message, suggestion=suggestion)
    return number


def text_int(text: str, path: str, found: Findings, low: int, high: int) -> int | None:
    """Returns a whole number from its text in a path or query."""
    if not _INTEGER.fullmatch(text):
        found.add(path, f"expected a whole number, got {shown(text)}", code="WRONG_TYPE")
        return None
    number = int(text)
    if not low <= number <= high:
        found.add(path, f"expected a whole number from {low} to {high}", code="OUT_OF_RANGE")
        return None
    return number


def text_bool(text: str, path: str, found: Findings) -> bool | None:
    """Returns a boolean from its text in a path or query: true or false."""
    if text not in ("true", "false"):
        found.add(path, f"expected true or false, got {shown(text)}", code="WRONG_TYPE")
        return None
    return text == "true"


def text_double(text: str, path: str, found: Findings) -> float | None:
    """Returns a number from its text in a path or query."""
    if text not in _NON_FINITE and not _DECIMAL.fullmatch(text):
        found.add(path, f"expected a number, got {shown(text)}", code="WRONG_TYPE")
        return None
    return read_double(text if text in _NON_FINITE else float(text), path, found)


def text_reader(field: FieldDescriptor) -> Callable[[str, str, Findings], object | None]:
    """Returns what turns the text of a path segment or query parameter into a value of a scalar field."""
    if field.type == FieldDescriptor.TYPE_ENUM:
        words = enum_words(enum_of(field))
        return lambda text, path, found: read_enum(text, path, found, words)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return read_bytes
    if field.cpp_type in INTEGER_BOUNDS:
        low, high = INTEGER_BOUNDS[field.cpp_type]
        return lambda text, path, found: text_int(text, path, found, low, high)
    if field.cpp_type in FLOATS:
        return text_double
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return text_bool
    return lambda text, path, found: text
