"""The public surface of the connectors: open a source or a sink, copy between them, look at a connection.

A stage is worked off like this::

    scratch = await Scratch.open(environment)
    source = await open_source(source_spec, connection, environment)
    result = await source.load(scratch, "flights", progress)
    await scratch.execute('CREATE TABLE "joined" AS SELECT …')
    sink = await open_sink(sink_spec, connection, environment)
    receipt = await sink.claim(key, fence)          # landed already: receipt, and nothing is left to do
    if receipt is None:
        await sink.stage(scratch, "joined", progress=progress)
        receipt = await sink.commit(key, fence, result.cursor)

Every failure is a :class:`ConnectorError`.  Drivers are imported when a connection of their type is opened,
so that an idle worker carries none of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from headrace_connectors.cursors import Cursor
from headrace_connectors.errors import ConnectorError, ErrorClass, FencedOut
from headrace_connectors.guard import AddressGuard
from headrace_connectors.model import (
    Catalogue,
    Column,
    Connection,
    ConnectionReport,
    Environment,
    Exported,
    FileFormat,
    Guarantee,
    Incremental,
    LoadKey,
    PartitionRange,
    ProgressListener,
    Receipt,
    Secret,
    Series,
    SinkSpec,
    SourceResult,
    SourceSpec,
    Split,
    Staged,
    TableInfo,
    TablePage,
    no_progress,
)
from headrace_connectors.ports import Sink, Source
from headrace_connectors.previews import LoadPreview, ReadPreview
from headrace_connectors.scratch import Scratch

__all__ = [
    "AddressGuard",
    "Catalogue",
    "Column",
    "Connection",
    "ConnectionReport",
    "ConnectorError",
    "Cursor",
    "Environment",
    "ErrorClass",
    "Exported",
    "FencedOut",
    "FileFormat",
    "Guarantee",
    "Incremental",
    "LoadKey",
    "LoadPreview",
    "PartitionRange",
    "ProgressListener",
    "ReadPreview",
    "Receipt",
    "Scratch",
    "Secret",
    "Series",
    "Sink",
    "SinkSpec",
    "Source",
    "SourceResult",
    "SourceSpec",
    "Split",
    "Staged",
    "TableInfo",
    "TablePage",
    "copy_through",
    "export_file",
    "export_parquet",
    "import_parquet",
    "list_tables",
    "no_progress",
    "open_sink",
    "open_source",
    "preview_export",
    "preview_load",
    "test_connection",
]


async def open_source(spec: SourceSpec, connection: Connection | None, environment: Environment) -> Source:
    """Open what ``spec`` describes; ``connection`` is None for inline values and for files under the roots.

    :raises ConnectorError: when the connection fails or the specification contradicts itself.
    """
    from headrace_connectors import registry

    return await registry.open_source(spec, connection, environment)


async def open_sink(spec: SinkSpec, connection: Connection | None, environment: Environment) -> Sink:
    """Open the target ``spec`` describes; ``connection`` is None for discard and for files under the roots.

    :raises ConnectorError: when the connection fails or the specification contradicts itself.
    """
    from headrace_connectors import registry

    return await registry.open_sink(spec, connection, environment)


async def preview_load(
    spec: SinkSpec, connection: Connection | None, environment: Environment, columns: Sequence[Column]
) -> LoadPreview:
    """What loading rows of these columns into a table, file or folder would do; nothing is changed or made.

    :raises ConnectorError: what connecting, matching columns and types, and permissions meet, as the load
        would.  Whether each value fits is only seen by the load.
    """
    from headrace_connectors import registry

    return await registry.preview_load(spec, connection, environment, columns)


def preview_export(columns: Sequence[Column], form: FileFormat) -> LoadPreview:
    """What :func:`export_file` would write.

    :raises ConnectorError: NO_COLUMNS, TYPE_NOT_SUPPORTED.
    """
    from headrace_connectors.files import export

    return export.preview(columns, form)


async def copy_through(
    source: Source, sink: Sink, progress: ProgressListener = no_progress
) -> SourceResult | None:
    """Stage a source into a claimed sink without decoding a row; stands for ``load`` and ``stage`` together.

    :returns: None when the two cannot be joined like that (different systems, or a column whose types
        differ): load and stage then.  Nothing has been moved in that case.
    """
    from headrace_connectors import registry

    return await registry.copy_through(source, sink, progress)


async def test_connection(connection: Connection, environment: Environment) -> ConnectionReport:
    """Try to connect and say precisely what happened.  Never raises for a connection that does not work."""
    from headrace_connectors import registry

    return await registry.test_connection(connection, environment)


async def list_tables(
    connection: Connection, environment: Environment, limit: int = 100, after: str = ""
) -> TablePage:
    """One page of the tables and views (or files) behind a connection, in the order of their names.

    :raises ConnectorError: when the connection fails.
    """
    from headrace_connectors import registry

    return await registry.list_tables(connection, environment, limit, after)


async def export_parquet(scratch: Scratch, relation: str, path: str) -> Staged:
    """Write ``relation`` to the Parquet file ``path`` (fsynced, then renamed into place), for the next stage.

    ``path`` belongs to the worker (its artifact store), so the file roots of users do not apply to it.
    """
    from headrace_connectors import artifacts

    return await artifacts.export_parquet(scratch, relation, path)


async def import_parquet(scratch: Scratch, relation: str, path: str) -> SourceResult:
    """Read what :func:`export_parquet` wrote into the new table ``relation``, types as they were."""
    from headrace_connectors import artifacts

    return await artifacts.import_parquet(scratch, relation, path)


async def export_file(
    scratch: Scratch,
    relation: str,
    path: Path,
    form: FileFormat,
    options: Mapping[str, object],
    most_bytes: int = 0,
    progress: ProgressListener = no_progress,
) -> Exported:
    """Write ``relation`` to ``path`` as the file sinks write it, for the worker to keep.

    ``path`` belongs to the worker, so the file roots of users do not apply to it.

    :raises ConnectorError: OUTPUT_TOO_LARGE (class QUOTA) beyond ``most_bytes``, where that is not 0;
        TYPE_NOT_SUPPORTED, VALUE_DOES_NOT_FIT, DISK_FULL, and what writing can meet.
    """
    from headrace_connectors.files import export

    return await export.export_file(scratch, relation, path, form, options, most_bytes, progress)
