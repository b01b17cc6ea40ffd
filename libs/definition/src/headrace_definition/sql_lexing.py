"""Where a SQL text is code, a string, a quoted name or a comment: what safe substitution must know.

The rules are those of PostgreSQL's lexer (https://www.postgresql.org/docs/current/sql-syntax-lexical.html),
which DuckDB follows; SQLite has neither escape strings, dollar quotes nor nested comments.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

SegmentKind = Literal["code", "string", "escape_string", "name", "dollar_string", "comment"]


@dataclass(frozen=True, slots=True)
class LexicalRules:
    """What differs between dialects."""

    escape_strings: bool = True
    dollar_quotes: bool = True
    nested_comments: bool = True


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of the text that is all of one kind, its quotes or comment marks included."""

    kind: SegmentKind
    start: int
    end: int


RULES = {
    "duckdb": LexicalRules(),
    "postgres": LexicalRules(),
    "sqlite": LexicalRules(escape_strings=False, dollar_quotes=False, nested_comments=False),
}

_OPENING = re.compile(r"'|\"|`|--|/\*|\$")
_DOLLAR = re.compile(r"\$(?:[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_\x80-\U0010ffff]*)?\$")
_WORD = re.compile(r"[A-Za-z0-9_$\x80-\U0010ffff]")
_ESCAPE_STRING = re.compile(r"'(?:[^'\\]|''|\\.)*'?", re.DOTALL)
_QUOTED = {quote: re.compile(f"{quote}(?:[^{quote}]|{quote}{quote})*{quote}?") for quote in "'\"`"}


def segments(sql: str, rules: LexicalRules) -> Iterator[Segment]:
    """The segments of a text, in order and without gaps. What is opened and never closed reaches to the
    end."""
    code_start = position = 0
    while match := _OPENING.search(sql, position):
        found = _segment(sql, match.start(), match[0], rules)
        if found is None:
            position = match.end()
            continue
        if found.start > code_start:
            yield Segment("code", code_start, found.start)
        yield found
        code_start = position = found.end
    if code_start < len(sql):
        yield Segment("code", code_start, len(sql))


def without_terminator(sql: str) -> str:
    """A statement in DuckDB's SQL without the semicolon that may end it, and without what follows that."""
    for segment in segments(sql, RULES["duckdb"]) if ";" in sql else ():
        end = sql.find(";", segment.start, segment.end) if segment.kind == "code" else -1
        if end >= 0:
            return sql[:end]
    return sql


def _segment(sql: str, start: int, opening: str, rules: LexicalRules) -> Segment | None:
    if opening == "--":
        end = sql.find("\n", start)
        return Segment("comment", start, len(sql) if end < 0 else end)
    if opening == "/*":
        return Segment("comment", start, _end_of_comment(sql, start, nested=rules.nested_comments))
    if opening == "$":
        return _dollar_string(sql, start) if rules.dollar_quotes else None
    if opening == "'" and rules.escape_strings and _is_escape_string(sql, start):
        return Segment("escape_string", start, _end(_ESCAPE_STRING, sql, start))
    kind: SegmentKind = "string" if opening == "'" else "name"
    return Segment(kind, start, _end(_QUOTED[opening], sql, start))


def _end(pattern: re.Pattern[str], sql: str, start: int) -> int:
    match = pattern.match(sql, start)
    return match.end() if match else start + 1


def _is_escape_string(sql: str, quote: int) -> bool:
    """Whether an E stands right before the quote, as a word of its own."""
    if quote == 0 or sql[quote - 1] not in "eE":
        return False
    return quote == 1 or not _WORD.match(sql[quote - 2])


def _dollar_string(sql: str, start: int) -> Segment | None:
    opening = _DOLLAR.match(sql, start)
    if opening is None or (start > 0 and _WORD.match(sql[start - 1])):
        return None
    closing = sql.find(opening[0], opening.end())
    return Segment("dollar_string", start, len(sql) if closing < 0 else closing + len(opening[0]))


def _end_of_comment(sql: str, start: int, *, nested: bool) -> int:
    depth, position = 0, start
    while position < len(sql):
        if sql.startswith("/*", position) and (nested or depth == 0):
            depth += 1
            position += 2
        elif sql.startswith("*/", position):
            depth -= 1
            position += 2
            if depth == 0:
                return position
        else:
            position += 1
    return len(sql)
