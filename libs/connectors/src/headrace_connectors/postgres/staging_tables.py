"""Staging tables in PostgreSQL: made with a note of whose they are, and dropped when they are nobody's.

Only the server process that fills a staging table can ever swap it in. It stands in the table's comment: once
that process is gone, whoever comes next may drop the table, whatever load it belonged to.
"""

from __future__ import annotations

from typing import Any

from headrace_connectors.identifiers import literal, quote
from headrace_connectors.ledger import load_id
from headrace_connectors.model import LoadKey
from headrace_connectors.postgres.errors import CONNECTION_ERRORS, from_server

_MOST_SWEPT = 50
_OWNER = """
SELECT 'headrace ' || pid || ' ' || extract(epoch FROM backend_start)
FROM pg_stat_activity WHERE pid = pg_backend_pid()
"""
_LEFT = """
SELECT relname FROM (
    SELECT c.relname, regexp_match(obj_description(c.oid, 'pg_class'), '^headrace (\\d+) ([0-9.]+)$') AS owner
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relkind = 'r' AND starts_with(c.relname, '_stg_')
      AND (starts_with(c.relname, $2) OR pg_get_userbyid(c.relowner) = current_user)
) AS staged
WHERE starts_with(relname, $2) OR owner IS NOT NULL AND NOT EXISTS (
    SELECT FROM pg_stat_activity a WHERE a.pid = owner[1]::integer
    AND (a.backend_start IS NULL OR extract(epoch FROM a.backend_start)::text = owner[2])
) LIMIT $3
"""


async def make(raw: Any, table: str, columns: str, *, logged: bool) -> None:
    """Make an empty staging table, by its quoted name, that is this session's own."""
    owner = literal(str(await raw.fetchval(_OWNER)))
    kind = "TABLE" if logged else "UNLOGGED TABLE"
    await raw.execute(
        f"DROP TABLE IF EXISTS {table}; CREATE {kind} {table} ({columns}); "
        f"COMMENT ON TABLE {table} IS {owner}"
    )


async def disown(raw: Any, table: str) -> None:
    """Remove the note: the table is about to become a target."""
    await raw.execute(f"COMMENT ON TABLE {table} IS NULL")


async def sweep(raw: Any, schema: str, key: LoadKey) -> None:
    """Drop staging tables that older attempts of this load have left, and those of any load that nobody can
    commit any more: they were out of reach when their run ended.
    """
    await raw.execute("SET LOCAL lock_timeout = '100ms'")
    for row in await raw.fetch(_LEFT, schema, f"_stg_{load_id(key)}_", _MOST_SWEPT):
        await raw.execute("SAVEPOINT sweep")
        try:
            await raw.execute(f"DROP TABLE IF EXISTS {quote(schema)}.{quote(row[0])}")
        except CONNECTION_ERRORS:
            raise
        except Exception as error:
            # Held by a process that is on its way out: the next attempt or tombstone finds it again.
            if from_server(error, "sweeping").code != "LOCK_TIMEOUT":
                raise
            await raw.execute("ROLLBACK TO SAVEPOINT sweep")
