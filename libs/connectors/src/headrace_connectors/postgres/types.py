"""PostgreSQL's types and the canonical ones: how values travel, and what must hold for them to fit."""

from __future__ import annotations

import re
from dataclasses import dataclass

from headrace_connectors import canonical
from headrace_connectors.canonical import INTEGER_RANGES, TIMESTAMPTZ
from headrace_connectors.errors import configuration
from headrace_connectors.gate import Check
from headrace_connectors.identifiers import quote
from headrace_connectors.model import Column

SYSTEM = "postgresql"

_PLAIN = {
    "boolean": "BOOLEAN",
    "smallint": "SMALLINT",
    "integer": "INTEGER",
    "bigint": "BIGINT",
    "real": "FLOAT",
    "double precision": "DOUBLE",
    "date": "DATE",
    "uuid": "UUID",
    "bytea": "BLOB",
    "json": "JSON",
    "jsonb": "JSON",
    "interval": "INTERVAL",
}
_TYPMOD = re.compile(r"(.*?)\(([-\d]+)(?:,([-\d]+))?\)(.*)")
# In PostgreSQL's own spelling, as `format_type` writes it: what is created is judged as what is found.
_CREATED = {
    "BOOLEAN": "boolean", "TINYINT": "smallint", "SMALLINT": "smallint", "INTEGER": "integer",
    "BIGINT": "bigint",
    "HUGEINT": "numeric(39,0)", "UTINYINT": "smallint", "USMALLINT": "integer", "UINTEGER": "bigint",
    "UBIGINT": "numeric(20,0)", "UHUGEINT": "numeric(39,0)", "FLOAT": "real", "DOUBLE": "double precision",
    "VARCHAR": "text", "BLOB": "bytea", "DATE": "date", "TIME": "time without time zone",
    "TIMESTAMP": "timestamp without time zone", "TIMESTAMP_S": "timestamp without time zone",
    "TIMESTAMP_MS": "timestamp without time zone", "TIMESTAMP_NS": "timestamp without time zone",
    TIMESTAMPTZ: "timestamp with time zone", "TIME WITH TIME ZONE": "time with time zone",
    "INTERVAL": "interval",
    "UUID": "uuid", "JSON": "jsonb", "BIT": "bit varying",
}  # fmt: skip


def split_typmod(native: str) -> tuple[str, tuple[int, ...]]:
    """``numeric(10,2)`` into its name and modifiers; the modifier may stand inside (``time(3) without time
    zone``)."""
    match = _TYPMOD.fullmatch(native)
    if match is None or native.endswith("[]"):
        return native, ()
    modifiers = tuple(int(part) for part in match.group(2, 3) if part is not None)
    return match[1] + match[4], modifiers


def canonical_of(native: str) -> str:
    """The canonical type of a PostgreSQL type as ``format_type`` writes it; VARCHAR for all that has no exact
    one.

    An unbounded ``numeric`` and one of more than 38 digits travel as text: a DECIMAL would cut them.
    """
    name, modifiers = split_typmod(native)
    if name in _PLAIN:
        return _PLAIN[name]
    if name == "numeric" and len(modifiers) == 2 and 0 <= modifiers[1] <= modifiers[0] <= 38:
        return f"DECIMAL({modifiers[0]},{modifiers[1]})"
    if name == "timestamp without time zone":
        return "TIMESTAMP"
    if name == "timestamp with time zone":
        return TIMESTAMPTZ
    if name == "time without time zone":
        return "TIME"
    return "VARCHAR"


def from_text(stream: str, column: Column, row: str, on_unrepresentable: str) -> str:
    """SQL in the scratch for the text PostgreSQL wrote of a value (``stream`` may hold a typed value
    already)."""
    kind = column.type
    if kind in ("BOOLEAN", "SMALLINT", "INTEGER", "BIGINT", "FLOAT", "DOUBLE", "VARCHAR"):
        return stream
    value = None
    if kind == "DATE":
        value = f"TRY_CAST(replace({stream}, ' BC', ' (BC)') AS DATE)"
    elif kind in ("TIMESTAMP", TIMESTAMPTZ):
        before = f"regexp_replace({stream}, '^(\\S+) (.*) BC$', '\\1 (BC) \\2')"
        text = f"CASE WHEN ends_with({stream}, ' BC') THEN {before} ELSE {stream} END"
        value = f"TRY_CAST({text} AS {kind})"
    elif kind == "INTERVAL":
        value = f"TRY_CAST(replace({stream}, '+', '') AS INTERVAL)"
    elif kind == "BLOB":
        value = f"unhex(substr({stream}, 3))"
    elif kind == "JSON":
        return f"CAST({stream} AS JSON)"
    return canonical.converting(stream, kind, column.name, row, on_unrepresentable, value)


