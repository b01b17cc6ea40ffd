"""The datasets that a plan reads and writes, under the names by which lineage knows them.

Names follow OpenLineage's naming specification (https://openlineage.io/docs/spec/naming): a *namespace* says
which system (`postgres://host:port`, `file`), a *name* what in it (`database.schema.table`,
`/folder/file.csv`). Nothing of a connection but its place is looked at.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from headrace_definition.plan import Plan, SinkTask, SourceTask
from headrace_definition.sqltext import parse_select

DatasetKind = Literal["TABLE", "QUERY", "FILE", "VALUES", "STREAM"]

MAX_TABLES_OF_A_QUERY = 100

_DEFAULT_PORTS = {"postgresql": 5432}
_DEFAULT_SCHEMAS = {"postgresql": "public", "duckdb": "main", "sqlite": "main"}


@dataclass(frozen=True, slots=True)
class ConnectionPlace:
    """Where a connection leads; `type` is in lower case, as in `CompileSettings.connection_types`."""

    id: str
    name: str
    type: str
    host: str | None = None
    port: int | None = None
    database: str | None = None
    path: str | None = None
    default_schema: str | None = None
    """The schema of tables that are named without one, where it is not the usual one of the type."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Something that a task reads or writes.

    `namespace` is None where the connection is not known, and where nothing outside of the run has a name for
    it (rows of the definition, outputs of the run): the name is then as the definition has it.
    """

    task: str
    kind: DatasetKind
    namespace: str | None
    name: str
    connection: ConnectionPlace | None = None
    table: str | None = None
    """The table as the definition or its query names it."""


@dataclass(frozen=True, slots=True)
class Datasets:
    """What a plan reads, and what it writes, in the order of its tasks; discarding is no writing."""

    sources: tuple[Dataset, ...]
    sinks: tuple[Dataset, ...]


def datasets(plan: Plan, connections: Mapping[str, ConnectionPlace]) -> Datasets:
    """The datasets of a plan. `connections` are by the words, names or ids, by which the plan refers to
    them."""
    sources: list[Dataset] = []
    sinks: list[Dataset] = []
    for task in plan.tasks:
        match task:
            case SourceTask():
                sources += _read(task, connections)
            case SinkTask():
                sinks += _written(task, connections)
            case _:
                continue
    return Datasets(tuple(sources), tuple(sinks))


def _read(task: SourceTask, connections: Mapping[str, ConnectionPlace]) -> list[Dataset]:
    source = task.config
    if source.values is not None:
        return [Dataset(task.key, "VALUES", None, task.key)]
    if source.connector is not None:
        return [_stream(task.key, source.connector, source.stream)]
    place = connections.get(source.connection or "")
    if source.path is not None:
        return [_file(task.key, source.path, source.connection, place)]
    if source.table is not None:
        return [_table(task.key, source.table, source.connection, place)]
    tables = parse_select(source.query).tables if source.query is not None else ()
    if not tables:
        return [Dataset(task.key, "QUERY", _namespace(place), task.key, place)]
    return [
        _table(task.key, table.name, source.connection, place) for table in tables[:MAX_TABLES_OF_A_QUERY]
    ]


def _written(task: SinkTask, connections: Mapping[str, ConnectionPlace]) -> list[Dataset]:
    sink = task.config
    if sink.discard:
        return []
    if sink.connector is not None:
        return [_stream(task.key, sink.connector, sink.stream)]
    place = connections.get(sink.connection or "")
    if sink.output is not None:
        return [Dataset(task.key, "FILE", None, f"{task.key}.{sink.output}")]
    if sink.path is not None:
        return [_file(task.key, sink.path, sink.connection, place)]
    return [_table(task.key, sink.table or task.key, sink.connection, place)]


def _stream(task: str, connector: str, stream: str | None) -> Dataset:
    return Dataset(task, "STREAM", connector, stream or task)


def _file(task: str, path: str, word: str | None, place: ConnectionPlace | None) -> Dataset:
    scheme, separator, rest = path.partition("://")
    if separator:
        bucket, _, key = rest.partition("/")
        return Dataset(task, "FILE", f"{scheme}://{bucket}", key, place)
    if word is not None and place is None:
        return Dataset(task, "FILE", None, f"{word}/{path}")
    folder = place.path if place is not None and place.path is not None else ""
    return Dataset(task, "FILE", "file", str(PurePosixPath(folder) / path), place)


def _table(task: str, table: str, word: str | None, place: ConnectionPlace | None) -> Dataset:
    if place is None:
        return Dataset(task, "TABLE", None, f"{word}.{table}" if word is not None else table, table=table)
    parts = table.split(".")
    schema = place.default_schema or _DEFAULT_SCHEMAS.get(place.type)
    if len(parts) == 1 and schema is not None:
        parts.insert(0, schema)
    database = place.database or (PurePosixPath(place.path).stem if place.path is not None else place.name)
    if len(parts) < 3:
        parts.insert(0, database)
    return Dataset(task, "TABLE", _namespace(place), ".".join(parts), place, table)


def _namespace(place: ConnectionPlace | None) -> str | None:
    if place is None:
        return None
    if place.host is not None:
        scheme = "postgres" if place.type == "postgresql" else place.type
        port = place.port or _DEFAULT_PORTS.get(place.type)
        return f"{scheme}://{place.host}" + (f":{port}" if port is not None else "")
    return f"{place.type}:{place.path}" if place.path is not None else place.type
