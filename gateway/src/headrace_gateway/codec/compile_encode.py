"""Compiles, for each message type, a function that turns a message into a JSON value.

For a pipeline the compiled function reads:

    def encode_headrace_metadata_v1_Pipeline(m):
        has = m.HasField
        o = {"id": m.id, "workspaceId": m.workspace_id, "name": m.name}
        if has("description"): o["description"] = m.description
        o["version"] = m.version
        ...
        return o

so that a call does nothing that the type could have told beforehand. What is written when: fields with
presence only where they are set; enums whose zero says that nothing was said only where they are not zero;
raw JSON and decimals only where they are not empty; everything else always.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import orjson
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from .fields import (
    FLOATS,
    enum_of,
    enum_words,
    is_json_text,
    is_map,
    map_key,
    map_value,
    message_of,
    reading,
    returned,
)
from .wellknown import WRITERS, is_wrapper, refuse_unsupported, write_double

_OPTIONS = orjson.OPT_UTC_Z


class EncoderCompiler:
    """Makes encoders and keeps them. Not for use by several threads at once."""

    def __init__(self) -> None:
        self._scope: dict[str, Any] = {"raw_json": _raw_json}
        self._names: dict[Descriptor, str] = {}

    def encoder(self, descriptor: Descriptor) -> Callable[[Any], bytes]:
        """Returns a function from a message of the type to its JSON text."""
        write = self.writer(descriptor)
        dumps = orjson.dumps
        return lambda message: dumps(write(message), option=_OPTIONS)

    def writer(self, descriptor: Descriptor) -> Callable[[Any], object]:
        """Returns a function from a message of the type to a value that orjson writes (with OPT_UTC_Z)."""
        function: Callable[[Any], object] = self._scope[self._function(descriptor)]
        return function

    def _function(self, descriptor: Descriptor) -> str:
        """Returns the name of the encoder of a type in the scope of the compiled code, making it where it is
        new."""
        known = self._names.get(descriptor)
        if known is not None:
            return known
        refuse_unsupported(descriptor)
        name = f"encode_{descriptor.full_name.replace('.', '_')}"
        self._names[descriptor] = name
        if descriptor.full_name in WRITERS:
            self._scope[name] = WRITERS[descriptor.full_name]
            return name
        source = (
            self._wrapper(name, descriptor) if is_wrapper(descriptor) else self._message(name, descriptor)
        )
        # The text is made of names in a contract that protoc has accepted, each written with repr.
        exec(compile(source, f"<encoder of {descriptor.full_name}>", "exec"), self._scope)  # noqa: S102
        return name

    def _wrapper(self, name: str, descriptor: Descriptor) -> str:
        return f"def {name}(m):\n    return {self._value(descriptor.fields_by_name['value'], 'm.value')}\n"

    def _message(self, name: str, descriptor: Descriptor) -> str:
        leading: list[str] = []
        lines: list[str] = []
        for field in returned(descriptor):
            key, access = repr(field.json_name), reading(field)
            guard, value = self._field(field, access)
            if guard is None and not lines:
                leading.append(f"{key}: {value}")
            elif guard is None:
                lines.append(f"o[{key}] = {value}")
            elif guard == "value":
                lines += [f"v = {access}", f"if v: o[{key}] = {value}"]
            else:
                lines.append(f"if has({field.name!r}): o[{key}] = {value}")
        has = ["has = m.HasField"] if any("has(" in line for line in lines) else []
        body = [*has, f"o = {{{', '.join(leading)}}}", *lines, "return o"]
        return f"def {name}(m):\n" + "".join(f"    {line}\n" for line in body)

    def _field(self, field: FieldDescriptor, access: str) -> tuple[str | None, str]:
        """Returns when a field is written (None: always; "value": where it is true; "has": where it is set),
        and how.

        With "value" the expression may use `v`, which holds the field's value.
        """
        if is_map(field):
            return None, self._map(field, access)
        if field.is_repeated:
            return None, self._list(field, access)
        if field.has_presence:
            return "has", self._value(field, access)
        if is_json_text(field):
            return "value", "raw_json(v)"
        if field.type == FieldDescriptor.TYPE_ENUM and 0 not in enum_words(field.enum_type).values():
            return "value", self._value(field, "v")
        return None, self._value(field, access)

    def _list(self, field: FieldDescriptor, access: str) -> str:
        item = self._value(field, "x")
        return f"list({access})" if item == "x" else f"[{item} for x in {access}]"

    def _map(self, field: FieldDescriptor, access: str) -> str:
        """Maps are sorted, because protobuf's order differs from process to process and answers should
        not."""
        key = map_key(field)
        if key.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            text = "k"
        elif key.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
            text = '"true" if k else "false"'
        else:
            text = "str(k)"
        value = map_value(field)
        if value.type == FieldDescriptor.TYPE_MESSAGE:
            return f"{{{text}: {self._value(value, f'{access}[k]')} for k in sorted({access})}}"
        return f"{{{text}: {self._value(value, 'x')} for k, x in sorted({access}.items())}}"

    def _value(self, field: FieldDescriptor, access: str) -> str:
        """Returns the expression that writes one value."""
        if field.type in (FieldDescriptor.TYPE_MESSAGE, FieldDescriptor.TYPE_GROUP):
            return f"{self._function(message_of(field))}({access})"
        if field.type == FieldDescriptor.TYPE_ENUM:
            return f"{self._enum(enum_of(field))}({access}, {access})"
        if is_json_text(field):
            return f"raw_json({access})"
        if field.type == FieldDescriptor.TYPE_BYTES:
            self._scope["base64_text"] = _base64_text
            return f"base64_text({access})"
        if field.cpp_type in FLOATS:
            self._scope["write_double"] = write_double
            return f"write_double({access})"
        return access

    def _enum(self, enum: EnumDescriptor) -> str:
        """Returns the name of what looks up the word of an enum's number; an unknown number stays one."""
        name = f"word_of_{enum.full_name.replace('.', '_')}"
        if name not in self._scope:
            words = {value.number: value.name for value in reversed(enum.values)}
            words.update({number: word for word, number in enum_words(enum).items()})
            if 0 not in enum_words(enum).values():
                words[0] = "UNSPECIFIED"
            self._scope[name] = words.get
        return name


def _base64_text(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _raw_json(value: bytes | str) -> object:
    """Returns JSON text to be embedded as it is. It is parsed once to be sure of it: text that is no JSON
    would break the answer it stands in. Raises orjson.JSONDecodeError."""
    orjson.loads(value)
    return orjson.Fragment(value)
