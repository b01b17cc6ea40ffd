"""The index of logs in SQL."""

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from headrace_execution.domain.changes import OutputLanding
from headrace_execution.domain.logs import ChunkEntry, Level, LoggedAttempt, LogLine, Note
from headrace_execution.store.port import LogIndex, RunPlace

_ATTEMPTS = """
SELECT s.id AS stage, u.fence, s.run, r.tenant, r.pipeline, l.sequence, l.lines_total, l.cost_total
FROM unnest($1::uuid[], $2::bigint[]) AS u(stage, fence)
JOIN stages AS s ON s.id = u.stage AND u.fence BETWEEN 1 AND s.fence
JOIN runs AS r ON r.id = s.run
LEFT JOIN LATERAL (
    SELECT sequence, lines_total, cost_total FROM log_chunks AS c
    WHERE c.run = s.run AND c.stage = u.stage AND c.fence = u.fence ORDER BY sequence DESC LIMIT 1
) AS l ON true
"""
_COLUMNS = {
    "run": "uuid",
    "stage": "uuid",
    "fence": "bigint",
    "sequence": "integer",
    "attempt": "integer",
    "artifact": "text",
    "lines": "integer",
    "bytes": "integer",
    "tasks": "text",
    "first_at": "timestamptz",
    "last_at": "timestamptz",
    "lines_total": "bigint",
    "cost_total": "bigint",
    "is_head": "boolean",
}
_NAMES = ", ".join(_COLUMNS)
_ARRAYS = ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(_COLUMNS.values(), 1))
# The lock keeps a purge of the run from missing what is added at the same moment; it bars no other writer.
_ADD = f"""
INSERT INTO log_chunks ({_NAMES}) SELECT * FROM unnest({_ARRAYS}) AS u({_NAMES})
WHERE run = ANY (ARRAY(SELECT id FROM runs WHERE id = ANY ($1::uuid[]) FOR KEY SHARE))
ON CONFLICT DO NOTHING RETURNING artifact
"""
_TRIM = """
DELETE FROM log_chunks AS c USING unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[])
    AS u(run, stage, fence, cost)
WHERE c.run = u.run AND c.stage = u.stage AND c.fence = u.fence AND NOT c.is_head AND c.cost_total <= u.cost
RETURNING c.artifact
"""
_NOTE = """
INSERT INTO run_notes (run, at, level, attempt, message, fields)
SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::text[], $4::integer[], $5::text[], $6::text[])
"""
_LANDED = """
INSERT INTO outputs (run, sink, tenant, pipeline, landed_at)
SELECT u.*, $5 FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::uuid[]) AS u ON CONFLICT DO NOTHING
"""
# What they cost follows what has expired: they begin there, and ask for one younger row of the same run.
_EXPIRED_LOGS = """
SELECT r.id AS run, r.tenant, r.pipeline FROM (
    SELECT run, min(at) AS at FROM (
        (SELECT run, last_at AS at FROM log_chunks WHERE last_at < $1 ORDER BY last_at LIMIT $3)
        UNION ALL
        (SELECT run, at FROM run_notes WHERE at < $1 ORDER BY at LIMIT $3)
    ) AS old GROUP BY run
) AS o JOIN runs AS r ON r.id = o.run
WHERE NOT EXISTS (SELECT FROM log_chunks AS y WHERE y.run = o.run AND y.last_at >= $1)
    AND NOT EXISTS (SELECT FROM run_notes AS y WHERE y.run = o.run AND y.at >= $1)
ORDER BY o.at, r.id LIMIT $2
"""
_EXPIRED_OUTPUTS = """
SELECT o.run, o.tenant, o.pipeline FROM outputs AS o
WHERE o.landed_at < $1 AND NOT EXISTS (
    SELECT FROM outputs AS y WHERE y.run = o.run AND (y.landed_at, y.sink) > (o.landed_at, o.sink)
)
ORDER BY o.landed_at, o.run LIMIT $2
"""
_FORGET_CHUNKS = "DELETE FROM log_chunks WHERE run = ANY ($1::uuid[])"
_FORGET_NOTES = "DELETE FROM run_notes WHERE run = ANY ($1::uuid[])"
_FORGET_OUTPUTS = "DELETE FROM outputs WHERE run = ANY ($1::uuid[])"
_OLD_ROWS = 5000
"""How many old rows one look for expired logs takes into account."""

_CHUNKS = f"""
SELECT {_NAMES} FROM log_chunks AS c
WHERE run = $1 AND sequence > COALESCE((
    SELECT u.sequence FROM unnest($2::uuid[], $3::bigint[], $4::integer[]) AS u(stage, fence, sequence)
    WHERE u.stage = c.stage AND u.fence = c.fence
), -1)
ORDER BY stage, fence, sequence
"""
_NOTES = "SELECT * FROM run_notes WHERE run = $1 AND position > $2 ORDER BY position"


