"""The rules of fields, compiled once per message type into closures; see docs/decisions/0003-field-rules.md.

A check walks a message and returns every problem with its place, as a path of JSON names. Bounds hold for a
value that is given; a scalar without presence is given when it is not its zero value. One rule needs no
declaration: no string may hold U+0000, since no text of PostgreSQL can (manual, 8.3).
"""

import difflib
import json
import re
import zoneinfo
from collections.abc import Callable, Iterator
from datetime import date
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from headrace.common.v1 import options_pb2

from headrace_chassis.errors import Problem

Check = Callable[[Any], list[Problem]]
"""Takes a message and returns its problems in the order of its fields; an empty list where it is good."""

_Walk = Callable[[Any, str, list[Problem]], None]
"""Takes a value, its path and the list to which problems are added."""

FormatCheck = Callable[[str], str | None]
"""Takes a string and returns what was expected where it does not fit."""

_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,4})?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def compile_check(
    descriptor: Descriptor, *, known_enums_only: bool = False, any_text: bool = False
) -> Check | None:
    """Returns the check of a message type; None where nothing in it has a rule.

    With `known_enums_only` an enum value that the contract does not name is a problem. Peers of ours may be
    newer than this code, so that is for input of users. With `any_text` strings may hold U+0000.
    """
    walk = _Compiler(known_enums_only, any_text).message(descriptor)
    if walk is None:
        return None

    def check(message: Message) -> list[Problem]:
        problems: list[Problem] = []
        walk(message, "", problems)
        return problems

    return check


class _Compiler:
    """Compiles message types, each once; a type that contains itself refers to its own walk."""

    def __init__(self, known_enums_only: bool, any_text: bool) -> None:
        self._known_enums_only = known_enums_only
        self._any_text = any_text
        self._walks: dict[str, _Walk | None] = {}
        self._open: set[str] = set()

    def message(self, descriptor: Descriptor) -> _Walk | None:
        name = descriptor.full_name
        if name in self._open:
            return lambda message, path, problems: self._later(name, message, path, problems)
        if name not in self._walks:
            self._open.add(name)
            self._walks[name] = self._compile(descriptor)
            self._open.discard(name)
        return self._walks[name]

    def _later(self, name: str, message: Any, path: str, problems: list[Problem]) -> None:
        walk = self._walks[name]
        if walk is not None:
            walk(message, path, problems)

    def _compile(self, descriptor: Descriptor) -> _Walk | None:
        walks = [walk for field in descriptor.fields if (walk := self._field(field)) is not None]
        if not walks:
            return None
        if len(walks) == 1:
            return walks[0]

        def walk_all(message: Any, path: str, problems: list[Problem]) -> None:
            for walk in walks:
                walk(message, path, problems)

        return walk_all

    def _field(self, field: FieldDescriptor) -> _Walk | None:
        rules = field.GetOptions().Extensions[options_pb2.field]
        if _is_map(field):
            return self._map(field, rules)
        value = self._value(field, rules)
        if field.is_repeated:
            return _repeated(field, rules, value)
        return _singular(field, rules, value)

    def _value(self, field: FieldDescriptor, rules: options_pb2.FieldRules) -> _Walk | None:
        """Returns the walk of one value of the field: of the field itself, or of an item of its list."""
        if field.message_type is not None:
            return self.message(field.message_type)
        if field.enum_type is not None:
            return _enum(field.enum_type) if self._known_enums_only else None
        if field.type == FieldDescriptor.TYPE_BYTES:
            return _all(list(_bytes(rules)))
        if field.type == FieldDescriptor.TYPE_STRING:
            always = [] if self._any_text else [_no_nul]
            return _all([*always, *_string(rules)])
        return _number(rules)

    def _map(self, field: FieldDescriptor, rules: options_pb2.FieldRules) -> _Walk | None:
        entry = field.message_type
        assert entry is not None  # noqa: S101 - that is what makes it a map
        is_key_text = entry.fields_by_name["key"].type == FieldDescriptor.TYPE_STRING
        key_walk = _no_nul if is_key_text and not self._any_text else None
        value = self._value(entry.fields_by_name["value"], rules)
        counted = _counted(rules)
        if value is None and counted is None and key_walk is None:
            return None
        name, json_name = field.name, field.json_name

        def walk(message: Any, path: str, problems: list[Problem]) -> None:
            entries = getattr(message, name)
            place = _join(path, json_name)
            if counted is not None:
                counted(entries, place, problems)
            for key in entries:
                if key_walk is not None:
                    key_walk(key, f"{place}.{key}", problems)
                if value is not None:
                    value(entries[key], f"{place}.{key}", problems)

        return walk


def _singular(field: FieldDescriptor, rules: options_pb2.FieldRules, value: _Walk | None) -> _Walk | None:
    if value is None and not rules.required:
        return None
    name, json_name, required = field.name, field.json_name, rules.required
    has_presence = field.has_presence
    is_message = field.message_type is not None

    def walk(message: Any, path: str, problems: list[Problem]) -> None:
        content = getattr(message, name)
        given = message.HasField(name) if has_presence else bool(content)
        if required and not (given and (is_message or content)):
            problems.append(Problem("REQUIRED", _join(path, json_name), "a value is required"))
        elif given and value is not None:
            value(content, _join(path, json_name), problems)

    return walk


def _repeated(field: FieldDescriptor, rules: options_pb2.FieldRules, value: _Walk | None) -> _Walk | None:
    counted = _counted(rules)
    if value is None and counted is None:
        return None
    name, json_name = field.name, field.json_name

    def walk(message: Any, path: str, problems: list[Problem]) -> None:
        items = getattr(message, name)
        place = _join(path, json_name)
        if counted is not None:
            counted(items, place, problems)
        if value is not None:
            for index, item in enumerate(items):
                value(item, f"{place}[{index}]", problems)

    return walk


