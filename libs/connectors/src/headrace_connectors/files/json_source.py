"""Reading JSON: newline-delimited or one array of objects.

DuckDB cuts the objects apart and leaves their text alone; Arrow reads the numbers of declared columns from
that text, digit by digit.  The type of an undeclared column is inferred from all of the file.  A number of
JSON is a DOUBLE there; one with more digits than that keeps is refused until its column is declared.
"""

from __future__ import annotations

import io
import re
import uuid
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace_connectors import canonical, duck
from headrace_connectors.blocking import in_thread
from headrace_connectors.errors import ConnectorError, configuration, data
from headrace_connectors.identifiers import literal
from headrace_connectors.model import (
    Column,
    Environment,
    ProgressListener,
    SourceResult,
    SourceSpec,
    no_progress,
)
from headrace_connectors.previews import ReadPreview
from headrace_connectors.rows import with_row_numbers
from headrace_connectors.scratch import Scratch, refuse_alike
from headrace_connectors.transfer import Meter, insert

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_BATCH_ROWS = 8192
_SHARE = 4
_NUMBERED = re.compile(r"(.*)_[0-9]+")
_LONG_NUMBER = r"[:\[,]\s*-?[0-9][0-9.]{17,}"
_DIRECT = ("BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER",
           "UBIGINT",
           "FLOAT", "DOUBLE")  # fmt: skip


class JsonSource:
    """One or more JSON files."""

    def __init__(
        self,
        spec: SourceSpec,
        paths: Sequence[Path],
        environment: Environment,
        columns: list[Column],
        inferred: set[str],
    ) -> None:
        self.spec = spec
        self._paths = list(paths)
        self._environment = environment
        self._columns = columns
        self._loose = {
            column.name
            for column in columns
            if column.type == "JSON"
            or canonical.is_nested(column.type)
            or (column.name in inferred and column.type == "DOUBLE")
        }

    @classmethod
    async def open(cls, spec: SourceSpec, paths: Sequence[Path], environment: Environment) -> JsonSource:
        """Find the columns, by reading all of the files where something is undeclared.

        :raises ConnectorError: COLUMN_NOT_FOUND, FILE_INVALID, TYPE_UNKNOWN.
        """
        declared = {name: canonical.normalise(kind, name) for name, kind in spec.schema.items()}
        wanted = list(spec.columns)
        if (wanted and set(wanted) <= set(declared)) or (declared and not wanted):
            return cls(spec, paths, environment, [Column(n, declared[n]) for n in wanted or declared], set())
        seen = await in_thread(lambda: _inferred(paths, environment))
        for name in (*wanted, *declared):
            if name not in seen:
                raise configuration(
                    "COLUMN_NOT_FOUND",
                    f"{paths[0].name} has no field {name}; it has {', '.join(seen)}",
                    column=name,
                )
        columns = [Column(name, declared.get(name) or seen[name]) for name in wanted or seen]
        return cls(spec, paths, environment, columns, {c.name for c in columns if c.name not in declared})

    async def columns(self) -> list[Column]:
        """The columns in the order they are read."""
        return list(self._columns)

    async def load(
        self, scratch: Scratch, relation: str, progress: ProgressListener = no_progress
    ) -> SourceResult:
        """Read all files into ``relation``."""
        await scratch.make(relation, self._columns)
        meter = Meter(progress)
        on_unrepresentable = str(self.spec.options.get("on_unrepresentable", "fail"))
        expressions = [
            self._expression(index, column, on_unrepresentable) for index, column in enumerate(self._columns)
        ]
        for path in self._paths:
            database = await in_thread(lambda: _helper(self._environment))
            try:
                await insert(
                    scratch,
                    relation,
                    expressions,
                    lambda: with_row_numbers(self._reader(database, path)),  # noqa: B023
                    meter,
                    what=path.name,
                    stop=database.interrupt,
                )
            finally:
                await in_thread(database.close)
        return SourceResult(meter.rows, meter.bytes)

    async def preview(self, scratch: Scratch) -> ReadPreview:
        """The columns, and the files that they are read from."""
        return ReadPreview(tuple(self._columns), files=tuple(path.name for path in self._paths))

    async def close(self) -> None:
        """Nothing stays open between calls."""

    def _expression(self, index: int, column: Column, on_unrepresentable: str) -> str:
        kind = column.type
        if kind in _DIRECT or canonical.decimal_of(kind):
            return f"c{index}"
        row = "'object ' || (__row + 1)"
        if kind in ("HUGEINT", "UHUGEINT"):
            text = f"json_extract_string(__raw, {literal(_pointer(column.name))})"
            return canonical.converting(text, kind, column.name, row, on_unrepresentable)
        if kind == "JSON" or canonical.is_nested(kind):
            part = f"json_extract(__raw, {literal(_pointer(column.name))})"
            value = f"CASE WHEN json_type({part}) = 'NULL' THEN NULL ELSE {part} END"
            return f"CAST({value} AS {kind})" if kind != "JSON" else value
        return canonical.converting(f"c{index}", kind, column.name, row, on_unrepresentable)

    def _reader(self, database: duckdb.DuckDBPyConnection, path: Path) -> pa.RecordBatchReader:
        import pyarrow as pa

        flat = [
            (f"c{index}", column.name, _arrow(column.type))
            for index, column in enumerate(self._columns)
            if column.type not in ("JSON", "HUGEINT", "UHUGEINT") and not canonical.is_nested(column.type)
        ]
        schema = pa.schema([*((short, kind) for short, _, kind in flat), ("__raw", pa.string())])
        asked = pa.schema([(name, kind) for _, name, kind in flat])
        stream = database.sql(
            f"SELECT CAST(json AS VARCHAR) AS raw FROM read_json_objects({literal(str(path))}, format = "
            "'auto')"
        ).to_arrow_reader(_BATCH_ROWS)

        def read() -> Iterator[pa.RecordBatch]:
            start = 0
            for batch in stream:
                texts = batch.column(0).to_pylist()
                if self._loose:
                    _refuse_lost_digits(texts, self._loose, path, start)
                parsed = _parse(texts, asked, path, start)
                start += len(texts)
                columns = [parsed.column(name).combine_chunks() for _, name, _ in flat]
                yield pa.RecordBatch.from_arrays([*columns, batch.column(0).cast(pa.string())], schema=schema)

        return pa.RecordBatchReader.from_batches(schema, read())


