"""The datasets that a run reads and writes, with the facets that tell what is known of them."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

from headrace_definition.datasets import ConnectionPlace, Dataset, Datasets, datasets
from headrace_definition.lineage import ColumnOrigin
from headrace_definition.model import Source
from headrace_definition.plan import CheckTask, SourceTask

from headrace_execution.domain.run import Receipt, Run, Task
from headrace_execution.domain.states import TaskState
from headrace_execution.openlineage import facets
from headrace_execution.openlineage.facets import Json
from headrace_execution.openlineage.plans import TracedPlan, found_columns

Name: TypeAlias = tuple[str, str]
"""A dataset's namespace and name."""


@dataclass
class _Told:
    """What is told of one dataset, whichever tasks read or write it."""

    facets: Json = field(default_factory=dict)
    rows: int | None = None
    size: int = 0
    assertions: list[Json] = field(default_factory=list)

    def count(self, rows: int, size: int) -> None:
        """Adds what a task moved."""
        self.rows = (self.rows or 0) + rows
        self.size += size


@dataclass(frozen=True)
class DatasetTeller:
    """Tells the datasets of a run. Those that nothing outside of the run has a name for are left out: rows of
    the definition, outputs, and whatever hangs on a connection that does not exist."""

    run: Run
    traced: TracedPlan
    places: Mapping[str, ConnectionPlace]
    is_over: bool
    """Whether the run has ended: until then nothing is told of rows and of what loads have found."""

    def inputs(self) -> list[Json]:
        """What it reads."""
        found = found_columns(self.run) if self.is_over else {}
        told: dict[Name, _Told] = {}
        for task, read in self._read.items():
            source = self._sources[task]
            for dataset in read:
                entry = told.setdefault(_name(dataset), _Told(_source_of(dataset)))
                # What a query makes of its tables is not their schema.
                if source.query is None and (columns := found.get(task) or _declared(source)):
                    entry.facets.setdefault("schema", facets.schema(columns))
                # Of a query over several tables nobody knows how many rows of each were read.
                if self.is_over and len(read) == 1 and (moved := self._own(task)) is not None:
                    entry.count(moved.rows_out, moved.bytes)
                if self.is_over and len(read) == 1:
                    entry.assertions += self._assertions(task)
        return [_message(name, entry, "input") for name, entry in told.items()]

    def outputs(self) -> list[Json]:
        """What it writes."""
        told: dict[Name, _Told] = {}
        for dataset in self._datasets.sinks:
            if dataset.namespace is None:
                continue
            entry = told.setdefault(_name(dataset), _Told(_source_of(dataset)))
            for receipt in self._receipts(dataset.task):
                entry.count(receipt.rows, receipt.bytes)
                if receipt.shape is not None:
                    entry.facets["schema"] = facets.schema(receipt.shape.columns)
            fields = {
                column: sorted(set(self._fields(origins)))
                for column, origins in self.traced.sinks.get(dataset.task, {}).items()
            }
            if traced := {column: inputs for column, inputs in fields.items() if inputs}:
                entry.facets["columnLineage"] = facets.column_lineage(traced)
        return [_message(name, entry, "output") for name, entry in told.items()]

    @cached_property
    def _datasets(self) -> Datasets:
        return datasets(self.traced.plan, self.places)

    @cached_property
    def _sources(self) -> Mapping[str, Source]:
        return {task.key: task.config for task in self.traced.plan.tasks if isinstance(task, SourceTask)}

    @cached_property
    def _read(self) -> Mapping[str, list[Dataset]]:
        """The datasets that sources read and that have a name outside of the run, by task."""
        by_task: dict[str, list[Dataset]] = defaultdict(list)
        for dataset in self._datasets.sources:
            if dataset.namespace is not None and dataset.kind != "QUERY":
                by_task[dataset.task].append(dataset)
        return by_task

    def _fields(self, origins: Iterable[ColumnOrigin]) -> Iterator[tuple[str, str, str]]:
        """The columns of datasets that columns of source tasks are."""
        for origin in origins:
            read = self._read.get(origin.task, [])
            if origin.task not in self.traced.queries:
                yield from ((*_name(dataset), origin.column) for dataset in read)
                continue
            by_table = {dataset.table: dataset for dataset in read}
            for inner in self.traced.queries[origin.task].get(origin.column, ()):
                if (table := by_table.get(inner.task)) is not None:
                    yield (*_name(table), inner.column)

    def _assertions(self, source: str) -> Iterator[Json]:
        """What the checks came to that looked at the rows of a source as they were read."""
        warned = {warning.task for stage in self.run.stages for warning in stage.warnings}
        for check in self.traced.plan.tasks:
            if not isinstance(check, CheckTask) or check.inputs[:1] != (source,):
                continue
            task = self._own(check.key)
            if task is None or task.state not in (TaskState.COMPLETED, TaskState.FAILED):
                continue
            columns = getattr(check.config, "columns", None) or (getattr(check.config, "column", None),)
            yield facets.assertion(
                check.key,
                check.type,
                success=task.state is TaskState.COMPLETED and check.key not in warned,
                severity="warn" if check.severity == "warning" else "error",
                column=columns[0] if len(columns) == 1 else None,
            )

    def _own(self, key: str) -> Task | None:
        """A task of this run as it stands; None where another run has done it, which this one tries again."""
        for stage in self.run.stages:
            for task in stage.tasks:
                if self.run.recipe.tasks[task.position].key == key:
                    return None if stage.was_taken_over or task.started_at is None else task
        return None

    def _receipts(self, sink: str) -> Iterator[Receipt]:
        """The loads of a sink that this run has landed."""
        if self.is_over:
            for stage in self.run.stages:
                if not stage.was_taken_over:
                    yield from (receipt for receipt in stage.receipts if receipt.sink == sink)


def _declared(source: Source) -> list[tuple[str, str | None]]:
    """The columns that the definition says a source has: none where it does not say which."""
    types = source.declared_schema or {}
    return [(name, types.get(name)) for name in source.columns or ()]


def _name(dataset: Dataset) -> Name:
    return dataset.namespace or "", dataset.name


def _source_of(dataset: Dataset) -> Json:
    place = dataset.connection
    if place is None:
        return {}
    uri = dataset.namespace if dataset.namespace is not None and "://" in dataset.namespace else None
    return {"dataSource": facets.data_source(place.name, uri)}


def _message(name: Name, told: _Told, way: str) -> Json:
    message: Json = {"namespace": name[0], "name": name[1]}
    if told.facets:
        message["facets"] = told.facets
    found: Json = {}
    if told.rows is not None:
        size = told.size or None
        if way == "output":
            found["outputStatistics"] = facets.output_statistics(told.rows, size)
        else:
            found["inputStatistics"] = facets.input_statistics(told.rows, size)
    if told.assertions:
        found["dataQualityAssertions"] = facets.assertions(told.assertions)
    if found:
        message[f"{way}Facets"] = found
    return message
