"""Where files may be: only under the operator's roots, whatever links and dots say."""

from __future__ import annotations

import glob
import os
import stat
from pathlib import Path

from headrace_connectors.errors import configuration
from headrace_connectors.model import Connection, Environment

_WILD = frozenset("*?[")
_NAME_BYTES = 200
"""File systems take 255; what stands beside a file while it is written has a longer name than the file."""
_PATH_CHARACTERS = 2_000


def inside_roots(path: Path, roots: tuple[Path, ...]) -> Path:
    """``path`` with every symbolic link resolved, when that lies under a root.

    :raises ConnectorError: PATH_NOT_ALLOWED.
    """
    if ".." in path.parts:
        raise configuration("PATH_NOT_ALLOWED", f"{path} must not contain '..'", path=str(path))
    resolved = path.resolve()
    for root in roots:
        if resolved.is_relative_to(root.resolve()):
            return resolved
    raise configuration(
        "PATH_NOT_ALLOWED",
        f"{path} is not under a folder this worker may use" + ("" if roots else " (none is configured)"),
        path=str(path),
    )


def located(path: str, connection: Connection | None, environment: Environment) -> Path:
    """A path a user wrote, as an absolute one: under the connection's folder, or under the first root.

    :raises ConnectorError: PATH_INVALID, PATH_NOT_ALLOWED.
    """
    if not path or "\0" in path:
        raise configuration("PATH_INVALID", "the path is empty or holds NUL", path=repr(path))
    given = Path(path)
    if any(len(os.fsencode(part)) > _NAME_BYTES for part in given.parts) or len(path) > _PATH_CHARACTERS:
        raise configuration("PATH_INVALID", f"{path[:40]}…: the path, or a name in it, is too long")
    if connection is not None and connection.path:
        base = Path(connection.path)
        if not base.is_absolute() and environment.file_roots:
            base = environment.file_roots[0] / base
        full = inside_roots(base, environment.file_roots) / given
        if not inside_roots(full, environment.file_roots).is_relative_to(base.resolve()):
            raise configuration(
                "PATH_NOT_ALLOWED", f"{path} leads out of connection {connection.name}", path=path
            )
        return full
    return given if given.is_absolute() or not environment.file_roots else environment.file_roots[0] / given


def readable_file(path: str, connection: Connection | None, environment: Environment) -> Path:
    """The one regular file at ``path``.

    :raises ConnectorError: FILE_NOT_FOUND, NOT_A_FILE, PATH_NOT_ALLOWED.
    """
    resolved = inside_roots(located(path, connection, environment), environment.file_roots)
    _require_regular(resolved, path)
    return resolved


def readable_files(
    path: str, connection: Connection | None, environment: Environment, suffixes: tuple[str, ...]
) -> list[Path]:
    """The files a source path names: one file, a pattern, or a folder of part files; sorted by name.

    :raises ConnectorError: FILE_NOT_FOUND, TOO_MANY_FILES, NOT_A_FILE, PATH_NOT_ALLOWED.
    """
    full = located(path, connection, environment)
    if not _WILD & set(path):
        resolved = inside_roots(full, environment.file_roots)
        if not resolved.is_dir():
            _require_regular(resolved, path)
            return [resolved]
        found = [
            entry
            for entry in resolved.iterdir()
            if entry.name.endswith(suffixes) and entry.name[0] not in "._"
        ]
    else:
        inside_roots(Path(str(full).split("*")[0].split("?")[0].split("[")[0]), environment.file_roots)
        found = []
        for name in glob.iglob(str(full), recursive=True):
            if len(found) > environment.max_files:
                break
            if Path(name).is_file():
                found.append(Path(name))
    if len(found) > environment.max_files:
        raise configuration(
            "TOO_MANY_FILES", f"{path} names more than {environment.max_files} files", path=path
        )
    if not found:
        raise configuration("FILE_NOT_FOUND", f"{path}: no such file", path=path)
    checked = [inside_roots(entry, environment.file_roots) for entry in sorted(found)]
    for entry in checked:
        _require_regular(entry, path)
    return checked


def writable_file(path: str, connection: Connection | None, environment: Environment) -> Path:
    """The place of a file to be written; its folder is made when it is missing.

    :raises ConnectorError: PATH_NOT_ALLOWED, PATH_INVALID.
    """
    if _WILD & set(path):
        raise configuration("PATH_INVALID", f"{path}: a target must not be a pattern", path=path)
    return inside_roots(located(path, connection, environment), environment.file_roots)


def _require_regular(resolved: Path, path: str) -> None:
    try:
        mode = resolved.stat().st_mode
    except FileNotFoundError as error:
        raise configuration("FILE_NOT_FOUND", f"{path}: no such file", path=path) from error
    except NotADirectoryError as error:
        raise configuration(
            "PATH_INVALID", f"{path}: a file stands where a folder should", path=path
        ) from error
    except PermissionError as error:
        raise configuration("PERMISSION_DENIED", f"{path}: not readable", path=path) from error
    if not stat.S_ISREG(mode):
        raise configuration("NOT_A_FILE", f"{path} is not a regular file", path=path)
