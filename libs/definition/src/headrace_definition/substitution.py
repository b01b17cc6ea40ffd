"""`${params.x}` and its kin: plain substitution, no template language, no code.

In SQL a placeholder becomes a literal of the value's type; inside a quoted string, the value's text with
its quotes doubled. Where neither can be done safely (quoted names, E'' and $$ strings) it is refused.
Comments are left alone.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from headrace_definition.sql_lexing import RULES, Segment, segments

BoundValue = str | int | float | Decimal | bool | date | datetime | None

SCOPES: Mapping[str, frozenset[str] | None] = {
    "params": None,
    "run": frozenset({"id", "logical_date"}),
    "interval": frozenset({"start", "end"}),
    "signals": None,
    "env": None,
    "secrets": None,
}
"""What a placeholder may name: a scope, and the names in it where they are fixed."""

_PLACEHOLDER = re.compile(r"\$\{\s*([A-Za-z_]+)\.([A-Za-z_][A-Za-z0-9_.-]*)\s*\}")
_OPENING = re.compile(r"\$?\$\{")
_FORM = (
    "expected ${params.name}, ${run.id}, ${run.logical_date}, ${interval.start}, ${interval.end}, "
    "${signals.name.field}, ${env.NAME} or ${secrets.name}"
)
# A literal next to one of these cannot join with what stands there into another token.
_SEPARATORS = frozenset(" \t\r\n(),=<>+;")
_NO_QUOTES = str.maketrans(dict.fromkeys("'\"$", " "))


class SubstitutionError(ValueError):
    """A placeholder cannot be replaced: unknown, without a value, or where no value can safely stand."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


@dataclass(frozen=True, slots=True)
class Placeholder:
    """One `${scope.name}` of a text."""

    scope: str
    name: str
    start: int
    end: int

    @property
    def reference(self) -> str:
        """`scope.name`, the key of its value."""
        return f"{self.scope}.{self.name}"


def placeholders(text: str) -> Iterator[Placeholder]:
    """The placeholders of a plain text; `$${` stands for `${` itself and is none.

    Raises:
        SubstitutionError: for a `${` that begins none.
    """
    for opening in _OPENING.finditer(text):
        if not opening[0].startswith("$$"):
            yield _placeholder(text, opening.start())


def references(text: str, scope: str) -> frozenset[str]:
    """The names of a scope that a text, or a document of texts, seems to refer to; comments count."""
    return frozenset(
        found[2]
        for found in _PLACEHOLDER.finditer(text)
        if found[1] == scope and text[max(found.start() - 1, 0) : found.start()] != "$"
    )


def sql_placeholders(sql: str, dialect: str = "duckdb") -> Iterator[tuple[Placeholder, Segment]]:
    """The placeholders of a SQL text outside its comments, with the segment each stands in.

    Raises:
        SubstitutionError: for a `${` that begins none, and for one where no value can safely stand.
    """
    if "${" not in sql:
        return
    if re.search(r"\r(?!\n)", sql):
        raise SubstitutionError("a carriage return alone cannot stand in SQL that has placeholders", 0)
    for segment in segments(sql, RULES[dialect]):
        if segment.kind == "comment":
            continue
        position = sql.find("${", segment.start, segment.end)
        while position >= 0:
            found = _placeholder(sql, position)
            if segment.kind not in ("code", "string"):
                raise SubstitutionError(
                    f"${{{found.reference}}} cannot stand in a quoted name, an E'' string or a $$ string",
                    position,
                )
            yield found, segment
            position = sql.find("${", found.end, segment.end)


def bind(text: str, values: Mapping[str, BoundValue], *, sql: bool, dialect: str = "duckdb") -> str:
    """The text with its placeholders replaced by `values`, whose keys are like `params.day`.

    With `sql`, the values become literals of `dialect` ("duckdb", "postgres" or "sqlite"), so that none can
    end the literal it is in. Secrets cannot stand in SQL.

    Raises:
        SubstitutionError: when a placeholder is malformed, has no value, or stands where none can.
    """
    if "${" not in text:
        return text
    return _bind_sql(text, values, dialect) if sql else _bind_text(text, values)


def mask_sql(sql: str, dialect: str = "duckdb") -> str:
    """The SQL with each placeholder outside strings as a number of the same length, so that it can be parsed.

    Raises:
        SubstitutionError: as `sql_placeholders`.
    """
    pieces, position = [], 0
    for found, segment in sql_placeholders(sql, dialect):
        if segment.kind == "code":
            pieces += [sql[position : found.start], "1" * (found.end - found.start)]
            position = found.end
    return "".join([*pieces, sql[position:]])


