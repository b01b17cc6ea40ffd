"""A stage as its process works it off: the payload, parsed once for all runs that bring the same bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

from headrace_definition.plan import CheckTask, SinkTask, SourceTask, StagePayload, Task, TransformTask

_CACHED_PAYLOADS = 64
_LARGEST_CACHED = 256 * 1024
_MOST_TRIVIAL_ROWS = 1000
_INT64 = 2**63


@dataclass(frozen=True)
class Program:
    """A stage and what follows from it alone, whatever the run."""

    payload: StagePayload
    trivial_rows: Mapping[str, int] | None
    """Where a stage only counts rows that the definition itself holds: the rows of each task. Else None."""

    @cached_property
    def sources(self) -> tuple[SourceTask, ...]:
        """The tasks that read."""
        return tuple(task for task in self.payload.tasks if isinstance(task, SourceTask))

    @cached_property
    def transforms(self) -> tuple[TransformTask, ...]:
        """The tasks that compute, each after its inputs."""
        return tuple(task for task in self._ordered if isinstance(task, TransformTask))

    @cached_property
    def checks(self) -> tuple[CheckTask, ...]:
        """The tasks that judge."""
        return tuple(task for task in self._ordered if isinstance(task, CheckTask))

    @cached_property
    def sinks(self) -> tuple[SinkTask, ...]:
        """The tasks that write, but for those that discard."""
        return tuple(t for t in self._ordered if isinstance(t, SinkTask) and not t.config.discard)

    @cached_property
    def discards(self) -> tuple[SinkTask, ...]:
        """The tasks that read rows to the end and drop them."""
        return tuple(t for t in self._ordered if isinstance(t, SinkTask) and t.config.discard)

    def is_incremental(self, key: str) -> bool:
        """Whether rows of a task come from an incremental source of this stage."""
        origins = self.sources_of(key)
        return any(task.key in origins and task.config.incremental is not None for task in self.sources)

    @property
    def keys(self) -> tuple[str, ...]:
        """The tasks, in order."""
        return self.payload.stage.tasks

    def readers(self, key: str) -> int:
        """How many tasks of the stage read the rows of a task."""
        return sum(key in task.inputs for task in self.payload.tasks)

    def sources_of(self, key: str) -> frozenset[str]:
        """The keys of the sources, and of artifacts of other stages, that a task's rows come from."""
        task = self._by_key.get(key)
        if task is None or not task.inputs:
            return frozenset({key})
        return frozenset().union(*(self.sources_of(each) for each in task.inputs))

    @cached_property
    def _by_key(self) -> Mapping[str, Task]:
        return {task.key: task for task in self.payload.tasks}

    @cached_property
    def _ordered(self) -> tuple[Task, ...]:
        return tuple(self._by_key[key] for key in self.payload.stage.tasks)


def program_of(payload: bytes) -> Program:
    """The program of a stage's payload.

    Raises:
        pydantic.ValidationError: when it is none that this version reads.
    """
    return _cached(payload) if len(payload) <= _LARGEST_CACHED else _parse(payload)


@lru_cache(maxsize=_CACHED_PAYLOADS)
def _cached(payload: bytes) -> Program:
    return _parse(payload)


def _parse(data: bytes) -> Program:
    payload = StagePayload.from_json(data)
    return Program(payload, _trivial_rows(payload))


def _trivial_rows(payload: StagePayload) -> dict[str, int] | None:
    stage = payload.stage
    if stage.artifacts_in or stage.artifacts_out or stage.connections:
        return None
    rows: dict[str, int] = {}
    for task in payload.tasks:
        if isinstance(task, SourceTask) and _is_plain(task):
            rows[task.key] = len(task.config.values or ())
        elif not (isinstance(task, SinkTask) and task.config.discard):
            return None
    for task in payload.tasks:
        if isinstance(task, SinkTask):
            rows[task.key] = sum(rows[key] for key in task.inputs)
    return rows


def _is_plain(task: SourceTask) -> bool:
    """Whether the values are so simple that loading them could not fail: there is no need to try."""
    config = task.config
    if config.values is None or config.declared_schema or config.columns or config.incremental:
        return False
    if not config.values or len(config.values) > _MOST_TRIVIAL_ROWS:
        return False
    names = config.values[0].keys()
    kinds: dict[str, type] = {}
    for row in config.values:
        if row.keys() != names:
            return False
        for name, value in row.items():
            if not isinstance(value, bool | int | str) or kinds.setdefault(name, type(value)) is not type(
                value
            ):
                return False
            if isinstance(value, str) and ("${" in value or "\x00" in value):
                return False
            if isinstance(value, int) and not -_INT64 <= value < _INT64:
                return False
    return len({name.lower() for name in names}) == len(names) > 0
