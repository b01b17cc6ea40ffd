"""What is done to rows. Every kind reads other tasks and offers its result under its own key."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from headrace_definition.model.base import ColumnName, Element, Sql, TaskKey, TypeName, any_case
from headrace_definition.model.waits import WaitForSignal


def list_or_mapping(value: Any) -> str:
    """Which of the two shapes a value has, so that an error speaks about that one alone."""
    return "mapping" if isinstance(value, dict) else "list"


ColumnList = tuple[ColumnName, ...]
ColumnsOrMap = Annotated[
    Annotated[ColumnList, Tag("list")] | Annotated[dict[ColumnName, str], Tag("mapping")],
    Discriminator(list_or_mapping),
]


class TransformationBase(Element):
    """Fields that every transformation has."""

    id: TaskKey | None = Field(default=None, description="Task key; made from the type where it is left out.")
    description: str | None = Field(default=None, description="What it does, for people.")
    materialize: bool = Field(
        default=False,
        description="Keep the result as an artifact and continue from it in a stage of its own, "
        "so that a retry of what follows does not repeat what came before.",
    )


class OneInput(TransformationBase):
    """A transformation of one input."""

    input: TaskKey | None = Field(
        default=None, description="Task whose rows it reads; inferred where only one fits."
    )

    @property
    def input_keys(self) -> tuple[str, ...]:
        """The tasks it reads."""
        return (self.input,) if self.input is not None else ()


class SqlTransform(TransformationBase):
    """One SELECT over the declared inputs."""

    type: Literal["sql_transform"]
    inputs: tuple[TaskKey, ...] | None = Field(
        default=None, description="Tasks that the SQL reads; taken from the SQL where it is left out."
    )
    sql: Sql | None = Field(
        default=None,
        description="One SELECT statement in DuckDB's SQL. Tables are the inputs' task keys.",
        examples=["SELECT carrier, count(*) AS flights FROM joined GROUP BY carrier"],
    )

    @property
    def input_keys(self) -> tuple[str, ...]:
        """The tasks it reads."""
        return self.inputs or ()


class LookupJoin(OneInput):
    """Adds columns of a lookup to each row. The lookup's key must be unique, so no row is doubled."""

    type: Literal["lookup_join"]
    lookup: TaskKey = Field(description="Task whose rows are looked up.")
    on: ColumnsOrMap = Field(
        description="Columns that must be equal: a list, or a mapping of the input's to the lookup's.",
        examples=[["carrier"], {"dest": "faa"}],
    )
    columns: ColumnsOrMap | None = Field(
        default=None,
        description="The lookup's columns to add: a list, or a mapping of new name to the lookup's name; "
        "all but the key where it is left out.",
        examples=[{"airline": "name"}],
    )
    join: Annotated[Literal["left", "inner"], any_case(upper=False)] = Field(
        default="left", description="Whether rows without a match stay, with NULLs (left), or go (inner)."
    )

    @property
    def input_keys(self) -> tuple[str, ...]:
        """The tasks it reads: the input, then the lookup."""
        return (*super().input_keys, self.lookup)


class Filter(OneInput):
    """Keeps the rows for which a condition is true."""

    type: Literal["filter"]
    condition: Sql | None = Field(
        default=None,
        description="SQL condition over the input's columns.",
        examples=["dep_delay IS NOT NULL"],
    )


class Select(OneInput):
    """Chooses, reorders or computes columns; keeps all where `columns` is left out."""

    type: Literal["select"]
    columns: ColumnsOrMap | None = Field(
        default=None,
        description="A list of columns, or a mapping of new name to SQL expression.",
        examples=[["carrier", "flight"], {"hours": "air_time / 60.0"}],
    )


class Rename(OneInput):
    """Gives columns new names and keeps the others."""

    type: Literal["rename"]
    columns: dict[ColumnName, ColumnName] = Field(min_length=1, description="Old name to new name.")


class Cast(OneInput):
    """Gives columns other types and keeps the others."""

    type: Literal["cast"]
    columns: dict[ColumnName, TypeName] = Field(
        min_length=1, description="Column to type.", examples=[{"price": "DECIMAL(10,2)"}]
    )
    on_error: Annotated[Literal["fail", "null"], any_case(upper=False)] = Field(
        default="fail", description="Whether a value that does not fit fails the run or becomes NULL."
    )


class Aggregate(OneInput):
    """Groups rows and computes a value for each group."""

    type: Literal["aggregate"]
    group_by: ColumnList = Field(
        default=(), description="Columns to group by; one group over all where empty."
    )
    aggregates: dict[ColumnName, Sql] = Field(
        min_length=1,
        description="New name to aggregate expression.",
        examples=[{"n": "count(*)", "avg_delay": "avg(dep_delay)"}],
    )
    having: Sql | None = Field(
        default=None, description="SQL condition on groups.", examples=["count(*) > 10"]
    )


class Deduplicate(OneInput):
    """Keeps one row for each key."""

    type: Literal["deduplicate"]
    keys: ColumnList | None = Field(
        default=None, min_length=1, description="Columns that make a key; whole rows where it is left out."
    )
    order_by: tuple[Sql, ...] = Field(
        default=(),
        description="Which row of a key stays: the first in this order. Without it, any one of them.",
        examples=[["updated_at desc"]],
    )


class Union(TransformationBase):
    """Puts the rows of several inputs after one another."""

    type: Literal["union"]
    inputs: tuple[TaskKey, ...] = Field(min_length=1, description="Tasks whose rows it takes.")
    by_name: bool = Field(
        default=True,
        description="Match columns by name, missing ones being NULL (true), or by position (false).",
    )
    distinct: bool = Field(default=False, description="Keep one of equal rows.")

    @property
    def input_keys(self) -> tuple[str, ...]:
        """The tasks it reads."""
        return self.inputs


Transformation = Annotated[
    SqlTransform
    | LookupJoin
    | Filter
    | Select
    | Rename
    | Cast
    | Aggregate
    | Deduplicate
    | Union
    | WaitForSignal,
    Field(discriminator="type"),
]
