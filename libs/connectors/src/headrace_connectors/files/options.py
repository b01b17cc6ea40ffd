"""The options of file sources and sinks, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import get_args

from headrace_connectors.errors import configuration
from headrace_connectors.model import FileFormat

_SUFFIXES: dict[str, FileFormat] = {
    ".csv": "csv", ".tsv": "csv", ".json": "json", ".ndjson": "json", ".jsonl": "json", ".parquet": "parquet",
}  # fmt: skip
ENDINGS: dict[FileFormat, tuple[str, ...]] = {
    "csv": (".csv", ".tsv", ".csv.gz", ".tsv.gz"),
    "json": (".json", ".ndjson", ".jsonl", ".json.gz", ".ndjson.gz", ".jsonl.gz"),
    "parquet": (".parquet",),
}


def format_of(path: str, declared: FileFormat | None) -> FileFormat:
    """The declared format, else the one the file's name says.

    :raises ConnectorError: FORMAT_UNKNOWN.
    """
    name = PurePath(path.removesuffix(".gz"))
    found = declared or _SUFFIXES.get(name.suffix.lower())
    if found is None or found not in get_args(FileFormat):
        raise configuration(
            "FORMAT_UNKNOWN",
            f"{path}: say the format: csv, json or parquet",
            path=path,
            format=str(declared or ""),
        )
    return found


@dataclass(frozen=True)
class Dialect:
    """How a CSV file is written; the default is RFC 4180: unquoted nothing is NULL, ``""`` is an empty
    text."""

    delimiter: str = ","
    quote: str = '"'
    escape: str = '"'
    header: bool = True
    null_values: tuple[str, ...] = ("",)
    encoding: str = "utf-8"


def dialect(options: Mapping[str, object], path: str) -> Dialect:
    """The dialect that options describe.

    :raises ConnectorError: OPTION_INVALID.
    """
    default = Dialect(delimiter="\t" if ".tsv" in path.lower() else ",")
    header = options.get("header", default.header)
    if not isinstance(header, bool):
        raise _invalid("header", "true or false")
    nulls = options.get("null_values", list(default.null_values))
    if not isinstance(nulls, list | tuple) or not all(isinstance(null, str) for null in nulls):
        raise _invalid("null_values", "a list of texts")
    escape = _character(options, "escape", default.escape)
    quote = _character(options, "quote", default.quote)
    if escape not in (quote, "\\"):
        raise _invalid("escape", "the quote character (doubled quotes) or a backslash")
    encoding = str(options.get("encoding", default.encoding))
    try:
        "".encode(encoding)
    except LookupError as error:
        raise _invalid("encoding", "the name of a text encoding") from error
    return Dialect(
        _character(options, "delimiter", default.delimiter),
        quote,
        escape,
        header,
        tuple(map(str, nulls)),
        encoding,
    )


def _character(options: Mapping[str, object], name: str, default: str) -> str:
    value = options.get(name, default)
    if not isinstance(value, str) or len(value) != 1 or ord(value) > 126 or value in "\r\n\0":
        raise _invalid(name, "one ASCII character")
    return value


def _invalid(name: str, expected: str) -> Exception:
    return configuration("OPTION_INVALID", f"option {name} must be {expected}", option=name)
