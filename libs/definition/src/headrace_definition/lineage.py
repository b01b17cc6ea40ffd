"""Where the columns of each task come from, as far as the definition tells.

Sources are the only origins. A source that declares no columns is *open*: whatever is asked of it by name
is taken to be there. What cannot be traced (`*` over unknown columns, a SQL form that the analyser does not
know) is left out of the columns and still stands in `tables`, which is always complete.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.lineage import Node, lineage
from sqlglot.optimizer.qualify import qualify
from sqlglot.optimizer.scope import build_scope

from headrace_definition.model import (
    Aggregate,
    Cast,
    Deduplicate,
    Filter,
    LookupJoin,
    Rename,
    Select,
    Source,
    SqlTransform,
    Transformation,
    Union,
    WaitForSignal,
)
from headrace_definition.plan import Plan, SinkTask, SourceTask, TransformTask
from headrace_definition.sqltext import ParsedSql, parse_expression, parse_select

# Beyond these, a definition was made by a program and its lineage is of no use to a reader, only costly.
MAX_ANALYSED_SQL = 500
MAX_ANALYSED_COLUMNS = 2000


@dataclass(frozen=True, slots=True, order=True)
class ColumnOrigin:
    """A column of a source."""

    task: str
    column: str


@dataclass(frozen=True, slots=True)
class ColumnLineage:
    """A column of a task, and the source columns that its values are computed from; none for a constant."""

    task: str
    column: str
    origins: tuple[ColumnOrigin, ...]


@dataclass(frozen=True, slots=True)
class Lineage:
    """The lineage of a plan."""

    columns: tuple[ColumnLineage, ...]
    """Of sources, transformations and sinks, in the order of the plan."""
    tables: Mapping[str, tuple[str, ...]]
    """For each task the sources that its rows come from."""


_Origins = frozenset[ColumnOrigin]


@dataclass(frozen=True, slots=True)
class _Relation:
    """The columns of a task. An open one has others, too, which `resolve` may know by name."""

    columns: Mapping[str, _Origins] = field(default_factory=dict)
    is_open: bool = False
    other: Callable[[str], _Origins | None] | None = None
    folded: dict[str, _Origins] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "folded", {name.lower(): origins for name, origins in self.columns.items()})

    def resolve(self, name: str) -> _Origins | None:
        """The origins of a column, in any case; None where they are not known."""
        if (origins := self.folded.get(name.lower())) is not None:
            return origins
        return self.other(name) if self.other is not None else None


_UNKNOWN = _Relation(is_open=True)


NOTHING_FOUND: Mapping[str, Sequence[str]] = MappingProxyType({})


def column_lineage(plan: Plan, found: Mapping[str, Sequence[str]] = NOTHING_FOUND) -> Lineage:
    """Traces the columns of every source, transformation and sink of a plan to the sources.

    `found` are the columns that sources were found to have when they were read, by task: they close sources
    whose columns the definition does not declare.
    """
    relations: dict[str, _Relation] = {}
    tables: dict[str, tuple[str, ...]] = {}
    traced: list[ColumnLineage] = []
    analysed = 0
    for task in plan.tasks:
        tables[task.key] = _sources_of(task.inputs, tables)
        match task:
            case SourceTask():
                tables[task.key] = (task.key,)
                relation = _of_source(task.key, task.config, found.get(task.key))
            case TransformTask():
                analysed += isinstance(task.config, SqlTransform)
                within = analysed <= MAX_ANALYSED_SQL or not isinstance(task.config, SqlTransform)
                relation = _of_transformation(task.config, relations) if within else _UNKNOWN
            case SinkTask():
                relation = relations.get(task.inputs[0], _UNKNOWN) if task.inputs else _UNKNOWN
            case _:
                continue
        relations[task.key] = relation
        traced += [
            ColumnLineage(task.key, column, tuple(sorted(origins)))
            for column, origins in relation.columns.items()
        ]
    return Lineage(tuple(traced), tables)


def _sources_of(inputs: Iterable[str], tables: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(source for key in inputs for source in tables.get(key, ())))


def query_lineage(query: str) -> Mapping[str, tuple[ColumnOrigin, ...]]:
    """The columns of a source's query, and the columns of the tables that they are computed from: `task` of
    an origin is the table as the query names it. What cannot be traced is left out."""
    parsed = parse_select(query)
    if parsed.tree is None:
        return {}
    tables = {table.name.rpartition(".")[2].lower(): table.name for table in parsed.tables}
    if len(tables) < len({table.name for table in parsed.tables}):
        return {}  # two tables of one name in different schemas: nobody can tell whose a column is
    relation = _of_select(parsed.tree, {key: _open(name) for key, name in tables.items()})
    return {name: tuple(sorted(origins)) for name, origins in relation.columns.items()}


def _open(key: str) -> _Relation:
    return _Relation(is_open=True, other=lambda name: _origin(key, name))


def _of_source(key: str, source: Source, found: Sequence[str] | None) -> _Relation:
    if source.columns is not None:
        names: tuple[str, ...] = source.columns
    elif found is not None:
        names = tuple(found)
    elif source.values is not None:
        names = tuple(
            dict.fromkeys([*(source.declared_schema or {}), *(name for row in source.values for name in row)])
        )
    else:
        # Declared types may be of some columns alone.
        declared = {name: _origin(key, name) for name in source.declared_schema or {}}
        return _Relation(declared, is_open=True, other=lambda name: _origin(key, name))
    return _Relation({name: _origin(key, name) for name in names})


def _origin(key: str, name: str) -> _Origins:
    return frozenset({ColumnOrigin(key, name)})


def _of_transformation(config: Transformation, relations: Mapping[str, _Relation]) -> _Relation:
    match config:
        case SqlTransform():
            return _of_sql(config, relations)
        case Union():
            return _united(config, relations)
    relation = relations.get(config.input or "", _UNKNOWN)
    match config:
        case Filter() | Deduplicate() | Cast() | WaitForSignal():
            return relation
        case Select():
            return _selected(config, relation)
        case Rename():
            return _renamed(config, relation)
        case Aggregate():
            grouped = {name: relation.resolve(name) or frozenset() for name in config.group_by}
            return _Relation(
                grouped | {name: _of_expression(sql, relation) for name, sql in config.aggregates.items()}
            )
        case LookupJoin():
            return _joined(config, relation, relations.get(config.lookup, _UNKNOWN))


def _selected(config: Select, relation: _Relation) -> _Relation:
    if config.columns is None:
        return relation
    if isinstance(config.columns, dict):
        return _Relation({name: _of_expression(sql, relation) for name, sql in config.columns.items()})
    return _Relation({name: relation.resolve(name) or frozenset() for name in config.columns})


def _renamed(config: Rename, relation: _Relation) -> _Relation:
    new_names = {old.lower(): new for old, new in config.columns.items()}
    columns = {new_names.get(name.lower(), name): origins for name, origins in relation.columns.items()}
    for old, new in config.columns.items():
        origins = relation.resolve(old)
        if new not in columns and origins is not None:
            columns[new] = origins
    return _Relation(columns, relation.is_open, None if not relation.is_open else relation.other)


def _joined(config: LookupJoin, relation: _Relation, lookup: _Relation) -> _Relation:
    if config.columns is None:
        pairs = config.on if isinstance(config.on, dict) else {name: name for name in config.on}
        keys = {name.lower() for name in pairs.values()}
        added = {name: origins for name, origins in lookup.columns.items() if name.lower() not in keys}
        # With an open lookup, nobody knows which side an unknown column is of.
        other = None if lookup.is_open else relation.other
        return _Relation({**added, **relation.columns}, relation.is_open or lookup.is_open, other)
    wanted = config.columns if isinstance(config.columns, dict) else {name: name for name in config.columns}
    added = {new: lookup.resolve(old) or frozenset() for new, old in wanted.items()}
    return _Relation({**relation.columns, **added}, relation.is_open, relation.other)


def _united(config: Union, relations: Mapping[str, _Relation]) -> _Relation:
    parts = [relations.get(key, _UNKNOWN) for key in config.inputs]
    is_open = any(part.is_open for part in parts)
    columns: dict[str, _Origins] = {}
    if not config.by_name:
        if is_open:
            return _UNKNOWN
        for position, name in enumerate(parts[0].columns):
            at_position = [list(part.columns.values())[position : position + 1] for part in parts]
            columns[name] = frozenset().union(*(origins for found in at_position for origins in found))
        return _Relation(columns)
    for name in dict.fromkeys(name for part in parts for name in part.columns):
        columns[name] = frozenset().union(*(part.resolve(name) or frozenset() for part in parts))

    def other(name: str) -> _Origins | None:
        known = [origins for part in parts if (origins := part.resolve(name)) is not None]
        return frozenset().union(*known) if known else None

    return _Relation(columns, is_open, other if is_open else None)


def _of_expression(sql: str, relation: _Relation) -> _Origins:
    tree = parse_expression(sql).tree
    if tree is None:
        return frozenset()
    columns = (relation.resolve(column.name) for column in tree.find_all(exp.Column))
    return frozenset().union(*(origins for origins in columns if origins is not None))


def _of_sql(config: SqlTransform, relations: Mapping[str, _Relation]) -> _Relation:
    parsed = parse_select(config.sql) if config.sql is not None else ParsedSql(None)
    if parsed.tree is None:
        return _UNKNOWN
    inputs = {key.lower(): relations.get(key, _UNKNOWN) for key in config.input_keys}
    if sum(len(relation.columns) for relation in inputs.values()) > MAX_ANALYSED_COLUMNS:
        return _UNKNOWN
    return _of_select(parsed.tree, inputs)


def _of_select(tree: exp.Expr, inputs: Mapping[str, _Relation]) -> _Relation:
    schema: dict[str, object] = {
        key: dict.fromkeys(relation.columns, "VARCHAR")
        for key, relation in inputs.items()
        if not relation.is_open and relation.columns
    }
    try:
        # The parsed tree is cached, and qualify rewrites what it is given.
        return _traced(tree.copy(), schema, inputs)
    except (SqlglotError, RecursionError, ValueError, KeyError, AttributeError, TypeError):
        # The analyser does not know every form that DuckDB runs: then the lineage is that of tables.
        return _UNKNOWN


def _traced(tree: exp.Expr, schema: dict[str, object], inputs: Mapping[str, _Relation]) -> _Relation:
    named = {output.alias_or_name.lower(): output.alias_or_name for output in getattr(tree, "selects", ())}
    qualified = qualify(
        tree,
        schema=schema,
        dialect="duckdb",
        validate_qualify_columns=False,
        identify=False,
        quote_identifiers=False,
    )
    scope = build_scope(qualified)
    if scope is None or not isinstance(qualified, exp.Query):
        return _UNKNOWN
    columns: dict[str, _Origins] = {}
    is_open = False
    for name in qualified.named_selects:
        if name == "*":
            is_open = True
            continue
        root = lineage(name, qualified, {}, dialect="duckdb", scope=scope, trim_selects=False, copy=False)
        columns[_as_written(name, named, inputs)] = _leaves(root, inputs)
    stars = [relation for relation in inputs.values() if relation.is_open]
    only = stars[0].other if is_open and len(inputs) == 1 and stars and not columns else None
    return _Relation(columns, is_open, only)


def _as_written(name: str, named: Mapping[str, str], inputs: Mapping[str, _Relation]) -> str:
    """The name in the case of the SQL, or of the input that a star took it from; qualifying folds it."""
    if name in named:
        return named[name]
    return next(
        (column for each in inputs.values() for column in each.columns if column.lower() == name), name
    )


def _leaves(root: Node, inputs: Mapping[str, _Relation]) -> _Origins:
    origins: set[ColumnOrigin] = set()
    for node in root.walk():
        if node.downstream:
            continue
        column = exp.to_column(node.name).name
        if isinstance(node.expression, exp.Table):
            relation = inputs.get(node.expression.name.lower())
            found = relation.resolve(column) if relation is not None else None
        elif isinstance(node.expression, exp.Placeholder):
            found = _without_qualifier(column, inputs)
        else:
            found = None
        origins |= found or frozenset()
    return frozenset(origins)


def _without_qualifier(column: str, inputs: Mapping[str, _Relation]) -> _Origins | None:
    """The origins of a column that the analyser could not place: of the only input that can have it."""
    having = [relation for relation in inputs.values() if column.lower() in relation.folded]
    candidates = having or [relation for relation in inputs.values() if relation.is_open]
    return candidates[0].resolve(column) if len(candidates) == 1 else None
