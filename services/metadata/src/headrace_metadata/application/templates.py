"""The catalogue of templates, and making pipelines of them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from headrace_chassis.errors import InvalidDefinition, InvalidRequest, NotFound, Problem
from headrace_definition.loading import LoadLimits, load
from headrace_definition.nodes import plain
from headrace_definition.problems import Findings
from headrace_definition.rendering import tree_to_yaml

from headrace_metadata.domain.templates import Filled, Place, Template, TemplateMisused, fill
from headrace_metadata.errors import told

_PACKAGE = "headrace_metadata.templates"


@dataclass(frozen=True)
class Rendered:
    """The text of a definition that was made of a template, and where its customizations went."""

    text: str
    filled: Filled


class TemplateCatalogue:
    """The templates that are shipped with the service."""

    def __init__(self, templates: Sequence[Template]) -> None:
        self._by_id = {template.id: template for template in sorted(templates, key=lambda each: each.id)}

    @classmethod
    def shipped(cls) -> "TemplateCatalogue":
        """The templates in the package; each file is `<industry>/<key>.yaml`.

        Raises:
            ValueError: a file is no template, or a parameter of it is unused or not declared.
        """
        return cls(
            [
                _read(folder.name, file.name.removesuffix(".yaml"), file.read_text(encoding="utf-8"))
                for folder in resources.files(_PACKAGE).iterdir()
                if folder.is_dir() and not folder.name.startswith("_")
                for file in folder.iterdir()
                if file.name.endswith(".yaml")
            ]
        )

    def get(self, industry: str, key: str) -> Template:
        """A template.

        Raises:
            NotFound: there is none of that id.
        """
        found = self._by_id.get(f"{industry}/{key}")
        if found is None:
            raise NotFound("template", f"{industry}/{key}")
        return found

    def listed(self, industry: str, compliance: str, search: str) -> list[Template]:
        """The templates that all given filters leave, by id; whatever the case."""
        return [
            template
            for template in self._by_id.values()
            if (not industry or template.industry == industry.lower())
            and (not compliance or compliance.lower() in {rule.lower() for rule in template.compliance})
            and search.lower() in f"{template.id}\n{template.name}\n{template.description}".lower()
        ]


def render(template: Template, parameters: bytes, customizations: bytes) -> Rendered:
    """The definition of a template with values and changes that are given as JSON objects.

    Raises:
        InvalidRequest: they are no objects, or do not fit the template; all problems with their places.
    """
    problems: list[Problem] = []
    values = _object("parameters", parameters, problems)
    changes = _object("customizations", customizations, problems)
    if problems:
        raise InvalidRequest(problems)
    try:
        filled = fill(template, values, changes)
    except TemplateMisused as misused:
        raise InvalidRequest(told(misused.problems)) from None
    return Rendered(
        f"# From the template {template.id} {template.version}.\n{tree_to_yaml(filled.definition)}", filled
    )


def in_words_of_the_request(
    refused: InvalidDefinition | InvalidRequest, rendered: Rendered
) -> InvalidRequest:
    """The same problems, by the paths that the caller gave; lines of a text they never saw are left out."""
    return InvalidRequest(
        [
            Problem(
                problem.code,
                _given_path(problem.path, rendered.filled.given),
                problem.message,
                suggestion=problem.suggestion,
            )
            for problem in refused.problems
        ]
    )


def _given_path(path: str, given: Sequence[tuple[Place, str]]) -> str:
    for place, name in given:
        text = _text(place)
        if path == text or path.startswith((f"{text}.", f"{text}[")):
            return name
    return "pipelineName" if path == "name" else f"definition.{path}" if path else ""


def _text(place: Place) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")


def _object(name: str, text: bytes, problems: list[Problem]) -> Mapping[str, Any]:
    value = json.loads(text or b"{}")
    if isinstance(value, dict):
        return value
    problems.append(Problem("INVALID_TYPE", name, "must be an object"))
    return {}


def _read(industry: str, key: str, text: str) -> Template:
    document = plain(load(text, LoadLimits(), Findings()).root)
    if not isinstance(document, dict):
        raise ValueError(f"{industry}/{key} is no mapping")
    template = Template.model_validate({"industry": industry, "key": key, **document})
    if loose := template.unused():
        raise ValueError(f"{template.id}: parameters that are unused or not declared: {sorted(loose)}")
    return template
