"""The definition language: YAML or JSON in any spelling to a canonical model, problems with their place,
and a plan.

`compile_definition` is the way in; `validate` is the same without raising. The model is in
`headrace_definition.model`, the plan in `headrace_definition.plan`, and what a worker needs of SQL in
`headrace_definition.sql` and `headrace_definition.substitution`.
"""

from headrace_definition.compile import Compiled, Report, compile_definition, validate
from headrace_definition.lifting import Lifted, lift_secrets
from headrace_definition.lineage import ColumnLineage, ColumnOrigin, Lineage, column_lineage
from headrace_definition.model import Definition
from headrace_definition.plan import Plan, StagePayload
from headrace_definition.problems import DefinitionError, Problem
from headrace_definition.rendering import to_graph, to_yaml
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
    "Lifted",
    "Lineage",
    "Plan",
    "Problem",
    "Report",
    "StagePayload",
    "column_lineage",
    "compile_definition",
    "json_schema",
    "lift_secrets",
    "to_graph",
    "to_yaml",
    "validate",
]
