"""What all uses of DuckDB share: opening it, its errors in our words, its type names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from headrace_connectors.errors import ConnectorError, configuration, data, quota, transient

if TYPE_CHECKING:
    import duckdb

_MARK = "headrace:"
_FILE = re.compile(r" in file [\"'].*?[\"'](?=[ ,:.]|$)")
"""Where a file lies is the worker's affair; its name is told by whoever reads it."""
_QUOTED_VALUE = re.compile(r"(string|value|input|blob) [\"'].*?[\"'](?= |$|\.)", re.IGNORECASE | re.DOTALL)


def connect(
    path: str,
    *,
    memory: int,
    threads: int,
    temp: Path,
    temp_bytes: int,
    extra: Mapping[str, str] | None = None,
) -> duckdb.DuckDBPyConnection:
    """Open a DuckDB that installs and loads nothing, thinks in UTC and spills into ``temp``."""
    import duckdb

    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{max(memory, 16 * 1024 * 1024)}B",
        "threads": str(max(threads, 1)),
        "temp_directory": str(temp),
        "max_temp_directory_size": f"{temp_bytes}B",
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "allow_community_extensions": "false",
        **(extra or {}),
    }
    connection = duckdb.connect(path, config=settings)
    if not is_locked(connection):
        connection.execute("SET GLOBAL TimeZone = 'UTC'")
    return connection


def is_locked(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether the instance is locked in already: a file opened twice in one process is one instance."""
    rows = connection.execute("SELECT current_setting('lock_configuration')").fetchall()
    return bool(rows[0][0])


def lock(connection: duckdb.DuckDBPyConnection) -> None:
    """Take file access and every setting away from whatever SQL comes next; there is no way back."""
    if is_locked(connection):
        return
    connection.execute("SET python_enable_replacements = false")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def translate(error: Exception, what: str) -> ConnectorError:
    """The :class:`ConnectorError` for an exception out of DuckDB; ``what`` names the thing that was being
    done."""
    import duckdb

    raw = str(error)
    if _MARK in raw:
        return misfit(raw, what)
    text = _FILE.sub("", first_lines(raw))
    if "cannot change configuration" in text.lower():
        return configuration("SQL_NOT_ALLOWED", f"{what}: SQL may not change settings")
    if "no space left" in text.lower() or "max_temp_directory_size" in text or "File too large" in text:
        return quota("DISK_FULL", f"{what}: the disk or its quota is full")
    if isinstance(error, duckdb.OutOfMemoryException):
        return quota("MEMORY_LIMIT", f"{what}: the memory limit of the stage is too small for it")
    if isinstance(
        error, duckdb.ConversionException | duckdb.OutOfRangeException | duckdb.TypeMismatchException
    ):
        return data("VALUE_NOT_CONVERTIBLE", f"{what}: {without_values(text)}")
    if isinstance(error, duckdb.ConstraintException):
        return data("CONSTRAINT_VIOLATED", f"{what}: {without_values(text)}")
    if isinstance(error, duckdb.InvalidInputException):
        return data("INPUT_INVALID", f"{what}: {without_values(text)}")
    if isinstance(error, duckdb.PermissionException):
        return configuration("SQL_NOT_ALLOWED", f"{what}: SQL may not reach files, extensions or settings")
    if isinstance(error, duckdb.BinderException | duckdb.CatalogException | duckdb.ParserException):
        return configuration("SQL_INVALID", f"{what}: {text}")
    if isinstance(error, duckdb.NotImplementedException | duckdb.SyntaxException):
        return configuration("SQL_INVALID", f"{what}: {text}")
    if isinstance(error, duckdb.IOException | duckdb.TransactionException):
        return transient("ENGINE_IO", f"{what}: {text}")
    return configuration("ENGINE_ERROR", f"{what}: {text}")


def misfit(raw: str, what: str) -> ConnectorError:
    """The error a conversion has raised through SQL (see
    :func:`headrace_connectors.canonical.converting`)."""
    import json

    found: dict[str, object] = json.JSONDecoder().raw_decode(raw[raw.index(_MARK) + len(_MARK) :])[0]
    details = {key: str(value) for key, value in found.items()}
    if "code" in details:
        return data(details["code"], what)
    return data(
        "VALUE_NOT_REPRESENTABLE",
        f"{what}: column {details['column']}, {details['row']}: {details['value_class']} is not a "
        f"{details['type']}",
        **details,
    )


def first_lines(text: str) -> str:
    """The message of a DuckDB error without the excerpt of the SQL below it and without its label."""
    head = text.split("\n\nLINE ", 1)[0].strip()
    label, separator, rest = head.partition(" Error: ")
    return rest if separator and len(label) < 40 else head


def without_values(text: str) -> str:
    """The message without the cell it complains about."""
    return _QUOTED_VALUE.sub(r"a \1", text)
