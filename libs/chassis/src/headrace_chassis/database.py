"""The service's database: transactions that know when they commit, retries that are safe, and errors that are
precise.

SQLAlchemy's asyncio engine on asyncpg. The engine runs in autocommit and `transaction()` begins and commits
by itself, for two reasons: the moment at which COMMIT is sent is known exactly, so that only what certainly
did not happen is tried again; and SQL through SQLAlchemy and SQL straight through the driver (`driver(conn)`,
for hot paths and COPY) share one transaction.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from typing import Literal, TypeVar

import asyncpg
import sqlalchemy as sa
import structlog
from asyncpg.transaction import Transaction
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from headrace_chassis.errors import DeadlineExceeded, OutcomeUnknown, Unavailable

_log = structlog.get_logger(__name__)

T = TypeVar("T")

Isolation = Literal["read_committed", "repeatable_read", "serializable"]


class PoolExhausted(Unavailable):
    """All connections of this process are in use, and none was given back in time.

    The caller has waited for it already. Nothing below it asks again by itself: that would have it wait out
    its deadline, and others with it, where it could be told to come back later.
    """

    def __init__(self) -> None:
        super().__init__("a database connection (all are in use)")
        self.may_repeat = False


ATTEMPTS = 6
"""How often `run` begins at the most."""

FIRST_BACKOFF_SECONDS = 0.02
LONGEST_BACKOFF_SECONDS = 1.0

# SQLSTATEs (PostgreSQL, appendix A) after which the transaction certainly did not happen and may be tried
# again.
_CONFLICTS = frozenset({"40001", "40P01", "55P03"})  # serialization failure, deadlock, lock not available

# SQLSTATEs that say that the server is away, full or going down: 08 connection, 57P01-05 shutdown and start,
# 53 resources, 25006 a standby that was or became read-only, 25P03/25P04 and 57P05 the server's own time
# limits.
_AWAY = frozenset({"57P01", "57P02", "57P03", "57P05", "25006", "25P03", "25P04"})
_AWAY_CLASSES = ("08", "53")

_STATEMENT_TIMEOUT = "57014"


class Database:
    """One PostgreSQL database of one process.

    `statement_timeout` and `idle_timeout` are seconds: the server ends a statement that runs longer, and a
    transaction that was left open (by a process that was stopped, say), so that its locks never hold others
    up.
    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 10,
        pool_wait: float = 5.0,
        connect_timeout: float = 5.0,
        statement_timeout: float = 60.0,
        idle_timeout: float = 30.0,
        application_name: str = "headrace",
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._sleep = sleep
        self._pool_size = pool_size
        # Connections that were given back and that nobody waits for stay out of SQLAlchemy's pool: to hand
        # one in and take it out again costs several times what BEGIN and COMMIT do.
        self._idle: list[tuple[AsyncConnection, asyncpg.Connection]] = []
        self._waiting = 0
        self._closed = False
        self.engine: AsyncEngine = create_async_engine(
            driver_url(url),
            poolclass=AsyncAdaptedQueuePool,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=pool_wait,
            pool_use_lifo=True,
            isolation_level="AUTOCOMMIT",
            hide_parameters=True,  # an error's text must not show what users sent, nor sealed secrets
            connect_args={
                "timeout": connect_timeout,
                "server_settings": {
                    "application_name": application_name,
                    "statement_timeout": str(int(statement_timeout * 1000)),
                    "idle_in_transaction_session_timeout": str(int(idle_timeout * 1000)),
                    "timezone": "UTC",
                },
            },
        )

    async def close(self) -> None:
        """Closes all connections. Closing again does nothing."""
        self._closed = True
        while self._idle:
            conn, _ = self._idle.pop()
            await conn.close()
        await self.engine.dispose()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Gives a connection outside of a transaction: each statement sees what is committed when it begins.

        Saves the round trips of BEGIN and COMMIT. Raises Unavailable when the database is away.
        """
        with translated():
            conn, raw = await self._live_connection()
            try:
                yield conn
            except BaseException as error:
                _drop_broken(raw, error)
                raise
            finally:
                await self._give_back(conn, raw)

    @asynccontextmanager
    async def transaction(
        self, *, isolation: Isolation = "read_committed", readonly: bool = False
    ) -> AsyncIterator[AsyncConnection]:
        """Gives a connection inside a transaction, which commits at the end of the block unless it raises.

        Raises Unavailable when the database is away (nothing happened) and OutcomeUnknown when it went away
        while it committed. Serialization failures and deadlocks pass through: `run` tries again after those.
        """
        with translated():
            conn, raw = await self._live_connection()
            try:
                transaction = raw.transaction(isolation=isolation, readonly=readonly)
                await _begin(raw, transaction)
                try:
                    yield conn
                except BaseException as error:
                    _drop_broken(raw, error)
                    await _roll_back(raw, transaction)
                    raise
                await _commit(transaction, readonly)
            finally:
                await self._give_back(conn, raw)

    async def run(
        self,
        work: Callable[[AsyncConnection], Awaitable[T]],
        *,
        isolation: Isolation = "read_committed",
        readonly: bool = False,
    ) -> T:
        """Runs `work` in a transaction, again where it certainly did not happen and another try makes sense.

        That is after a serialization failure, a deadlock or a connection that broke before COMMIT was sent;
        `work` must have no effects but those in the database. Waits longer and longer between tries, with
        full jitter.
        """
        for attempt in range(1, ATTEMPTS):
            try:
                async with self.transaction(isolation=isolation, readonly=readonly) as conn:
                    return await work(conn)
            except (OutcomeUnknown, PoolExhausted):
                raise  # the one must not be repeated; the other has waited, and waiting again makes it worse
            except Unavailable as error:
                _log.info("database call is tried again", attempt=attempt, error=error.message)
            except (sa.exc.DBAPIError, asyncpg.PostgresError) as error:
                if sqlstate(error) not in _CONFLICTS:
                    raise
                _log.info("transaction is tried again", attempt=attempt, sqlstate=sqlstate(error))
            await self._sleep(_backoff(attempt))
        async with self.transaction(isolation=isolation, readonly=readonly) as conn:
            return await work(conn)

    async def ping(self) -> None:
        """Asks the database for nothing; raises Unavailable when it is away."""
        async with self.read() as conn:
            await driver(conn).execute("SELECT 1")

    async def _live_connection(self) -> tuple[AsyncConnection, asyncpg.Connection]:
        """Takes a connection from the pool, skipping those that the driver has already seen closed.

        After a restart of PostgreSQL every pooled connection is closed, and asyncpg knows: no ping is needed.
        The driver's connection is returned beside it, since SQLAlchemy no longer gives it out once it has
        seen it break.
        """
        for _ in range(self._pool_size + 1):
            if self._idle:
                conn, raw = self._idle.pop()
            else:
                conn = await self._connection()
                raw = driver(conn)
            if not raw.is_closed():
                return conn, raw
            await conn.invalidate()
            await conn.close()
        raise Unavailable("the database")

    async def _connection(self) -> AsyncConnection:
        """Takes a connection from SQLAlchemy's pool, which opens one where there may be one more."""
        conn = self.engine.connect()
        self._waiting += 1
        try:
            await conn.start()
        except sa.exc.TimeoutError:
            raise PoolExhausted from None
        except OSError as error:  # refused, no such socket, no such host, no answer in time
            raise Unavailable("the database") from error
        finally:
            self._waiting -= 1
        return conn

    async def _give_back(self, conn: AsyncConnection, raw: asyncpg.Connection) -> None:
        """Keeps a connection for the next call, or hands it to who waits for one; closes it where it is
        broken or still within a transaction.

        Shielded where it takes time: a call that is cancelled must not leak a connection, nor hand its open
        transaction to the next call.
        """
        is_sound = not (conn.invalidated or raw.is_closed() or raw.is_in_transaction())
        if is_sound and not conn.in_transaction() and self._may_keep():
            self._idle.append((conn, raw))
        else:
            await asyncio.shield(self._hand_in(conn, raw, is_sound))

    def _may_keep(self) -> bool:
        return not (self._waiting or self._closed)

    async def _hand_in(self, conn: AsyncConnection, raw: asyncpg.Connection, is_sound: bool) -> None:
        if not is_sound:
            if not conn.invalidated:
                await conn.invalidate()
            await conn.close()
            return
        if conn.in_transaction():
            await conn.rollback()  # of what SQLAlchemy begins with its first statement; the driver has none
        if self._may_keep():
            self._idle.append((conn, raw))
        else:
            await conn.close()


