"""The OpenAPI document as text."""

from __future__ import annotations

from typing import Any

import orjson
import yaml


class _Dumper(yaml.CSafeDumper):
    """Writes a value that stands twice in full both times: aliases puzzle readers of the document."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    """Paragraphs stay readable as a block."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)


def as_yaml(document: dict[str, Any]) -> bytes:
    """Returns the document in YAML, in the order in which it was made."""
    text: bytes = yaml.dump(
        document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110, encoding="utf-8"
    )
    return text


def as_json(document: dict[str, Any]) -> bytes:
    """Returns the document in JSON."""
    return orjson.dumps(document)
