"""The ledger in a PostgreSQL target: a table in a schema of its own, made when it is first needed."""

from __future__ import annotations

from typing import Any

import asyncpg

from headrace_connectors import ledger
from headrace_connectors.errors import ConnectorError, configuration
from headrace_connectors.identifiers import check_postgresql_name, quote
from headrace_connectors.ledger import Entry
from headrace_connectors.model import Connection, LoadKey, Receipt
from headrace_connectors.postgres.session import Backend, Session

DEFAULT_SCHEMA = "headrace"
_MAKING = 0x48656164  # the advisory lock under which schema and table are made


def schema_of(connection: Connection) -> str:
    """The schema of the ledger and of staging tables (connection option ``ledger_schema``)."""
    name = connection.options.get("ledger_schema", DEFAULT_SCHEMA)
    check_postgresql_name(name, "schema")
    return name


class PostgresLedger:
    """Reads and writes ledger rows inside the caller's transactions."""

    def __init__(self, connection: Connection) -> None:
        self.schema = schema_of(connection)
        self.table = f"{quote(self.schema)}.{quote(ledger.TABLE)}"

    async def ensure(self, session: Session) -> None:
        """Make schema and table when they are not there.

        :raises ConnectorError: LEDGER_NOT_PERMITTED, with what an administrator can do.
        """
        if await session.raw.fetchval("SELECT to_regclass($1)::text", self.table) is not None:
            return
        try:
            async with session.transaction() as raw:
                await raw.execute(f"SELECT pg_advisory_xact_lock({_MAKING})")
                if await raw.fetchval("SELECT to_regnamespace($1)::text", quote(self.schema)) is None:
                    await raw.execute(f"CREATE SCHEMA {quote(self.schema)}")
                await raw.execute(
                    f"CREATE TABLE IF NOT EXISTS {self.table} (root_run_id text, task text, partition text, "
                    "fence bigint NOT NULL, tombstoned boolean NOT NULL DEFAULT false, target text, "
                    "backend_pid integer, backend_start text, backend_name text, "
                    "rows bigint, bytes bigint, checksum text, cursor bytea, committed_fence bigint, "
                    "committed_at timestamptz, updated_at timestamptz NOT NULL DEFAULT clock_timestamp(), "
                    "PRIMARY KEY (root_run_id, task, partition))"
                )
        except ConnectorError as error:
            if isinstance(error.__cause__, asyncpg.InsufficientPrivilegeError):
                raise self.not_permitted(session.connection) from error
            raise

    def not_permitted(self, connection: Connection) -> ConnectorError:
        """The error of a user who may not make the ledger, with what an administrator can do."""
        return configuration(
            "LEDGER_NOT_PERMITTED",
            f"connection {connection.name}: user {connection.username} may not keep the load ledger; run: "
            f"CREATE SCHEMA {quote(self.schema)} AUTHORIZATION the_user, or name another schema in the "
            "connection's option ledger_schema",
        )

    async def read(self, raw: Any, key: LoadKey, lock: bool = False) -> Entry | None:
        """The entry of a load; ``lock`` holds its row until the transaction ends."""
        row = await raw.fetchrow(
            f"SELECT * FROM {self.table} WHERE root_run_id = $1 AND task = $2 AND partition = $3"
            + (" FOR UPDATE" if lock else ""),
            *_values(key),
        )
        return None if row is None else _entry(row)

    async def predecessor(self, raw: Any, key: LoadKey) -> Backend | None:
        """The server process of the attempt that claimed last, if one has."""
        row = await raw.fetchrow(
            f"SELECT backend_pid, backend_start, backend_name FROM {self.table} "
            "WHERE root_run_id = $1 AND task = $2 AND partition = $3 AND backend_pid IS NOT NULL",
            *_values(key),
        )
        return None if row is None else Backend(row[0], row[1], row[2])

    async def make_row(self, raw: Any, key: LoadKey) -> None:
        """Make sure there is a row to lock: fence 0 stands for nobody."""
        await raw.execute(
            f"INSERT INTO {self.table} (root_run_id, task, partition, fence) VALUES ($1, $2, $3, 0) "
            "ON CONFLICT DO NOTHING",
            *_values(key),
        )

    async def claim(self, raw: Any, key: LoadKey, fence: int, target: str, backend: Backend) -> None:
        """Write the fence of an attempt; the row is locked and the rules were asked."""
        await raw.execute(
            f"UPDATE {self.table} SET fence = $4, tombstoned = false, target = $5, backend_pid = $6, "
            "backend_start = $7, backend_name = $8, updated_at = clock_timestamp() "
            "WHERE root_run_id = $1 AND task = $2 AND partition = $3",
            *_values(key), fence, target, backend.pid, backend.started, backend.application,
        )  # fmt: skip

    async def take_turn(self, raw: Any, key: LoadKey, fence: int) -> Entry:
        """Write that it is the turn of a load of a series; waits for one of it that is just landing."""
        row = await raw.fetchrow(
            f"INSERT INTO {self.table} AS l (root_run_id, task, partition, fence) VALUES ($1, $2, $3, $4) "
            "ON CONFLICT (root_run_id, task, partition) DO UPDATE "
            "SET fence = greatest(l.fence, excluded.fence), updated_at = clock_timestamp() RETURNING *",
            *_values(key), fence,
        )  # fmt: skip
        return _entry(row)

    async def bury(self, raw: Any, key: LoadKey, entry: Entry) -> None:
        """Write a tombstone."""
        await raw.execute(
            f"UPDATE {self.table} SET fence = $4, tombstoned = $5, updated_at = clock_timestamp() "
            "WHERE root_run_id = $1 AND task = $2 AND partition = $3",
            *_values(key), entry.fence, entry.tombstoned,
        )  # fmt: skip

    async def settle(
        self, raw: Any, key: LoadKey, fence: int, rows: int, size: int, checksum: str, cursor: bytes | None
    ) -> Receipt:
        """Write the receipt."""
        row = await raw.fetchrow(
            f"UPDATE {self.table} SET rows = $4, bytes = $5, checksum = $6, cursor = $7, "
            "committed_fence = $8, "
            "committed_at = clock_timestamp(), updated_at = clock_timestamp(), backend_pid = NULL "
            "WHERE root_run_id = $1 AND task = $2 AND partition = $3 RETURNING committed_at",
            *_values(key), rows, size, checksum, cursor, fence,
        )  # fmt: skip
        return Receipt(rows, size, checksum, cursor, fence, row["committed_at"])

    async def copy_receipt(self, raw: Any, key: LoadKey, series: LoadKey) -> None:
        """Keep the receipt of a load as that of the last one of its series."""
        await raw.execute(
            f"UPDATE {self.table} AS s SET rows = l.rows, bytes = l.bytes, checksum = l.checksum, "
            "cursor = l.cursor, committed_fence = l.committed_fence, committed_at = l.committed_at, "
            f"updated_at = l.updated_at FROM {self.table} AS l "
            "WHERE l.root_run_id = $1 AND l.task = $2 AND l.partition = $3 "
            "AND s.root_run_id = $4 AND s.task = $5 AND s.partition = $6",
            *_values(key), *_values(series),
        )  # fmt: skip


def _values(key: LoadKey) -> tuple[str, str, str]:
    return key.root_run_id, key.task, key.partition


def _entry(row: Any) -> Entry:
    receipt = None
    if row["committed_at"] is not None:
        receipt = Receipt(
            row["rows"],
            row["bytes"],
            row["checksum"],
            row["cursor"],
            row["committed_fence"],
            row["committed_at"],
        )
    return Entry(row["fence"], row["tombstoned"], receipt)
