"""Where rows go."""

from typing import Annotated, Any, Literal

from pydantic import Field

from headrace_definition.model.base import ColumnName, Element, TaskKey, Text, any_case
from headrace_definition.model.sources import FileFormat

Bound = str | int | float


class WriteOptions(Element):
    """How a file is written."""

    delimiter: str = Field(default=",", min_length=1, max_length=1, description="Between fields (csv).")
    header: bool = Field(default=True, description="Whether the first line names the columns (csv).")
    quote: str = Field(
        default='"', min_length=1, max_length=1, description="Around fields that need it (csv)."
    )
    null_value: str = Field(default="", description="Text that stands for NULL (csv).")
    compression: Annotated[Literal["none", "gzip", "snappy", "zstd"], any_case(upper=False)] | None = Field(
        default=None,
        description="Compression; snappy for parquet and none for others where it is left out.",
    )


class Partition(Element):
    """The half-open range of a column that a load replaces."""

    column: ColumnName = Field(description="Column that says which range a row belongs to.")
    from_: Bound | None = Field(
        default=None,
        alias="from",
        description="Inclusive start; the run's ${interval.start} where it is left out.",
    )
    to: Bound | None = Field(
        default=None, description="Exclusive end; the run's ${interval.end} where it is left out."
    )


class Sink(Element):
    """Where rows land: a table of a connection, a file, an output of the run, a connector, or nowhere."""

    id: TaskKey | None = Field(default=None, description="Task key; `load` where it is left out.")
    description: str | None = Field(default=None, description="What it feeds, for people.")
    input: TaskKey | None = Field(
        default=None, description="Task whose rows it writes; inferred where only one fits."
    )
    connection: Text | None = Field(
        default=None,
        description="Name or id of a connection of the workspace; the pipeline's target connection where "
        "neither this nor `path`, `output`, `discard` or `connector` is given.",
    )
    table: Text | None = Field(
        default=None,
        description="Table to write; made where it does not exist.",
        examples=["analytics.flights"],
    )
    path: Text | None = Field(
        default=None, description="File to write, under the worker's roots or the connection's folder."
    )
    format: FileFormat | None = Field(
        default=None, description="Format of the file; taken from the extension where it is left out."
    )
    output: FileFormat | None = Field(
        default=None,
        description="Keep the rows as a file of this format with the run, to be downloaded: one file a run, "
        "however often it is tried.",
    )
    options: WriteOptions | None = Field(default=None, description="How the file is written.")
    mode: Annotated[Literal["append", "replace", "merge", "replace_partition"], any_case(upper=False)] = (
        Field(
            default="append",
            description="`append` adds rows; `replace` swaps all rows; `merge` updates by `keys`, else adds; "
            "`replace_partition` swaps the rows of `partition`.",
        )
    )
    keys: tuple[ColumnName, ...] | None = Field(
        default=None, min_length=1, description="Columns that identify a row, for mode merge."
    )
    partition: Partition | None = Field(
        default=None, description="Range to swap, for mode replace_partition."
    )
    schema_drift: Annotated[Literal["fail", "ignore", "evolve"], any_case(upper=False)] = Field(
        default="fail",
        description="When the rows have a column that the table lacks: refuse the load, leave it out, or "
        "add it to the table, in the transaction of the load. A file has the columns of its rows.",
    )
    missing_columns: Annotated[Literal["allow", "fail"], any_case(upper=False)] = Field(
        default="allow",
        description="When the table has a column that the rows lack, and nothing fills it: let it be NULL (a "
        "merge keeps what is there), or refuse the load. A column that must not be NULL refuses it always.",
    )
    discard: bool = Field(default=False, description="Read all rows and keep none, for tries and benches.")
    connector: Text | None = Field(
        default=None, description="Kind of system, where it is described here instead of by a connection."
    )
    stream: Text | None = Field(default=None, description="What to write of a `connector`.")
    config: dict[str, Any] | None = Field(
        default=None, description="Settings of `connector`; secrets only as ${secrets.name}."
    )

    after: tuple[TaskKey, ...] = Field(
        default=(),
        description="Tasks that must have completed before it is written, such as a wait_for_signal.",
    )

    @property
    def input_keys(self) -> tuple[str, ...]:
        """The tasks it reads."""
        return (self.input,) if self.input is not None else ()
