"""Values from paths and query strings into a request's fields."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final
from urllib.parse import parse_qsl

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from .fields import message_of, rules, settable
from .findings import Findings
from .scalars import text_reader
from .wellknown import READERS, TIMESTAMP

Setter = Callable[[Any, list[str], Findings], None]
"""Sets a field of the message (first) from the texts that were given for it (second), noting problems
(third)."""

_MAX_PARAMETERS: Final = 200
_MAX_DEPTH: Final = 3
_TEXT_TYPES: Final = frozenset({TIMESTAMP, "google.protobuf.Duration", "google.protobuf.FieldMask"})


def path_setter(chain: list[FieldDescriptor]) -> Setter:
    """Returns what sets the scalar at the end of a chain of fields from one segment of the path."""
    return _scalar_setter(chain, ".".join(field.json_name for field in chain))


def query_fields(message: Descriptor, bound: frozenset[str]) -> dict[str, list[FieldDescriptor]]:
    """Returns the fields that a query may give, by their name in it ("limit", "filter.name"), each as the
    chain of fields that leads to it. `bound` names the fields that path and body give."""
    return dict(_query_fields(message, bound, [], ""))


def _query_fields(
    message: Descriptor, bound: frozenset[str], before: list[FieldDescriptor], prefix: str
) -> Iterator[tuple[str, list[FieldDescriptor]]]:
    for field in settable(message, bound if not before else frozenset()):
        chain = [*before, field]
        name = prefix + field.json_name
        if field.message_type is None or field.message_type.full_name in _TEXT_TYPES:
            if not rules(field).json:
                yield name, chain
        elif (
            not field.is_repeated and field.message_type.full_name not in READERS and len(chain) < _MAX_DEPTH
        ):
            yield from _query_fields(field.message_type, frozenset(), chain, f"{name}.")


class QueryDecoder:
    """Fills the fields that a query may give. Names that it does not know are refused, as in bodies."""

    def __init__(self, message: Descriptor, bound: frozenset[str]) -> None:
        self._setters = {
            name: _list_setter(chain, name) if chain[-1].is_repeated else _single_setter(chain, name)
            for name, chain in query_fields(message, bound).items()
        }

    def decode(self, query: bytes, message: Any, found: Findings) -> None:
        """Fills a message from the query part of a URL."""
        try:
            pairs = parse_qsl(
                query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_PARAMETERS
            )
        except UnicodeDecodeError:
            found.add("", "the query is not valid UTF-8")
            return
        except ValueError:
            found.add("", f"the query has more than {_MAX_PARAMETERS} parameters")
            return
        given: dict[str, list[str]] = {}
        for name, value in pairs:
            given.setdefault(name, []).append(value)
        for name, values in given.items():
            setter = self._setters.get(name)
            if setter is None:
                found.unknown_name(name, "parameter", name, self._setters)
            else:
                setter(message, values, found)


def _single_setter(chain: list[FieldDescriptor], name: str) -> Setter:
    set_scalar = _text_type_setter(chain, name) if chain[-1].message_type else _scalar_setter(chain, name)

    def set_one(message: Any, values: list[str], found: Findings) -> None:
        if len(values) > 1:
            found.add(name, f"{name} was given {len(values)} times; it takes one value", code="SEVERAL_GIVEN")
            return
        set_scalar(message, values, found)

    return set_one


def _scalar_setter(chain: list[FieldDescriptor], name: str) -> Setter:
    read, last = text_reader(chain[-1]), chain[-1].name
    above = [field.name for field in chain[:-1]]

    def set_scalar(message: Any, values: list[str], found: Findings) -> None:
        value = read(values[0], name, found)
        if value is not None:
            setattr(_below(message, above), last, value)

    return set_scalar


def _text_type_setter(chain: list[FieldDescriptor], name: str) -> Setter:
    read = READERS[message_of(chain[-1]).full_name]
    names = [field.name for field in chain]

    def set_message(message: Any, values: list[str], found: Findings) -> None:
        read(values[0], _below(message, names), name, found)

    return set_message


def _list_setter(chain: list[FieldDescriptor], name: str) -> Setter:
    last, above = chain[-1], [field.name for field in chain[:-1]]
    read = None if last.message_type else text_reader(last)

    def set_list(message: Any, values: list[str], found: Findings) -> None:
        items = getattr(_below(message, above), last.name)
        for index, text in enumerate(values):
            if read is None:
                READERS[message_of(last).full_name](text, items.add(), f"{name}[{index}]", found)
                continue
            value = read(text, f"{name}[{index}]", found)
            if value is not None:
                items.append(value)

    return set_list


def _below(message: Any, names: Iterable[str]) -> Any:
    for name in names:
        message = getattr(message, name)
    return message