def driver(conn: AsyncConnection) -> asyncpg.Connection:
    """Returns the asyncpg connection below, for hot paths, arrays of records and COPY; it is in the same
    transaction."""
    fairy = conn.sync_connection.connection  # type: ignore[union-attr]
    return fairy.driver_connection


async def now(conn: AsyncConnection) -> datetime:
    """Returns the database's clock, in UTC: the only clock that leases and due times go by."""
    value: datetime = await driver(conn).fetchval("SELECT clock_timestamp()")
    return value


def driver_url(url: str) -> sa.URL:
    """Returns the URL for SQLAlchemy's asyncpg dialect; takes the libpq parameter `sslmode`, which asyncpg
    calls `ssl`."""
    parsed = make_url(url).set(drivername="postgresql+asyncpg")
    mode = parsed.query.get("sslmode")
    if mode is not None:
        parsed = parsed.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode})
    return parsed


def sqlstate(error: BaseException) -> str | None:
    """Returns the SQLSTATE of an error of the driver, or of SQLAlchemy around one."""
    return next(
        (state for seen in _chain(error) if isinstance(state := getattr(seen, "sqlstate", None), str)), None
    )


def constraint_name(error: BaseException) -> str | None:
    """Returns the name of the constraint that an error says was violated."""
    names = (getattr(seen, "constraint_name", None) for seen in _chain(error))
    return next((name for name in names if isinstance(name, str)), None)