def to_text(column: str, kind: str) -> str:
    """SQL in the scratch for a value as PostgreSQL's input reads it from CSV; numbers stay numbers."""
    if kind in ("BOOLEAN", "VARCHAR", "FLOAT", "DOUBLE") or canonical.decimal_of(kind) is not None:
        return column
    if kind in INTEGER_RANGES:
        return column if kind not in ("HUGEINT", "UHUGEINT") else f"CAST({column} AS VARCHAR)"
    if kind == "BLOB":
        return f"'\\x' || lower(hex({column}))"
    if kind == "DATE" or kind in ("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", TIMESTAMPTZ):
        text = f"CAST({column} AS VARCHAR)"
        return (
            f"CASE WHEN contains({text}, '(BC)') THEN replace({text}, ' (BC)', '') || ' BC' ELSE {text} END"
        )
    return f"CAST({column} AS VARCHAR)"


def is_own(column: Column) -> bool:
    """Whether the column comes from a PostgreSQL, which has told its type."""
    return column.system == SYSTEM and bool(column.native)


def created_type(column: Column) -> str:
    """The PostgreSQL type of a column we create, after its canonical type.

    :raises ConnectorError: TYPE_NOT_SUPPORTED for nested types.
    """
    decimal = canonical.decimal_of(column.type)
    if decimal is not None:
        return f"numeric({decimal[0]},{decimal[1]})"
    if column.type.startswith("ENUM"):
        return "text"
    created = _CREATED.get(column.type)
    if created is None:
        raise not_supported(column, "PostgreSQL")
    return created


def not_supported(column: Column, system: str) -> Exception:
    """The refusal of a type a target has no exact place for."""
    return configuration(
        "TYPE_NOT_SUPPORTED",
        f"column {column.name}: {system} has no place for {column.type}; turn it into JSON (to_json) or "
        "scalar columns",
        column=column.name,
        type=column.type,
    )


