"""Compiles definitions to recipes, once a version as long as its connections keep their types."""

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import MappingProxyType
from typing import TypeVar
from uuid import UUID

import headrace_definition
from headrace.metadata.v1 import definitions_pb2
from headrace_chassis.errors import InvalidDefinition, Problem
from headrace_definition import Compiled, CompileSettings, ConnectionDefaults
from headrace_definition.engines import choose_engine
from headrace_definition.plan import Plan, SourceTask, Task, TransformTask

from headrace_execution.acceptance.notices import notices_of
from headrace_execution.acceptance.resuming import resumed_cursors
from headrace_execution.acceptance.sized_cache import SizedCache
from headrace_execution.domain.recipe import (
    Notices,
    OnTimeout,
    PlanNote,
    Policy,
    Priority,
    Recipe,
    StageSpec,
    TaskSpec,
    WaitSpec,
)
from headrace_execution.errors import EngineNotAvailable
from headrace_execution.store.sql.documents import dump_recipe

T = TypeVar("T")

NO_LIMITS: Mapping[str, tuple[str, int]] = MappingProxyType({})
CAPACITY = 8 * 2**20
"""How many bytes of text the latest versions that are kept compiled may have together, each with `OVERHEAD`:
room for ten thousand small pipelines that all start at once; in memory some hundred MiB at the most."""
OVERHEAD = 500
AVAILABLE_ENGINES = frozenset({"JDBC"})
"""The engines that this release dispatches to."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What this installation allows every run."""

    max_lost: int = 3
    queue_timeout: timedelta | None = None
    total_timeout: timedelta | None = None


@dataclass(slots=True)
class Prepared:
    """A compiled text, and the recipes made of it, by the engine that was asked for."""

    compiled: Compiled
    version: int | None
    connection_types: Mapping[str, str]
    connection_limits: Mapping[str, tuple[str, int]]
    recipes: dict[str | None, Recipe] = field(default_factory=dict)

    @property
    def priority(self) -> Priority:
        """The priority that the definition gives its runs."""
        execution = self.compiled.definition.execution
        return Priority[execution.priority] if execution and execution.priority else Priority.NORMAL

    def fits(self, definition: definitions_pb2.Definition) -> bool:
        """Whether its connections still have the types and limits that it was compiled with."""
        same_types = self.connection_types == dict(definition.connection_types)
        return same_types and self.connection_limits == _limits(definition)