def literal(value: BoundValue, dialect: str = "duckdb") -> str:
    """The SQL literal of a value.

    Raises:
        ValueError: for text with a NUL character, which SQL cannot hold.
    """
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int | float | Decimal):
        return _number(value)
    if isinstance(value, datetime):
        kind = "TIMESTAMP" if value.tzinfo is None else "TIMESTAMPTZ"
        return _typed(kind, value.isoformat(sep=" "), dialect)
    if isinstance(value, date):
        return _typed("DATE", value.isoformat(), dialect)
    return _quoted(value)


def text_of(value: BoundValue) -> str:
    """A value as text: ISO 8601 for times, `true` and `false` for booleans."""
    if value is None:
        raise ValueError("has no value")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, date):
        return value.isoformat()
    return str(value)


def _placeholder(text: str, start: int) -> Placeholder:
    match = _PLACEHOLDER.match(text, start)
    if match is None:
        raise SubstitutionError(f"not a placeholder; {_FORM}", start)
    scope, name = match[1], match[2]
    if scope not in SCOPES:
        raise SubstitutionError(f"nothing is called ${{{scope}}}; {_FORM}", start)
    known = SCOPES[scope]
    if known is not None and name not in known:
        options = " and ".join(f"${{{scope}.{option}}}" for option in sorted(known))
        raise SubstitutionError(f"${{{scope}.{name}}} does not exist; there are {options}", start)
    return Placeholder(scope, name, match.start(), match.end())


def _value(found: Placeholder, values: Mapping[str, BoundValue]) -> BoundValue:
    if found.reference not in values:
        raise SubstitutionError(f"${{{found.reference}}} has no value", found.start)
    return values[found.reference]


def _bind_text(text: str, values: Mapping[str, BoundValue]) -> str:
    pieces, position = [], 0
    for found in placeholders(text):
        pieces.append(text[position : found.start].replace("$${", "${"))
        try:
            pieces.append(text_of(_value(found, values)))
        except ValueError as error:
            raise SubstitutionError(f"${{{found.reference}}}: {error}", found.start) from None
        position = found.end
    return "".join([*pieces, text[position:].replace("$${", "${")])


def _bind_sql(sql: str, values: Mapping[str, BoundValue], dialect: str) -> str:
    kept = _quiet_comments(sql) if dialect == "duckdb" else sql
    pieces, position = [], 0
    for found, segment in sql_placeholders(sql, dialect):
        if found.scope == "secrets":
            raise SubstitutionError("a secret cannot stand in SQL", found.start)
        value = _value(found, values)
        pieces.append(kept[position : found.start])
        try:
            pieces.append(_inside(sql, found, segment, value, dialect))
        except ValueError as error:
            raise SubstitutionError(f"${{{found.reference}}}: {error}", found.start) from None
        position = found.end
    return "".join([*pieces, kept[position:]])


def _quiet_comments(sql: str) -> str:
    """The SQL with blanks for the quotes in its comments, as long as before.

    DuckDB turns no-break and other wide spaces into blanks before it parses, but for those in quotes; and it
    does not know comments then, so that an apostrophe in one would have it alter the value that follows.
    """
    pieces = [
        sql[each.start : each.end].translate(_NO_QUOTES)
        if each.kind == "comment"
        else sql[each.start : each.end]
        for each in segments(sql, RULES["duckdb"])
    ]
    return "".join(pieces)


def _inside(sql: str, found: Placeholder, segment: Segment, value: BoundValue, dialect: str) -> str:
    if segment.kind == "string":
        return _quoted(text_of(value))[1:-1]
    before, after = sql[found.start - 1 : found.start], sql[found.end : found.end + 1]
    left = "" if not before or before in _SEPARATORS else " "
    right = "" if not after or after in _SEPARATORS else " "
    return f"{left}{literal(value, dialect)}{right}"


def _number(value: int | float | Decimal) -> str:
    if not math.isfinite(value):
        raise ValueError("is not a finite number")
    # In brackets where negative: `x -${n}` would otherwise begin a comment.
    text = f"{value:f}" if isinstance(value, Decimal) else repr(value)
    return f"({text})" if text.startswith("-") else text


def _typed(kind: str, text: str, dialect: str) -> str:
    return _quoted(text) if dialect == "sqlite" else f"CAST({_quoted(text)} AS {kind})"


def _quoted(text: str) -> str:
    if "\x00" in text:
        raise ValueError("text with a NUL character cannot stand in SQL")
    return "'" + text.replace("'", "''") + "'"