@dataclass(frozen=True)
class Fit:
    """One incoming column and the PostgreSQL type it must become."""

    column: Column
    native: str
    not_null: bool

    def checks(self) -> list[Check]:
        """What every row must satisfy.

        :raises ConnectorError: TYPE_MISMATCH when no value of the one type can be meant for the other.
        """
        found = [Check(self.column.name, f"{self._sql} IS NULL", "NOT NULL", "NULL")] if self.not_null else []
        if self.column.type == "VARCHAR" or self.column.type == "JSON":
            found.append(self._violated(f"contains({self._sql}, chr(0))", "text with NUL"))
        name, modifiers = split_typmod(self.native)
        if name in ("smallint", "integer", "bigint"):
            return found + self._to_integer(name)
        if name == "numeric":
            return found + self._to_numeric(modifiers)
        if name in ("real", "double precision"):
            return found + self._to_float("FLOAT" if name == "real" else "DOUBLE")
        if name in ("text", "character varying", "character", "name", "citext"):
            return found + self._to_text(modifiers)
        kind = canonical_of(self.native)
        if kind in canonical.TEMPORAL:
            return found + self._to_temporal(kind, modifiers)
        return found + self._to_other(kind)

    @property
    def _sql(self) -> str:
        return quote(self.column.name)

    def _violated(self, condition: str, value_class: str) -> Check:
        return Check(self.column.name, f"coalesce({condition}, false)", self.native, value_class)

    def _mismatch(self, hint: str = "") -> Exception:
        return configuration(
            "TYPE_MISMATCH",
            f"column {self.column.name}: {self.column.type} cannot become {self.native}{hint}",
            column=self.column.name,
            type=self.column.type,
            target_type=self.native,
        )

    def _as_text_of(self, kind: str) -> list[Check]:
        value, faithful = canonical.reading(self._sql, kind)
        return [self._violated(f"NOT ({faithful}) OR ({value} IS NULL AND {self._sql} IS NOT NULL)", "text")]

    def _to_integer(self, name: str) -> list[Check]:
        kind = {"smallint": "SMALLINT", "integer": "INTEGER", "bigint": "BIGINT"}[name]
        low, high = INTEGER_RANGES[kind]
        source = self.column.type
        if source in INTEGER_RANGES:
            if INTEGER_RANGES[source][0] >= low and INTEGER_RANGES[source][1] <= high:
                return []
            return [self._violated(f"{self._sql} < {low} OR {self._sql} > {high}", "a number out of range")]
        if source in canonical.FLOATS or canonical.decimal_of(source):
            whole = f"{self._sql} = trunc({self._sql}) AND TRY_CAST({self._sql} AS {kind}) IS NOT NULL"
            return [self._violated(f"NOT ({whole})", "a number with a fraction or out of range")]
        if source == "VARCHAR":
            return self._as_text_of(kind)
        raise self._mismatch()

    def _to_numeric(self, modifiers: tuple[int, ...]) -> list[Check]:
        source = self.column.type
        if not modifiers:
            if canonical.is_number(source):
                return []
            if source == "VARCHAR":
                return []  # PostgreSQL's own input decides, exactly
            raise self._mismatch()
        precision, scale = modifiers[0], modifiers[1] if len(modifiers) > 1 else 0
        if precision > 38 or not 0 <= scale <= precision:
            return self._wide_numeric(precision, scale)
        kind = f"DECIMAL({precision},{scale})"
        decimal = canonical.decimal_of(source)
        if decimal is not None and decimal[1] <= scale and decimal[0] - decimal[1] <= precision - scale:
            return []
        if source == "VARCHAR":
            return self._as_text_of(kind)
        if canonical.is_number(source):
            same = f"CAST(TRY_CAST({self._sql} AS {kind}) AS {source}) = {self._sql}"
            fits = f"TRY_CAST({self._sql} AS {kind}) IS NOT NULL AND {same}"
            return [self._violated(f"NOT ({fits})", "a number out of range or with more digits")]
        raise self._mismatch()

    def _wide_numeric(self, precision: int, scale: int) -> list[Check]:
        """Beyond DuckDB's 38 digits PostgreSQL checks the range itself; only its silent rounding must be
        ruled out."""
        source = self.column.type
        decimal = canonical.decimal_of(source)
        if (decimal is not None and decimal[1] <= scale) or source in INTEGER_RANGES:
            return []
        if source == "VARCHAR" and scale >= 0:
            digits = (
                f"regexp_matches({self._sql}, '\\.[0-9]{{{scale}}}[0-9]*[1-9]') OR contains({self._sql}, 'e')"
            )
            return [self._violated(digits, "a number with more digits")]
        raise self._mismatch()

    def _to_float(self, kind: str) -> list[Check]:
        source = self.column.type
        if source == kind or (source == "FLOAT" and kind == "DOUBLE"):
            return []
        exact_bits = 24 if kind == "FLOAT" else 53
        if source in INTEGER_RANGES:
            if INTEGER_RANGES[source][1] < 2**exact_bits:
                return []
            return [
                self._violated(f"abs(CAST({self._sql} AS HUGEINT)) > {2**exact_bits}", "a number too precise")
            ]
        if source in canonical.FLOATS or canonical.decimal_of(source):
            same = f"CAST(TRY_CAST({self._sql} AS {kind}) AS {source}) = {self._sql}"
            return [self._violated(f"NOT coalesce({same}, false)", "a number too large or too precise")]
        if source == "VARCHAR":
            return self._as_text_of(kind)
        raise self._mismatch()

    def _to_text(self, modifiers: tuple[int, ...]) -> list[Check]:
        source = self.column.type
        if canonical.is_nested(source) or source == "BLOB":
            raise self._mismatch()
        if not modifiers:
            return []
        text = self._sql if source == "VARCHAR" else f"CAST({self._sql} AS VARCHAR)"
        return [self._violated(f"length({text}) > {modifiers[0]}", "a text too long")]

    def _to_temporal(self, kind: str, modifiers: tuple[int, ...]) -> list[Check]:
        source = self.column.type
        if source == "VARCHAR":
            return (
                self._as_text_of(kind)
                if not modifiers
                else [*self._as_text_of(kind), *self._cut(modifiers, kind)]
            )
        stamps = ("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS")
        if kind == TIMESTAMPTZ and source in (*stamps, "DATE"):
            raise self._mismatch("; say which zone it is in: col AT TIME ZONE 'UTC'")
        if kind in ("TIMESTAMP", "DATE") and source == TIMESTAMPTZ:
            raise self._mismatch("; say which zone it should be in: col AT TIME ZONE 'UTC'")
        if kind == "DATE" and source in stamps:
            return [
                self._violated(
                    f"isfinite({self._sql}) AND date_trunc('day', {self._sql}) <> {self._sql}",
                    "a time of day",
                )
            ]
        same = source == kind or (kind == "TIMESTAMP" and source in (*stamps, "DATE"))
        if not same:
            raise self._mismatch()
        return self._range(source) + self._cut(modifiers, kind)

    def _range(self, source: str) -> list[Check]:
        """PostgreSQL knows no day before 4713 BC, and microseconds are its finest time."""
        found: list[Check] = []
        if source == "TIMESTAMP_NS":
            found.append(self._violated(f"epoch_ns({self._sql}) % 1000 <> 0", "nanoseconds"))
        elif source != "TIME":
            early = f"{self._sql} < '4713-01-01 (BC)'::DATE AND isfinite({self._sql})"
            found.append(self._violated(early, "a date before 4713 BC"))
        return found

    def _cut(self, modifiers: tuple[int, ...], kind: str) -> list[Check]:
        if not modifiers or kind == "DATE" or modifiers[0] >= 6:
            return []
        step = 10 ** (6 - modifiers[0])
        value = f"TRY_CAST({self._sql} AS {kind})"
        micros = f"epoch_us({value})" if kind != "TIME" else f"epoch_us(CAST({value} AS INTERVAL))"
        finite = f"isfinite({value}) AND " if kind != "TIME" else ""
        return [self._violated(f"{finite}{micros} % {step} <> 0", "a finer fraction of a second")]

    def _to_other(self, kind: str) -> list[Check]:
        source = self.column.type
        if source == kind or source == "VARCHAR" or source.startswith("ENUM"):
            if kind in ("UUID", "JSON", "BOOLEAN", "INTERVAL") and source == "VARCHAR":
                return self._as_text_of(kind) if kind in ("UUID", "JSON") else []
            return []
        if source in ("TIME WITH TIME ZONE", "BIT") and kind == "VARCHAR":
            return []
        raise self._mismatch()
