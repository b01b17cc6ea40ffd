"""Turns the tasks of a definition into what connectors and the scratch understand, for one run.

This is where placeholders get their values: ${params.x}, ${run.id}, ${interval.start}, ${env.X}.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from types import MappingProxyType

from headrace_connectors.api import (
    Connection,
    Incremental,
    LoadKey,
    PartitionRange,
    SinkSpec,
    SourceSpec,
    Split,
)
from headrace_definition.model import Parameter, Partition, Sink, Source
from headrace_definition.parameters import parameter_value, resolve_parameters
from headrace_definition.plan import SinkTask, SourceTask
from headrace_definition.problems import DefinitionError
from headrace_definition.substitution import BoundValue, SubstitutionError, bind

from headrace_worker.engine.failure import CONFIGURATION, Failure, TaskFailed
from headrace_worker.engine.run_context import RunContext

_DIALECTS = {"postgresql": "postgres", "sqlite": "sqlite", "duckdb": "duckdb"}
NO_SIGNALS: Mapping[str, Mapping[str, Parameter]] = MappingProxyType({})
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)


class Binding:
    """The values of one run, put into the texts of its tasks."""

    def __init__(
        self,
        context: RunContext,
        declared: Mapping[str, Parameter],
        environment: Mapping[str, str],
        signals: Mapping[str, Mapping[str, Parameter]] = NO_SIGNALS,
    ) -> None:
        """`signals` is the declared data of the signals that the tasks use.

        Raises TaskFailed where the run's parameters, or what its signals said, are not what is declared.
        """
        self._context = context
        try:
            parameters = resolve_parameters(declared, context.parameters)
        except DefinitionError as error:
            raise TaskFailed("", Failure("INVALID_PARAMETERS", CONFIGURATION, str(error))) from error
        values: dict[str, BoundValue] = {f"params.{name}": value for name, value in parameters.items()}
        for name, fields in signals.items():
            values |= _said(name, fields, context.signals.get(name, {}))
        own = {**environment, **context.variables}
        values |= {f"env.{name}": value for name, value in own.items()}
        known: dict[str, BoundValue] = {
            "run.id": context.run_id,
            "run.logical_date": context.logical_date,
            "interval.start": context.interval_start,
            "interval.end": context.interval_end,
        }
        # A time that the run does not have is missing, not NULL: a text that needs it cannot be made.
        values |= {name: value for name, value in known.items() if value is not None}
        self._values = values

    def text(self, task: str, text: str) -> str:
        """A plain text with its values. Raises TaskFailed."""
        try:
            return bind(text, self._values, sql=False)
        except SubstitutionError as error:
            raise _unbound(task, error) from error

    def sql(self, task: str, sql: str, dialect: str = "duckdb") -> str:
        """A SQL text with its values as literals. Raises TaskFailed."""
        try:
            return bind(sql, self._values, sql=True, dialect=dialect)
        except SubstitutionError as error:
            raise _unbound(task, error) from error

    def source(
        self, task: SourceTask, connection: Connection | None, lower: bytes | None, *, repeats: bool
    ) -> SourceSpec:
        """What a source task reads. `repeats`: an incremental source may read rows again. Raises
        TaskFailed."""
        config, key = task.config, task.key
        _refuse_unbuilt(key, config)
        if config.table is None and config.query is None and config.path is None and config.values is None:
            raise _incomplete(
                key, "the source names neither table nor query, path or values: nothing to read"
            )
        query = config.query
        if query is not None:
            query = self.sql(key, query, _DIALECTS.get(connection.type if connection else "", "duckdb"))
        return SourceSpec(
            table=self._optional(key, config.table),
            query=query,
            path=self._optional(key, config.path),
            values=[self._row(key, row) for row in config.values] if config.values is not None else None,
            format=config.format,
            columns=config.columns or (),
            schema=config.declared_schema or {},
            options=config.options.model_dump(exclude_unset=True) if config.options else {},
            incremental=self._incremental(key, config, lower, repeats),
            split=_split(config),
        )

    def sink(self, task: SinkTask) -> SinkSpec:
        """Where a sink task writes. Raises TaskFailed."""
        config, key = task.config, task.key
        _refuse_unbuilt(key, config)
        if config.table is None and config.path is None and config.output is None:
            raise _incomplete(key, "the sink names neither table nor path nor output: nowhere to write")
        return SinkSpec(
            table=self._optional(key, config.table),
            path=self._optional(key, config.path),
            format=config.output or config.format,
            mode=config.mode,
            keys=config.keys or (),
            partition=self._partition(key, config.partition) if config.mode == "replace_partition" else None,
            schema_drift=config.schema_drift,
            missing_columns=config.missing_columns,
            options=config.options.model_dump(exclude_unset=True) if config.options else {},
            goes_on=config.table is not None and config.mode != "replace" and self._goes_on(key),
        )

    def going_on_from(self, cursors: Mapping[tuple[str, str], bytes]) -> Binding:
        """The same, where incremental sources go on from elsewhere."""
        other = copy(self)
        other._context = replace(self._context, cursors=cursors)  # noqa: SLF001 - one of its own kind
        return other

    def load_key(self, task: SinkTask, spec: SinkSpec) -> LoadKey:
        """The identity of a load: the same for each attempt, and for each retry of the run."""
        partition = f"{spec.partition.start}..{spec.partition.end}" if spec.partition else ""
        return LoadKey(self._context.root_run_id, task.key, partition)

    def _goes_on(self, sink: str) -> bool:
        """Whether a sink gets the rows since its last load: an empty cursor is that of one without a load."""
        context = self._context
        return not context.full_refresh and any(
            value for (of, _), value in context.cursors.items() if of == sink
        )

    def _optional(self, task: str, text: str | None) -> str | None:
        return None if text is None else self.text(task, text)

    def _row(self, task: str, row: Mapping[str, object]) -> dict[str, object]:
        return {name: self._nested(task, value) for name, value in row.items()}

    def _nested(self, task: str, value: object) -> object:
        if isinstance(value, str):
            return self.text(task, value)
        if isinstance(value, Mapping):
            return {name: self._nested(task, each) for name, each in value.items()}
        if isinstance(value, Sequence):
            return [self._nested(task, each) for each in value]
        return value

    def _incremental(
        self, task: str, config: Source, lower: bytes | None, repeats: bool
    ) -> Incremental | None:
        incremental = config.incremental
        if incremental is None:
            return None
        initial = None if incremental.initial is None else self.text(task, str(incremental.initial))
        return Incremental(
            cursor=incremental.cursor,
            lower=lower,
            lag=incremental.lag,
            initial=initial,
            repeats=repeats,
            table=None if config.query else config.table,
        )

    def _partition(self, task: str, partition: Partition | None) -> PartitionRange:
        if partition is None:
            raise _incomplete(task, "mode replace_partition needs `partition`")
        start = self._bound(task, "from", partition.from_, self._context.interval_start)
        end = self._bound(task, "to", partition.to, self._context.interval_end)
        return PartitionRange(partition.column, start, end)

    def _bound(
        self, task: str, name: str, given: object, interval: dt.datetime | None
    ) -> dt.datetime | dt.date | int:
        if given is None:
            if interval is None:
                why = f"the run has no interval, and `partition.{name}` does not say which range to replace"
                raise TaskFailed(task, Failure("PARTITION_RANGE_MISSING", CONFIGURATION, why))
            return interval
        text = self.text(task, str(given)).strip()
        try:
            return _range_bound(text)
        except ValueError:
            why = f"`partition.{name}`: {text!r} is neither a whole number nor a date or time"
            raise TaskFailed(task, Failure("PARTITION_RANGE_INVALID", CONFIGURATION, why)) from None


def _said(signal: str, fields: Mapping[str, Parameter], data: Mapping[str, object]) -> dict[str, BoundValue]:
    """The values of a signal that may not have come; what it does not say, and has no default, is NULL."""
    values: dict[str, BoundValue] = {}
    for name, declared in fields.items():
        value = data.get(name, declared.default)
        try:
            values[f"signals.{signal}.{name}"] = None if value is None else parameter_value(declared, value)
        except ValueError as error:
            why = f"${{signals.{signal}.{name}}} {error}"
            raise TaskFailed("", Failure("INVALID_SIGNAL", CONFIGURATION, why)) from error
    return values


def _range_bound(text: str) -> dt.datetime | dt.date | int:
    if _INTEGER.fullmatch(text):
        return int(text)
    return dt.date.fromisoformat(text) if len(text) == len("2025-01-31") else dt.datetime.fromisoformat(text)


def _split(config: Source) -> Split | None:
    if config.split is None or config.split.ranges == 1 or config.split.column is None:
        return None
    return Split(column=config.split.column, ranges=config.split.ranges)


def _refuse_unbuilt(task: str, config: Source | Sink) -> None:
    if config.connector is not None:
        why = (
            f"connector {config.connector!r} described in place is not available; "
            "make a connection of type postgresql, sqlite, duckdb or file and name it"
        )
        raise TaskFailed(task, Failure("CONNECTOR_NOT_AVAILABLE", CONFIGURATION, why))
    if isinstance(config, Source) and config.streaming:
        why = "a source that never ends cannot be read by this engine"
        raise TaskFailed(task, Failure("STREAMING_NOT_AVAILABLE", CONFIGURATION, why))


def _incomplete(task: str, why: str) -> TaskFailed:
    return TaskFailed(task, Failure("DEFINITION_INCOMPLETE", CONFIGURATION, f"{task}: {why}"))


def _unbound(task: str, error: SubstitutionError) -> TaskFailed:
    return TaskFailed(task, Failure("SUBSTITUTION_FAILED", CONFIGURATION, f"{task}: {error}"))
