"""The files behind a connection of type file."""

from __future__ import annotations

from pathlib import Path

from headrace_connectors.blocking import in_thread
from headrace_connectors.errors import configuration
from headrace_connectors.files.options import ENDINGS
from headrace_connectors.model import Connection, Environment, TableInfo, TablePage
from headrace_connectors.roots import inside_roots, located

_ENDINGS = tuple(ending for endings in ENDINGS.values() for ending in endings)


async def probe(connection: Connection, environment: Environment) -> str:
    """Check that the folder is there and may be used."""
    folder = _folder(connection, environment)
    entries = await in_thread(lambda: sum(1 for _ in folder.iterdir()))
    return f"a folder with {entries} entries"


async def list_page(connection: Connection, environment: Environment, limit: int, after: str) -> TablePage:
    """One page of the data files directly in the connection's folder."""
    folder = _folder(connection, environment)

    def look() -> list[str]:
        names = (
            entry.name for entry in folder.iterdir() if entry.is_file() and entry.name.endswith(_ENDINGS)
        )
        return sorted(name for name in names if name > after)[: limit + 1]

    names = await in_thread(look)
    tables = tuple(TableInfo("", name, "file", ()) for name in names[:limit])
    return TablePage(tables, names[limit - 1] if len(names) > limit else "")


def _folder(connection: Connection, environment: Environment) -> Path:
    path = (
        located(".", connection, environment)
        if connection.path
        else located(connection.path or ".", None, environment)
    )
    folder = inside_roots(path, environment.file_roots)
    if not folder.is_dir():
        raise configuration(
            "FILE_NOT_FOUND", f"connection {connection.name}: {connection.path} is not a folder"
        )
    return folder
