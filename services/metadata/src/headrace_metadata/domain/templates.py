"""Templates of pipelines: what they declare, and how a definition is made of one.

A template is a definition with places that are filled in: a scalar that reads `${template.name}`, and nothing
besides, becomes the value of that parameter, with its type. A text is never put together from pieces, so no
value can turn into SQL or into another key; values that SQL needs are declared as parameters of the pipeline
and get their default from the template.
"""

import copy
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

from headrace_definition import Definition, Problem
from headrace_definition.model import Parameter
from headrace_definition.model.settings import ParameterType, ParameterValue
from headrace_definition.parameters import parameter_value
from headrace_definition.suggestions import nearest
from pydantic import BaseModel, ConfigDict, Field, JsonValue

MAX_CUSTOMIZATIONS = 100

_PLACEHOLDER = re.compile(r"\$\{template\.(?P<name>[A-Za-z_][A-Za-z0-9_]*)\}")
_TOP_LEVEL = frozenset(field.alias or name for name, field in Definition.model_fields.items())

Place = tuple[str | int, ...]
"""Where in a definition: keys of mappings and positions in lists, from the root."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TemplateParameter(_Part):
    """A value that a template takes."""

    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    type: ParameterType = "string"
    description: str
    required: bool = False
    default: ParameterValue | None = None
    enum: tuple[ParameterValue, ...] | None = Field(default=None, min_length=1)
    minimum: float | None = None
    maximum: float | None = None
    pattern: str | None = None


class Template(_Part):
    """A template as its file holds it. The id is that of the file: `industry/key`."""

    industry: str
    key: str
    name: str
    version: str
    description: str
    compliance: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    parameters: tuple[TemplateParameter, ...] = ()
    customizations: Mapping[str, str] = Field(default_factory=dict)
    """Further paths that may be customized, and the places of the definition that they mean."""
    definition: Mapping[str, JsonValue]

    @property
    def id(self) -> str:
        """Its id."""
        return f"{self.industry}/{self.key}"

    def unused(self) -> frozenset[str]:
        """Names that are declared and stand nowhere, or stand somewhere and are not declared."""
        declared = frozenset(parameter.name for parameter in self.parameters)
        return declared.symmetric_difference({name for _, name in _places(self.definition)})


@dataclass(frozen=True)
class Filled:
    """A definition made of a template, and which places of it are owed to what the caller gave:
    `customizations.sources.payments.table`, `parameters.limit`. The first that fits counts."""

    definition: Mapping[str, Any]
    given: Sequence[tuple[Place, str]]


class TemplateMisused(ValueError):  # noqa: N818 - it names what happened
    """Parameters or customizations do not fit the template; `problems` says all that is wrong."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


def fill(template: Template, given: Mapping[str, Any], customizations: Mapping[str, Any]) -> Filled:
    """The definition of a template with these values in their places, and then these changes made.

    Raises:
        TemplateMisused: with every unknown, missing or wrong value, and every path that leads nowhere.
    """
    problems: list[Problem] = []
    values = _values(template, given, problems)
    tree = _with_values(copy.deepcopy(dict(template.definition)), values)
    if len(customizations) > MAX_CUSTOMIZATIONS:
        told = f"at most {MAX_CUSTOMIZATIONS} are taken"
        raise TemplateMisused([Problem("TOO_MANY", "customizations", told)])
    customized: list[tuple[Place, str]] = []
    for path, value in customizations.items():
        place = _placed(tree, template.customizations.get(path, path), value)
        if isinstance(place, Problem):
            problems.append(
                Problem(place.code, f"customizations.{path}", place.message, None, None, place.suggestion)
            )
        else:
            customized.append((place, f"customizations.{path}"))
    if problems:
        raise TemplateMisused(problems)
    filled = [(place, f"parameters.{name}") for place, name in _places(template.definition)]
    return Filled(tree, [*customized, *filled])


def _values(
    template: Template, given: Mapping[str, Any], problems: list[Problem]
) -> dict[str, str | int | float | bool | None]:
    declared = {parameter.name: parameter for parameter in template.parameters}
    for name in given:
        if name not in declared:
            told = "the template has no parameter of this name"
            problems.append(_of_parameter("UNKNOWN_PARAMETER", name, told, nearest(name, declared)))
    values: dict[str, str | int | float | bool | None] = dict.fromkeys(declared)
    for name, parameter in declared.items():
        value = given.get(name)
        if value is None:
            value = parameter.default
        if value is None:
            if parameter.required:
                problems.append(_of_parameter("MISSING_PARAMETER", name, "is required and has no value"))
            continue
        try:
            values[name] = _value(parameter, value)
        except ValueError as error:
            problems.append(_of_parameter("PARAMETER_VALUE", name, str(error)))
    return values


