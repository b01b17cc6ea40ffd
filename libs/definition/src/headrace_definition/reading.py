"""A canonical tree to the model, with pydantic's findings as problems of the user's text."""

import types
import typing
from collections.abc import Iterator
from functools import lru_cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, to_json

from headrace_definition.model import Definition
from headrace_definition.nodes import Mapping, Node, Scalar, Sequence, plain
from headrace_definition.problems import Findings

_TASK_LISTS = ("sources", "transformations", "quality_checks", "sinks")
_WRONG_TYPES = {
    "string_type": "must be text; put it in quotes",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "time_delta_type": "must be a duration such as 30s, 5m, 1h30m or PT5M",
}
_TASK_KEY = (
    "must begin with a letter or underscore and hold only letters, digits, underscores and hyphens, "
    "at most 63"
)


def read(root: Mapping, findings: Findings) -> Definition:
    """The definition that a canonical tree holds.

    What is wrong is added to `findings`, and the answer is then what is left without the broken parts, so
    that the rest can still be looked at.
    """
    for _ in range(2):
        try:
            return _validate(root)
        except ValidationError as error:
            details = error.errors(include_url=False, include_input=False)
            for detail in details:
                _report(detail, root, findings)
            root = _without_broken(root, details)
    return _validate(Mapping())


def _validate(root: Mapping) -> Definition:
    # By way of JSON: there, lists are tuples and numbers are strict, and plans read back in the same way.
    return Definition.model_validate_json(to_json(plain(root), inf_nan_mode="constants"))


def _without_broken(root: Mapping, details: list[ErrorDetails]) -> Mapping:
    """The tree without the tasks, and otherwise the top-level keys, that something is wrong with."""
    tasks = {(loc[0], loc[1]) for loc in (detail["loc"] for detail in details) if len(loc) > 1}
    heads = {detail["loc"][0] for detail in details if detail["loc"]}
    entries: dict[str, tuple[Scalar, Node]] = {}
    for name, (key, value) in root.entries.items():
        if name not in heads:
            entries[name] = (key, value)
        elif name in _TASK_LISTS and isinstance(value, Sequence):
            kept = [item for index, item in enumerate(value.items) if (name, index) not in tasks]
            entries[name] = (key, Sequence(kept, value.line, value.column, value.where))
    return Mapping(entries, root.line, root.column, root.where)


def _report(detail: ErrorDetails, root: Mapping, findings: Findings) -> None:
    kind, loc = detail["type"], [part for part in detail["loc"] if part != "[key]"]
    node, missing = _locate(root, loc)
    last = str(loc[-1]) if loc else ""
    context = detail.get("ctx", {})
    if kind == "missing":
        findings.error("MISSING_KEY", node, "is required", key=last if missing else "")
    elif kind == "extra_forbidden":
        parent, _ = _locate(root, loc[:-1])
        key_node = parent.key_node(last) if isinstance(parent, Mapping) else node
        message = "not a known key"
        if last == "<<":
            message = "merge keys are not part of YAML 1.2; repeat the keys or use an alias for a whole value"
        findings.error(
            "UNKNOWN_KEY", key_node, message, suggestion=findings.nearest(last, _known_keys(tuple(loc[:-1])))
        )
    elif kind == "union_tag_invalid":
        tags = _words(str(context.get("expected_tags", "")))
        at = node.get("type") if isinstance(node, Mapping) else None
        hint = findings.nearest(_text(at), tags)
        findings.error("UNKNOWN_TYPE", at or node, f"must be one of {', '.join(tags)}", suggestion=hint)
    elif kind == "union_tag_not_found":
        findings.error("MISSING_KEY", node, "the type is required", key="type")
    elif kind in ("literal_error", "enum"):
        words = _words(str(context.get("expected", "")).replace(" or ", ", "))
        hint = findings.nearest(_text(node), words)
        findings.error("INVALID_VALUE", node, f"must be {' or '.join(words)}", suggestion=hint)
    else:
        code = "WRONG_TYPE" if kind in _WRONG_TYPES else "INVALID_VALUE"
        findings.error(code, node, _message(detail, kind))


def _message(detail: ErrorDetails, kind: str) -> str:
    context = detail.get("ctx", {})
    if kind in _WRONG_TYPES:
        return _WRONG_TYPES[kind]
    if kind == "string_pattern_mismatch":
        return _TASK_KEY
    if kind == "value_error":
        return str(context.get("error", "not a valid value"))
    if kind in ("too_short", "string_too_short"):
        return "must not be empty"
    if kind == "string_too_long":
        return f"must be at most {context.get('max_length')} characters long"
    return detail["msg"].removeprefix("Input ").removeprefix("Value ")


def _locate(root: Node, loc: typing.Sequence[int | str]) -> tuple[Node, bool]:
    """The node at a place that pydantic names, and whether its last part is missing from the text.

    Pydantic's places also hold the tags of unions, which the text does not.
    """
    node: Node = root
    missing = False
    for part in loc:
        if isinstance(node, Mapping) and isinstance(part, str) and part in node.entries:
            node, missing = node.entries[part][1], False
        elif isinstance(node, Sequence) and isinstance(part, int) and part < len(node.items):
            node, missing = node.items[part], False
        else:
            missing = True
    return node, missing


@lru_cache(maxsize=256)
def _known_keys(loc: tuple[int | str, ...]) -> tuple[str, ...]:
    """The keys that may stand at a place of a definition."""
    models: list[type[BaseModel]] = [Definition]
    for part in loc:
        if isinstance(part, int):
            continue
        fields = [field for model in models for field in _fields(model, part)]
        tagged = [model for model in models if part in _tags(model)]
        models = [inner for field in fields for inner in _models_in(field)] or tagged or models
    return tuple(
        dict.fromkeys(field.alias or name for model in models for name, field in model.model_fields.items())
    )


def _fields(model: type[BaseModel], key: str) -> Iterator[Any]:
    for name, field in model.model_fields.items():
        if key == (field.alias or name):
            yield field.annotation


def _tags(model: type[BaseModel]) -> tuple[Any, ...]:
    field = model.model_fields.get("type")
    return get_args(field.annotation) if field and get_origin(field.annotation) is Literal else ()


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Annotated, Union, types.UnionType, tuple, dict):
        for argument in get_args(annotation):
            yield from _models_in(argument)


def _words(expected: str) -> list[str]:
    return [word.strip().strip("'") for word in expected.split(",")]


def _text(node: Node | None) -> str:
    return node.value if isinstance(node, Scalar) and isinstance(node.value, str) else ""
