"""A connection to PostgreSQL: opened through the address guard, with allowed options only, and stoppable for
certain."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import asyncpg

from headrace_connectors.errors import ConnectorError, configuration, transient
from headrace_connectors.identifiers import literal
from headrace_connectors.model import Connection, Environment
from headrace_connectors.postgres.errors import CONNECTION_ERRORS, from_connecting, from_server
from headrace_connectors.roots import inside_roots

ALLOWED_OPTIONS = frozenset(
    {"sslmode", "sslrootcert", "application_name", "connect_timeout", "search_path", "ledger_schema"}
)
"""Everything else (``options``, ``service``, ``passfile``, ``host`` lists, …) could point the driver
elsewhere."""

_TLS_MODES = ("disable", "prefer", "require", "verify-ca", "verify-full")
_STOP_SECONDS = 5.0

_TEXT_FORMS = (
    "SET LOCAL DateStyle = 'ISO, YMD'; SET LOCAL IntervalStyle = 'postgres'; SET LOCAL TimeZone = 'UTC'; "
    "SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = 'hex'; SET LOCAL synchronize_seqscans = off; "
)
"""How values look as text, whatever the server's or the role's defaults are.  Local, for the sake of
poolers."""


@dataclass(frozen=True)
class Backend:
    """The server process of a session; the start time keeps a recycled process id apart."""

    pid: int
    started: str
    application: str


class Session:
    """One connection.  Statements run in transactions that :meth:`transaction` opens."""

    def __init__(self, raw: Any, backend: Backend, connection: Connection, environment: Environment) -> None:
        self.raw = raw
        self.backend = backend
        self.connection = connection
        self.environment = environment

    @property
    def version(self) -> int:
        """The server's major version."""
        return int(self.raw.get_server_version().major)

    @contextlib.asynccontextmanager
    async def transaction(
        self, mode: Literal["read", "write"] = "write", snapshot: str | None = None
    ) -> AsyncIterator[Any]:
        """A transaction: committed at the end, rolled back on an error, stopped at the server when cancelled.

        ``read`` sees one snapshot throughout (or the exported ``snapshot``) and can change nothing.

        :raises ConnectorError: for whatever the server or the network says.
        """
        try:
            await self.begin(mode, snapshot)
            yield self.raw
            await self.raw.execute("COMMIT")
        except asyncio.CancelledError:
            await self.stop()
            raise
        except Exception as error:
            await self.roll_back()
            raise from_server(error, f"connection {self.connection.name}") from error

    async def begin(self, mode: Literal["read", "write"], snapshot: str | None = None) -> None:
        """Open a transaction with the session's settings."""
        start = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; " if mode == "read" else "BEGIN; "
        if snapshot is not None:
            start += f"SET TRANSACTION SNAPSHOT {literal(snapshot)}; "
        limits = (
            f"SET LOCAL lock_timeout = {int(self.environment.lock_timeout * 1000)}; "
            f"SET LOCAL statement_timeout = {int(self.environment.statement_timeout * 1000)}; "
        )
        path = self.connection.options.get("search_path")
        place = f"SELECT set_config('search_path', {literal(path)}, true); " if path else ""
        await self.raw.execute(start + _TEXT_FORMS + limits + place)

    async def roll_back(self) -> None:
        """Undo the open transaction, or drop the connection when that cannot be done."""
        if self.raw.is_closed():
            return
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await self.raw.execute("ROLLBACK")
        except (TimeoutError, RuntimeError, asyncpg.PostgresError, *CONNECTION_ERRORS):
            # RuntimeError: uvloop's word for a connection that has just closed. What broke it is told.
            self.raw.terminate()

    async def stop(self) -> None:
        """Make sure the server works for this session no longer, and say so only when it is so.

        :raises ConnectorError: QUERY_NOT_STOPPED when the server cannot be asked or does not comply in time.
        """
        self.raw.terminate()
        await asyncio.shield(end_backend(self.connection, self.environment, self.backend))

    async def close(self) -> None:
        """Let go of the connection; safe to call again."""
        if self.raw.is_closed():
            return
        try:
            await self.raw.close(timeout=_STOP_SECONDS)
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            self.raw.terminate()


_SKIPPED = ("42P06", "42P07")
"""Notices of our own IF NOT EXISTS."""


def _listener(connection: Connection, environment: Environment) -> Callable[[Any, Any], None]:
    def hear(_: Any, message: Any) -> None:
        if message.sqlstate not in _SKIPPED:
            severity = str(getattr(message, "severity_en", None) or getattr(message, "severity", ""))
            environment.notice(connection.name, severity, str(message.message))

    return hear


