"""Errors of files and of Arrow's readers in our words."""

from __future__ import annotations

import errno
import re

from headrace_connectors.errors import ConnectorError, configuration, data, quota, transient

_NEVER = frozenset({errno.ENAMETOOLONG, errno.EISDIR, errno.ELOOP, errno.EROFS})
"""What no try more will change."""
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def from_os(error: OSError, what: str) -> ConnectorError:
    """The error of the operating system."""
    if error.errno in _FULL:
        return quota("DISK_FULL", f"{what}: the disk or its quota is full")
    if isinstance(error, FileNotFoundError):
        return configuration("FILE_NOT_FOUND", f"{what}: no such file or folder")
    if isinstance(error, PermissionError):
        return configuration("PERMISSION_DENIED", f"{what}: not permitted")
    if isinstance(error, NotADirectoryError | FileExistsError):
        return configuration("PATH_INVALID", f"{what}: a file stands where a folder should")
    if error.errno in _NEVER:
        return configuration("PATH_INVALID", f"{what}: {error.strerror}")
    return transient("FILE_IO", f"{what}: {error.strerror or type(error).__name__}")


def from_damage(error: OSError, what: str) -> ConnectorError:
    """The error of a reader that found bytes it cannot make sense of: not one of the operating system, which
    has a number, and no better at the next try."""
    text = str(error).partition(":")[0].strip()
    return data("FILE_INVALID", f"{what}: the file is damaged{f' ({text})' if text else ''}")


def from_arrow(error: Exception, what: str) -> ConnectorError:
    """The error of an Arrow reader or writer, without the text of cells."""
    text = str(error)
    if "No space left" in text or "File too large" in text:
        return quota("DISK_FULL", f"{what}: the disk or its quota is full")
    if "straddling object" in text:
        return data("ROW_TOO_LONG", f"{what}: a row is longer than options.max_row_bytes allows")
    column = re.search(r"In CSV column #(\d+)", text)
    details = {"column_number": str(int(column[1]) + 1)} if column else {}
    if "invalid UTF8" in text:
        return data(
            "ENCODING_INVALID", f"{what}: bytes that are not valid text in the file's encoding", **details
        )
    expected = re.search(r"Expected (\d+) columns, got (\d+)", text)
    if expected:
        return data(
            "CSV_ROW_INVALID", f"{what}: a row has {expected[2]} fields, expected {expected[1]}", **details
        )
    if isinstance(error, MemoryError):
        return quota("MEMORY_LIMIT", f"{what}: not enough memory")
    head = text.split(":", 1)[0] if '"' in text or "'" in text else text.splitlines()[0] if text else ""
    return data("FILE_INVALID", f"{what}: {head}", **details)
