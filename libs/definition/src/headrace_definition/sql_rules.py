"""The SQL of a definition: that it parses, is one SELECT or expression, and reads declared inputs alone."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from headrace_definition.model import (
    Aggregate,
    Deduplicate,
    Filter,
    Select,
    Source,
    SqlCheck,
    SqlTransform,
)
from headrace_definition.nodes import Mapping, Node, Scalar, Sequence
from headrace_definition.problems import Findings
from headrace_definition.sqltext import ParsedSql, parse_expression, parse_ordering, parse_select, query_issue
from headrace_definition.tasks import TaskDraft


@dataclass(frozen=True, slots=True)
class SqlField:
    """A SQL text of a task, where it stands, and how it is to be read."""

    text: str
    node: Node
    parse: Callable[[str], ParsedSql]


def sql_fields(task: TaskDraft) -> Iterator[SqlField]:
    """The SQL texts of a task, but for a source's query, which is in another system's SQL."""
    element = task.element
    if isinstance(element, SqlTransform | SqlCheck):
        if element.sql is not None:
            yield SqlField(element.sql, task.place("sql"), parse_select)
    elif isinstance(element, Filter):
        if element.condition is not None:
            yield SqlField(element.condition, task.place("condition"), parse_expression)
    elif isinstance(element, Select):
        if isinstance(element.columns, dict):
            yield from _mapped(task, "columns", element.columns)
    elif isinstance(element, Aggregate):
        yield from _mapped(task, "aggregates", element.aggregates)
        if element.having is not None:
            yield SqlField(element.having, task.place("having"), parse_expression)
    elif isinstance(element, Deduplicate):
        node = task.place("order_by")
        for index, term in enumerate(element.order_by):
            item = node.items[index] if isinstance(node, Sequence) and index < len(node.items) else node
            yield SqlField(term, item, parse_ordering)


def check_sql_of(
    task: TaskDraft, source: str, findings: Findings, *, dialect: str | None, readable: Iterable[str]
) -> None:
    """Adds what is wrong with a task's SQL.

    `source` is the text of the definition, `dialect` the SQL of a source's query where it is known, and
    `readable` are the tasks that an author could have meant.
    """
    if isinstance(task.element, Source):
        if task.element.query is not None:
            issue = query_issue(task.element.query, dialect)
            if issue is not None:
                _add(issue.code, issue.message, issue.offset, task.place("query"), source, findings)
        return
    allowed = {key.lower() for key in task.inputs}
    for field in sql_fields(task):
        parsed = task.judged or field.parse(field.text)
        for issue in parsed.issues:
            _add(issue.code, issue.message, issue.offset, field.node, source, findings)
        usable = all(issue.code == "SQL_FORBIDDEN" for issue in parsed.issues)
        for table in parsed.tables if usable else ():
            if table.name.lower() not in allowed:
                hint = findings.nearest(table.name, chain(task.inputs, readable))
                message = f"the table {table.name!r} is not a declared input"
                if hint is not None:
                    message += f"; did you mean {hint!r}?"
                _add("SQL_UNDECLARED_TABLE", message, table.offset, field.node, source, findings)


def _mapped(task: TaskDraft, key: str, expressions: dict[str, str]) -> Iterator[SqlField]:
    node = task.place(key)
    for name, text in expressions.items():
        inner = node.get(name) if isinstance(node, Mapping) else None
        yield SqlField(text, inner or node, parse_expression)


def _add(code: str, message: str, offset: int, node: Node, source: str, findings: Findings) -> None:
    if isinstance(node, Scalar):
        findings.error_within(code, node, offset, source, message)
    else:
        findings.error(code, node, message)
