"""SQL as part of a definition: one SELECT or one expression, over declared tables, without a way out of the
engine.

The engine is locked in as well; checking here tells the author at once, and where.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from sqlglot import exp
from sqlglot.dialects.dialect import Dialect
from sqlglot.errors import ErrorLevel, ParseError, SqlglotError, TokenError
from sqlglot.tokenizer_core import Token, TokenType

from headrace_definition.sql_lexing import without_terminator
from headrace_definition.substitution import SubstitutionError, mask_sql

MAX_SQL_CHARACTERS = 200_000
MAX_SQL_NESTING = 100
_DIALECT = "duckdb"
_OPENERS = frozenset(
    {
        TokenType.SELECT,
        TokenType.WITH,
        TokenType.FROM,
        TokenType.VALUES,
        TokenType.L_PAREN,
        TokenType.PIVOT,
        TokenType.UNPIVOT,
    }
)
_OPENING_BRACKETS = frozenset({TokenType.L_PAREN, TokenType.L_BRACKET, TokenType.L_BRACE})
_CLOSING_BRACKETS = frozenset({TokenType.R_PAREN, TokenType.R_BRACKET, TokenType.R_BRACE})
_ONE_SELECT = "only one SELECT statement is allowed"
_TABLE_FUNCTIONS = frozenset(
    {"unnest", "explode", "generate_series", "range", "generate_subscripts", "json_each", "json_tree"}
)
_REFUSED_PREFIXES = (
    "read_",
    "duckdb_",
    "pragma_",
    "parquet_",
    "sniff_",
    "pg_",
    "sqlite_",
    "postgres_",
    "mysql_",
    "iceberg_",
    "delta_",
    "st_read",
    "http_",
)
_REFUSED = frozenset(
    {
        "checkpoint",
        "current_setting",
        "force_checkpoint",
        "from_substrait",
        "get_substrait",
        "getenv",
        "getvariable",
        "glob",
        "json_execute_serialized_sql",
        "load_aws_credentials",
        "nextval",
        "currval",
        "query",
        "query_table",
        "readcsv",
        "readparquet",
        "set_config",
        "shell",
        "which_secret",
        "write_log",
    }
)
_Judge = Callable[[exp.Expr], Iterator["SqlIssue"]]
_WRITES = (exp.DML, exp.DDL, exp.Command, exp.Into, exp.Lock)


@dataclass(frozen=True, slots=True)
class SqlIssue:
    """What is wrong with a SQL text, and at which of its characters."""

    code: str
    message: str
    offset: int


@dataclass(frozen=True, slots=True)
class TableUse:
    """A table that a SQL text reads, and where it names it."""

    name: str
    offset: int


@dataclass(frozen=True, slots=True)
class ParsedSql:
    """A SQL text that was looked at. `tables` are those it reads from outside, each once, in order."""

    tree: exp.Expr | None
    tables: tuple[TableUse, ...] = ()
    issues: tuple[SqlIssue, ...] = ()


@lru_cache(maxsize=512)
def parse_select(sql: str) -> ParsedSql:
    """A whole statement in DuckDB's SQL: one SELECT (or WITH, FROM, VALUES, PIVOT)."""
    return _parse(sql, 0, _statement_issues)


@lru_cache(maxsize=512)
def parse_expression(sql: str) -> ParsedSql:
    """One expression in DuckDB's SQL, such as a condition. Its `tree` is that expression."""
    parsed = _parse(f"SELECT {sql}", len("SELECT "), _expression_issues)
    if parsed.tree is None or parsed.issues:
        return parsed
    return ParsedSql(parsed.tree.expressions[0], parsed.tables)


@lru_cache(maxsize=512)
def parse_ordering(sql: str) -> ParsedSql:
    """One term of an ORDER BY: an expression with its direction."""
    prefix = "SELECT 1 ORDER BY "
    return _parse(prefix + sql, len(prefix), _ordering_issues)


