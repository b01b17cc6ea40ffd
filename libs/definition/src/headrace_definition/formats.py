"""Formats of files by their names."""

from typing import Literal

FileFormatName = Literal["csv", "json", "parquet"]

_COMPRESSED = (".gz", ".zst", ".snappy")
_EXTENSIONS: dict[str, FileFormatName] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
    ".pq": "parquet",
}


def file_format(path: str) -> FileFormatName | None:
    """The format that a file's extension means, or None where it means none."""
    name = path.lower()
    for ending in _COMPRESSED:
        name = name.removesuffix(ending)
    return next((known for ending, known in _EXTENSIONS.items() if name.endswith(ending)), None)
