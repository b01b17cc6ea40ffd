"""Reading CSV: every row as text first, then each column to its type, strictly.

Declared types are law.  The type of an undeclared column is inferred from all of the file, never from a
sample: the narrowest type that every value has *exactly as it is written* (``007`` and ``+5`` stay text).
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any, cast

from headrace_connectors import canonical
from headrace_connectors.blocking import in_thread
from headrace_connectors.errors import ConnectorError, configuration, data, transient
from headrace_connectors.files.infer import WRONG_GUESS, guess, guessed, infer, possible
from headrace_connectors.files.options import Dialect, dialect
from headrace_connectors.files.parsed import parsed_types, passed_on, refusal
from headrace_connectors.files.watching import HexadecimalWatch, QuoteWatch
from headrace_connectors.identifiers import quote
from headrace_connectors.model import Column, ProgressListener, SourceResult, SourceSpec, no_progress
from headrace_connectors.previews import ReadPreview
from headrace_connectors.rows import first_batch, open_csv, with_growing_blocks, with_row_numbers
from headrace_connectors.scratch import Scratch
from headrace_connectors.transfer import Meter, insert, translate

if TYPE_CHECKING:
    import pyarrow as pa

_HEADER_CHARACTERS = 1024 * 1024
_BEHIND = "\N{SYMBOL FOR END OF TRANSMISSION}"  # not ASCII, and so no delimiter, quote or escape


class CsvSource:
    """One or more CSV files with the same columns."""

    def __init__(self, spec: SourceSpec, paths: Sequence[Path], names: list[str], form: Dialect) -> None:
        self.spec = spec
        self._paths = list(paths)
        self._names = names
        self._form = form
        self._chosen = list(spec.columns) or names
        self._declared = {
            name: canonical.normalise(spec.schema[name], name) for name in self._chosen if name in spec.schema
        }

    @classmethod
    async def open(cls, spec: SourceSpec, paths: Sequence[Path]) -> CsvSource:
        """Read the headers.

        :raises ConnectorError: CSV_HEADER_DIFFERS, COLUMN_NOT_FOUND, DUPLICATE_COLUMN, ENCODING_INVALID,
            FILE_EMPTY.
        """
        form = dialect(spec.options, str(paths[0]))

        def look() -> list[str]:
            names = _names(paths[0], form, spec)
            for path in paths[1:]:
                other = _names(path, form, spec)
                if other != names:
                    raise configuration(
                        "CSV_HEADER_DIFFERS",
                        f"{path.name} has columns {', '.join(other)}; {paths[0].name} has {', '.join(names)}",
                        path=path.name,
                    )
            return names

        names = await in_thread(look)
        for name in (*spec.columns, *spec.schema):
            if name not in names:
                raise configuration(
                    "COLUMN_NOT_FOUND",
                    f"{paths[0].name} has no column {name}; it has {', '.join(names)}",
                    column=name,
                )
        return cls(spec, paths, names, form)

    async def columns(self) -> list[Column]:
        """The columns; undeclared ones are VARCHAR here, until a load has seen all of their values."""
        return [Column(name, self._declared.get(name, "VARCHAR")) for name in self._chosen]

    async def load(
        self, scratch: Scratch, relation: str, progress: ProgressListener = no_progress
    ) -> SourceResult:
        """Read all files into ``relation``."""
        before = [_stamp(path) for path in self._paths]

        async def attempt(block: int) -> Meter:
            meter = Meter(progress)
            if len(self._declared) == len(self._chosen):
                await self._load_typed(scratch, relation, meter, block)
            else:
                await self._load_inferred(scratch, relation, meter, block)
            return meter

        meter = await with_growing_blocks(self.spec, attempt)
        if [_stamp(path) for path in self._paths] != before:
            raise transient("FILE_CHANGED", "a file was changed while it was read")
        return SourceResult(meter.rows, meter.bytes)

    async def preview(self, scratch: Scratch) -> ReadPreview:
        """The columns, with what the first block of the first file suggests of those that nobody declared."""
        files = tuple(path.name for path in self._paths)
        open_ones = {f"c{i}": name for i, name in enumerate(self._chosen) if name not in self._declared}
        if not open_ones:
            return ReadPreview(tuple(await self.columns()), files=files)
        raw = "__preview"

        async def look(block: int) -> list[str]:
            await self._read_texts(scratch, raw, Meter(no_progress), block, first_only=True)
            columns = list(open_ones)
            return await infer(scratch, raw, columns, await possible(scratch, raw, columns))

        seen = dict(zip(open_ones, await with_growing_blocks(self.spec, look), strict=True))
        await scratch.drop(raw)
        return ReadPreview(tuple(self._columns_with(seen)), files=files, guessed=tuple(open_ones.values()))

    async def close(self) -> None:
        """Nothing stays open between calls."""

    async def _load_typed(self, scratch: Scratch, relation: str, meter: Meter, block: int) -> None:
        columns = await self.columns()
        if not await self._attempt(scratch, relation, columns, {}, meter, block):
            meter.reset()
            await scratch.make(relation, columns)
            for path in self._paths:
                await self._read(scratch, relation, path, self._conversions(columns, "__row"), meter, block)

    async def _load_inferred(self, scratch: Scratch, relation: str, meter: Meter, block: int) -> None:
        """By a guess that the whole file confirms, or else by looking at every value first."""
        raw = f"__raw_{relation}"
        open_ones = [f"c{i}" for i, name in enumerate(self._chosen) if name not in self._declared]
        await self._read_texts(scratch, raw, Meter(no_progress), block, first_only=True)
        left = await possible(scratch, raw, open_ones)
        seen = await guess(scratch, raw, open_ones, left)
        if seen is None or not await self._load_guessed(scratch, relation, meter, block, seen):
            meter.reset()
            await self._read_texts(scratch, raw, meter, block)
            found = dict(zip(open_ones, await infer(scratch, raw, open_ones, left), strict=True))
            await self._convert_texts(scratch, raw, relation, found)
        await scratch.drop(raw)

    async def _load_guessed(
        self, scratch: Scratch, relation: str, meter: Meter, block: int, seen: dict[str, str | None]
    ) -> bool:
        """Load with the guessed types; False when some value of the file is not what was guessed."""
        columns = self._columns_with({name: kind or "VARCHAR" for name, kind in seen.items()})
        if not await self._attempt(scratch, relation, columns, seen, meter, block):
            return False
        empty = [columns[int(name[1:])].name for name, kind in seen.items() if kind is None]
        counts = ", ".join(f"count({quote(name)})" for name in empty) or "0"
        return not any((await scratch.fetch(f"SELECT {counts} FROM {quote(relation)}"))[0])

    async def _attempt(
        self,
        scratch: Scratch,
        relation: str,
        columns: list[Column],
        seen: Mapping[str, str | None],
        meter: Meter,
        block: int,
    ) -> bool:
        """Load by the quickest way that can be trusted; False when some value needs the strict one."""
        parsed = parsed_types(columns, self._declared)
        expressions = self._conversions(columns, "__row")
        for index, column in enumerate(columns):
            if f"c{index}" in seen:
                expressions[index] = guessed(f"c{index}", column.type)
            elif index in parsed:
                expressions[index] = passed_on(index, column.type)
        await scratch.make(relation, columns)
        try:
            for path in self._paths:
                await self._read(scratch, relation, path, expressions, meter, block, parsed=parsed)
        except ConnectorError as error:
            if error.code != WRONG_GUESS:
                raise
            return False
        return True

    async def _read_texts(
        self, scratch: Scratch, raw: str, meter: Meter, block: int, first_only: bool = False
    ) -> None:
        """The files (or the first block of the first) as texts, with the numbers of row and file."""
        texts = [Column(f"c{index}", "VARCHAR") for index in range(len(self._chosen))]
        await scratch.make(raw, [*texts, Column("__row", "BIGINT"), Column("__file", "INTEGER")])
        names = ", ".join(column.name for column in texts)
        for number, path in enumerate(self._paths[:1] if first_only else self._paths):
            await self._read(scratch, raw, path, [names, "__row", str(number)], meter, block, first_only)

    async def _convert_texts(
        self, scratch: Scratch, raw: str, relation: str, seen: Mapping[str, str]
    ) -> None:
        columns = self._columns_with(seen)
        await scratch.make(relation, columns)
        listed = ", ".join(self._conversions(columns, "__row"))
        for number, path in enumerate(self._paths):
            try:
                await scratch.execute(
                    f"INSERT INTO {quote(relation)} SELECT {listed} FROM {quote(raw)} WHERE __file = {number}"
                )
            except ConnectorError as error:
                raise await self._with_line(error, path) from error

    def _columns_with(self, seen: Mapping[str, str]) -> list[Column]:
        return [
            Column(name, self._declared.get(name) or seen[f"c{index}"])
            for index, name in enumerate(self._chosen)
        ]

    def _conversions(self, columns: list[Column], row: str) -> list[str]:
        on_unrepresentable = str(self.spec.options.get("on_unrepresentable", "fail"))
        return [
            canonical.converting(
                f"c{index}", column.type, column.name, f"'record ' || ({row} + 1)", on_unrepresentable
            )
            for index, column in enumerate(columns)
        ]

    async def _read(
        self,
        scratch: Scratch,
        relation: str,
        path: Path,
        expressions: list[str],
        meter: Meter,
        block: int,
        first_only: bool = False,
        parsed: Mapping[int, str] = MappingProxyType({}),
    ) -> None:
        files: list[QuoteWatch] = []

        def reader() -> pa.RecordBatchReader:
            files.append(QuoteWatch(opened(path, self._form.encoding), self._form.quote))
            reader = self._reader(files[0], path, block, parsed)
            return first_batch(reader) if first_only else reader

        try:
            await insert(scratch, relation, expressions, reader, meter, what=path.name)
            if files[0].odd and not first_only:
                await in_thread(lambda: _require_closed(path, self._form))
        except ConnectorError as error:
            raise await self._with_line(error, path) from error
        finally:
            for file in files:
                file.close()

    def _reader(
        self, file: QuoteWatch, path: Path, block: int, parsed: Mapping[int, str]
    ) -> pa.RecordBatchReader:
        import pyarrow as pa
        from pyarrow import csv as arrow_csv

        form = self._form
        names = [f"f{index}" for index in range(len(self._names))]
        included = [f"f{self._names.index(name)}" for name in self._chosen]
        skipped = 1 if form.header else 0
        kinds = [pa.type_for_alias(parsed.get(index, "string")) for index in range(len(included))]
        watch = HexadecimalWatch(file)

        def refuse(row: Any) -> str:
            problems.append((row.expected_columns, row.actual_columns))
            return "error"

        problems: list[tuple[int, int]] = []

        def begin() -> pa.RecordBatchReader:
            return open_csv(
                watch if parsed else file,
                pa.schema(list(zip(included, kinds, strict=True))),
                read_options=arrow_csv.ReadOptions(
                    column_names=names,
                    skip_rows_after_names=skipped,
                    block_size=block,
                    use_threads=False,
                ),
                parse_options=arrow_csv.ParseOptions(
                    delimiter=form.delimiter,
                    quote_char=form.quote,
                    double_quote=form.escape == form.quote,
                    escape_char="\\" if form.escape == "\\" else False,
                    newlines_in_values=True,
                    ignore_empty_lines=len(self._names) > 1,
                    invalid_row_handler=refuse,
                ),
                convert_options=arrow_csv.ConvertOptions(
                    column_types={name: pa.string() for name in names}
                    | dict(zip(included, kinds, strict=True)),
                    include_columns=included,
                    null_values=list(form.null_values),
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                ),
            )

        renamed = pa.schema([pa.field(f"c{index}", kind) for index, kind in enumerate(kinds)])
        return with_row_numbers(
            pa.RecordBatchReader.from_batches(renamed, _renamed(begin, renamed, problems, path, watch))
        )

    async def _with_line(self, error: ConnectorError, path: Path) -> ConnectorError:
        """The same error with the line, found by reading the file once more: only failures pay for it."""
        if error.code == "ENCODING_INVALID":
            line = await in_thread(lambda: _undecodable_line(path, self._form.encoding))
            return data(
                error.code, f"{path.name}, line {line}: not valid {self._form.encoding}", line=str(line)
            )
        if error.code == "CSV_ROW_INVALID":
            line = await in_thread(lambda: _line_of_width(path, self._form, len(self._names)))
            text = f"{path.name}, line {line}: {error.message.partition(': ')[2]}"
            return data(error.code, text, line=str(line), path=path.name)
        record = error.details.get("row", "")
        if not record.startswith("record "):
            return error
        number = int(record.removeprefix("record "))
        line = await in_thread(lambda: _line_of(path, self._form, number))
        column = error.details.get("column")
        place = f"{path.name}, line {line}" + (f", column {column}" if column else "")
        if error.code == "VALUE_NOT_REPRESENTABLE":
            message = f"{place}: {error.details['value_class']} is not a {error.details['type']}"
        else:
            message = f"{place}: {error.message.partition(': ')[2] or error.message}"
        return ConnectorError(
            error.code, error.error_class, message, {**error.details, "line": str(line), "path": path.name}
        )


def _renamed(
    begin: Callable[[], pa.RecordBatchReader],
    schema: pa.Schema,
    problems: list[tuple[int, int]],
    path: Path,
    watch: HexadecimalWatch,
) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    try:
        for batch in begin():
            if watch.seen:
                raise data(WRONG_GUESS, f"{path.name}: 0x, which the parser would take for a number")
            yield pa.RecordBatch.from_arrays(batch.columns, schema=schema)
    except pa.ArrowInvalid as error:
        if not problems:
            raise refusal(error) from error
        expected, actual = problems[0]
        raise data(
            "CSV_ROW_INVALID", f"{path.name}: a row of {actual} fields, expected {expected}"
        ) from error


def opened(path: Path, encoding: str = "utf-8") -> IO[bytes]:
    """The file's bytes as UTF-8, unpacked when its name ends in ``.gz``."""
    packed = path.suffix == ".gz"
    file = cast("IO[bytes]", gzip.open(path, "rb") if packed else path.open("rb"))  # noqa: SIM115 - the caller closes
    if encoding.lower().replace("_", "-") in ("utf-8", "utf8", "utf-8-sig"):
        return file
    return cast("IO[bytes]", _Recoded(io.TextIOWrapper(file, encoding=encoding, newline="")))


