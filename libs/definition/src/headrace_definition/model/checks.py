"""What must be true of rows before they land. Checks run on staged rows, before any target is touched."""

from typing import Annotated, Literal

from pydantic import Field

from headrace_definition.model.base import ColumnName, Duration, Element, Sql, TaskKey, any_case

Scalar = str | int | float | bool
_Columns = Annotated[tuple[ColumnName, ...], Field(min_length=1)]


class CheckBase(Element):
    """Fields that every quality check has."""

    id: TaskKey | None = Field(
        default=None, description="Task key; made from input and type where it is left out."
    )
    description: str | None = Field(default=None, description="What it protects, for people.")
    input: TaskKey | None = Field(
        default=None, description="Task whose rows it checks; inferred where only one fits."
    )
    severity: Annotated[Literal["error", "warning"], any_case(upper=False)] = Field(
        default="error",
        description="`error`: violations fail the run, nothing lands. `warning`: it completes and says so.",
    )
    max_violations: int | None = Field(default=None, ge=0, description="Violating rows that are tolerated.")
    max_ratio: float | None = Field(
        default=None, ge=0, le=1, description="Share of violating rows that is tolerated, 0 to 1."
    )

    @property
    def input_keys(self) -> tuple[str, ...]:
        """The tasks it reads."""
        return (self.input,) if self.input is not None else ()


class NotNull(CheckBase):
    """No NULL in any of the columns; a violation is a row with at least one."""

    type: Literal["not_null"]
    columns: _Columns = Field(description="Columns that must have a value.")


class Unique(CheckBase):
    """No two rows alike in all the columns; a violation is each row beyond the first. NULLs equal nothing."""

    type: Literal["unique"]
    columns: _Columns = Field(description="Columns that together identify a row.")


class AcceptedValues(CheckBase):
    """Only listed values; NULL is no violation (see not_null)."""

    type: Literal["accepted_values"]
    column: ColumnName = Field(description="Column to look at.")
    values: tuple[Scalar, ...] = Field(min_length=1, description="Values that are allowed.")


class Range(CheckBase):
    """Values between two bounds, both inclusive; NULL is no violation."""

    type: Literal["range"]
    column: ColumnName = Field(description="Column to look at.")
    min: int | float | str | None = Field(default=None, description="Least allowed value.")
    max: int | float | str | None = Field(default=None, description="Greatest allowed value.")


class RowCount(CheckBase):
    """A number of rows between two bounds, both inclusive; the violation is the set as a whole."""

    type: Literal["row_count"]
    min: int | None = Field(default=None, ge=0, description="Least number of rows.")
    max: int | None = Field(default=None, ge=0, description="Greatest number of rows.")


class Freshness(CheckBase):
    """The latest value of a time column is not too old; the violation is the set as a whole."""

    type: Literal["freshness"]
    column: ColumnName = Field(description="Column with a date or time; one without a zone is read as UTC.")
    max_age: Duration = Field(description="Greatest allowed age of the latest value.", examples=["1d"])


class Referential(CheckBase):
    """Each key exists in another task's rows; keys with a NULL are no violation."""

    type: Literal["referential"]
    columns: _Columns = Field(description="Columns that make the key.")
    to: TaskKey = Field(description="Task whose rows must hold the key.")
    to_columns: _Columns | None = Field(
        default=None, description="Its columns, in the same order; of the same names where it is left out."
    )

    @property
    def input_keys(self) -> tuple[str, ...]:
        """The tasks it reads: the input, then the one referred to."""
        return (*super().input_keys, self.to)


class SqlCheck(CheckBase):
    """A SELECT whose every row is a violation."""

    type: Literal["sql"]
    sql: Sql = Field(
        description="One SELECT of the violating rows. Its tables are the input and those in `inputs`."
    )
    inputs: tuple[TaskKey, ...] = Field(default=(), description="Further tasks that the SQL reads.")

    @property
    def input_keys(self) -> tuple[str, ...]:
        """The tasks it reads."""
        return (*super().input_keys, *(key for key in self.inputs if key != self.input))


QualityCheck = Annotated[
    NotNull | Unique | AcceptedValues | Range | RowCount | Freshness | Referential | SqlCheck,
    Field(discriminator="type"),
]