def query_issue(sql: str, dialect: str | None) -> SqlIssue | None:
    """What is wrong with a source's own query, in the SQL of a system that may not be known (None).

    Where the system is not known, a text passes that any of the usual dialects can read.
    """
    dialects = (
        (dialect,) if dialect else ("postgres", "duckdb", "mysql", "oracle", "tsql", "snowflake", "bigquery")
    )
    first: SqlIssue | None = None
    for name in dialects:
        try:
            tree = _single(_tokens_to_trees(sql, name))
        except _SqlError as error:
            first = first or error.issue
            continue
        if isinstance(tree, exp.Query) and not _writes(tree):
            return None
        return SqlIssue("SQL_NOT_SELECT", _ONE_SELECT, 0)
    return first


class _SqlError(ValueError):
    def __init__(self, code: str, message: str, offset: int) -> None:
        super().__init__(message)
        self.issue = SqlIssue(code, message, offset)


def _parse(sql: str, prefix: int, judge: _Judge) -> ParsedSql:
    try:
        if len(sql) > MAX_SQL_CHARACTERS:
            raise _SqlError("SQL_TOO_LONG", f"SQL of more than {MAX_SQL_CHARACTERS:,} characters", 0)
        tree = _single(_tokens_to_trees(sql, _DIALECT))
    except _SqlError as error:
        issue = error.issue
        return ParsedSql(None, (), (SqlIssue(issue.code, issue.message, max(0, issue.offset - prefix)),))
    issues = tuple(judge(tree)) or tuple(_forbidden(tree, prefix))
    if prefix and not issues and without_terminator(sql) != sql:
        issues = (SqlIssue("SQL_EXPRESSION", "an expression has no semicolon", 0),)
    return ParsedSql(tree, tuple(_tables(tree, prefix)), issues)


def _tokens_to_trees(sql: str, dialect: str) -> list[exp.Expr | None]:
    try:
        masked = mask_sql(sql)
    except SubstitutionError as error:
        raise _SqlError("PLACEHOLDER", str(error), error.offset) from None
    reader = Dialect.get_or_raise(dialect)
    try:
        tokens: list[Token] = reader.tokenize(masked)
        if not tokens:
            raise _SqlError("SQL_SYNTAX", "the SQL is empty", 0)
        opener = tokens[0].token_type
        if opener not in _OPENERS and tokens[0].text.upper() != "TABLE":
            raise _SqlError("SQL_NOT_SELECT", _ONE_SELECT, tokens[0].start)
        _bound_nesting(tokens)
        parser = reader.parser(error_level=ErrorLevel.IMMEDIATE, error_message_context=MAX_SQL_CHARACTERS)
        return list(parser.parse(tokens, masked))
    except ParseError as error:
        raise _syntax(error) from None
    except TokenError as error:
        raise _SqlError(
            "SQL_SYNTAX", "a quote or comment is opened and never closed", _token_offset(error)
        ) from None
    except RecursionError:
        raise _SqlError("SQL_SYNTAX", "the SQL is nested too deeply", 0) from None
    except (SqlglotError, ValueError) as error:
        if isinstance(error, _SqlError):
            raise
        raise _SqlError("SQL_SYNTAX", "the SQL cannot be read", 0) from None


def _bound_nesting(tokens: Sequence[Token]) -> None:
    """Refuses what the compiled parser cannot take: it overflows the stack where Python would raise, and
    its cost is cubic in the length of a chain of subscripts (measured: 5,000 take 42 s, 60,000 open
    brackets end the process).
    """
    depth = chained = 0
    for index, token in enumerate(tokens):
        if token.token_type in _OPENING_BRACKETS:
            depth += 1
            chained += index > 0 and tokens[index - 1].token_type is TokenType.R_BRACKET
        elif token.token_type in _CLOSING_BRACKETS:
            depth -= 1
        if depth > MAX_SQL_NESTING or chained > MAX_SQL_NESTING:
            raise _SqlError("SQL_SYNTAX", f"more than {MAX_SQL_NESTING} levels of brackets", token.start)


def _syntax(error: ParseError) -> _SqlError:
    details = error.errors[0] if error.errors else {}
    offset = len(details.get("start_context") or "")
    token = details.get("highlight") or ""
    # sqlglot's own descriptions name its classes and tokens; the place says more to an author.
    near = f" near {token[:40]!r}" if token else ""
    return _SqlError("SQL_SYNTAX", f"the SQL does not parse{near}", offset)


