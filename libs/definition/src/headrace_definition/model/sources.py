"""Where rows come from."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, JsonValue

from headrace_definition.model.base import (
    ColumnName,
    Duration,
    Element,
    Sql,
    TaskKey,
    Text,
    TypeName,
    any_case,
)

FileFormat = Annotated[Literal["csv", "json", "parquet"], any_case(upper=False)]
"""How a file holds rows; `json` is newline-delimited objects, or one array of objects."""

_OneCharacter = Annotated[str, Field(min_length=1, max_length=1)]


class ReadOptions(Element):
    """How a file is read. Each has the default of RFC 4180 or of the format."""

    delimiter: _OneCharacter = Field(default=",", description="Character between fields (csv).")
    header: bool = Field(default=True, description="Whether the first line names the columns (csv).")
    quote: _OneCharacter = Field(default='"', description="Character around fields that need it (csv).")
    escape: _OneCharacter = Field(
        default='"', description="Character that makes a quote inside a quoted field literal (csv)."
    )
    null_values: tuple[str, ...] = Field(
        default=("",), description="Unquoted texts that mean NULL (csv).", examples=[["", "NA"]]
    )
    encoding: Annotated[Literal["utf-8", "utf-16", "latin-1"], any_case(upper=False)] = Field(
        default="utf-8", description="Encoding of the text (csv, json)."
    )
    on_unrepresentable: Annotated[Literal["fail"], any_case(upper=False)] = Field(
        default="fail",
        description="What a value does that its column's type cannot hold: it fails the load, saying where.",
    )


class Incremental(Element):
    """Reads only what is new: rows whose cursor column is above what earlier loads have landed."""

    cursor: ColumnName = Field(
        description="Column that only grows, such as an update time or a serial id. Rows without a value are "
        "read by a first run and by a full refresh only."
    )
    lag: Duration | None = Field(
        default=None,
        description="How much further below to read again, for values that are not given out in the order in "
        "which they grow: a time, or a plain number for a column of numbers.",
    )
    initial: str | int | float | None = Field(
        default=None,
        description="Lowest value that the first run reads; everything is read where it is left out.",
    )


class Split(Element):
    """Reads a table by several key ranges at once, all in one snapshot."""

    column: ColumnName | None = Field(
        default=None, description="Column to split by; the single-column primary key where it is left out."
    )
    ranges: int = Field(ge=1, le=256, description="Number of ranges read side by side.")


class Source(Element):
    """Rows to read: a connection's table or query, files, rows written in place, a connector's stream."""

    model_config = ConfigDict(protected_namespaces=())

    id: TaskKey | None = Field(default=None, description="Task key; `extract` where it is left out.")
    description: str | None = Field(default=None, description="What the source holds, for people.")
    connection: Text | None = Field(
        default=None,
        description="Name or id of a connection of the workspace; the pipeline's source connection where "
        "neither this nor `path`, `values` or `connector` is given.",
    )
    table: Text | None = Field(
        default=None, description="Table or view, optionally with its schema.", examples=["public.flights"]
    )
    query: Sql | None = Field(
        default=None, description="One SELECT in the SQL of the connection's system, instead of `table`."
    )
    columns: tuple[ColumnName, ...] | None = Field(
        default=None, min_length=1, description="Columns to read; all where it is left out."
    )
    path: Text | None = Field(
        default=None,
        description="File, or pattern of files, under the worker's roots or under the connection's folder.",
        examples=["data/flights*.csv"],
    )
    format: FileFormat | None = Field(
        default=None, description="Format of the files; taken from the extension where it is left out."
    )
    declared_schema: dict[ColumnName, TypeName] | None = Field(
        default=None,
        alias="schema",
        description="Types of columns. A declared type is law: a value that does not fit fails the load.",
        examples=[{"year": "INTEGER", "price": "DECIMAL(10,2)"}],
    )
    options: ReadOptions | None = Field(default=None, description="How files are read.")
    incremental: Incremental | None = Field(default=None, description="Read only what is new.")
    split: Split | None = Field(default=None, description="Read by several key ranges at once.")
    values: tuple[dict[ColumnName, JsonValue], ...] | None = Field(
        default=None, description="Rows written in place, for tries and tests.", examples=[[{"id": 1}]]
    )
    connector: Text | None = Field(
        default=None, description="Kind of system, where it is described here instead of by a connection."
    )
    stream: Text | None = Field(default=None, description="What to read of a `connector`.")
    config: dict[str, Any] | None = Field(
        default=None, description="Settings of `connector`; secrets only as ${secrets.name}."
    )
    streaming: bool = Field(
        default=False, description="Whether rows keep coming, so that reading never ends."
    )
    expected_bytes: int | None = Field(
        default=None, ge=0, description="Rough size in bytes; lets engine AUTO choose well."
    )

    after: tuple[TaskKey, ...] = Field(
        default=(), description="Tasks that must have completed before it is read, such as a wait_for_signal."
    )

    @property
    def input_keys(self) -> tuple[str, ...]:
        """Sources read no other task."""
        return ()
