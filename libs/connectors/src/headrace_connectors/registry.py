"""Which module serves which kind of connection; each is imported when it is first asked for."""

from __future__ import annotations

import time
from collections.abc import Sequence

from headrace_connectors.errors import ConnectorError, ErrorClass, configuration
from headrace_connectors.model import (
    Catalogue,
    Column,
    Connection,
    ConnectionReport,
    Environment,
    ProgressListener,
    SinkSpec,
    SourceResult,
    SourceSpec,
    TablePage,
)
from headrace_connectors.ports import Sink, Source
from headrace_connectors.previews import LoadPreview


async def open_source(spec: SourceSpec, connection: Connection | None, environment: Environment) -> Source:
    """See :func:`headrace_connectors.api.open_source`."""
    given = [name for name in ("table", "query", "path", "values") if getattr(spec, name) not in (None, "")]
    if len(given) != 1:
        raise configuration(
            "SOURCE_INVALID",
            f"a source has one of table, query, path and values; this one has {given or 'none'}",
        )
    if spec.values is not None:
        from headrace_connectors.inline import InlineSource

        return InlineSource(spec)
    if connection is None or connection.type == "file":
        from headrace_connectors.files.source import open_file_source

        return await open_file_source(spec, connection, environment)
    if spec.path is not None:
        raise configuration(
            "SOURCE_INVALID", f"connection {connection.name} is {connection.type}: it has tables, no paths"
        )
    if connection.type == "postgresql":
        from headrace_connectors.postgres.source import PostgresSource

        return await PostgresSource.open(spec, connection, environment)
    if connection.type == "sqlite":
        from headrace_connectors.embedded.sqlite_source import SqliteSource

        return await SqliteSource.open(spec, connection, environment)
    if connection.type == "duckdb":
        from headrace_connectors.embedded.duckdb_source import DuckdbSource

        return await DuckdbSource.open(spec, connection, environment)
    raise _unknown(connection)


async def open_sink(spec: SinkSpec, connection: Connection | None, environment: Environment) -> Sink:
    """See :func:`headrace_connectors.api.open_sink`."""
    if spec.discard:
        from headrace_connectors.discard import DiscardSink

        return DiscardSink()
    if connection is None or connection.type == "file":
        from headrace_connectors.files.sink import FileSink

        return await FileSink.open(spec, connection, environment)
    if connection.type == "postgresql":
        from headrace_connectors.postgres.sink import PostgresSink

        return await PostgresSink.open(spec, connection, environment)
    if connection.type in ("sqlite", "duckdb"):
        from headrace_connectors.embedded.sink import open_embedded_sink

        return await open_embedded_sink(spec, connection, environment)
    raise _unknown(connection)


async def preview_load(
    spec: SinkSpec, connection: Connection | None, environment: Environment, columns: Sequence[Column]
) -> LoadPreview:
    """See :func:`headrace_connectors.api.preview_load`."""
    if connection is None or connection.type == "file":
        from headrace_connectors.files.sink import FileSink

        return await (await FileSink.open(spec, connection, environment)).preview(columns)
    if connection.type == "postgresql":
        from headrace_connectors.postgres import preview

        return await preview.preview_load(spec, connection, environment, columns)
    if connection.type in ("sqlite", "duckdb"):
        from headrace_connectors.embedded.sink import open_embedded_sink

        return await (await open_embedded_sink(spec, connection, environment)).preview(columns)
    raise _unknown(connection)


async def copy_through(source: Source, sink: Sink, progress: ProgressListener) -> SourceResult | None:
    """See :func:`headrace_connectors.api.copy_through`."""
    if type(source).__name__ != "PostgresSource" or type(sink).__name__ != "PostgresSink":
        return None  # told apart by name, so that asking imports no driver
    from headrace_connectors.postgres.copy_through import copy_through as copy
    from headrace_connectors.postgres.sink import PostgresSink
    from headrace_connectors.postgres.source import PostgresSource

    if isinstance(source, PostgresSource) and isinstance(sink, PostgresSink):
        return await copy(source, sink, progress)
    return None


async def test_connection(connection: Connection, environment: Environment) -> ConnectionReport:
    """See :func:`headrace_connectors.api.test_connection`."""
    started = time.monotonic()
    try:
        version, connected, catalogue = await _probe(connection, environment)
    except ConnectorError as error:
        took = (time.monotonic() - started) * 1000
        transient = error.error_class is ErrorClass.TRANSIENT
        return ConnectionReport(False, took, "", error.code, error.message, transient)
    took = (connected - started) * 1000
    return ConnectionReport(True, took, version, "", f"connected to {version}", catalogue=catalogue)


async def _probe(connection: Connection, environment: Environment) -> tuple[str, float, Catalogue | None]:
    """What the system is, when it was connected to, and what it offers."""
    if connection.type == "postgresql":
        from headrace_connectors.postgres import catalog
        from headrace_connectors.postgres.ledger import schema_of
        from headrace_connectors.postgres.session import connect

        session = await connect(connection, environment)
        try:
            version = ".".join(str(part) for part in session.raw.get_server_version()[:2])
            connected = time.monotonic()
            catalogue = await catalog.survey(session, schema_of(connection))
        finally:
            await session.close()
        return f"PostgreSQL {version}", connected, catalogue
    if connection.type in ("sqlite", "duckdb"):
        from headrace_connectors.embedded.database import probe

        return await probe(connection, environment), time.monotonic(), None
    if connection.type == "file":
        from headrace_connectors.files.listing import probe as probe_folder

        return await probe_folder(connection, environment), time.monotonic(), None
    raise _unknown(connection)


async def list_tables(connection: Connection, environment: Environment, limit: int, after: str) -> TablePage:
    """See :func:`headrace_connectors.api.list_tables`."""
    limit = max(1, min(limit, 1000))
    if connection.type == "postgresql":
        from headrace_connectors.postgres import catalog
        from headrace_connectors.postgres.ledger import schema_of
        from headrace_connectors.postgres.session import connect

        session = await connect(connection, environment)
        try:
            return await catalog.list_page(session, limit, after, schema_of(connection))
        finally:
            await session.close()
    if connection.type in ("sqlite", "duckdb"):
        from headrace_connectors.embedded.database import list_page

        return await list_page(connection, environment, limit, after)
    if connection.type == "file":
        from headrace_connectors.files.listing import list_page as list_files

        return await list_files(connection, environment, limit, after)
    raise _unknown(connection)


def _unknown(connection: Connection) -> ConnectorError:
    return configuration(
        "CONNECTION_TYPE_UNKNOWN",
        f"connection {connection.name} is of type {connection.type!r}; known are postgresql, sqlite, "
        "duckdb and file",
    )
