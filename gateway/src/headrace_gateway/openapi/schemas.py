"""JSON Schemas (draft 2020-12, as OpenAPI 3.1 uses it) of messages, as requests and as answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from headrace.common.v1 import options_pb2

from headrace_gateway.codec.fields import (
    FLOATS,
    INTEGER_BOUNDS,
    clearing_field,
    enum_words,
    is_decimal,
    is_json_text,
    is_map,
    map_value,
    returned,
    rules,
    settable,
)
from headrace_gateway.codec.wellknown import is_wrapper

Schema = dict[str, Any]
Mode = Literal["request", "answer"]

_FORMATS: Final[dict[int, str]] = {
    options_pb2.FORMAT_UUID: "uuid",
    options_pb2.FORMAT_CRON: "cron",
    options_pb2.FORMAT_TIMEZONE: "timezone",
    options_pb2.FORMAT_DATE: "date",
}
_WELL_KNOWN: Final[dict[str, Schema]] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$"},
    "google.protobuf.Struct": {"type": "object", "additionalProperties": True},
    "google.protobuf.Value": {},
    "google.protobuf.ListValue": {"type": "array"},
    "google.protobuf.Empty": {"type": "object", "additionalProperties": False},
    "google.protobuf.FieldMask": {"type": "string"},
}
_INTEGER_FORMATS: Final[dict[int, str]] = {
    FieldDescriptor.CPPTYPE_INT32: "int32",
    FieldDescriptor.CPPTYPE_UINT32: "uint32",
    FieldDescriptor.CPPTYPE_INT64: "int64",
    FieldDescriptor.CPPTYPE_UINT64: "uint64",
}


class SchemaConflictError(Exception):
    """Two messages of different packages would have the same name in the document."""


class Schemas:
    """Makes schemas and collects those that are referred to by name."""

    def __init__(self, comments: Mapping[str, str]) -> None:
        self.components: dict[str, Schema] = {}
        self._comments = comments
        self._origins: dict[str, str] = {}

    def answer(self, message: Descriptor) -> Schema:
        """Returns a reference to the schema of an answer."""
        return self._component(message.name, message, "answer", frozenset())

    def request(self, message: Descriptor, bound: frozenset[str]) -> Schema:
        """Returns a reference to the schema of a body; `bound` names the fields that the path gives."""
        return self._component(message.name, message, "request", bound)

    def parameter(self, field: FieldDescriptor) -> Schema:
        """Returns the schema of a path or query parameter, without its description."""
        schema = self.field(field, "request", clearable=False)
        schema.pop("description", None)
        return schema

    def describe(self, full_name: str) -> str:
        """Returns the comment of something in the contracts; empty where it has none."""
        return self._comments.get(full_name, "")

    def field(self, field: FieldDescriptor, mode: Mode, *, clearable: bool) -> Schema:
        """Returns the schema of a field with its description, rules and default."""
        schema = self._shape(field, mode)
        if clearable:
            schema = _nullable(schema)
        description = self.describe(field.full_name)
        rule = rules(field)
        if mode == "request" and rule.default_value:
            default = _default(field, rule.default_value)
            if default is None:
                description = f"{description} Default: {rule.default_value}.".strip()
            else:
                schema["default"] = default
        if rule.secret and mode == "request":
            schema["writeOnly"] = True
        if description:
            schema["description"] = description
        return schema

    def _component(self, name: str, message: Descriptor, mode: Mode, bound: frozenset[str]) -> Schema:
        origin = f"{message.full_name} as {mode} without {sorted(bound)}"
        known = self._origins.setdefault(name, origin)
        if known != origin:
            raise SchemaConflictError(f"{name} would stand for {known} and for {origin}")
        if name not in self.components:
            self.components[name] = {}  # a message may contain itself
            self.components[name] = self._object(message, mode, bound)
        return {"$ref": f"#/components/schemas/{name}"}

    def _object(self, message: Descriptor, mode: Mode, bound: frozenset[str]) -> Schema:
        fields = settable(message, bound) if mode == "request" else returned(message)
        clearable = mode == "request" and clearing_field(message) is not None
        required = [field.json_name for field in fields if _is_required(field, mode)]
        schema: Schema = {"type": "object"}
        description = self.describe(message.full_name)
        if description:
            schema["description"] = description
        schema["properties"] = {
            field.json_name: self.field(field, mode, clearable=clearable) for field in fields
        }
        if required:
            schema["required"] = required
        if mode == "request":
            schema["additionalProperties"] = False
        return schema

    def _shape(self, field: FieldDescriptor, mode: Mode) -> Schema:
        rule = rules(field)
        if is_map(field):
            limit = {"maxProperties": rule.max_items} if rule.HasField("max_items") else {}
            return {"type": "object", "additionalProperties": self._single(map_value(field), mode), **limit}
        if not field.is_repeated:
            return self._single(field, mode)
        schema: Schema = {"type": "array", "items": self._single(field, mode)}
        if rule.HasField("max_items"):
            schema["maxItems"] = rule.max_items
        if rule.required and mode == "request":
            schema["minItems"] = 1
        return schema

    def _single(self, field: FieldDescriptor, mode: Mode) -> Schema:
        message = field.message_type
        if message is not None:
            if message.full_name in _WELL_KNOWN:
                return dict(_WELL_KNOWN[message.full_name])
            if is_wrapper(message):
                return self._single(message.fields_by_name["value"], mode)
            return self._component(
                f"{message.name}Input" if mode == "request" else message.name, message, mode, _ALL
            )
        if field.enum_type is not None:
            return self._enum(field.enum_type)
        if rules(field).json:
            return {}
        return _scalar(field, mode)

    def _enum(self, enum: EnumDescriptor) -> Schema:
        words = enum_words(enum)
        if self._origins.setdefault(enum.name, enum.full_name) != enum.full_name:
            raise SchemaConflictError(f"{enum.name} would stand for two enums")
        scope = enum.full_name.rpartition(".")[0]
        values = {value.number: value.name for value in enum.values}
        told = [
            f"- `{word}`: {self._value_comment(enum, scope, values[number])}"
            for word, number in words.items()
        ]
        self.components[enum.name] = {
            "type": "string",
            "description": "\n".join([self.describe(enum.full_name), "", *told]).strip(),
            "enum": list(words),
        }
        return {"$ref": f"#/components/schemas/{enum.name}"}

    def _value_comment(self, enum: EnumDescriptor, scope: str, name: str) -> str:
        return self.describe(f"{enum.full_name}.{name}") or self.describe(f"{scope}.{name}")


_ALL: Final[frozenset[str]] = frozenset()


def _is_required(field: FieldDescriptor, mode: Mode) -> bool:
    """In a request: what must be given. In an answer: what is always written."""
    if mode == "request":
        return rules(field).required
    if field.is_repeated:
        return True
    if field.has_presence or is_json_text(field):
        return False
    return field.enum_type is None or 0 in enum_words(field.enum_type).values()


def _scalar(field: FieldDescriptor, mode: Mode) -> Schema:
    rule = rules(field)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return {"type": "string", "contentEncoding": "base64"}
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return {"type": "boolean"}
    if field.cpp_type in FLOATS:
        return {"type": "number", "format": "float" if field.type == FieldDescriptor.TYPE_FLOAT else "double"}
    if field.cpp_type in INTEGER_BOUNDS:
        schema: Schema = {"type": "integer", "format": _INTEGER_FORMATS[field.cpp_type]}
        for name, bound in (("minimum", rule.minimum), ("maximum", rule.maximum)):
            if rule.HasField(name):  # type: ignore[arg-type]
                schema[name] = bound
        return schema
    if is_decimal(field):
        return {"type": "number"}
    schema = {"type": "string"}
    if rule.format in _FORMATS:
        schema["format"] = _FORMATS[rule.format]
    if rule.HasField("min_length") or (rule.required and mode == "request" and not field.is_repeated):
        schema["minLength"] = max(rule.min_length, 1 if rule.required else 0)
    if rule.HasField("max_length"):
        schema["maxLength"] = rule.max_length
    if rule.pattern:
        schema["pattern"] = f"^(?:{rule.pattern})$"
    return schema


def _nullable(schema: Schema) -> Schema:
    """Returns a schema that takes null too, which clears the field."""
    kind = schema.get("type")
    if kind is None:
        return {"anyOf": [schema, {"type": "null"}]} if schema else {}
    return {**schema, "type": [kind, "null"]}


def _default(field: FieldDescriptor, text: str) -> object | None:
    """Returns a default as a value; None where the text describes it rather than being it."""
    if field.is_repeated or field.message_type is not None:
        return None
    if field.enum_type is not None:
        return text if text in enum_words(field.enum_type) else None
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return {"true": True, "false": False}.get(text)
    if field.cpp_type in INTEGER_BOUNDS:
        return int(text) if re.fullmatch(r"-?[0-9]+", text) else None
    if field.cpp_type in FLOATS:
        return float(text) if re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", text) else None
    return text if re.fullmatch(r"\S+", text) else None
