"""Text to plan: the one way in for everything that reads definitions."""

from dataclasses import dataclass, replace

from headrace_definition.engines import choose_engine, sink_guarantee
from headrace_definition.inference import infer_inputs
from headrace_definition.loading import Document, load
from headrace_definition.model import CheckBase, Definition, QualityCheck, Sink, Source, Transformation
from headrace_definition.nodes import Mapping
from headrace_definition.parameters import parameter_value
from headrace_definition.plan import (
    PLAN_FORMAT,
    CheckTask,
    Plan,
    PlanWarning,
    SinkTask,
    SourceTask,
    Task,
    TransformTask,
)
from headrace_definition.problems import DefinitionError, Findings, Problem
from headrace_definition.reading import read
from headrace_definition.reference_rules import (
    check_connections,
    check_inputs,
    check_placeholders,
    check_unique_keys,
)
from headrace_definition.schedule_rules import check_orchestration
from headrace_definition.secret_words import refuse_literals
from headrace_definition.settings import CompileSettings, ConnectionDefaults
from headrace_definition.shape_rules import check_shape
from headrace_definition.spellings import normalise
from headrace_definition.sql_rules import check_sql_of
from headrace_definition.staging import connections_of, cut_into_stages
from headrace_definition.tasks import LISTS, TaskDraft, drafts, in_order, task_keys_in
from headrace_definition.waiting import check_waiting, find_waiting

