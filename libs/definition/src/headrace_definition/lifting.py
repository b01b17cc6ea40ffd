"""Secrets out of a definition's text, for whoever stores it."""

from dataclasses import dataclass, field

from headrace_definition.loading import LoadLimits, load
from headrace_definition.nodes import Mapping, Node, plain
from headrace_definition.problems import DefinitionError, Findings
from headrace_definition.rendering import tree_to_yaml
from headrace_definition.spellings.rewriting import with_entry
from headrace_definition.spellings.wrapped import ENDS, lift


@dataclass(frozen=True, slots=True)
class Lifted:
    """A text in the same spelling that holds references, and the values they stand for by name."""

    text: str
    secrets: dict[str, str] = field(repr=False)


def lift_secrets(text: str | bytes, limits: LoadLimits | None = None) -> Lifted:
    """Replaces the values of secret fields of `config.source` and `config.destination`, or of a bare
    `source` and `destination`, by `${secrets.name}`. Any other text comes back with the same meaning.

    Raises:
        DefinitionError: when the text cannot be loaded.
    """
    findings = Findings()
    root = load(text, limits or LoadLimits(), findings).root
    if findings.errors:
        raise DefinitionError(findings.errors)
    secrets: dict[str, str] = {}
    inner = root.get("config")
    if isinstance(inner, Mapping):
        root = with_entry(root, "config", _lift_ends(inner, secrets))
    else:
        root = _lift_ends(root, secrets)
    return Lifted(tree_to_yaml(plain(root)), secrets)


def _lift_ends(mapping: Mapping, secrets: dict[str, str]) -> Mapping:
    for end, label in ENDS.items():
        element: Node | None = mapping.get(end)
        if isinstance(element, Mapping):
            mapping = with_entry(mapping, end, lift(element, label, secrets))
    return mapping