def _token_offset(error: TokenError) -> int:
    start = getattr(error, "start", None)
    return start if isinstance(start, int) else 0


def _single(trees: list[exp.Expr | None]) -> exp.Expr:
    statements = [tree for tree in trees if tree is not None and not isinstance(tree, exp.Semicolon)]
    if len(statements) != 1:
        raise _SqlError("SQL_NOT_SELECT", _ONE_SELECT, 0)
    return statements[0]


def _statement_issues(tree: exp.Expr) -> Iterator[SqlIssue]:
    if not isinstance(tree, exp.Query | exp.Values | exp.Pivot) or isinstance(tree, exp.Table):
        yield SqlIssue("SQL_NOT_SELECT", _ONE_SELECT, 0)
    elif _writes(tree):
        yield SqlIssue("SQL_NOT_SELECT", "the SELECT must not write, lock or run commands", 0)


def _expression_issues(tree: exp.Expr) -> Iterator[SqlIssue]:
    others = {name for name, value in tree.args.items() if value and name not in ("expressions", "kind")}
    expressions = tree.expressions
    if not isinstance(tree, exp.Select) or others or len(expressions) != 1:
        yield SqlIssue("SQL_EXPRESSION", "must be one SQL expression", 0)
    elif isinstance(expressions[0], exp.Alias | exp.Star):
        yield SqlIssue("SQL_EXPRESSION", "must be one SQL expression, without AS", 0)
    elif _writes(tree):
        yield SqlIssue("SQL_NOT_SELECT", "the expression must not write, lock or run commands", 0)


def _ordering_issues(tree: exp.Expr) -> Iterator[SqlIssue]:
    others = {
        name for name, value in tree.args.items() if value and name not in ("expressions", "order", "kind")
    }
    order = tree.args.get("order")
    if others or order is None or len(order.expressions) != 1 or len(tree.expressions) != 1:
        yield SqlIssue("SQL_EXPRESSION", "must be one expression with an optional direction", 0)


def _writes(tree: exp.Expr) -> bool:
    return any(isinstance(node, _WRITES) and not isinstance(node, exp.Query) for node in tree.walk())


def _forbidden(tree: exp.Expr, prefix: int) -> Iterator[SqlIssue]:
    for node in tree.find_all(exp.Func):
        name = (node.name if isinstance(node, exp.Anonymous) else node.sql_name()).lower()
        if name in _REFUSED or name.startswith(_REFUSED_PREFIXES) or isinstance(node, exp.ReadCSV):
            message = f"the function {name}() reaches outside the data and is not allowed"
            yield SqlIssue("SQL_FORBIDDEN", message, max(0, _offset(node) - prefix))
        elif isinstance(node.parent, exp.Table) and name not in _TABLE_FUNCTIONS:
            message = f"the table function {name}() is not allowed; read a declared input"
            yield SqlIssue("SQL_FORBIDDEN", message, max(0, _offset(node) - prefix))


def _tables(tree: exp.Expr, prefix: int) -> Iterator[TableUse]:
    seen: set[str] = set()
    for table in tree.find_all(exp.Table):
        name = table.name
        if isinstance(table.this, exp.Func) or not name:
            continue
        qualified = ".".join(part for part in (table.catalog, table.db, name) if part)
        if qualified == name and name.lower() in _ctes_around(table):
            continue
        if qualified.lower() not in seen:
            seen.add(qualified.lower())
            yield TableUse(qualified, max(0, _offset(table.this) - prefix))


def _ctes_around(table: exp.Table) -> set[str]:
    """Names of the common table expressions that are in sight of a table."""
    names: set[str] = set()
    node: exp.Expr | None = table
    while node is not None:
        with_ = node.args.get("with_") or node.args.get("with")
        if isinstance(with_, exp.With):
            names.update(cte.alias_or_name.lower() for cte in with_.expressions)
        node = node.parent
    return names


def _offset(node: exp.Expr) -> int:
    for candidate in (node, *node.find_all(exp.Identifier)):
        start = candidate.meta.get("start")
        if isinstance(start, int):
            return start
    return 0
