"""Inputs that are left out where only one task fits: the last one of a linear definition."""

from collections.abc import Iterable, Iterator
from itertools import islice

from headrace_definition.model import SqlTransform, Union
from headrace_definition.problems import Findings
from headrace_definition.sqltext import ParsedSql, parse_select
from headrace_definition.tasks import TaskDraft


def infer_inputs(tasks: list[TaskDraft], known: Iterable[str], findings: Findings) -> None:
    """Fills the inputs that are left out; where more than one task fits, that is an error.

    `known` are all task keys of the text, also of tasks that are too broken to be among `tasks`.
    """
    folded = {key.lower(): key for key in known}
    for task in tasks:
        element = task.element
        if isinstance(element, SqlTransform) and element.inputs is None and element.sql:
            parsed = parse_select(element.sql)
            task.judged = ParsedSql(None, parsed.tables, parsed.issues)
            # Tables that are no task are reported where the SQL is judged.
            names = [folded[table.name.lower()] for table in parsed.tables if table.name.lower() in folded]
            task.element = element.model_copy(update={"inputs": tuple(names)})
    flow = _Flow(tasks)
    gates = _gates(tasks)
    for task in tasks:
        if task.kind == "transform":
            if task.key in gates:
                continue
            if _lacks_input(task):
                _fill(task, flow.open_before(task), findings)
            flow.pass_by(task)
        elif task.kind == "source":
            flow.pass_by(task)
    for task in tasks:
        if task.kind in ("check", "sink") and _lacks_input(task):
            _fill(task, flow.ends(task), findings)


def _lacks_input(task: TaskDraft) -> bool:
    element = task.element
    if isinstance(element, SqlTransform):
        return element.inputs is None and element.sql is None
    return not isinstance(element, Union) and getattr(element, "input", None) is None


def _gates(tasks: list[TaskDraft]) -> frozenset[str | None]:
    """The tasks that wait for a signal and hold no rows: they say after what they come, or sources wait for
    them, or there is nothing before them."""
    waits = [task for task in tasks if task.wait is not None and _lacks_input(task)]
    if not waits:
        return frozenset()
    before_sources = {key for task in tasks if task.kind == "source" for key in task.after}
    any_rows = any(task.kind == "source" for task in tasks)
    return frozenset(
        task.key
        for task in waits
        if not any_rows or task.key in before_sources or (task.wait is not None and task.wait.after)
    )


def _fill(task: TaskDraft, candidates: list[str], findings: Findings) -> None:
    element = task.element
    if len(candidates) == 1:
        if isinstance(element, SqlTransform):
            task.element = element.model_copy(update={"inputs": tuple(candidates)})
        else:
            task.element = element.model_copy(update={"input": candidates[0]})
    elif candidates:
        names = ", ".join(candidates)
        findings.error("MISSING_INPUT", task.node, f"which task does it read? {names} all fit", key="input")
    else:
        findings.warning("INCOMPLETE", task.node, "reads nothing, as there is no task before it", key="input")


class _Flow:
    """Which tasks' rows nobody has taken yet, as the definition is read from top to bottom."""

    def __init__(self, tasks: list[TaskDraft]) -> None:
        self._taken = {
            key
            for task in tasks
            if task.kind == "transform" and not _lacks_input(task)
            for key in task.inputs
        }
        self._by_sinks = {key for task in tasks if task.kind == "sink" for key in task.inputs}
        self._seen: dict[str, None] = {}
        self._open: dict[str, None] = {}

    def pass_by(self, task: TaskDraft) -> None:
        """The task and its inputs are now known; its rows are open unless another reads them."""
        for key in task.inputs:
            self._open.pop(key, None)
        if task.key is not None:
            self._seen[task.key] = None
            if task.key not in self._taken:
                self._open[task.key] = None

    def open_before(self, task: TaskDraft) -> list[str]:
        """Tasks before this one that fit as its input."""
        avoided = set(task.inputs)
        candidates = [key for key in self._open if key not in avoided]
        return candidates or (
            [key for key in self._seen if key not in avoided] if len(self._seen) == 1 else []
        )

    def ends(self, task: TaskDraft) -> list[str]:
        """Tasks that fit as the input of a check or sink: those that no transformation reads."""
        avoided = set(task.inputs)
        candidates = _some(key for key in self._open if key not in avoided)
        if len(candidates) > 1 and task.kind == "sink":
            unwritten = _some(key for key in self._open if key not in avoided and key not in self._by_sinks)
            candidates = unwritten or candidates
        return candidates


def _some(keys: Iterator[str]) -> list[str]:
    """A few of the keys: enough to tell one from many, and to name some."""
    return list(islice(keys, 10))