def _parse(texts: list[str], schema: pa.Schema, path: Path, start: int) -> pa.Table:
    """The fields of ``schema`` out of a batch of objects; on a misfit, object by object to the one at
    fault."""
    import pyarrow as pa
    from pyarrow import json

    if not schema.names:
        return pa.table({})
    options = json.ParseOptions(
        explicit_schema=schema, newlines_in_values=True, unexpected_field_behavior="ignore"
    )
    whole = "\n".join(texts).encode()
    blocks = json.ReadOptions(block_size=max(len(whole) + 1, 1024), use_threads=False)
    try:
        return json.read_json(io.BytesIO(whole), read_options=blocks, parse_options=options)
    except pa.ArrowInvalid as error:
        if len(texts) == 1:
            raise _misfit(str(error), path, start) from error
        middle = len(texts) // 2
        _parse(texts[:middle], schema, path, start)
        _parse(texts[middle:], schema, path, start + middle)
        raise


def _misfit(text: str, path: Path, number: int) -> ConnectorError:
    place = f"object {number + 1}"
    column = re.search(r"Column\(/([^)/]*)", text)
    wanted = re.search(r"Failed to convert JSON to ([a-z0-9_]+(?:\([^)]*\))?)", text)
    kinds = re.search(r"changed from (\w+) to (\w+)", text)
    value_class = f"a {kinds[2]}" if kinds else "a value out of range or too precise"
    expected = f"a {kinds[1]}" if kinds else f"a {wanted[1]}" if wanted else "what its column holds"
    named = f", field {column[1]}" if column else ""
    return data(
        "VALUE_NOT_REPRESENTABLE",
        f"{path.name}, {place}{named}: {value_class} is not {expected}",
        row=place,
        value_class=value_class,
        path=path.name,
        **({"column": column[1]} if column else {}),
    )