async def connect(connection: Connection, environment: Environment, role: str = "") -> Session:
    """Open a session; ``role`` is added to the application name that shows in ``pg_stat_activity``.

    :raises ConnectorError: ADDRESS_NOT_ALLOWED, HOST_NOT_FOUND, UNREACHABLE, CONNECT_TIMEOUT,
        AUTHENTICATION_FAILED, DATABASE_NOT_FOUND, TLS_FAILED, OPTION_NOT_ALLOWED, …
    """
    host, port = _endpoint(connection)
    tls = _tls(connection, host, environment)
    timeout = _timeout(connection, environment)
    application = _application_name(connection, environment, role)
    try:
        async with asyncio.timeout(timeout):
            addresses = await environment.guard.resolve(host, port)
            raw = await asyncpg.connect(
                host=list(addresses),
                port=[port] * len(addresses),
                user=connection.username or "",
                password=connection.password.reveal() if connection.password else "",
                database=connection.database or connection.username or "postgres",
                ssl=tls,
                timeout=timeout,
                statement_cache_size=0,
                server_settings={"application_name": application},
            )
    except ConnectorError:
        raise
    except Exception as error:
        raise from_connecting(error, connection, host, port, timeout) from error
    try:
        row = await raw.fetchrow(
            "SELECT pg_backend_pid(), coalesce((SELECT backend_start::text FROM pg_stat_activity "
            "WHERE pid = pg_backend_pid()), '')"
        )
        await _have_client_watched(raw)
        raw.add_log_listener(_listener(connection, environment))
    except BaseException as error:
        raw.terminate()
        if isinstance(error, Exception):
            raise from_server(error, f"connection {connection.name}") from error
        raise
    return Session(raw, Backend(int(row[0]), str(row[1]), application), connection, environment)


async def _have_client_watched(raw: asyncpg.Connection) -> None:
    """Have the server look every few seconds whether this process still lives, and end its query when it does
    not.

    Otherwise the query of a process that was killed goes on until it next sends something, and keeps its
    locks.
    """
    try:
        await raw.execute("SET client_connection_check_interval = '5s'")
    except (asyncpg.UndefinedObjectError, asyncpg.InvalidParameterValueError):
        return  # a server that does not know the setting, or on a platform that cannot look


async def end_backend(connection: Connection, environment: Environment, backend: Backend) -> None:
    """End a server process of ours and wait until it is gone.

    :raises ConnectorError: QUERY_NOT_STOPPED.
    """
    try:
        async with asyncio.timeout(_STOP_SECONDS + environment.connect_timeout):
            session = await connect(connection, replace(environment, application_name="headrace/stop"))
            try:
                while await session.raw.fetchval(_ALIVE, backend.pid, backend.started, backend.application):
                    await session.raw.fetchval(_END, backend.pid, backend.started, backend.application)
                    await asyncio.sleep(0.02)
            finally:
                session.raw.terminate()
    except (TimeoutError, asyncpg.PostgresError, ConnectorError, *CONNECTION_ERRORS) as error:
        raise transient(
            "QUERY_NOT_STOPPED",
            f"connection {connection.name}: the server could not be made to stop process {backend.pid} "
            "in time",
            pid=str(backend.pid),
        ) from error


_MINE = "FROM pg_stat_activity WHERE pid = $1 AND backend_start::text = $2 AND application_name = $3"
_ALIVE = f"SELECT EXISTS (SELECT 1 {_MINE})"
_END = f"SELECT pg_terminate_backend(pid) {_MINE}"


def _endpoint(connection: Connection) -> tuple[str, int]:
    unknown = sorted(set(connection.options) - ALLOWED_OPTIONS)
    if unknown:
        raise configuration(
            "OPTION_NOT_ALLOWED",
            f"connection {connection.name}: option {unknown[0]!r} is not one of "
            f"{', '.join(sorted(ALLOWED_OPTIONS))}",
            option=unknown[0],
        )
    if not connection.host:
        raise configuration("HOST_INVALID", f"connection {connection.name} has no host")
    for name, value in (("username", connection.username), ("database", connection.database)):
        if value is not None and "\0" in value:
            raise configuration("VALUE_INVALID", f"connection {connection.name}: the {name} holds NUL")
    return connection.host, connection.port or 5432


def _timeout(connection: Connection, environment: Environment) -> float:
    text = connection.options.get("connect_timeout")
    if text is None:
        return environment.connect_timeout
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 300:
        raise configuration(
            "OPTION_INVALID", f"connection {connection.name}: connect_timeout is seconds between 0 and 300"
        )
    return seconds


def _application_name(connection: Connection, environment: Environment, role: str) -> str:
    """What the server shows for this session; PostgreSQL keeps 63 bytes of printable ASCII."""
    name = connection.options.get("application_name", environment.application_name) + role
    return "".join(ch if " " <= ch <= "~" else "?" for ch in name)[:63]


def _tls(connection: Connection, host: str, environment: Environment) -> ssl.SSLContext | str | bool:
    mode = connection.options.get("sslmode", "prefer")
    if mode not in _TLS_MODES:
        raise configuration(
            "OPTION_INVALID", f"connection {connection.name}: sslmode is one of {', '.join(_TLS_MODES)}"
        )
    if mode == "disable":
        return False
    if mode == "prefer":
        return "prefer"
    context = _NamedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.name = host
    context.check_hostname = mode == "verify-full"
    if mode == "require":
        context.verify_mode = ssl.CERT_NONE
        return context
    authority = connection.options.get("sslrootcert")
    if authority is None:
        context.load_default_certs()
        return context
    path = inside_roots(Path(authority), environment.file_roots)
    try:
        context.load_verify_locations(cafile=str(path))
    except (OSError, ssl.SSLError) as error:
        raise configuration(
            "TLS_FAILED", f"sslrootcert {authority} cannot be read as certificates"
        ) from error
    return context


class _NamedContext(ssl.SSLContext):
    """Verifies the certificate against the name the user gave, though the socket goes to the address checked
    for it."""

    name = ""

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        return super().wrap_bio(incoming, outgoing, server_side, self.name, session)