class SqlLogs:
    """The index of logs, in one transaction."""

    def __init__(self, conn: Any, now: datetime) -> None:
        self._conn = conn
        self._now = now

    async def attempts(self, attempts: Collection[tuple[UUID, int]]) -> dict[tuple[UUID, int], LoggedAttempt]:
        """See the port."""
        rows = await self._conn.fetch(_ATTEMPTS, [key[0] for key in attempts], [key[1] for key in attempts])
        return {(row["stage"], row["fence"]): _attempt(row) for row in rows}

    async def add(self, entries: Sequence[ChunkEntry]) -> frozenset[str]:
        """See the port."""
        if not entries:
            return frozenset()
        values = [_values(entry) for entry in entries]
        rows = await self._conn.fetch(_ADD, *([value[name] for value in values] for name in _COLUMNS))
        return frozenset(row["artifact"] for row in rows)

    async def trim(self, costs: Mapping[tuple[UUID, UUID, int], int]) -> list[str]:
        """See the port."""
        if not costs:
            return []
        rows = await self._conn.fetch(
            _TRIM,
            [run for run, _, _ in costs],
            [stage for _, stage, _ in costs],
            [fence for _, _, fence in costs],
            list(costs.values()),
        )
        return [row["artifact"] for row in rows]

    async def note(self, notes: Sequence[Note]) -> None:
        """See the port."""
        if notes:
            await self._conn.execute(
                _NOTE,
                [note.run for note in notes],
                [note.line.time for note in notes],
                [note.line.level for note in notes],
                [note.line.attempt for note in notes],
                [note.line.message for note in notes],
                [json.dumps(dict(note.line.fields)) for note in notes],
            )

    async def landed(self, outputs: Sequence[OutputLanding]) -> None:
        """See the port."""
        if outputs:
            await self._conn.execute(
                _LANDED,
                [output.run for output in outputs],
                [output.sink for output in outputs],
                [output.tenant for output in outputs],
                [output.pipeline for output in outputs],
                self._now,
            )

    async def expired_logs(self, age: timedelta, limit: int) -> list[RunPlace]:
        """See the port."""
        rows = await self._conn.fetch(_EXPIRED_LOGS, self._now - age, limit, _OLD_ROWS)
        return [_place(row) for row in rows]

    async def expired_outputs(self, age: timedelta, limit: int) -> list[RunPlace]:
        """See the port."""
        rows = await self._conn.fetch(_EXPIRED_OUTPUTS, self._now - age, limit)
        return [_place(row) for row in rows]

    async def forget_logs(self, runs: Collection[UUID]) -> None:
        """See the port."""
        await self._conn.execute(_FORGET_CHUNKS, list(runs))
        await self._conn.execute(_FORGET_NOTES, list(runs))

    async def forget_outputs(self, runs: Collection[UUID]) -> None:
        """See the port."""
        await self._conn.execute(_FORGET_OUTPUTS, list(runs))


async def read_index(
    conn: Any, run: UUID, after: Mapping[tuple[UUID, int], int], notes_after: int
) -> LogIndex:
    """What there is beyond these places."""
    stages, fences = [key[0] for key in after], [key[1] for key in after]
    chunks = await conn.fetch(_CHUNKS, run, stages, fences, list(after.values()))
    notes = await conn.fetch(_NOTES, run, notes_after)
    return LogIndex(tuple(map(_entry, chunks)), tuple(map(_note, notes)))


def _place(row: Any) -> RunPlace:
    return RunPlace(row["tenant"], row["pipeline"], row["run"])


def _attempt(row: Any) -> LoggedAttempt:
    where = (row["tenant"], row["pipeline"], row["run"], row["stage"], row["fence"])
    if row["sequence"] is None:
        return LoggedAttempt(*where)
    return LoggedAttempt(*where, row["sequence"], row["lines_total"], row["cost_total"])


def _values(entry: ChunkEntry) -> dict[str, Any]:
    return {**{name: getattr(entry, name) for name in _COLUMNS}, "tasks": json.dumps(entry.tasks)}


def _entry(row: Any) -> ChunkEntry:
    values = dict(row)
    return ChunkEntry(**{**values, "tasks": tuple(json.loads(values["tasks"]))})


def _note(row: Any) -> Note:
    line = LogLine(
        row["at"],
        Level(row["level"]),
        row["message"],
        attempt=row["attempt"],
        fields=json.loads(row["fields"]),
    )
    return Note(row["run"], line, row["position"])
