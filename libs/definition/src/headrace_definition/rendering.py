"""YAML texts that YAML 1.1 and 1.2 readers agree on, the same for equal definitions."""

from typing import Any

import yaml

from headrace_definition.model import Definition
from headrace_definition.scalars import resolve

_LINE_WIDTH = 100


def to_yaml(definition: Definition) -> str:
    """The definition as canonical YAML; compiling it gives an equal definition."""
    # The version, then what differs from a default, in the model's order.
    tree = definition.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return tree_to_yaml({"version": definition.version, **tree})


def tree_to_yaml(tree: Any) -> str:
    """Plain lists, dicts and scalars as YAML, keys in the order given, texts of several lines as blocks."""
    return yaml.dump(
        tree,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=False,
        width=_LINE_WIDTH,
    )


class _Dumper(yaml.CSafeDumper):
    """Quotes what either version of YAML would take for something else than text, and uses no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.CSafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value.rstrip("\n") and _fits_block(value) else None
    if style is None and not _is_text(value):
        style = "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


def _is_text(value: str) -> bool:
    try:
        return isinstance(resolve(value), str)
    except ValueError:
        return False  # a number too long to be one: quotes keep it a text


def _fits_block(value: str) -> bool:
    """Whether a literal block keeps the text: emitters give up on trailing blanks and odd characters."""
    lines = value.split("\n")
    return all(line == line.rstrip() and line.isprintable() for line in lines) and not value.startswith(
        (" ", "\n")
    )


_Dumper.add_representer(str, _text)
