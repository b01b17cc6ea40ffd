"""What the codecs, the routes and the OpenAPI document ask of a field: its JSON name, its rules, its enum's
words."""

from __future__ import annotations

import functools
import keyword
from typing import Final

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from headrace.common.v1 import options_pb2

INTEGER_BOUNDS: Final[dict[int, tuple[int, int]]] = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
FLOATS: Final = frozenset({FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE})


@functools.cache
def rules(field: FieldDescriptor) -> options_pb2.FieldRules:
    """Returns what the contract says of a field beyond its type; the empty rules where it says nothing."""
    return field.GetOptions().Extensions[options_pb2.field]


def is_decimal(field: FieldDescriptor) -> bool:
    """Tells whether a field holds the digits of a decimal number, which JSON has as a number."""
    return rules(field).format == options_pb2.FORMAT_DECIMAL


def is_json_text(field: FieldDescriptor) -> bool:
    """Tells whether a field's value stands in JSON as it is: raw JSON, and the digits of a decimal."""
    return rules(field).json or is_decimal(field)


def message_of(field: FieldDescriptor) -> Descriptor:
    """Returns the type of a field that holds messages. Raises TypeError for another field."""
    if field.message_type is None:
        raise TypeError(f"{field.full_name} holds no messages")
    return field.message_type


def enum_of(field: FieldDescriptor) -> EnumDescriptor:
    """Returns the enum of a field that holds its values. Raises TypeError for another field."""
    if field.enum_type is None:
        raise TypeError(f"{field.full_name} holds no enum")
    return field.enum_type


def is_map(field: FieldDescriptor) -> bool:
    """Tells whether a field is a map."""
    return (
        field.message_type is not None
        and field.is_repeated
        and bool(field.message_type.GetOptions().map_entry)
    )


def map_value(field: FieldDescriptor) -> FieldDescriptor:
    """Returns the field that stands for the values of a map."""
    return message_of(field).fields_by_name["value"]


def map_key(field: FieldDescriptor) -> FieldDescriptor:
    """Returns the field that stands for the keys of a map."""
    return message_of(field).fields_by_name["key"]


def settable(descriptor: Descriptor, bound: frozenset[str] = frozenset()) -> list[FieldDescriptor]:
    """Returns the fields that a caller may give: neither set by the server or gateway, nor bound by the
    path."""
    return [
        field
        for field in descriptor.fields
        if not rules(field).internal and not rules(field).cleared_fields and field.name not in bound
    ]


def returned(descriptor: Descriptor) -> list[FieldDescriptor]:
    """Returns the fields that an answer shows: all but secrets, which are given and never returned."""
    return [field for field in descriptor.fields if not rules(field).secret]


def clearing_field(descriptor: Descriptor) -> FieldDescriptor | None:
    """Returns the field that collects the names of what the caller wants cleared, if the message has one."""
    return next((field for field in descriptor.fields if rules(field).cleared_fields), None)


@functools.cache
def enum_words(enum: EnumDescriptor) -> dict[str, int]:
    """Returns the words of an enum by how they are written over REST: without the enum's name before them.

    The zero value of our enums says that nothing was said, so it is no word that a caller could use.
    """
    prefix = _upper_snake(enum.name) + "_"
    words = {value.name.removeprefix(prefix): value.number for value in enum.values}
    return {word: number for word, number in words.items() if number != 0 or word != "UNSPECIFIED"}


def _upper_snake(name: str) -> str:
    """Returns "RunState" as "RUN_STATE" and "HTTPMethod" as "HTTP_METHOD", as buf's lint demands of enum
    values."""
    out: list[str] = []
    for index, letter in enumerate(name):
        after_lower = index > 0 and (name[index - 1].islower() or name[index - 1].isdigit())
        before_lower = index > 0 and index + 1 < len(name) and name[index + 1].islower()
        if letter.isupper() and (after_lower or (before_lower and name[index - 1].isupper())):
            out.append("_")
        out.append(letter.upper())
    return "".join(out)


def reading(field: FieldDescriptor) -> str:
    """Returns the Python expression that reads a field of the message `m`; some fields bear Python's
    keywords."""
    return f"getattr(m, {field.name!r})" if keyword.iskeyword(field.name) else f"m.{field.name}"


def writing(field: FieldDescriptor) -> str:
    """Returns the pattern of the Python statement that sets a field of the message `m`; {} stands for the
    value."""
    return f"setattr(m, {field.name!r}, {{}})" if keyword.iskeyword(field.name) else f"m.{field.name} = {{}}"
