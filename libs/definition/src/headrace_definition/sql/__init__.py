"""Built-in transformations and checks as DuckDB SQL. Relations bear their tasks' keys.

Placeholders are left as they are: `headrace_definition.substitution.bind` gives them their values afterwards.
"""

from headrace_definition.sql.checks import check_sql
from headrace_definition.sql.output import ColumnError, output_columns
from headrace_definition.sql.quoting import quote
from headrace_definition.sql.transformations import transformation_sql

__all__ = ["ColumnError", "check_sql", "output_columns", "quote", "transformation_sql"]
