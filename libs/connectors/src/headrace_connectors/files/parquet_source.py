"""Reading Parquet: the file's own schema, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from headrace_connectors import canonical, fit
from headrace_connectors.blocking import in_thread
from headrace_connectors.errors import ConnectorError, configuration, data
from headrace_connectors.gate import inspect
from headrace_connectors.identifiers import quote
from headrace_connectors.model import Column, ProgressListener, SourceResult, SourceSpec, no_progress
from headrace_connectors.previews import ReadPreview
from headrace_connectors.scratch import Scratch
from headrace_connectors.transfer import Meter, insert, translate

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH_ROWS = 16_384


class ParquetSource:
    """One or more Parquet files with the same columns."""

    def __init__(
        self, spec: SourceSpec, paths: Sequence[Path], columns: list[Column], schema: pa.Schema
    ) -> None:
        self.spec = spec
        self._paths = list(paths)
        self._columns = columns
        self._schema = schema
        self._declared = {name: canonical.normalise(kind, name) for name, kind in spec.schema.items()}

    @classmethod
    async def open(cls, spec: SourceSpec, paths: Sequence[Path]) -> ParquetSource:
        """Read the schemas.

        :raises ConnectorError: FILE_INVALID, SCHEMA_DIFFERS, COLUMN_NOT_FOUND, TYPE_NOT_SUPPORTED.
        """

        def look() -> tuple[pa.Schema, list[Column]]:
            from pyarrow import parquet

            try:
                schemas = [parquet.read_schema(path) for path in paths]
            except Exception as error:
                raise translate(error, paths[0].name) from error
            for path, schema in zip(paths, schemas, strict=True):
                if not schema.equals(schemas[0]):
                    raise _differs(schema, path, schemas[0], paths[0])
            return schemas[0], _described(schemas[0], paths[0])

        schema, found = await in_thread(look)
        by_name = {column.name: column for column in found}
        for name in (*spec.columns, *spec.schema):
            if name not in by_name:
                raise configuration(
                    "COLUMN_NOT_FOUND",
                    f"{paths[0].name} has no column {name}; it has {', '.join(by_name)}",
                    column=name,
                )
        return cls(spec, paths, [by_name[name] for name in spec.columns or by_name], schema)

    async def columns(self) -> list[Column]:
        """The columns in the order they are read."""
        return [
            Column(c.name, self._declared.get(c.name, c.type), c.nullable, c.native, c.system)
            for c in self._columns
        ]

    async def load(
        self, scratch: Scratch, relation: str, progress: ProgressListener = no_progress
    ) -> SourceResult:
        """Read all files into ``relation``; a declared type must hold every value exactly."""
        wanted = await self.columns()
        changed = any(new.type != old.type for new, old in zip(wanted, self._columns, strict=True))
        landing = f"__raw_{relation}" if changed else relation
        await scratch.make(landing, self._columns)
        meter = Meter(progress)
        names = [quote(column.name) for column in self._columns]
        for path in self._paths:
            await insert(scratch, landing, names, lambda: self._reader(path), meter, what=path.name)  # noqa: B023
        if changed:
            checks = [
                check
                for old, new in zip(self._columns, wanted, strict=True)
                for check in fit.checks(old, new.type, False)
            ]
            await inspect(scratch, landing, self._columns, checks)
            await scratch.make(relation, wanted)
            casts = ", ".join(f"CAST({quote(column.name)} AS {column.type})" for column in wanted)
            await scratch.execute(f"INSERT INTO {quote(relation)} SELECT {casts} FROM {quote(landing)}")
            await scratch.drop(landing)
        return SourceResult(meter.rows, meter.bytes)

    async def preview(self, scratch: Scratch) -> ReadPreview:
        """The columns, the files, and how many rows the files say they have."""

        def count() -> int:
            from pyarrow import parquet

            try:
                return sum(parquet.read_metadata(path).num_rows for path in self._paths)
            except Exception as error:
                raise translate(error, self._paths[0].name) from error

        columns, files = await self.columns(), tuple(path.name for path in self._paths)
        return ReadPreview(tuple(columns), estimated_rows=await in_thread(count), files=files)

    async def close(self) -> None:
        """Nothing stays open between calls."""

    def _reader(self, path: Path) -> pa.RecordBatchReader:
        import pyarrow as pa
        from pyarrow import parquet

        names = [column.name for column in self._columns]
        schema = pa.schema([self._schema.field(name) for name in names])

        def read() -> Iterator[pa.RecordBatch]:
            with parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=names, use_threads=False):
                    yield pa.RecordBatch.from_arrays([batch.column(name) for name in names], schema=schema)

        return pa.RecordBatchReader.from_batches(schema, read())


def _differs(schema: pa.Schema, path: Path, expected: pa.Schema, first: Path) -> ConnectorError:
    """Which column of a file is not as the first file has it."""
    found, wanted = _told(schema), _told(expected)
    names = dict.fromkeys([*wanted, *found])
    name = next((name for name in names if found.get(name) != wanted.get(name)), None)
    if name is None:
        message = f"{path.name} has its columns in another order than {first.name}: {', '.join(found)}"
        return configuration("SCHEMA_DIFFERS", message, path=path.name)
    parts = [
        f"{file.name} has {f'{name} {told[name]}' if name in told else f'no column {name}'}"
        for file, told in ((path, found), (first, wanted))
    ]
    return configuration("SCHEMA_DIFFERS", ", and ".join(parts), path=path.name, column=name)


def _told(schema: pa.Schema) -> dict[str, str]:
    return {field.name: f"{field.type}{'' if field.nullable else ' NOT NULL'}" for field in schema}


def _described(schema: pa.Schema, path: Path) -> list[Column]:
    """The canonical types, as DuckDB sees an empty table of the schema."""
    import duckdb
    import pyarrow as pa

    for field in schema:
        if pa.types.is_decimal256(field.type):
            raise data(
                "TYPE_NOT_SUPPORTED",
                f"{path.name}: column {field.name} has more than 38 digits",
                column=field.name,
            )
    with duckdb.connect() as connection:
        connection.register("empty", schema.empty_table())
        rows = connection.execute("DESCRIBE SELECT * FROM empty").fetchall()
    return [
        Column(str(row[0]), str(row[1]), field.nullable, str(field.type), "parquet")
        for row, field in zip(rows, schema, strict=True)
    ]
