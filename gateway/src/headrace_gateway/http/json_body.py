"""JSON bodies: parsed fast, and refused where two readers could understand them differently.

orjson does the work. What it lets pass is checked behind it: duplicate keys (RFC 8259 section 4 leaves their
meaning open), nesting, and, where a value is kept as raw JSON, numbers that a float would round.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, NoReturn

import orjson

from headrace_gateway.codec.findings import shown
from headrace_gateway.codec.numbers import exact_number
from headrace_gateway.http.failures import malformed

MAX_DEPTH: Final = 100
"""The deepest nesting of objects and lists in a body."""

_STRING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_INEXACT: Final = re.compile(rb"[0-9][.eE]|[0-9]{18}")
_BOM: Final = b"\xef\xbb\xbf"


def parse_json(body: bytes, exact: bool) -> object:
    """Returns the value of a JSON text. With `exact`, numbers that a float would round are kept as
    NumberText.

    Raises MalformedBody with line and column, or with the key that stands twice.
    """
    body = body.removeprefix(_BOM)
    try:
        value: object = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        _explain(body, error)
    size = _members(value)
    if size > 0 and body.count(b":") != size and _STRING.sub(b"", body).count(b":") != size:
        return _reparse(body, exact)
    if exact and _INEXACT.search(body):
        return _reparse(body, exact)
    return value


def _members(value: object) -> int:
    """Returns how many members all objects of a value have. Raises MalformedBody where it is nested too
    deep."""
    count = 0
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH + 1):
        below: list[Any] = []
        for item in level:
            if type(item) is dict:
                count += len(item)
                below += [inner for inner in item.values() if type(inner) is dict or type(inner) is list]
            elif type(item) is list:
                below += [inner for inner in item if type(inner) is dict or type(inner) is list]
        if not below:
            return count
        level = below
    raise malformed(f"the body is nested deeper than {MAX_DEPTH} levels")


def _reparse(body: bytes, exact: bool) -> object:
    """Parses a text that orjson accepted once more, with the standard library, which is slower and tells
    more."""
    number = exact_number if exact else None
    return json.loads(body, object_pairs_hook=_unique, parse_float=number, parse_int=number)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise malformed(
                    f"the key {shown(key)} stands twice in the same object", code="DUPLICATE_KEY", path=key
                )
            seen.add(key)
    return value


def _explain(body: bytes, error: json.JSONDecodeError) -> NoReturn:
    try:
        body.decode("utf-8")
    except UnicodeDecodeError as bad:
        line = body.count(b"\n", 0, bad.start) + 1
        column = bad.start - body.rfind(b"\n", 0, bad.start)
        raise malformed(f"byte {bad.start} is not valid UTF-8", line=line, column=column) from None
    if "depth" in error.msg:
        raise malformed(f"the body is nested deeper than {MAX_DEPTH} levels") from None
    raise malformed(f"not valid JSON: {error.msg}", line=error.lineno, column=error.colno) from None