def _value(parameter: TemplateParameter, value: object) -> str | int | float | bool:
    """A value as the parameter's type.

    Raises:
        ValueError: it is not of the type, not one of those allowed, or out of bounds. It is not repeated.
    """
    converted = parameter_value(Parameter(type=parameter.type, enum=parameter.enum), value)
    if isinstance(converted, float) and not math.isfinite(converted):
        raise ValueError("must be a finite number")
    if isinstance(converted, int | float | Decimal) and not isinstance(converted, bool):
        if parameter.minimum is not None and converted < parameter.minimum:
            raise ValueError(f"must be at least {parameter.minimum:g}")
        if parameter.maximum is not None and converted > parameter.maximum:
            raise ValueError(f"must be at most {parameter.maximum:g}")
    if isinstance(converted, str):
        if not converted.strip():
            raise ValueError("must not be empty")
        if parameter.pattern is not None and re.fullmatch(parameter.pattern, converted) is None:
            raise ValueError(f"must match {parameter.pattern}")
    if isinstance(converted, date):
        return converted.isoformat()
    if isinstance(converted, Decimal):
        return int(converted) if converted == converted.to_integral_value() else float(converted)
    if converted is None:
        raise ValueError("must have a value")
    return converted


def _of_parameter(code: str, name: str, message: str, suggestion: str | None = None) -> Problem:
    return Problem(code, f"parameters.{name}", message, suggestion=suggestion)


def _with_values(tree: Any, values: Mapping[str, Any]) -> Any:
    """The tree with values in their places; a key whose parameter has no value goes."""
    if isinstance(tree, dict):
        filled = {key: _with_values(value, values) for key, value in tree.items()}
        return {key: value for key, value in filled.items() if value is not None or tree[key] is None}
    if isinstance(tree, list):
        return [_with_values(item, values) for item in tree]
    found = _PLACEHOLDER.fullmatch(tree) if isinstance(tree, str) else None
    return values[found["name"]] if found is not None else tree


def _places(tree: Any, place: Place = ()) -> Iterator[tuple[Place, str]]:
    """Where parameters stand in a tree.

    Raises:
        ValueError: one stands within a longer text.
    """
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _places(value, (*place, key))
    elif isinstance(tree, list):
        for position, item in enumerate(tree):
            yield from _places(item, (*place, position))
    elif isinstance(tree, str) and "${template." in tree:
        found = _PLACEHOLDER.fullmatch(tree)
        if found is None:
            raise ValueError(f"a parameter must stand alone: {tree!r}")
        yield place, found["name"]


def _placed(tree: dict[str, Any], path: str, value: object) -> Place | Problem:
    """Puts a value at a path; says where that is, or what is wrong with the path.

    Whether the last key is one that the definition language knows is for its checker to say.
    """
    segments = path.split(".")
    if segments[0] not in _TOP_LEVEL:
        return _nowhere(segments[0], "a definition has no", _TOP_LEVEL)
    node: Any = tree
    place: list[str | int] = []
    for depth, segment in enumerate(segments):
        is_last = depth == len(segments) - 1
        if isinstance(node, list):
            names = [str(item.get("id")) if isinstance(item, dict) else "" for item in node]
            if segment not in names:
                return _nowhere(
                    segment, f"{'.'.join(segments[:depth])} has no", [name for name in names if name]
                )
            position = names.index(segment)
            place.append(position)
            if is_last and value is None:
                del node[position]
            elif is_last:
                node[position] = value
            else:
                node = node[position]
        elif isinstance(node, dict):
            place.append(segment)
            if is_last and value is None:
                if segment not in node:
                    return _nowhere(segment, f"{'.'.join(segments[:depth])} has no", node)
                del node[segment]
            elif is_last:
                node[segment] = value
            else:
                if node.get(segment) is None:
                    node[segment] = {}
                node = node[segment]
        else:
            inner = ".".join(segments[:depth])
            return Problem("UNKNOWN_PATH", "", f"{inner} is a single value: nothing is below it")
    return tuple(place)


def _nowhere(segment: str, told: str, known: Any) -> Problem:
    names = sorted(known)
    return Problem(
        "UNKNOWN_PATH",
        "",
        f"{told} {segment!r}; there are: {', '.join(names[:20])}",
        suggestion=nearest(segment, names),
    )
