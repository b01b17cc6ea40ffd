"""What the agents ask again and again must not cost more the more runs have ended."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from headrace_chassis.database import Database, driver
from headrace_chassis.ids import uuid7
from headrace_execution.domain.lifecycle import accept
from headrace_execution.store.port import Tx
from headrace_execution.store.sql import SqlStore

from .factories import WORKER, order, recipe

_ENDED = """
INSERT INTO {table} SELECT (jsonb_populate_record(made, $1::jsonb || jsonb_build_object(
    'id', md5(n::text)::uuid, 'run', md5(n::text)::uuid
))).* FROM {table} AS made, generate_series(1, 2000) AS n
"""
_SCANNED = (
    "SELECT relname, seq_tup_read FROM pg_stat_user_tables WHERE relname IN ('runs', 'stages', 'tasks')"
)


async def many_have_ended(store: SqlStore, raw: Any) -> None:
    """Makes a run, and two thousand more like it that have ended."""

    async def work(tx: Tx) -> None:
        await tx.runs.insert([accept(order(made=recipe()), tx.now)])

    await store.run(work)
    await raw.execute(_ENDED.format(table="runs"), '{"state": "COMPLETED", "finished_at": "2026-01-02"}')
    await raw.execute(_ENDED.format(table="tasks"), '{"state": "COMPLETED"}')
    await raw.execute(_ENDED.format(table="stages"), '{"state": "COMPLETED", "ready_at": null}')
    await raw.execute("DELETE FROM runs WHERE state <> 'COMPLETED'")
    await raw.execute("DELETE FROM stages WHERE state <> 'COMPLETED'")
    await raw.execute("VACUUM ANALYZE runs, stages, tasks")


async def read_whole(db: Database) -> dict[str, int]:
    """How many rows of tables were read from one end to the other, as far as this connection knows."""
    async with db.read() as conn:
        raw = driver(conn)
        await raw.execute("SELECT pg_stat_force_next_flush()")
        return {row["relname"]: row["seq_tup_read"] for row in await raw.fetch(_SCANNED)}


_QUESTIONS: dict[str, Callable[[SqlStore], Awaitable[object]]] = {
    "waiting": lambda store: store.has_waiting(),
    "claim": lambda store: store.run(lambda tx: tx.runs.claim(10)),
    "fences": lambda store: store.run(lambda tx: tx.runs.fences(3, unless_ready=True)),
    "due": lambda store: store.run(lambda tx: tx.runs.due(10)),
    "leases": lambda store: store.run(lambda tx: tx.runs.leases([WORKER])),
    "stops": lambda store: store.run(lambda tx: tx.runs.stops([WORKER])),
    "expired": lambda store: store.run(lambda tx: tx.runs.expired(10)),
    "live": lambda store: store.run(lambda tx: tx.runs.ids_of(uuid7(), 10)),
    "of triggers": lambda store: store.run(lambda tx: tx.runs.live_of([(uuid7(), "t")])),
    "of roots": lambda store: store.run(lambda tx: tx.runs.live_of_roots([uuid7()])),
    "counts": lambda store: store.run(lambda tx: tx.pipelines.live_counts([uuid7()])),
    "held": lambda store: store.run(lambda tx: tx.pipelines.pipelines_with_held(10)),
    "overdue": lambda store: store.run(lambda tx: tx.alerts.overdue(10)),
    "logs": lambda store: store.run(lambda tx: tx.logs.expired_logs(timedelta(days=1), 10)),
}


async def test_no_agent_reads_what_has_ended(db: Database, store: SqlStore, migrated_url: str) -> None:
    async with db.read() as conn:
        await many_have_ended(store, driver(conn))
    alone = Database(migrated_url, pool_size=1)  # whose one connection tells what it has read
    asking = SqlStore(alone)

    scanned: dict[str, dict[str, int]] = {}
    for name, question in _QUESTIONS.items():
        before = await read_whole(alone)
        await question(asking)
        after = await read_whole(alone)
        scanned[name] = {
            table: after[table] - before[table] for table in after if after[table] > before[table]
        }
    await alone.close()

    assert {name: tables for name, tables in scanned.items() if tables} == {}
