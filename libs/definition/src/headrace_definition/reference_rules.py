"""That everything a definition refers to is there: tasks, parameters, connections; and that tasks form no
cycle."""

from collections.abc import Iterator
from collections.abc import Mapping as ReadOnly

from headrace_definition.model import Definition, Sink, Source, WaitForSignal
from headrace_definition.nodes import Mapping, Node, Scalar, Sequence
from headrace_definition.problems import Findings
from headrace_definition.settings import CompileSettings
from headrace_definition.spellings.rewriting import text_of
from headrace_definition.substitution import Placeholder, SubstitutionError, placeholders, sql_placeholders
from headrace_definition.tasks import LISTS, TaskDraft, TaskKind, find_cycle

_NO_PLACEHOLDERS = frozenset({"schema", "layout", "description", "parameters"})
_SQL_KEYS = frozenset({"sql", "query", "condition", "having", "aggregates", "order_by"})
_KIND_WORDS: ReadOnly[TaskKind, str] = {
    "source": "a source",
    "transform": "a transformation",
    "check": "a check",
    "sink": "a sink",
}


def check_unique_keys(tasks: list[TaskDraft], findings: Findings) -> None:
    """Adds an error for each task key that another task has, in any case: SQL does not tell them apart."""
    first: dict[str, TaskDraft] = {}
    for task in tasks:
        if task.key is None:
            continue
        other = first.setdefault(task.key.lower(), task)
        if other is not task:
            where = f"{_KIND_WORDS[other.kind]} on line {other.node.line}"
            findings.error("DUPLICATE_TASK_KEY", task.place("id"), f"{where} has this key too")


def check_inputs(tasks: list[TaskDraft], known: ReadOnly[str, TaskKind], findings: Findings) -> None:
    """Adds an error for each input that is no task, or a task that offers no rows, and for a cycle."""
    readable = [key for key, kind in known.items() if kind in ("source", "transform")]
    gates = {task.key for task in tasks if task.wait is not None and not task.inputs}
    for task in tasks:
        for key in task.inputs:
            kind = known.get(key)
            if kind in ("source", "transform") and key not in gates:
                continue
            at = _place_of(key, task)
            if key in gates:
                message = (
                    f"{key!r} waits for a signal and has no input, so it offers no rows; name it in `after`"
                )
                findings.error("INVALID_INPUT", at, message)
                continue
            if kind is None:
                hint = findings.nearest(key, readable)
                findings.error("UNDEFINED_INPUT", at, f"no task is called {key!r}", suggestion=hint)
            else:
                findings.error("INVALID_INPUT", at, f"{key!r} is {_KIND_WORDS[kind]}, which offers no rows")
    cycle = find_cycle({task.key: (*task.inputs, *task.after) for task in tasks if task.key is not None})
    if cycle is not None:
        at_task = next(task for task in tasks if task.key == cycle[0])
        shown = cycle if len(cycle) <= 12 else [*cycle[:6], "…", *cycle[-5:]]
        findings.error("CYCLE", at_task.node, f"tasks wait for each other in a circle: {' → '.join(shown)}")


def check_connections(task: TaskDraft, settings: CompileSettings, findings: Findings) -> None:
    """Adds warnings for connections, connectors and tables that are not there yet."""
    element = task.element
    if not isinstance(element, Source | Sink):
        return
    if element.connector is not None and element.connector.lower() not in settings.connectors:
        hint = findings.nearest(element.connector, settings.connectors)
        message = f"there is no connector {element.connector!r} here"
        findings.warning("UNKNOWN_CONNECTOR", task.place("connector"), message, suggestion=hint)
    if element.connection is not None:
        types = settings.connection_types if settings.all_connections else None
        if types is not None and element.connection not in types and "${" not in element.connection:
            hint = findings.nearest(element.connection, types)
            message = f"there is no connection {element.connection!r} yet"
            findings.warning("UNKNOWN_CONNECTION", task.place("connection"), message, suggestion=hint)
    if isinstance(element, Source) and element.values is not None:
        return
    if isinstance(element, Sink) and (element.discard or element.output is not None):
        return
    if element.path is not None or element.connector is not None:
        return
    if element.connection is None:
        default = "source" if isinstance(element, Source) else "target"
        message = f"names no connection, and the pipeline has no {default} connection"
        findings.warning("INCOMPLETE", task.node, message, key="connection")
    if element.table is None and (isinstance(element, Sink) or element.query is None):
        what = "table" if isinstance(element, Sink) else "table or query"
        findings.warning("INCOMPLETE", task.node, f"names no {what}", key="table")


