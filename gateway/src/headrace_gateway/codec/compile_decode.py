"""Compiles, for each message type, a function that fills a message from a JSON value.

For a request to run a pipeline the compiled function reads:

    def decode_1(o, m, path, found):
        if type(o) is not dict:
            found.wrong_type(path, "an object", o)
            return
        n = 0
        if "triggeredBy" in o:
            n += 1
            v = o["triggeredBy"]
            if type(v) is str: m.triggered_by = v
            elif v is not None: found.wrong_type(join(path, "triggeredBy"), "a string", v)
        ...
        if n != len(o): refuse_unknown(o, path, found, known_1, bound_1)

All problems are found in one pass. A null means that the field is not given; where the message has a field
for that, its name is kept as one to clear, and so are the names of empty lists and maps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from . import scalars
from .fields import (
    FLOATS,
    INTEGER_BOUNDS,
    clearing_field,
    enum_of,
    enum_words,
    is_decimal,
    is_map,
    map_key,
    map_value,
    message_of,
    reading,
    rules,
    settable,
    writing,
)
from .findings import Findings, join
from .numbers import dump_exact
from .wellknown import READERS, is_wrapper, refuse_unsupported

Decoder = Callable[[object, Any, str, Findings], None]
"""Fills the message (second) from the JSON value (first) at a path (third), noting problems (fourth)."""

_NONE: frozenset[str] = frozenset()
_SIMPLE = {
    FieldDescriptor.CPPTYPE_STRING: ("str", "a string"),
    FieldDescriptor.CPPTYPE_BOOL: ("bool", "a boolean"),
}
"""The types whose values need no check but that of their Python type, and how a message calls them."""


class DecoderCompiler:
    """Makes decoders and keeps them. Not for use by several threads at once."""

    def __init__(self) -> None:
        self._scope: dict[str, Any] = {
            "join": join,
            "dump_exact": dump_exact,
            "refuse_unknown": _refuse_unknown,
            "refuse_several": _refuse_several,
            **{name: getattr(scalars, name) for name in dir(scalars) if name.startswith(("read_", "text_"))},
        }
        self._names: dict[tuple[Descriptor, frozenset[str]], str] = {}

    def decoder(self, descriptor: Descriptor, bound: frozenset[str] = _NONE) -> Decoder:
        """Returns the decoder of a type. `bound` names fields that the path gives, so that the body must
        not."""
        function: Decoder = self._scope[self._function(descriptor, bound)]
        return function

    def field_decoder(self, field: FieldDescriptor) -> Decoder:
        """Returns the decoder of a body that is one field of the request; the message is the request."""
        name = f"decode_field_{field.full_name.replace('.', '_')}"
        if name not in self._scope:
            lines = ["v = o", *self._field(field, "path", None)]
            self._run(name, lines, field.full_name)
        function: Decoder = self._scope[name]
        return function

    def _function(self, descriptor: Descriptor, bound: frozenset[str] = _NONE) -> str:
        known = self._names.get((descriptor, bound))
        if known is not None:
            return known
        refuse_unsupported(descriptor)
        name = f"decode_{len(self._names)}"
        self._names[descriptor, bound] = name
        if descriptor.full_name in READERS:
            self._scope[name] = READERS[descriptor.full_name]
        elif is_wrapper(descriptor):
            lines = ["v = o", *self._assign(descriptor.fields_by_name["value"], "v", "m.value = {}", "path")]
            self._run(name, [*lines, "m.SetInParent()"], descriptor.full_name)
        else:
            self._run(name, self._message(name, descriptor, bound), descriptor.full_name)
        return name

    def _run(self, name: str, lines: Iterable[str], of: str) -> None:
        source = f"def {name}(o, m, path, found):\n" + "".join(f"    {line}\n" for line in lines)
        # The text is made of names in a contract that protoc has accepted, each written with repr.
        exec(compile(source, f"<decoder of {of}>", "exec"), self._scope)  # noqa: S102

    def _message(self, name: str, descriptor: Descriptor, bound: frozenset[str]) -> list[str]:
        fields = settable(descriptor, bound)
        clearing = clearing_field(descriptor)
        self._scope[f"known_{name}"] = tuple(field.json_name for field in fields)
        self._scope[f"bound_{name}"] = frozenset(
            descriptor.fields_by_name[field].json_name for field in bound
        )
        lines = [
            "if type(o) is not dict:",
            "    found.wrong_type(path, 'an object', o)",
            "    return",
            "n = 0",
        ]
        for field in fields:
            key = repr(field.json_name)
            clear = f"m.{clearing.name}.append({key})" if clearing is not None else None
            lines += [f"if {key} in o:", "    n += 1", f"    v = o[{key}]"]
            lines += _indent(self._field(field, f"join(path, {key})", clear))
        lines.append(f"if n != len(o): refuse_unknown(o, path, found, known_{name}, bound_{name})")
        for oneof in descriptor.oneofs:
            names = tuple(member.json_name for member in oneof.fields if member in fields)
            if len(names) > 1:
                lines.append(f"refuse_several(o, path, found, {names!r})")
        return lines

    def _field(self, field: FieldDescriptor, path: str, clear: str | None) -> list[str]:
        """Returns the lines that read `v` into a field; null and empty collections count as cleared."""
        if is_map(field) or field.is_repeated:
            kind, expected = ("dict", "an object") if is_map(field) else ("list", "a list")
            fill = self._fill_map(field, path) if is_map(field) else self._fill_list(field, path)
            lines = [f"if type(v) is {kind}:", *_indent(fill)]
            if clear:
                lines += _indent([f"if not v: {clear}"])
            lines += [f"elif v is not None: found.wrong_type({path}, {expected!r}, v)"]
            return lines + ([f"else: {clear}"] if clear else [])
        lines = [f"if v is None: {clear or 'pass'}", "else:"]
        return lines + _indent(self._read(field, path))

    def _read(self, field: FieldDescriptor, path: str) -> list[str]:
        """Returns the lines that read `v`, which is not null, into a field that holds one value."""
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            target = reading(field)
            set_present = [] if message_of(field).full_name in READERS else [f"{target}.SetInParent()"]
            return [*set_present, f"{self._function(message_of(field))}(v, {target}, {path}, found)"]
        return self._assign(field, "v", writing(field), path)

    def _fill_list(self, field: FieldDescriptor, path: str) -> list[str]:
        """Returns the lines that add the items of the list `v`."""
        item = f"{path} + f'[{{i}}]'"
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            read = [f"{self._function(message_of(field))}(x, t.add(), {item}, found)"]
        else:
            read = self._assign(field, "x", "t.append({})", item)
        return [f"t = {reading(field)}", "i = 0", "for x in v:", *_indent([*read, "i += 1"])]

    def _fill_map(self, field: FieldDescriptor, path: str) -> list[str]:
        """Returns the lines that put the members of the object `v`."""
        key, value = map_key(field), map_value(field)
        item = f"join({path}, k)"
        read_key = ["y = k"]
        if key.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
            read_key = [f"y = text_bool(k, {item}, found)", "if y is None: continue"]
        elif key.cpp_type != FieldDescriptor.CPPTYPE_STRING:
            low, high = INTEGER_BOUNDS[key.cpp_type]
            read_key = [f"y = text_int(k, {item}, found, {low}, {high})", "if y is None: continue"]
        if value.type == FieldDescriptor.TYPE_MESSAGE:
            read = [f"{self._function(message_of(value))}(x, t[y], {item}, found)"]
        else:
            read = self._assign(value, "x", "t[y] = {}", item)
        return [f"t = {reading(field)}", "for k, x in v.items():", *_indent([*read_key, *read])]

    def _assign(self, field: FieldDescriptor, v: str, target: str, path: str) -> list[str]:
        """Returns the lines that assign the variable `v` to a target (a pattern with {}) if its type is the
        field's."""
        if rules(field).json:
            return [target.format(f"dump_exact({v})")]
        if is_decimal(field):
            return [f"w = read_decimal({v}, {path}, found)", f"if w is not None: {target.format('w')}"]
        simple = _SIMPLE.get(field.cpp_type) if field.type != FieldDescriptor.TYPE_BYTES else None
        if simple is not None:
            kind, expected = simple
            refuse = f"else: found.wrong_type({path}, {expected!r}, {v})"
            return [f"if type({v}) is {kind}: {target.format(v)}", refuse]
        if field.cpp_type in INTEGER_BOUNDS:
            low, high = INTEGER_BOUNDS[field.cpp_type]
            read = [
                f"w = read_int({v}, {path}, found, {low}, {high})",
                f"if w is not None: {target.format('w')}",
            ]
            return [
                f"if type({v}) is int and {low} <= {v} <= {high}: {target.format(v)}",
                "else:",
                *_indent(read),
            ]
        return [self._slow_read(field, v, path), f"if w is not None: {target.format('w')}"]

    def _slow_read(self, field: FieldDescriptor, v: str, path: str) -> str:
        """Returns the line that reads `v` into `w`, or notes a problem and makes `w` None."""
        if field.type == FieldDescriptor.TYPE_ENUM:
            enum = enum_of(field)
            words = f"words_of_{enum.full_name.replace('.', '_')}"
            self._scope[words] = enum_words(enum)
            return f"w = read_enum({v}, {path}, found, {words})"
        if field.type == FieldDescriptor.TYPE_BYTES:
            return f"w = read_bytes({v}, {path}, found)"
        if field.cpp_type in FLOATS:
            reader = "read_float" if field.type == FieldDescriptor.TYPE_FLOAT else "read_double"
            return f"w = {reader}({v}, {path}, found)"
        raise NotImplementedError(
            f"{field.full_name}: fields of protobuf type {field.type} have no JSON form"
        )


def _indent(lines: Iterable[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def _refuse_unknown(
    given: dict[str, object], path: str, found: Findings, known: tuple[str, ...], bound: frozenset[str]
) -> None:
    for name in given:
        if name in bound:
            found.add(
                join(path, name), f"{name} is given by the path and not in the body", code="UNKNOWN_FIELD"
            )
            found.unknown += 1
        elif name not in known:
            found.unknown_name(join(path, name), "field", name, known)


def _refuse_several(given: dict[str, object], path: str, found: Findings, names: tuple[str, ...]) -> None:
    several = [name for name in names if given.get(name) is not None]
    if len(several) > 1:
        found.add(
            join(path, several[1]), f"only one of {', '.join(several)} may be given", code="SEVERAL_GIVEN"
        )