def _refuse_lost_digits(texts: list[str], names: set[str], path: Path, start: int) -> None:
    """Stop where a number of the named fields has more digits than the DOUBLE it is read as.

    A search for long digit strings finds the few objects worth a closer look.
    """
    import json

    import pyarrow as pa
    from pyarrow import compute

    hits = compute.match_substring_regex(pa.array(texts), _LONG_NUMBER).to_pylist()
    for number, text in ((i, text) for i, (hit, text) in enumerate(zip(hits, texts, strict=True)) if hit):
        found = json.loads(text, parse_float=Decimal, parse_int=Decimal)
        for name in names & set(found):
            if _loses_digits(found[name]):
                raise data(
                    "NUMBER_TOO_LONG",
                    f"{path.name}, object {start + number + 1}, field {name}: a number has more digits "
                    "than a DOUBLE "
                    "keeps; declare its column in schema (DECIMAL or VARCHAR)",
                    row=f"object {start + number + 1}",
                    column=name,
                    path=path.name,
                )


def _loses_digits(value: object) -> bool:
    if isinstance(value, Decimal):
        return Decimal(repr(float(value))) != value and not (value == int(value) and abs(value) < 2**64)
    if isinstance(value, dict):
        return any(_loses_digits(part) for part in value.values())
    return isinstance(value, list) and any(_loses_digits(part) for part in value)


def _inferred(paths: Sequence[Path], environment: Environment) -> dict[str, str]:
    """Field names and types from every object; texts stay texts, whatever they look like.

    :raises ConnectorError: FILE_INVALID, FILE_EMPTY, DUPLICATE_COLUMN.
    """
    database = _helper(environment)
    listed = ", ".join(literal(str(path)) for path in paths)
    try:
        rows = database.execute(
            f"DESCRIBE SELECT * FROM read_json([{listed}], format = 'auto', sample_size = -1, "
            "map_inference_threshold = -1, convert_strings_to_integers = false, dateformat = '@', "
            "timestampformat = '@')"
        ).fetchall()
        found = {str(row[0]): _plain(str(row[1])) for row in rows}
        if _may_be_made_up(list(found)):
            keys = database.execute(
                f"SELECT DISTINCT unnest(json_keys(json)) FROM read_json_objects([{listed}], format = 'auto')"
            ).fetchall()
            _require_real(list(found), [str(key) for (key,) in keys], paths[0])
    except ConnectorError:
        raise
    except Exception as error:
        raise duck.translate(error, paths[0].name) from error
    finally:
        database.close()
    return found


def _may_be_made_up(names: list[str]) -> bool:
    """DuckDB calls a file without fields one column ``json``, and a field ``A`` beside ``a`` it calls
    ``A_1``."""
    known = {name.lower() for name in names}
    stems = (_NUMBERED.fullmatch(name.lower()) for name in names)
    return names == ["json"] or any(stem is not None and stem[1] in known for stem in stems)


def _require_real(names: list[str], keys: list[str], path: Path) -> None:
    if not keys:
        raise data(
            "FILE_EMPTY",
            f"{path.name} has no object with a field, so its columns are not known: declare them in `schema`",
            path=path.name,
        )
    if any(name not in keys for name in names):
        refuse_alike(sorted(keys))


def _plain(kind: str) -> str:
    return "VARCHAR" if kind in ("UUID", "DATE", "TIME", "TIMESTAMP", canonical.TIMESTAMPTZ) else kind


def _helper(environment: Environment) -> duckdb.DuckDBPyConnection:
    """A DuckDB that may open files; no SQL of users ever reaches it."""
    return duck.connect(
        ":memory:",
        memory=environment.memory_limit_bytes // _SHARE,
        threads=1,
        temp=environment.temp_dir / f"spill-{uuid.uuid4().hex}",
        temp_bytes=environment.max_temp_bytes,
    )


def _pointer(name: str) -> str:
    """The JSON pointer to a field."""
    return "/" + name.replace("~", "~0").replace("/", "~1")


def _arrow(kind: str) -> Any:
    import pyarrow as pa

    decimal = canonical.decimal_of(kind)
    if decimal:
        return pa.decimal128(*decimal)
    known = {
        "BOOLEAN": pa.bool_(), "TINYINT": pa.int8(), "SMALLINT": pa.int16(), "INTEGER": pa.int32(),
        "BIGINT": pa.int64(), "UTINYINT": pa.uint8(), "USMALLINT": pa.uint16(), "UINTEGER": pa.uint32(),
        "UBIGINT": pa.uint64(), "FLOAT": pa.float32(), "DOUBLE": pa.float64(),
    }  # fmt: skip
    return known.get(kind, pa.string())
