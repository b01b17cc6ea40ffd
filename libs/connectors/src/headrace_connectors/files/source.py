"""Opening a file source by its format."""

from __future__ import annotations

from headrace_connectors.errors import configuration
from headrace_connectors.files.options import ENDINGS, format_of
from headrace_connectors.model import Connection, Environment, SourceSpec
from headrace_connectors.ports import Source
from headrace_connectors.roots import readable_files


async def open_file_source(
    spec: SourceSpec, connection: Connection | None, environment: Environment
) -> Source:
    """The source for ``spec.path``.

    :raises ConnectorError: PATH_NOT_ALLOWED, FILE_NOT_FOUND, FORMAT_UNKNOWN, and what looking at the files
        meets.
    """
    if spec.path is None:
        raise configuration("SOURCE_INVALID", "a file source needs a path")
    if spec.incremental is not None or spec.split is not None:
        raise configuration("SOURCE_INVALID", "files are read whole: incremental and split are for databases")
    form = format_of(spec.path, spec.format)
    paths = readable_files(spec.path, connection, environment, ENDINGS[form])
    if form == "csv":
        from headrace_connectors.files.csv_source import CsvSource

        return await CsvSource.open(spec, paths)
    if form == "json":
        from headrace_connectors.files.json_source import JsonSource

        return await JsonSource.open(spec, paths, environment)
    from headrace_connectors.files.parquet_source import ParquetSource

    return await ParquetSource.open(spec, paths)
