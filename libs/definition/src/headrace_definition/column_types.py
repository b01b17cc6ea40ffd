"""The canonical names of column types, as `schema` and `cast` use them.

They follow DuckDB's names, which run the SQL, in the spelling the SQL standard gives where it has one:
https://duckdb.org/docs/sql/data_types/overview
"""

import re
from dataclasses import dataclass

SIMPLE_TYPES = (
    "BOOLEAN",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "HUGEINT",
    "REAL",
    "DOUBLE",
    "VARCHAR",
    "BLOB",
    "DATE",
    "TIME",
    "TIMESTAMP",
    "TIMESTAMPTZ",
    "INTERVAL",
    "UUID",
    "JSON",
)

_ALIASES = {
    "BOOL": "BOOLEAN",
    "INT2": "SMALLINT",
    "INT": "INTEGER",
    "INT4": "INTEGER",
    "INT8": "BIGINT",
    "LONG": "BIGINT",
    "INT16": "HUGEINT",
    "FLOAT4": "REAL",
    "FLOAT8": "DOUBLE",
    "DOUBLE PRECISION": "DOUBLE",
    "TEXT": "VARCHAR",
    "STRING": "VARCHAR",
    "BYTEA": "BLOB",
    "BINARY": "BLOB",
    "DATETIME": "TIMESTAMP",
    "TIMESTAMP WITHOUT TIME ZONE": "TIMESTAMP",
    "TIMESTAMP WITH TIME ZONE": "TIMESTAMPTZ",
    "TIME WITHOUT TIME ZONE": "TIME",
}
_DECIMAL = re.compile(r"(?:DECIMAL|NUMERIC) ?\( ?(\d{1,3}) ?(?:, ?(\d{1,3}) ?)?\)", re.ASCII)
_SIZED_TEXT = re.compile(r"(?:VARCHAR|CHAR|CHARACTER VARYING) ?\( ?\d+ ?\)", re.ASCII)
MAX_DECIMAL_PRECISION = 38
MAX_ARRAY_DEPTH = 6


@dataclass(frozen=True, slots=True)
class ColumnType:
    """A canonical type. `precision` and `scale` are DECIMAL's; `array_depth` counts trailing `[]`."""

    name: str
    precision: int | None = None
    scale: int | None = None
    array_depth: int = 0

    def __str__(self) -> str:
        base = f"DECIMAL({self.precision},{self.scale})" if self.name == "DECIMAL" else self.name
        return base + "[]" * self.array_depth


def parse_type(text: str) -> ColumnType:
    """The type that `text` names, in any case and with the usual aliases (`text`, `int8`, `numeric(10,2)`).

    Raises:
        ValueError: for a name that is not canonical or known as an alias, and for impossible precisions.
    """
    base, depth = " ".join(text.upper().split()), 0
    while base.endswith("[]"):
        base, depth = base[:-2].rstrip(), depth + 1
    if depth > MAX_ARRAY_DEPTH:
        raise ValueError(f"arrays of more than {MAX_ARRAY_DEPTH} dimensions are not supported")
    base = _ALIASES.get(base, base)
    if base in SIMPLE_TYPES:
        return ColumnType(base, array_depth=depth)
    if match := _DECIMAL.fullmatch(base):
        return _decimal(int(match[1]), int(match[2] or 0), depth)
    raise ValueError(_explain(base))


def _decimal(precision: int, scale: int, depth: int) -> ColumnType:
    if not 1 <= precision <= MAX_DECIMAL_PRECISION:
        raise ValueError(f"DECIMAL's precision must be from 1 to {MAX_DECIMAL_PRECISION}, got {precision}")
    if scale > precision:
        raise ValueError(f"DECIMAL's scale ({scale}) cannot exceed its precision ({precision})")
    return ColumnType("DECIMAL", precision, scale, depth)


def _explain(base: str) -> str:
    if base in {"DECIMAL", "NUMERIC"}:
        return "DECIMAL needs its precision and scale, as in DECIMAL(18,2)"
    if base == "FLOAT":
        return "FLOAT means different sizes in different systems: write REAL (4 bytes) or DOUBLE (8 bytes)"
    if _SIZED_TEXT.fullmatch(base):
        return "lengths of text are not enforced: write VARCHAR"
    names = ", ".join((*SIMPLE_TYPES, "DECIMAL(p,s)"))
    return f"not a known type; expected one of {names}, or one of these followed by []"