def _counted(rules: options_pb2.FieldRules) -> _Walk | None:
    if not (rules.required or rules.HasField("max_items")):
        return None
    most = rules.max_items if rules.HasField("max_items") else None
    required = rules.required

    def walk(items: Any, path: str, problems: list[Problem]) -> None:
        count = len(items)
        if required and count == 0:
            problems.append(Problem("REQUIRED", path, "at least one item is required"))
        elif most is not None and count > most:
            problems.append(
                Problem("TOO_MANY_ITEMS", path, f"at most {most} items are allowed, {count} were given")
            )

    return walk


def _string(rules: options_pb2.FieldRules) -> Iterator[_Walk]:
    if rules.HasField("min_length") or rules.HasField("max_length"):
        yield _length(rules, "characters")
    if rules.pattern:
        yield _pattern(rules.pattern)
    if rules.format != options_pb2.FORMAT_UNSPECIFIED:
        yield _format(_FORMATS[rules.format])


def _bytes(rules: options_pb2.FieldRules) -> Iterator[_Walk]:
    if rules.HasField("min_length") or rules.HasField("max_length"):
        yield _length(rules, "bytes")
    if rules.json:
        yield _json


def _no_nul(value: str, path: str, problems: list[Problem]) -> None:
    if "\0" in value:
        problems.append(Problem("INVALID_CHARACTER", path, "the character U+0000 is not allowed"))


def _length(rules: options_pb2.FieldRules, unit: str) -> _Walk:
    least = rules.min_length if rules.HasField("min_length") else 0
    most = rules.max_length if rules.HasField("max_length") else None

    def walk(value: Any, path: str, problems: list[Problem]) -> None:
        length = len(value)
        if length < least:
            told = f"at least {least} {unit} are expected, {length} were given"
            problems.append(Problem("TOO_SHORT", path, told))
        elif most is not None and length > most:
            told = f"at most {most} {unit} are allowed, {length} were given"
            problems.append(Problem("TOO_LONG", path, told))

    return walk


def _pattern(pattern: str) -> _Walk:
    matches = re.compile(pattern).fullmatch

    def walk(value: str, path: str, problems: list[Problem]) -> None:
        if matches(value) is None:
            problems.append(Problem("INVALID_FORMAT", path, f"a text of the form {pattern} is expected"))

    return walk


def _format(fits: FormatCheck) -> _Walk:
    def walk(value: str, path: str, problems: list[Problem]) -> None:
        expected = fits(value)
        if expected is not None:
            problems.append(Problem("INVALID_FORMAT", path, expected))

    return walk


def _json(value: bytes, path: str, problems: list[Problem]) -> None:
    try:
        json.loads(value)
    except (ValueError, RecursionError):
        problems.append(Problem("INVALID_FORMAT", path, "JSON text in UTF-8 is expected"))


def _number(rules: options_pb2.FieldRules) -> _Walk | None:
    if not (rules.HasField("minimum") or rules.HasField("maximum")):
        return None
    least = rules.minimum if rules.HasField("minimum") else None
    most = rules.maximum if rules.HasField("maximum") else None

    def walk(value: float, path: str, problems: list[Problem]) -> None:
        # Written so that NaN, which compares as nothing, is refused.
        if least is not None and not value >= least:
            problems.append(Problem("TOO_SMALL", path, f"at least {least} is expected, got {value}"))
        elif most is not None and not value <= most:
            problems.append(Problem("TOO_LARGE", path, f"at most {most} is allowed, got {value}"))

    return walk


def _enum(descriptor: EnumDescriptor) -> _Walk:
    known = frozenset(descriptor.values_by_number)

    def walk(value: int, path: str, problems: list[Problem]) -> None:
        if value not in known:
            problems.append(Problem("INVALID_VALUE", path, f"{value} is no value of {descriptor.name}"))

    return walk


def _all(walks: list[_Walk]) -> _Walk | None:
    if len(walks) < 2:
        return walks[0] if walks else None

    def walk(value: Any, path: str, problems: list[Problem]) -> None:
        for one in walks:
            one(value, path, problems)

    return walk


def _uuid(text: str) -> str | None:
    return None if _UUID.fullmatch(text) else "a UUID is expected"


def _cron(text: str) -> str | None:
    # Only the shape: which fields are good is known to whoever runs schedules.
    return None if len(text.split()) == 5 else "a cron expression of five fields is expected"


def _timezone(text: str) -> str | None:
    try:
        zoneinfo.ZoneInfo(text)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        near = difflib.get_close_matches(text[:64].casefold(), _zones(), n=1)
        hint = f"; did you mean {_zones()[near[0]]}?" if near else ""
        return f"the name of an IANA time zone is expected, such as Europe/Warsaw{hint}"
    return None


@cache
def _zones() -> dict[str, str]:
    """The names of zones by how they are without regard to case."""
    return {name.casefold(): name for name in sorted(zoneinfo.available_timezones())}


def _date(text: str) -> str | None:
    try:
        if _DATE.fullmatch(text):
            date.fromisoformat(text)
            return None
    except ValueError:
        return "the date does not exist"
    return "a date is expected (YYYY-MM-DD)"


def _decimal(text: str) -> str | None:
    return None if _DECIMAL.fullmatch(text) else "a decimal number is expected, such as 14.50"


_FORMATS: dict["options_pb2.Format.ValueType", FormatCheck] = {
    options_pb2.FORMAT_UUID: _uuid,
    options_pb2.FORMAT_CRON: _cron,
    options_pb2.FORMAT_TIMEZONE: _timezone,
    options_pb2.FORMAT_DATE: _date,
    options_pb2.FORMAT_DECIMAL: _decimal,
}


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