_BEFORE_RUN = frozenset({"NO_TASKS"})
"""Warnings of a stored definition that are errors of one that is to run: there is nothing that could fail.
Whatever else is not there yet is what its run finds out, and fails by."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """A definition that can be used."""

    definition: Definition
    """In canonical form, with the inputs that were inferred; without the pipeline's default connections."""
    plan: Plan
    warnings: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What there is to say about a text."""

    errors: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    compiled: Compiled | None
    """None where there are errors."""

    @property
    def valid(self) -> bool:
        """Whether there are no errors."""
        return not self.errors


def compile_definition(
    text: str | bytes,
    *,
    settings: CompileSettings | None = None,
    defaults: ConnectionDefaults | None = None,
) -> Compiled:
    """The plan of a definition in any spelling.

    Raises:
        DefinitionError: with everything that is wrong with it.
    """
    report = validate(text, settings=settings, defaults=defaults)
    if report.compiled is None:
        raise DefinitionError(report.errors)
    return report.compiled


def validate(
    text: str | bytes,
    *,
    settings: CompileSettings | None = None,
    defaults: ConnectionDefaults | None = None,
) -> Report:
    """All errors and warnings of a text. Whatever the text, it never raises."""
    settings = settings or CompileSettings()
    findings = Findings()
    try:
        document = load(text, settings.limits, findings)
    except DefinitionError as error:
        return Report((*findings.errors, *error.problems), (), None)
    reading = _Reading(document, settings, defaults or ConnectionDefaults(), findings)
    if settings.for_run:
        findings.escalate(_BEFORE_RUN)
    errors, warnings = findings.errors, findings.warnings
    compiled = None if errors else reading.compiled(warnings)
    return Report(errors, warnings, compiled)


class _Reading:
    """One pass over a loaded text: normalised, read, completed and judged."""

    def __init__(
        self, document: Document, settings: CompileSettings, defaults: ConnectionDefaults, findings: Findings
    ) -> None:
        self._settings = settings
        root = normalise(document.root, findings)
        refuse_literals(root, findings)
        self._definition = read(root, findings)
        self._tasks = drafts(self._definition, root)
        check_unique_keys(self._tasks, findings)
        known = task_keys_in(root)
        readable = [key for key, kind in known.items() if kind in ("source", "transform")]
        find_waiting(self._tasks)
        infer_inputs(self._tasks, readable, findings)
        # Defaults are of the pipeline, not of the text: the canonical definition does not get them.
        self._connected = [_with_connection(task, defaults) for task in self._tasks]
        for task in self._connected:
            check_shape(task, findings)
            check_sql_of(task, document.text, findings, dialect=self._dialect(task), readable=readable)
            check_connections(task, settings, findings)
        check_inputs(self._tasks, known, findings)
        check_waiting(self._tasks, known, findings)
        check_placeholders(root, self._definition, settings, findings)
        check_orchestration(self._definition, root, findings)
        _check_parameters(self._definition, root, findings)
        if not known:
            findings.warning("NO_TASKS", root, "there is nothing to run: no source, transformation or sink")

    def _dialect(self, task: TaskDraft) -> str | None:
        dialects = {"postgresql": "postgres", "sqlite": "sqlite", "duckdb": "duckdb", "mysql": "mysql"}
        return dialects.get(self._connection_type(task.element) or "")

    def _connection_type(self, element: Source | Transformation | QualityCheck | Sink) -> str | None:
        connection = getattr(element, "connection", None)
        return (self._settings.connection_types or {}).get(connection) if connection else None

    def compiled(self, warnings: tuple[Problem, ...]) -> Compiled:
        """The result, once there are no errors."""
        updates = {
            name: tuple(task.element for task in self._tasks if task.kind == kind)
            for kind, name in LISTS.items()
        }
        definition = self._definition.model_copy(update=updates)
        tasks = self._planned()
        sources = [task.config for task in tasks if isinstance(task, SourceTask)]
        engine, reason = choose_engine(definition, sources, self._settings)
        plan = Plan(
            format=PLAN_FORMAT,
            engine=engine,
            engine_reason=reason,
            tasks=tasks,
            stages=cut_into_stages(tasks),
            parameters=definition.parameters,
            connections=connections_of(tasks),
            warnings=tuple(
                PlanWarning(code=w.code, path=w.path, message=w.message, line=w.line, column=w.column)
                for w in warnings
            ),
        )
        return Compiled(definition, plan, warnings)

    def _planned(self) -> tuple[Task, ...]:
        anonymous = [task for task in self._connected if task.key is None]
        discarded = {key for task in anonymous for key in task.inputs}
        by_key = {task.key: task for task in self._connected if task.key is not None}
        ordered = in_order({key: (*task.inputs, *task.after) for key, task in by_key.items()})
        return tuple(self._task(key, by_key[key], discards=key in discarded) for key in ordered)

    def _task(self, key: str, draft: TaskDraft, *, discards: bool) -> Task:
        element, inputs, after = draft.element, draft.inputs, draft.after
        if isinstance(element, Source):
            return SourceTask(
                key=key,
                kind="source",
                type=_place(element),
                inputs=inputs,
                after=after,
                discards=discards,
                config=element,
            )
        if isinstance(element, Sink):
            guarantee, reason = sink_guarantee(element, self._connection_type(element))
            return SinkTask(
                key=key,
                kind="sink",
                type="discard" if element.discard else _place(element),
                inputs=inputs,
                after=after,
                config=element,
                guarantee=guarantee,
                guarantee_reason=reason,
            )
        if isinstance(element, CheckBase):
            return CheckTask(
                key=key, kind="check", type=element.type, inputs=inputs, after=after, config=element
            )
        return TransformTask(
            key=key,
            kind="transform",
            type=element.type,
            inputs=inputs,
            after=after,
            discards=discards,
            config=element,
        )


def _place(element: Source | Sink) -> str:
    """What kind of place a source or sink is."""
    if isinstance(element, Source) and element.values is not None:
        return "values"
    if isinstance(element, Sink) and element.output is not None:
        return "output"
    if element.connector is not None:
        return "connector"
    return "file" if element.path is not None else "database"


def _with_connection(task: TaskDraft, defaults: ConnectionDefaults) -> TaskDraft:
    element = task.element
    if isinstance(element, Source):
        elsewhere, default = element.values is not None, defaults.source
    elif isinstance(element, Sink):
        elsewhere, default = element.discard or element.output is not None, defaults.target
    else:
        return task
    if elsewhere or default is None or element.connection or element.path or element.connector:
        return task
    connected = element.model_copy(update={"connection": default})
    return replace(task, element=connected)


def _check_parameters(definition: Definition, root: Mapping, findings: Findings) -> None:
    nodes = root.get("parameters")
    for name, parameter in definition.parameters.items():
        node = (nodes.get(name) if isinstance(nodes, Mapping) else None) or root
        if parameter.default is not None:
            try:
                parameter_value(parameter, parameter.default)
            except ValueError as error:
                findings.error("PARAMETER_VALUE", node, f"the default {error}", key="default")
