"""The statements that write runs with their stages and tasks: all in one, with the columns that matter.

A column that is NULL in all rows of an insert, or that no row of an update changes, is left out: to encode,
send and read one costs about as much as to write it, and of thirty columns a run's end changes four.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, TypeAlias, TypeVar

from headrace_execution.domain.run import Run
from headrace_execution.store.sql.rows import (
    RUN_COLUMNS,
    STAGE_COLUMNS,
    TASK_COLUMNS,
    Column,
    StageRow,
    TaskRow,
)

V = TypeVar("V")

SHAPES = 500
"""How many statements are kept: one for each set of columns."""


@dataclass(frozen=True, slots=True, eq=False)
class Table(Generic[V]):
    """A table, the columns that identify a row, and those whose old values guard an update of it."""

    name: str
    columns: tuple[Column[V], ...]
    key: tuple[Column[V], ...]
    guard: tuple[Column[V], ...]


def _table(name: str, columns: tuple[Column[V], ...], key: Sequence[str], guard: Sequence[str]) -> Table[V]:
    by_name = {column.name: column for column in columns}
    return Table(name, columns, tuple(by_name[each] for each in key), tuple(by_name[each] for each in guard))


RUNS: Table[Run] = _table("runs", RUN_COLUMNS, ["id"], ["revision"])
STAGES: Table[StageRow] = _table("stages", STAGE_COLUMNS, ["id"], ["state", "fence"])
TASKS: Table[TaskRow] = _table("tasks", TASK_COLUMNS, ["run", "position"], ["state"])

Pair: TypeAlias = tuple[V, V]
"""A row as it is in the database, and as it is to be."""

_Shape: TypeAlias = tuple[tuple[Table[Any], tuple[Column[Any], ...]], ...]
"""Which columns of which tables a statement writes."""


def insert(*parts: tuple[Table[Any], Sequence[Any]]) -> tuple[str, list[list[Any]]]:
    """A statement that inserts these rows, and its parameters: an array a column."""
    shape: list[tuple[Table[Any], tuple[Column[Any], ...]]] = []
    values: list[list[Any]] = []
    for table, rows in parts:
        filled = [(column, _values(column, rows)) for column in table.columns]
        present = [pair for pair in filled if any(value is not None for value in pair[1])]
        if present:
            shape.append((table, tuple(column for column, _ in present)))
            values += [each for _, each in present]
    return _insert_sql(tuple(shape)), values


def update(*parts: tuple[Table[Any], Sequence[Pair[Any]]]) -> tuple[str, list[list[Any]]]:
    """A statement that updates these rows, each only where its guard has the old values, and its parameters.

    It returns a row of counts: how many rows of each table it has updated, of those tables that have any.
    """
    shape: list[tuple[Table[Any], tuple[Column[Any], ...]]] = []
    values: list[list[Any]] = []
    for table, pairs in parts:
        old, new = [before for before, _ in pairs], [after for _, after in pairs]
        changed = [
            (column, after)
            for column in table.columns
            if column.changes and (after := _values(column, new)) != _values(column, old)
        ]
        if changed:
            shape.append((table, tuple(column for column, _ in changed)))
            values += [_values(column, new) for column in table.key]
            values += [after for _, after in changed]
            values += [_values(column, old) for column in table.guard]
    return _update_sql(tuple(shape)), values


def _values(column: Column[V], rows: Sequence[V]) -> list[Any]:
    get = column.get
    return [get(row) for row in rows]


@lru_cache(SHAPES)
def _insert_sql(shape: _Shape) -> str:
    parameters = _Parameters()
    statements = [
        f"INSERT INTO {table.name} ({_names(columns)}) SELECT * FROM unnest({parameters.arrays(columns)})"
        for table, columns in shape
    ]
    *others, last = statements
    return _with(others) + last


@lru_cache(SHAPES)
def _update_sql(shape: _Shape) -> str:
    parameters = _Parameters()
    statements = []
    for table, columns in shape:
        matches = [f"t.{column.name} = u.{column.name}" for column in table.key]
        matches += [f"t.{column.name} = u.old_{column.name}" for column in table.guard]
        given = ", ".join(
            [column.name for column in (*table.key, *columns)]
            + [f"old_{column.name}" for column in table.guard]
        )
        statements.append(
            f"UPDATE {table.name} AS t SET {', '.join(f'{c.name} = u.{c.name}' for c in columns)} "
            f"FROM unnest({parameters.arrays([*table.key, *columns, *table.guard])}) AS u({given}) "
            f"WHERE {' AND '.join(matches)} RETURNING 1"
        )
    counts = ", ".join(f"(SELECT count(*) FROM w{number})" for number in range(len(statements)))
    return f"{_with(statements)}SELECT {counts}"


class _Parameters:
    """Numbers the parameters of a statement."""

    def __init__(self) -> None:
        self._count = 0

    def arrays(self, columns: Sequence[Column[Any]]) -> str:
        """The next parameters: an array of each column's type."""
        first = self._count + 1
        self._count += len(columns)
        return ", ".join(f"${number}::{column.type}[]" for number, column in enumerate(columns, start=first))


def _names(columns: Sequence[Column[Any]]) -> str:
    return ", ".join(column.name for column in columns)


def _with(statements: Sequence[str]) -> str:
    named = ", ".join(f"w{number} AS ({statement})" for number, statement in enumerate(statements))
    return f"WITH {named} " if named else ""
