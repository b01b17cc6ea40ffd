"""Writes the table of settings for the documentation, from the settings themselves.

python -m headrace_chassis.settings_table headrace_metadata.config:MetadataSettings …
"""

import importlib
import sys
from collections.abc import Sequence

from pydantic.fields import FieldInfo

from headrace_chassis.settings import Settings


def table(kind: type[Settings]) -> str:
    """Returns a Markdown table of the environment variables that a process reads."""
    rows = [
        f"| `{name.upper()}` | {_default(field)} | {field.description or ''} |"
        for name, field in kind.model_fields.items()
    ]
    return "\n".join(["| Variable | Default | Meaning |", "|---|---|---|", *rows])


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    if default is None:
        return "none"
    shown = ",".join(str(part) for part in default) if isinstance(default, tuple | list) else str(default)
    return f"`{shown}`" if shown else "empty"


def main(names: Sequence[str]) -> int:
    """Writes the tables of "module:Class" names to standard output."""
    for name in names:
        module, _, attribute = name.partition(":")
        kind = getattr(importlib.import_module(module), attribute)
        sys.stdout.write(f"## {attribute.removesuffix('Settings')}\n\n{table(kind)}\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
