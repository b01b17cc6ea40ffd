"""The definition language: YAML or JSON in any spelling to a canonical model, problems with their place,
and a plan.

`compile_definition` is the way in; `validate` is the same without raising. The model is in
`headrace_definition.model`, the plan in `headrace_definition.plan`, and what a worker needs of SQL in
`headrace_definition.sql` and `headrace_definition.substitution`.

What compiles is imported when it is first asked for: it brings a parser of SQL of some 30 MB with it, which a
process that only runs plans has no use for.
"""

import importlib
from typing import TYPE_CHECKING, Any

from headrace_definition.model import Definition
from headrace_definition.plan import Plan, StagePayload
from headrace_definition.problems import DefinitionError, Problem

if TYPE_CHECKING:
    from headrace_definition.compile import Compiled, Report, compile_definition, validate
    from headrace_definition.lineage import ColumnLineage, ColumnOrigin, Lineage, column_lineage
    from headrace_definition.rendering import to_yaml
    from headrace_definition.schema import json_schema
    from headrace_definition.settings import CompileSettings, ConnectionDefaults

__all__ = [
    "ColumnLineage",
    "ColumnOrigin",
    "CompileSettings",
    "Compiled",
    "ConnectionDefaults",
    "Definition",
    "DefinitionError",
    "Lineage",
    "Plan",
    "Problem",
    "Report",
    "StagePayload",
    "column_lineage",
    "compile_definition",
    "json_schema",
    "to_yaml",
    "validate",
]

_LATER = {
    "compile": ("Compiled", "Report", "compile_definition", "validate"),
    "lineage": ("ColumnLineage", "ColumnOrigin", "Lineage", "column_lineage"),
    "rendering": ("to_yaml",),
    "schema": ("json_schema",),
    "settings": ("CompileSettings", "ConnectionDefaults"),
}
_HOME = {name: module for module, names in _LATER.items() for name in names}

if not TYPE_CHECKING:  # a type checker knows the names from above, and would take any other for one of these

    def __getattr__(name: str) -> Any:
        """Imports what is asked for the first time (PEP 562); afterwards it is found without this."""
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
        globals()[name] = value
        return value
