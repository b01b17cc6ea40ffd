"""The well-known types of protobuf in their JSON forms: instants, durations, free JSON, wrappers and field
masks."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from google.protobuf.descriptor import Descriptor

from .findings import Findings
from .numbers import NumberText

_INSTANT: Final = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.(\d{1,9})\d*)?(?:[Zz]|[-+]\d\d:[0-5]\d)", re.ASCII
)
_DURATION: Final = re.compile(r"(-?)(\d{1,12})(?:\.(\d{1,9}))?s", re.ASCII)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_DURATION_SECONDS: Final = 315_576_000_000
"""The longest Duration, as its definition says: about 10,000 years."""

TIMESTAMP: Final = "google.protobuf.Timestamp"


def write_timestamp(value: Any) -> datetime:
    """Returns an instant as a datetime in UTC, which the JSON writer spells as RFC 3339 with "Z"."""
    moment = datetime.fromtimestamp(value.seconds, UTC)
    nanos = value.nanos
    return moment.replace(microsecond=nanos // 1000) if nanos else moment


def read_timestamp(value: object, target: Any, path: str, found: Findings) -> None:
    """Reads an RFC 3339 instant with any offset into a Timestamp."""
    if type(value) is not str:
        found.wrong_type(path, "an RFC 3339 instant", value)
        return
    match = _INSTANT.fullmatch(value)
    if match is None:
        found.add(path, 'expected an RFC 3339 instant with an offset, for example "2025-12-15T14:30:00Z"')
        return
    try:
        since = datetime.fromisoformat(value.upper()) - _EPOCH
    except ValueError:
        found.add(path, "there is no such instant")
        return
    target.seconds = since.days * 86_400 + since.seconds
    fraction = match[1]
    target.nanos = int(fraction.ljust(9, "0")) if fraction else 0
    target.SetInParent()


def write_duration(value: Any) -> str:
    """Returns a duration in seconds, as protobuf's JSON mapping spells it: "3.5s"."""
    seconds, nanos = abs(value.seconds), abs(value.nanos)
    sign = "-" if value.seconds < 0 or value.nanos < 0 else ""
    fraction = f".{nanos:09d}".rstrip("0") if nanos else ""
    return f"{sign}{seconds}{fraction}s"


def read_duration(value: object, target: Any, path: str, found: Findings) -> None:
    """Reads seconds with an "s" behind them into a Duration."""
    if type(value) is not str:
        found.wrong_type(path, 'a duration such as "3.5s"', value)
        return
    match = _DURATION.fullmatch(value)
    if match is None or int(match[2]) > _MAX_DURATION_SECONDS:
        found.add(path, 'expected a duration in seconds, for example "3.5s"')
        return
    sign = -1 if match[1] else 1
    target.seconds = sign * int(match[2])
    target.nanos = sign * int(match[3].ljust(9, "0")) if match[3] else 0
    target.SetInParent()


def write_double(value: float) -> float | str:
    """Returns a number, or the word that protobuf's JSON mapping has for what JSON cannot write."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


def write_value(value: Any) -> object:
    """Returns a google.protobuf.Value as the JSON value it stands for."""
    kind = value.WhichOneof("kind")
    match kind:
        case "struct_value":
            return write_struct(value.struct_value)
        case "list_value":
            return write_list_value(value.list_value)
        case "number_value":
            number = write_double(value.number_value)
            return int(number) if isinstance(number, float) and number.is_integer() else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
    return None


def write_struct(value: Any) -> dict[str, object]:
    """Returns a google.protobuf.Struct as an object."""
    return {name: write_value(item) for name, item in sorted(value.fields.items())}


def write_list_value(value: Any) -> list[object]:
    """Returns a google.protobuf.ListValue as a list."""
    return [write_value(item) for item in value.values]


def read_value(value: object, target: Any, path: str, found: Findings) -> None:
    """Reads any JSON value into a google.protobuf.Value."""
    match value:
        case None:
            target.null_value = 0
        case bool():
            target.bool_value = value
        case int() | float():
            target.number_value = float(value)
        case NumberText():
            target.number_value = float(value.text)
        case str():
            target.string_value = value
        case dict():
            target.struct_value.SetInParent()
            read_struct(value, target.struct_value, path, found)
        case list():
            target.list_value.SetInParent()
            read_list_value(value, target.list_value, path, found)


def read_struct(value: object, target: Any, path: str, found: Findings) -> None:
    """Reads an object into a google.protobuf.Struct."""
    if type(value) is not dict:
        found.wrong_type(path, "an object", value)
        return
    target.SetInParent()
    for name, item in value.items():
        read_value(item, target.fields[name], path, found)


def read_list_value(value: object, target: Any, path: str, found: Findings) -> None:
    """Reads a list into a google.protobuf.ListValue."""
    if type(value) is not list:
        found.wrong_type(path, "a list", value)
        return
    target.SetInParent()
    for item in value:
        read_value(item, target.values.add(), path, found)


def write_empty(value: Any) -> dict[str, object]:
    """Returns google.protobuf.Empty: an object without members."""
    return {}


def read_empty(value: object, target: Any, path: str, found: Findings) -> None:
    """Reads an object without members."""
    if type(value) is not dict:
        found.wrong_type(path, "an object", value)
        return
    for name in value:
        found.unknown_name(path or name, "field", name, ())
    target.SetInParent()


def write_field_mask(value: Any) -> str:
    """Returns a field mask as protobuf's JSON mapping spells it: lower camel case paths with commas."""
    return str(value.ToJsonString())


def read_field_mask(value: object, target: Any, path: str, found: Findings) -> None:
    """Reads lower camel case paths with commas into a FieldMask."""
    if type(value) is not str:
        found.wrong_type(path, "a string of field paths", value)
        return
    try:
        target.FromJsonString(value)
    except ValueError:
        found.add(path, "expected field paths in lower camel case with commas between them")
    target.SetInParent()


WRITERS: Final[dict[str, Callable[[Any], object]]] = {
    TIMESTAMP: write_timestamp,
    "google.protobuf.Duration": write_duration,
    "google.protobuf.Struct": write_struct,
    "google.protobuf.Value": write_value,
    "google.protobuf.ListValue": write_list_value,
    "google.protobuf.Empty": write_empty,
    "google.protobuf.FieldMask": write_field_mask,
}
READERS: Final[dict[str, Callable[[object, Any, str, Findings], None]]] = {
    TIMESTAMP: read_timestamp,
    "google.protobuf.Duration": read_duration,
    "google.protobuf.Struct": read_struct,
    "google.protobuf.Value": read_value,
    "google.protobuf.ListValue": read_list_value,
    "google.protobuf.Empty": read_empty,
    "google.protobuf.FieldMask": read_field_mask,
}

_WRAPPERS: Final = frozenset(
    f"google.protobuf.{name}Value"
    for name in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
)


def is_wrapper(descriptor: Descriptor) -> bool:
    """Tells whether a type wraps one scalar and is written as that scalar."""
    return descriptor.full_name in _WRAPPERS


class UnsupportedTypeError(Exception):
    """A contract uses a type that has no JSON form here."""

    def __init__(self, descriptor: Descriptor) -> None:
        super().__init__(
            f"{descriptor.full_name} has no JSON form in the gateway; use a message of its own instead"
        )


def refuse_unsupported(descriptor: Descriptor) -> None:
    """Raises UnsupportedTypeError for google.protobuf.Any, whose JSON form depends on types that nobody
    declared."""
    if descriptor.full_name == "google.protobuf.Any":
        raise UnsupportedTypeError(descriptor)