class Compiler:
    """Remembers what was used last: of each pipeline its latest version, of texts given with runs some."""

    def __init__(
        self,
        limits: Limits,
        *,
        settings: CompileSettings | None = None,
        capacity: int = CAPACITY,
    ) -> None:
        self._limits = limits
        self._settings = replace(settings or CompileSettings(), for_run=True)
        self._latest: SizedCache[UUID, Prepared] = SizedCache(capacity)
        self._texts: SizedCache[bytes, Prepared] = SizedCache(capacity // 4)

    def known_version(self, pipeline: UUID) -> int | None:
        """The version of a pipeline that is at hand, compiled."""
        prepared = self._latest.get(pipeline)
        return prepared.version if prepared is not None else None

    def latest(self, definition: definitions_pb2.Definition) -> Prepared | None:
        """The compiled form of a pipeline's version, if it is at hand."""
        prepared = self._latest.get(UUID(definition.pipeline_id))
        if prepared is None or prepared.version != definition.version or not prepared.fits(definition):
            return None
        return prepared

    async def compile_version(self, definition: definitions_pb2.Definition) -> Prepared:
        """The compiled form of a pipeline's version, from its text. Raises InvalidDefinition."""
        compiled = await self._compile(definition.text, definition)
        prepared = _prepared(compiled, definition.version, definition)
        self._latest.put(UUID(definition.pipeline_id), prepared, _size(definition.text))
        return prepared

    async def compile_text(self, text: str, definition: definitions_pb2.Definition) -> Prepared:
        """The compiled form of a text that came with a run of a pipeline. Raises InvalidDefinition."""
        digest = _digest(text, definition)
        prepared = self._texts.get(digest)
        if prepared is None or not prepared.fits(definition):
            compiled = await self._compile(text, definition)
            prepared = _prepared(compiled, None, definition)
            self._texts.put(digest, prepared, _size(text))
        return prepared

    async def connections_of(self, text: str, definition: definitions_pb2.Definition) -> frozenset[str]:
        """The names and ids by which such a text refers to connections. Raises InvalidDefinition."""
        prepared = self._texts.get(_digest(text, definition)) or await self.compile_text(text, definition)
        return frozenset(prepared.compiled.plan.connections)

    def recipe(
        self, prepared: Prepared, definition: definitions_pb2.Definition, engine: str | None
    ) -> Recipe:
        """What a run of it is made of. Raises EngineNotAvailable."""
        recipe = prepared.recipes.get(engine)
        if recipe is None:
            plan = self._on_engine(prepared.compiled, engine)
            if plan.engine not in AVAILABLE_ENGINES:
                raise EngineNotAvailable(plan.engine, plan.engine_reason)
            policy = _policy(prepared, definition, plan, self._limits)
            notices = notices_of(prepared.compiled, definition, is_version=prepared.version is not None)
            recipe = to_recipe(plan, policy, prepared.connection_limits, notices)
            prepared.recipes[engine] = recipe
        return recipe

    async def _compile(self, text: str, definition: definitions_pb2.Definition) -> Compiled:
        defaults = ConnectionDefaults(
            source=definition.source_connection_id or None, target=definition.target_connection_id or None
        )
        # A connection that is missing may come until a worker needs it; then the stage fails and names it.
        settings = replace(
            self._settings, connection_types=dict(definition.connection_types), all_connections=False
        )
        # In a thread: a large definition takes a second, and the loop serves others meanwhile.
        report = await asyncio.to_thread(
            headrace_definition.validate, text, settings=settings, defaults=defaults
        )
        if report.compiled is None:
            raise InvalidDefinition([to_problem(problem) for problem in report.errors])
        return report.compiled

    def _on_engine(self, compiled: Compiled, engine: str | None) -> Plan:
        plan = compiled.plan
        if engine is None:
            return plan
        if engine == "AUTO":
            definition = compiled.definition.model_copy(update={"engine": "AUTO"})
            sources = [task.config for task in plan.tasks if isinstance(task, SourceTask)]
            chosen, reason = choose_engine(definition, sources, self._settings)
        else:
            chosen, reason = engine, f"the run was started with engine {engine}"  # type: ignore[assignment]
        return plan.model_copy(update={"engine": chosen, "engine_reason": reason})


def _size(text: str) -> int:
    return len(text) + OVERHEAD


def _digest(text: str, definition: definitions_pb2.Definition) -> bytes:
    """What the compiled form of a text depends on, beside the types of connections."""
    parts = (definition.pipeline_id, str(definition.version), text)
    return hashlib.sha256("\0".join(parts).encode()).digest()


def _prepared(compiled: Compiled, version: int | None, definition: definitions_pb2.Definition) -> Prepared:
    return Prepared(compiled, version, dict(definition.connection_types), _limits(definition))


def _limits(definition: definitions_pb2.Definition) -> dict[str, tuple[str, int]]:
    """The ids and limits of connections that have one, by the words that name them."""
    return {
        word: (limit.connection_id, limit.max_concurrent_stages)
        for word, limit in definition.connection_limits.items()
    }


def to_recipe(
    plan: Plan,
    policy: Policy,
    limits: Mapping[str, tuple[str, int]] = NO_LIMITS,
    notices: Notices | None = None,
) -> Recipe:
    """A plan as the domain knows it; `limits` are those of connections, by the words that name them."""
    positions = {task.key: position for position, task in enumerate(plan.tasks)}
    stage_positions = {stage.key: position for position, stage in enumerate(plan.stages)}
    by_key = {task.key: task for task in plan.tasks}
    waits = {stage.key: _wait(by_key[stage.tasks[0]]) for stage in plan.stages}
    waiting = {wait.signal: stage_positions[key] for key, wait in waits.items() if wait is not None}
    stages = tuple(
        StageSpec(
            key=stage.key,
            tasks=tuple(positions[key] for key in stage.tasks),
            depends_on=tuple(stage_positions[key] for key in stage.depends_on),
            loads=tuple(
                key for key in stage.tasks if by_key[key].kind == "sink" and by_key[key].type != "discard"
            ),
            connections=stage.connections,
            payload=plan.stage_payload(stage.key) if waits[stage.key] is None else b"",
            cursors=resumed_cursors(plan, stage),
            limits=tuple(sorted({limits[word] for word in stage.connections if word in limits})),
            wait=waits[stage.key],
            signals=tuple(position for name, position in waiting.items() if name in stage.signals),
        )
        for stage in plan.stages
    )
    recipe = Recipe(
        digest=b"",
        engine=plan.engine,
        engine_reason=plan.engine_reason,
        tasks=tuple(
            TaskSpec(task.key, task.kind, task.type, getattr(task, "guarantee", None)) for task in plan.tasks
        ),
        stages=stages,
        policy=policy,
        notes=tuple(
            PlanNote(note.code, note.path, note.message, note.line, note.column) for note in plan.warnings
        ),
        notices=notices,
    )
    return replace(recipe, digest=hashlib.sha256(dump_recipe(recipe).encode()).digest())


def _wait(task: Task) -> WaitSpec | None:
    """What a task waits for that no worker runs: it is a stage by itself."""
    wait = task.wait if isinstance(task, TransformTask) else None
    if wait is None:
        return None
    declared = wait.model_dump_json(include={"data"}) if wait.data is not None else None
    return WaitSpec(
        signal=wait.signal_name,
        timeout=wait.timeout,
        on_timeout=OnTimeout(wait.on_timeout),
        data=declared.encode() if declared is not None else None,
        description=wait.description,
        proceed_if=json.dumps(wait.proceed_if).encode() if wait.proceed_if is not None else None,
    )


def to_problem(problem: headrace_definition.Problem) -> Problem:
    """A finding of the compiler as an error tells it."""
    return Problem(
        problem.code, problem.path, problem.message, problem.line, problem.column, problem.suggestion
    )


def to_problems(problems: Sequence[headrace_definition.Problem]) -> list[Problem]:
    """Findings of the compiler as an error tells them."""
    return [to_problem(problem) for problem in problems]


def _policy(prepared: Prepared, definition: definitions_pb2.Definition, plan: Plan, limits: Limits) -> Policy:
    execution = prepared.compiled.definition.execution
    policy = Policy(
        max_retries=definition.max_retries,
        retry_delay=timedelta(seconds=definition.retry_delay_seconds),
        attempt_timeout=timedelta(seconds=definition.timeout_seconds),
        max_lost=limits.max_lost,
        max_concurrent_runs=execution.max_concurrent_runs if execution else None,
        queue_when_full=execution.queue_when_full is not False if execution else True,
        queue_timeout=limits.queue_timeout,
        total_timeout=limits.total_timeout,
    )
    if prepared.version is None and execution is not None:
        # A stored version's settings have been settled by metadata; a text that came with the run speaks
        # for itself.
        policy = replace(
            policy,
            max_retries=_first(execution.max_retries, policy.max_retries),
            retry_delay=_first(execution.retry_delay, policy.retry_delay),
            attempt_timeout=_first(execution.timeout, policy.attempt_timeout),
        )
    if any(_is_incremental(plan, task.key) for task in plan.tasks):
        # Runs that share a cursor take turns: the next one reads from where this one lands.
        policy = replace(policy, max_concurrent_runs=1)
    return policy


def _first(given: T | None, otherwise: T) -> T:
    return otherwise if given is None else given


def _is_incremental(plan: Plan, key: str) -> bool:
    return any(
        task.key == key and isinstance(task, SourceTask) and task.config.incremental is not None
        for task in plan.tasks
    )