class _Recoded(io.RawIOBase):
    """Another encoding read as UTF-8."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        super().__init__()
        self._text = text
        self._rest = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        while len(self._rest) < size:
            piece = self._text.read(65_536)
            if not piece:
                break
            self._rest += piece.encode()
        result, self._rest = self._rest[:size], self._rest[size:]
        return result

    def close(self) -> None:
        self._text.close()
        super().close()


def _names(path: Path, form: Dialect, spec: SourceSpec) -> list[str]:
    """The column names of a file: its header, or the declared schema, or column1, column2, …"""
    try:
        with io.TextIOWrapper(
            opened(path, form.encoding), encoding="utf-8-sig", newline="", errors="surrogateescape"
        ) as text:
            first: list[str] | None = next(_records(_bounded(text), form), None)
        "".join(first or ()).encode()
    except UnicodeError as error:
        raise data("ENCODING_INVALID", f"{path.name}, line 1: not valid {form.encoding}", line="1") from error
    except (OSError, csv.Error, EOFError) as error:
        raise _broken(error, path) from error
    if first is None:
        raise data("FILE_EMPTY", f"{path.name} is empty: not even a header", path=path.name)
    if not form.header:
        names = list(spec.schema)
        return (
            names if len(names) == len(first) else [f"column{number}" for number in range(1, len(first) + 1)]
        )
    twice = next((name for name in first if first.count(name) > 1), None)
    if twice is not None:
        raise configuration(
            "DUPLICATE_COLUMN", f"{path.name} has more than one column {twice!r}", column=twice
        )
    if "" in first:
        raise configuration("COLUMN_UNNAMED", f"{path.name}: column {first.index('') + 1} has no name")
    return first


def _broken(error: Exception, path: Path) -> ConnectorError:
    if isinstance(error, csv.Error | EOFError | gzip.BadGzipFile):
        return data("FILE_INVALID", f"{path.name} cannot be read as CSV")
    return translate(error, path.name)


def _records(lines: Iterable[str], form: Dialect) -> Any:
    return csv.reader(
        lines,
        delimiter=form.delimiter,
        quotechar=form.quote,
        doublequote=form.escape == form.quote,
        escapechar="\\" if form.escape == "\\" else None,
        strict=False,
    )


def _bounded(text: IO[str]) -> Iterator[str]:
    """Lines of at most a megabyte: a file without line ends must not become one string."""
    while line := text.readline(_HEADER_CHARACTERS):
        yield line


def _line_of(path: Path, form: Dialect, record: int) -> int:
    """The line on which a record (from 1, the header apart) begins."""
    csv.field_size_limit(2**31 - 1)
    with io.TextIOWrapper(
        opened(path, form.encoding), encoding="utf-8-sig", newline="", errors="replace"
    ) as text:
        reader = _records(_bounded(text), form)
        seen = -1 if form.header else 0
        start = 1
        for row in reader:
            seen += 1 if row else 0
            if seen == record:
                return start
            start = int(reader.line_num) + 1
    return start


def _line_of_width(path: Path, form: Dialect, width: int) -> int:
    """The line on which the first record begins that has another number of fields than ``width``."""
    csv.field_size_limit(2**31 - 1)
    start = 1
    with io.TextIOWrapper(
        opened(path, form.encoding), encoding="utf-8-sig", newline="", errors="replace"
    ) as text:
        reader = _records(_bounded(text), form)
        for row in reader:
            if row and len(row) != width:
                return start
            start = int(reader.line_num) + 1
    return start


def _require_closed(path: Path, form: Dialect) -> None:
    """Whether the last quoted field is closed, as it is not in a file that was cut off.

    A further record is read behind the file's own; an open quote swallows it.

    :raises ConnectorError: CSV_QUOTE_OPEN.
    """
    csv.field_size_limit(2**31 - 1)
    start, last, final = 1, 1, [""]
    with io.TextIOWrapper(
        opened(path, form.encoding), encoding="utf-8-sig", newline="", errors="replace"
    ) as text:
        reader = _records(itertools.chain(_bounded(text), ["\n", _BEHIND]), form)
        for row in reader:
            last, start, final = start, int(reader.line_num) + 1, row
    if final == [_BEHIND]:
        return
    raise data(
        "CSV_QUOTE_OPEN",
        f"{path.name}, line {last}: a quoted field is not closed by the end of the file",
        line=str(last),
        path=path.name,
    )


def _undecodable_line(path: Path, encoding: str) -> int:
    with opened(path) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode(encoding)
            except UnicodeDecodeError:
                return number
    return 0


def _stamp(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns
