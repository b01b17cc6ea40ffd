"""PostgreSQL's errors in our words: classified by SQLSTATE, without the values of cells."""

from __future__ import annotations

import re
import ssl

import asyncpg

from headrace_connectors.errors import ConnectorError, ErrorClass, configuration, transient
from headrace_connectors.model import Connection

_EXACT: dict[str, tuple[str, ErrorClass]] = {
    "28P01": ("AUTHENTICATION_FAILED", ErrorClass.CONFIGURATION),
    "28000": ("AUTHENTICATION_FAILED", ErrorClass.CONFIGURATION),
    "3D000": ("DATABASE_NOT_FOUND", ErrorClass.CONFIGURATION),
    "42P01": ("TABLE_NOT_FOUND", ErrorClass.CONFIGURATION),
    "3F000": ("TABLE_NOT_FOUND", ErrorClass.CONFIGURATION),
    "42703": ("COLUMN_NOT_FOUND", ErrorClass.CONFIGURATION),
    "42501": ("PERMISSION_DENIED", ErrorClass.CONFIGURATION),
    "25006": ("TARGET_READ_ONLY", ErrorClass.CONFIGURATION),
    "42701": ("DUPLICATE_COLUMN", ErrorClass.CONFIGURATION),
    "57014": ("STATEMENT_TIMEOUT", ErrorClass.TRANSIENT),
    "55P03": ("LOCK_TIMEOUT", ErrorClass.TRANSIENT),
    "53100": ("TARGET_DISK_FULL", ErrorClass.QUOTA),
    "53200": ("TARGET_OUT_OF_MEMORY", ErrorClass.QUOTA),
    "53300": ("TOO_MANY_CONNECTIONS", ErrorClass.TRANSIENT),
    "21000": ("DUPLICATE_KEY", ErrorClass.DATA),
    "23502": ("NULL_NOT_ALLOWED", ErrorClass.DATA),
    "23505": ("DUPLICATE_KEY", ErrorClass.DATA),
    "23503": ("REFERENCE_VIOLATED", ErrorClass.DATA),
    "23514": ("CHECK_VIOLATED", ErrorClass.DATA),
}
_BY_CLASS: dict[str, tuple[str, ErrorClass]] = {
    "08": ("CONNECTION_LOST", ErrorClass.TRANSIENT),
    "57": ("SERVER_UNAVAILABLE", ErrorClass.TRANSIENT),
    "40": ("TRANSACTION_CONFLICT", ErrorClass.TRANSIENT),
    "53": ("TARGET_LIMIT", ErrorClass.QUOTA),
    "54": ("TARGET_LIMIT", ErrorClass.DATA),
    "58": ("SERVER_IO", ErrorClass.TRANSIENT),
    "22": ("VALUE_DOES_NOT_FIT", ErrorClass.DATA),
    "23": ("CONSTRAINT_VIOLATED", ErrorClass.DATA),
    "42": ("SQL_INVALID", ErrorClass.CONFIGURATION),
    "28": ("AUTHENTICATION_FAILED", ErrorClass.CONFIGURATION),
}
_GROWING = frozenset({"mdextend", "mdzeroextend", "BufFileDumpBuffer", "FileFallocate"})
"""Where PostgreSQL makes files longer. It has no SQLSTATE for a file that would pass its largest size: it
tells of an internal error, in the server's language."""
_COLUMN = re.compile(r"^COPY .*?, line (\d+)(?:, column (.*?))?(?::|$)", re.MULTILINE)
_VALUE = re.compile(r":? ?\".*\"", re.DOTALL)
CONNECTION_ERRORS = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the driver lost track of a conversation that broke off in the middle
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
)


def from_server(error: Exception, what: str) -> ConnectorError:
    """The error of a statement."""
    if isinstance(error, ConnectorError):
        return error
    if isinstance(error, asyncpg.PostgresError):
        return _from_sqlstate(error, what)
    if isinstance(error, CONNECTION_ERRORS) or _is_closed_transport(error):
        return transient("CONNECTION_LOST", f"{what}: the connection to the server was lost")
    raise error


def _is_closed_transport(error: Exception) -> bool:
    # uvloop tells a write to a connection that has just closed as a plain RuntimeError.
    return isinstance(error, RuntimeError) and "closed" in str(error)


def _from_sqlstate(error: asyncpg.PostgresError, what: str) -> ConnectorError:
    state = str(getattr(error, "sqlstate", None) or "")
    code, kind = _EXACT.get(state) or _BY_CLASS.get(state[:2]) or ("SERVER_ERROR", ErrorClass.CONFIGURATION)
    if state == "XX000" and getattr(error, "server_source_function", None) in _GROWING:
        code, kind = _EXACT["53100"]
    text = str(getattr(error, "message", None) or error)
    details = {"sqlstate": state}
    for field in ("schema_name", "table_name", "column_name", "constraint_name"):
        value = getattr(error, field, None)
        if value:
            details[field.removesuffix("_name")] = str(value)
    place = _COLUMN.search(str(getattr(error, "context", None) or ""))
    if place and place[2]:
        details["column"] = place[2]
    if kind is ErrorClass.DATA and state not in ("23505", "23503", "23514", "23502"):
        text = _VALUE.sub("", text)
    where = f" (column {details['column']})" if "column" in details and details["column"] not in text else ""
    return ConnectorError(code, kind, f"{what}: {text}{where}", details)


def from_connecting(
    error: Exception, connection: Connection, host: str, port: int, timeout: float
) -> ConnectorError:
    """The error of opening a connection; never tells the password."""
    where = f"connection {connection.name}: {host}:{port}"
    if isinstance(error, TimeoutError):
        return transient("CONNECT_TIMEOUT", f"{where} did not answer within {timeout:g} s")
    if isinstance(error, asyncpg.InvalidPasswordError | asyncpg.InvalidAuthorizationSpecificationError):
        return configuration(
            "AUTHENTICATION_FAILED",
            f"{where} refused user {connection.username!r}: wrong password or no access",
        )
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        return configuration("DATABASE_NOT_FOUND", f"{where} has no database {connection.database!r}")
    if isinstance(error, ssl.SSLError):
        return configuration("TLS_FAILED", f"{where}: {error.reason or 'TLS failed'}")
    if isinstance(error, ConnectionError) and "SSL" in str(error):
        return configuration("TLS_FAILED", f"{where} does not offer TLS, and sslmode demands it")
    if isinstance(error, asyncpg.PostgresError):
        return _from_sqlstate(error, where)
    if isinstance(error, OSError):
        return transient("UNREACHABLE", f"{where} cannot be reached")
    if isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError):
        return configuration("CONNECTION_INVALID", f"{where}: the server's answer is not PostgreSQL's")
    raise error