def check_placeholders(
    root: Mapping, definition: Definition, settings: CompileSettings, findings: Findings
) -> None:
    """Adds an error for each `${...}` that names nothing, or that stands where its value cannot."""
    waits = (item for item in definition.transformations if isinstance(item, WaitForSignal))
    signals = {wait.signal_name: wait for wait in waits}
    for name, entry in root.entries.items():
        in_task = name in LISTS.values()
        for node, is_sql in _texts(Mapping({name: entry}), is_sql=False):
            for placeholder in _found(node, findings, is_sql=is_sql):
                if placeholder.scope == "signals":
                    _check_signal(placeholder, node, signals, findings, in_task=in_task)
                else:
                    _check_placeholder(placeholder, node, definition, settings, findings, is_sql=is_sql)


def _found(node: Scalar, findings: Findings, *, is_sql: bool) -> list[Placeholder]:
    try:
        return [item for item, _ in sql_placeholders(node.text)] if is_sql else list(placeholders(node.text))
    except SubstitutionError as error:
        if not is_sql:  # in SQL, the parser has said so already, with its line
            findings.error("PLACEHOLDER", node, str(error))
        return []


def _check_placeholder(
    found: Placeholder,
    node: Scalar,
    definition: Definition,
    settings: CompileSettings,
    findings: Findings,
    *,
    is_sql: bool,
) -> None:
    shown = f"${{{found.reference}}}"
    if found.scope == "params" and found.name not in definition.parameters:
        hint = findings.nearest(found.name, definition.parameters)
        findings.error(
            "UNDECLARED_PARAMETER", node, f"{shown} is not declared in `parameters`", suggestion=hint
        )
    elif found.scope == "env" and settings.env_names is not None and found.name not in settings.env_names:
        findings.error("ENV_NOT_ALLOWED", node, f"{shown} is not among the variables that are allowed here")
    elif found.scope == "secrets" and is_sql:
        findings.error("PLACEHOLDER", node, f"{shown}: a secret cannot stand in SQL")


def _check_signal(
    found: Placeholder,
    node: Scalar,
    signals: ReadOnly[str, WaitForSignal],
    findings: Findings,
    *,
    in_task: bool,
) -> None:
    shown = f"${{{found.reference}}}"
    name, _, field = found.name.partition(".")
    wait = signals.get(name)
    if not field:
        findings.error("PLACEHOLDER", node, f"{shown} names no field; expected ${{signals.name.field}}")
    elif wait is None:
        hint = findings.nearest(name, signals)
        findings.error("UNDECLARED_SIGNAL", node, f"{shown}: no task waits for this signal", suggestion=hint)
    elif field not in (wait.data or {}):
        hint = findings.nearest(field, wait.data or {})
        message = f"{shown} is not declared in the `data` of its signal"
        findings.error("UNDECLARED_FIELD", node, message, suggestion=hint)
    elif not in_task:
        findings.error("PLACEHOLDER", node, f"{shown} can only stand in a task")


def _texts(node: Node, *, is_sql: bool) -> Iterator[tuple[Scalar, bool]]:
    """Scalars that have a placeholder, with whether they are SQL."""
    if isinstance(node, Scalar):
        if isinstance(node.value, str) and "${" in node.value:
            yield node, is_sql
    elif isinstance(node, Sequence):
        for item in node.items:
            yield from _texts(item, is_sql=is_sql)
    else:
        selects = text_of(node.get("type")) == "select"
        for key, value in node.items():
            if key not in _NO_PLACEHOLDERS:
                sql = key in _SQL_KEYS or (selects and key == "columns")
                yield from _texts(value, is_sql=is_sql or sql)


def _place_of(key: str, task: TaskDraft) -> Node:
    """Where a task's text names one of its inputs."""
    for name in ("input", "inputs", "lookup", "to"):
        value = task.node.get(name)
        if isinstance(value, Scalar) and value.value == key:
            return value
        if isinstance(value, Sequence):
            for item in value.items:
                if isinstance(item, Scalar) and item.value == key:
                    return item
    return task.node
