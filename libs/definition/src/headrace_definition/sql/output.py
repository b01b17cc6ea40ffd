"""Which columns a transformation offers, where those of its inputs are known."""

from collections.abc import Iterable, Mapping, Sequence

from headrace_definition.columns import duplicate
from headrace_definition.model import (
    Aggregate,
    Cast,
    Deduplicate,
    Filter,
    LookupJoin,
    Rename,
    Select,
    Transformation,
    Union,
    WaitForSignal,
)
from headrace_definition.suggestions import nearest


class ColumnError(ValueError):
    """A transformation names a column that its input lacks, or offers two of one name."""

    def __init__(self, column: str, message: str) -> None:
        super().__init__(message)
        self.column = column


def output_columns(
    transformation: Transformation, inputs: Mapping[str, Sequence[str]]
) -> tuple[str, ...] | None:
    """The columns of the result, in order; None for a sql_transform, whose SQL alone knows.

    `inputs` has the columns of each input. Run it before `transformation_sql` is executed: DuckDB would
    rename a second column of the same name without a word.

    Raises:
        ColumnError: when a column is missing, or would be there twice.
        KeyError: when an input's columns are not given.
    """
    match transformation:
        case Filter() | Deduplicate() | WaitForSignal():
            columns = _of(transformation.input, inputs)
            if isinstance(transformation, Deduplicate):
                _require(transformation.keys or (), columns, transformation.input)
        case Select():
            columns = _selected(transformation, _of(transformation.input, inputs))
        case Rename():
            columns = _of(transformation.input, inputs)
            _require(transformation.columns, columns, transformation.input)
            renamed = {old.lower(): new for old, new in transformation.columns.items()}
            columns = tuple(renamed.get(name.lower(), name) for name in columns)
        case Cast():
            columns = _of(transformation.input, inputs)
            _require(transformation.columns, columns, transformation.input)
        case Aggregate():
            _require(transformation.group_by, _of(transformation.input, inputs), transformation.input)
            columns = (*transformation.group_by, *transformation.aggregates)
        case LookupJoin():
            columns = _joined(transformation, inputs)
        case Union():
            columns = _united(transformation, inputs)
        case _:
            return None
    if twice := duplicate(columns):
        raise ColumnError(twice, f"the result would have two columns called {twice!r}; give one another name")
    return columns


def _of(key: str | None, inputs: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    return tuple(inputs[key or ""])


def _require(names: Iterable[str], columns: Sequence[str], key: str | None) -> None:
    known = {column.lower() for column in columns}
    for name in names:
        if name.lower() not in known:
            near = nearest(name, columns)
            hint = f"; did you mean {near!r}?" if near else ""
            raise ColumnError(name, f"{key} has no column {name!r}{hint}")


def _selected(select: Select, columns: tuple[str, ...]) -> tuple[str, ...]:
    if select.columns is None:
        return columns
    if not isinstance(select.columns, dict):
        _require(select.columns, columns, select.input)
    return tuple(select.columns)


def _joined(join: LookupJoin, inputs: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    columns, lookup = _of(join.input, inputs), _of(join.lookup, inputs)
    pairs = join.on if isinstance(join.on, dict) else {name: name for name in join.on}
    _require(pairs, columns, join.input)
    _require(pairs.values(), lookup, join.lookup)
    if join.columns is None:
        keys = {name.lower() for name in pairs.values()}
        return (*columns, *(name for name in lookup if name.lower() not in keys))
    wanted = join.columns if isinstance(join.columns, dict) else {name: name for name in join.columns}
    _require(wanted.values(), lookup, join.lookup)
    return (*columns, *wanted)


def _united(union: Union, inputs: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    first = _of(union.inputs[0], inputs)
    if not union.by_name:
        for key in union.inputs[1:]:
            if len(inputs[key]) != len(first):
                message = f"{key} has {len(inputs[key])} columns and {union.inputs[0]} has {len(first)}"
                raise ColumnError(key, message)
        return first
    merged: dict[str, str] = {}
    for key in union.inputs:
        for name in inputs[key]:
            merged.setdefault(name.lower(), name)
    return tuple(merged.values())
