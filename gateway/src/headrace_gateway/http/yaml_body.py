"""YAML bodies: one document with YAML 1.2's core types, under budgets that hold before anything is expanded.

The tree is built from the parser's events with a stack of our own, so that neither nesting nor aliases can
cost more than the budgets say. Values have the types that JSON has, so that a message reads the same from
both.
"""

from __future__ import annotations

import re
from typing import Any, Final

import yaml
from headrace_chassis.errors import HeadraceError

from headrace_gateway.codec.findings import shown
from headrace_gateway.codec.numbers import JSON_NUMBER, exact_number
from headrace_gateway.http.failures import malformed
from headrace_gateway.http.json_body import MAX_DEPTH

MAX_NODES: Final = 20_000
"""The most values that a body may have once its aliases are expanded."""

_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE: Final = frozenset({"true", "True", "TRUE"})
_FALSE: Final = frozenset({"false", "False", "FALSE"})
_INTEGER: Final = re.compile(r"[-+]?[0-9]+")
_OCTAL: Final = re.compile(r"0o[0-7]+")
_HEX: Final = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_TAG: Final = "tag:yaml.org,2002:"


def parse_yaml(body: bytes) -> object:
    """Returns the value of a YAML text. Raises MalformedBody with line and column."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as bad:
        raise malformed(f"byte {bad.start} is not valid UTF-8") from None
    builder = _TreeBuilder()
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = (mark.line + 1, mark.column + 1) if mark else (None, None)
        raise malformed(f"not valid YAML: {error.problem}", line=place[0], column=place[1]) from None
    except yaml.YAMLError as error:
        raise malformed(f"not valid YAML: {str(error).splitlines()[0]}") from None
    return builder.result


class _Open:
    """A collection whose end has not come yet."""

    __slots__ = ("anchor", "key", "size", "value", "waits_for_key")

    def __init__(self, value: dict[str, object] | list[object], anchor: str | None) -> None:
        self.value = value
        self.anchor = anchor
        self.size = 1
        self.key = ""
        self.waits_for_key = type(value) is dict


class _TreeBuilder:
    """Builds the value from events."""

    def __init__(self) -> None:
        self.result: object = None
        self._documents = 0
        self._stack: list[_Open] = []
        self._anchors: dict[str, tuple[object, int]] = {}
        self._nodes = 0

    def take(self, event: Any) -> None:
        match event:
            case yaml.ScalarEvent():
                self._count(1, event)
                self._put(_scalar(event), 1, event, event.anchor)
            case yaml.MappingStartEvent():
                self._open({}, event)
            case yaml.SequenceStartEvent():
                self._open([], event)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                done = self._stack.pop()
                self._put(done.value, done.size, event, done.anchor)
            case yaml.AliasEvent():
                if event.anchor not in self._anchors:
                    raise _at(
                        event,
                        f"the alias {shown(str(event.anchor))} stands for nothing that is complete here",
                    )
                value, size = self._anchors[event.anchor]
                self._count(size, event)
                self._put(value, size, event, None)
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    raise _at(event, "expected one document, got several")

    def _count(self, nodes: int, event: Any) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            raise _at(event, f"the body has more than {MAX_NODES} values once its aliases are expanded")

    def _open(self, value: dict[str, object] | list[object], event: Any) -> None:
        self._count(1, event)
        if self._stack and self._stack[-1].waits_for_key:
            raise _at(event, "a key must be a plain value")
        if len(self._stack) >= MAX_DEPTH:
            raise _at(event, f"the body is nested deeper than {MAX_DEPTH} levels")
        if event.tag not in (None, "!", f"{_TAG}map", f"{_TAG}seq"):
            raise _at(event, f"the tag {shown(event.tag)} is not understood")
        self._stack.append(_Open(value, event.anchor))

    def _put(self, value: object, size: int, event: Any, anchor: str | None) -> None:
        """Puts a complete value where it belongs."""
        if anchor is not None:
            self._anchors[anchor] = (value, size)
        if not self._stack:
            self.result = value
            return
        top = self._stack[-1]
        top.size += size
        if isinstance(top.value, list):
            top.value.append(value)
        elif top.waits_for_key:
            top.key = _key(value, event)
            if top.key in top.value:
                raise _at(
                    event, f"the key {shown(top.key)} stands twice in the same mapping", code="DUPLICATE_KEY"
                )
            top.waits_for_key = False
        else:
            top.value[top.key] = value
            top.waits_for_key = True


def _key(value: object, event: Any) -> str:
    if isinstance(value, dict | list):
        raise _at(event, "a key must be a plain value")
    # A key such as 1 or true is the text it was written with, as it would have to be in JSON.
    return value if isinstance(value, str) else str(getattr(event, "value", value))


def _scalar(event: Any) -> object:
    text: str = event.value
    tag: str | None = event.tag
    if tag is None and event.implicit[0]:
        return _plain(text)
    if tag in (None, "!", f"{_TAG}str"):
        return text
    if tag not in (f"{_TAG}int", f"{_TAG}float", f"{_TAG}bool", f"{_TAG}null"):
        raise _at(event, f"the tag {shown(tag or '')} is not understood")
    value = _plain(text)
    if isinstance(value, str):
        raise _at(event, f"{shown(text)} is no {(tag or '').removeprefix(_TAG)}")
    return value


def _plain(text: str) -> object:
    """Returns what a plain scalar means in the core schema (YAML 1.2.2, 10.3.2)."""
    if text in _NULL:
        return None
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    first = text[0]
    if not (first.isdigit() or first in "-+."):
        return text
    if JSON_NUMBER.fullmatch(text):
        return exact_number(text)
    if _OCTAL.fullmatch(text):
        return int(text[2:], 8)
    if _HEX.fullmatch(text):
        return int(text[2:], 16)
    if _INTEGER.fullmatch(text):
        return exact_number(text.lstrip("+-").lstrip("0") or "0") if first != "-" else _negative(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def _negative(text: str) -> object:
    return exact_number("-" + (text.lstrip("-").lstrip("0") or "0"))


def _at(event: Any, message: str, code: str = "MALFORMED_BODY") -> HeadraceError:
    mark = event.start_mark
    return malformed(message, line=mark.line + 1, column=mark.column + 1, code=code)