def is_away(error: BaseException) -> bool:
    """Tells whether an error means that the database is away, full or going down."""
    state = sqlstate(error)
    if state is not None:
        return state in _AWAY or state.startswith(_AWAY_CLASSES)
    return any(_is_closed(seen) for seen in _chain(error))


def _is_closed(error: BaseException) -> bool:
    if isinstance(error, ConnectionError | sa.exc.PendingRollbackError | asyncpg.InternalClientError):
        # The socket broke; SQLAlchemy has seen that, and somebody went on using it; the driver lost track,
        # which happens when the server goes down between two messages.
        return True
    # asyncpg tells "connection is closed" and misuse of its API by one class; only the text tells them apart.
    return isinstance(error, asyncpg.InterfaceError) and "closed" in str(error)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yields an error of a database call and those that it wraps: SQLAlchemy's, its adapter's, asyncpg's."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        below = getattr(seen, "orig", None)
        seen = below if isinstance(below, BaseException) else seen.__cause__


_DATABASE_ERRORS = (
    sa.exc.DBAPIError,
    sa.exc.PendingRollbackError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    ConnectionError,
)


@contextmanager
def translated() -> Iterator[None]:
    """Turns errors of database calls that mean "it is away" into Unavailable, and its time limit into a
    deadline.

    Other errors pass through as they are, also an OSError or TimeoutError of something else.
    """
    try:
        yield
    except _DATABASE_ERRORS as error:
        if is_away(error):
            _log.info("database is away", error=type(error).__name__, sqlstate=sqlstate(error))
            raise Unavailable("the database") from error
        if sqlstate(error) == _STATEMENT_TIMEOUT:
            raise DeadlineExceeded("a database statement") from error
        raise


async def _begin(raw: asyncpg.Connection, transaction: Transaction) -> None:
    """Begins; where that is cut short, nobody else gets the connection.

    The driver takes the transaction for open from the moment that it sends BEGIN, and for closed until the
    answer has come: the next call would get a savepoint in it instead of a transaction, and its commit would
    commit nothing.
    """
    try:
        await transaction.start()
    except BaseException:
        raw.terminate()
        raise


async def _commit(transaction: Transaction, readonly: bool) -> None:
    try:
        await transaction.commit()
    except _DATABASE_ERRORS as error:
        # Any answer of the server to COMMIT other than success means that it rolled back; no answer means
        # anything.
        if is_away(error) and not readonly:
            raise OutcomeUnknown("the database") from error
        raise


async def _roll_back(raw: asyncpg.Connection, transaction: Transaction) -> None:
    """Rolls back; where even that fails, the connection is closed when it is given back, which rolls back as
    well."""
    if raw.is_closed():
        return
    try:
        await transaction.rollback()
    except _DATABASE_ERRORS as error:
        _log.info("rollback failed; the connection is closed instead", error=type(error).__name__)


def _drop_broken(raw: asyncpg.Connection, error: BaseException) -> None:
    """Closes a connection whose server went away, also where the driver has not noticed yet."""
    if isinstance(error, _DATABASE_ERRORS) and is_away(error):
        raw.terminate()


def _backoff(attempt: int) -> float:
    ceiling = min(FIRST_BACKOFF_SECONDS * 2**attempt, LONGEST_BACKOFF_SECONDS)
    return random.uniform(0, ceiling)  # noqa: S311 - jitter is no secret
