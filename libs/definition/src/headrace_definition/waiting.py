"""Which tasks wait for others whose rows they do not read: those that say so, and those that use what a
signal says.

One rule serves both: such a task starts in a later stage than what it waits for.
"""

from collections.abc import Iterable
from collections.abc import Mapping as ReadOnly

from headrace_definition.model import Parameter, Sink, Source, WaitForSignal
from headrace_definition.nodes import Sequence
from headrace_definition.parameters import parameter_value
from headrace_definition.problems import Findings
from headrace_definition.secret_words import is_secret_key
from headrace_definition.substitution import references
from headrace_definition.tasks import TaskDraft, TaskKind

MAX_SIGNALS = 50
"""Signals that one definition may wait for."""


def find_waiting(tasks: Iterable[TaskDraft]) -> None:
    """Fills in after what each task comes."""
    tasks = list(tasks)
    signals = {task.wait.signal_name: task.key for task in tasks if task.wait is not None and task.key}
    for task in tasks:
        element = task.element
        named = element.after if isinstance(element, Source | Sink | WaitForSignal) else ()
        used = used_signals(task) if signals else frozenset()
        waits = (key for signal, key in signals.items() if signal in used)
        task.after = tuple(dict.fromkeys([*named, *waits]))


def used_signals(task: TaskDraft) -> frozenset[str]:
    """The names of the signals that a task's texts refer to."""
    return signals_in(task.element.model_dump_json(exclude={"description"}))


def signals_in(text: str) -> frozenset[str]:
    """The names of the signals that a text, or a document of texts, refers to."""
    if "${" not in text:
        return frozenset()
    return frozenset(name.partition(".")[0] for name in references(text, "signals"))


def check_waiting(tasks: list[TaskDraft], known: ReadOnly[str, TaskKind], findings: Findings) -> None:
    """Adds an error for each task that waits for none that exists, for signals of one name, and for fields
    that would hold secrets.
    """
    for task in tasks:
        for key in getattr(task.element, "after", ()):
            if key not in known:
                _undefined(task, key, known, findings)
    waits = [(task, task.wait) for task in tasks if task.wait is not None]
    first: dict[str, TaskDraft] = {}
    for task, wait in waits:
        other = first.setdefault(wait.signal_name, task)
        if other is not task:
            message = (
                f"the task on line {other.node.line} waits for this signal too; one signal serves one task"
            )
            findings.error("DUPLICATE_SIGNAL", task.place("signal"), message)
        _check_condition(task, wait, findings)
        if not wait.timeout:
            findings.error("INVALID_VALUE", task.place("timeout"), "must be longer than nothing")
        for name, field in (wait.data or {}).items():
            if field.default is not None and (why := _unfit(field, field.default)) is not None:
                findings.error("FIELD_VALUE", task.place("data"), f"{name}: the default {why}")
            if is_secret_key(name):
                message = f"{name!r} sounds like a secret, and what a signal says is kept and shown"
                findings.error("SECRET_FIELD", task.place("data"), message)
    if len(waits) > MAX_SIGNALS:
        task, _ = waits[MAX_SIGNALS]
        message = f"a definition waits for at most {MAX_SIGNALS} signals"
        findings.error("TOO_MANY_SIGNALS", task.node, message)


def _check_condition(task: TaskDraft, wait: WaitForSignal, findings: Findings) -> None:
    declared = wait.data or {}
    for name, value in (wait.proceed_if or {}).items():
        if name not in declared:
            hint = findings.nearest(name, declared)
            message = f"{name!r} is not declared in the `data` of the signal"
            findings.error("UNDECLARED_FIELD", task.place("proceed_if"), message, suggestion=hint)
        elif (why := _unfit(declared[name], value)) is not None:
            findings.error("FIELD_VALUE", task.place("proceed_if"), f"{name}: {why}")


def _unfit(field: Parameter, value: object) -> str | None:
    """What is wrong with a value for a field."""
    try:
        parameter_value(field, value)
    except ValueError as error:
        return str(error)
    return None


def _undefined(task: TaskDraft, key: str, known: ReadOnly[str, TaskKind], findings: Findings) -> None:
    named = task.place("after")
    items = named.items if isinstance(named, Sequence) else []
    at = next((item for item in items if getattr(item, "value", None) == key), named)
    findings.error(
        "UNDEFINED_TASK", at, f"no task is called {key!r}", suggestion=findings.nearest(key, known)
    )
