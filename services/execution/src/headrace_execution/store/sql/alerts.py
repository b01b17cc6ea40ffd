"""Alerts in SQL.

The lock of a pipeline's alerts is an advisory lock of the transaction, so that it also covers alerts that are
not there yet.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, astuple
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from headrace_chassis import outbox
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_execution.domain.alerts import Alert, AlertChanged, AlertState, Rule, Severity
from headrace_execution.domain.judging import Going
from headrace_execution.domain.run import Run
from headrace_execution.domain.usual import Sample, Usual
from headrace_execution.store.alerts_port import AlertFilter
from headrace_execution.store.sql.events import to_alert_event
from headrace_execution.store.sql.locking import keys_of
from headrace_execution.store.sql.recipes import RecipeCache
from headrace_execution.store.sql.runs import read_many

_ALERTS = 0x414C_5254
_TAKE = "SELECT pg_advisory_xact_lock($1, key) FROM unnest($2::int[]) AS t(key)"

_TYPES = {
    "id": "uuid",
    "tenant": "uuid",
    "workspace": "uuid",
    "pipeline": "uuid",
    "rule": "text",
    "severity": "text",
    "state": "text",
    "message": "text",
    "details": "text",
    "run": "uuid",
    "count": "bigint",
    "opened_at": "timestamptz",
    "last_seen_at": "timestamptz",
    "as_of": "timestamptz",
    "acknowledged_at": "timestamptz",
    "acknowledged_by": "text",
    "note": "text",
    "resolved_at": "timestamptz",
    "resolved_by": "uuid",
}
_FIXED = frozenset({"id", "tenant", "workspace", "pipeline", "rule", "opened_at"})
_COLUMNS = ", ".join(_TYPES)
_VALUES = ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(_TYPES.values(), start=1))
_CHANGES = ", ".join(f"{name} = excluded.{name}" for name in _TYPES if name not in _FIXED)
# An alert that is resolved makes room for one that is opened in its place, so it is written first.
_SAVE = f"""
INSERT INTO alerts ({_COLUMNS}) SELECT * FROM unnest({_VALUES}) AS u({_COLUMNS})
ON CONFLICT (id) DO UPDATE SET {_CHANGES}
"""
_ACTIVE = f"SELECT {_COLUMNS} FROM alerts WHERE pipeline = ANY ($1::uuid[]) AND state <> 'RESOLVED'"
_ONE = f"SELECT {_COLUMNS} FROM alerts WHERE id = $1 AND tenant = $2"
_USUAL = "SELECT pipeline, samples FROM usual_runs WHERE pipeline = ANY ($1::uuid[])"
_REMEMBER = """
INSERT INTO usual_runs (pipeline, samples, late_after_ms)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::bigint[])
ON CONFLICT (pipeline) DO UPDATE SET samples = excluded.samples, late_after_ms = excluded.late_after_ms
"""
# By the index of live runs: what has ended costs nothing.
_OVERDUE = """
SELECT r.id, r.tenant, r.workspace, r.pipeline, r.created_at, r.started_at, u.samples
FROM runs AS r JOIN usual_runs AS u ON u.pipeline = r.pipeline
WHERE r.state IN ('PENDING', 'RUNNING') AND r.started_at IS NOT NULL AND NOT r.full_refresh
    AND r.started_at + u.late_after_ms * interval '1 millisecond' < $1
    AND NOT EXISTS (
        SELECT FROM alerts AS a WHERE a.pipeline = r.pipeline AND a.rule = 'RUN_LATE'
            AND a.state <> 'RESOLVED' AND a.as_of >= r.created_at
    )
LIMIT $2
"""
_FORGET = """
DELETE FROM alerts WHERE id = ANY (ARRAY(
    SELECT id FROM alerts WHERE state = 'RESOLVED' AND resolved_at < $1 ORDER BY resolved_at LIMIT $2
))
"""


class SqlAlerts:
    """Alerts of one transaction."""

    def __init__(self, conn: AsyncConnection, raw: Any, now: datetime, recipes: RecipeCache) -> None:
        self._conn = conn
        self._raw = raw
        self._now = now
        self._recipes = recipes

    async def active(self, pipelines: Collection[UUID]) -> list[Alert]:
        """See the port."""
        return [_alert(row) for row in await self._raw.fetch(_ACTIVE, list(pipelines))]

    async def lock(self, pipelines: Collection[UUID]) -> None:
        """See the port."""
        await self._raw.execute(_TAKE, _ALERTS, keys_of(pipelines))

    async def lock_one(self, tenant: UUID, alert: UUID) -> Alert | None:
        """See the port."""
        found = await self._raw.fetchrow(_ONE, alert, tenant)
        if found is None:
            return None
        await self.lock([found["pipeline"]])
        row = await self._raw.fetchrow(_ONE, alert, tenant)
        return _alert(row) if row is not None else None

    async def save(self, alerts: Sequence[Alert]) -> None:
        """See the port."""
        resolved = [alert for alert in alerts if alert.state is AlertState.RESOLVED]
        active = [alert for alert in alerts if alert.state is not AlertState.RESOLVED]
        for part in (resolved, active):
            if part:
                rows = [_values(alert) for alert in part]
                await self._raw.execute(_SAVE, *([row[name] for row in rows] for name in _TYPES))

    async def tell(self, changes: Sequence[AlertChanged]) -> None:
        """See the port."""
        await outbox.append(self._conn, [to_alert_event(change) for change in changes])

    async def page(
        self, narrow: AlertFilter, *, limit: int, offset: int, after: tuple[datetime, UUID] | None
    ) -> list[Alert]:
        """See the port."""
        where, values = _where(narrow)
        if after is not None:
            where += f" AND (opened_at, id) < (${len(values) + 1}, ${len(values) + 2})"
            values += after
        page = f"LIMIT ${len(values) + 1} OFFSET ${len(values) + 2}"
        rows = await self._raw.fetch(
            f"SELECT {_COLUMNS} FROM alerts WHERE {where} ORDER BY opened_at DESC, id DESC {page}",
            *values,
            limit,
            offset,
        )
        return [_alert(row) for row in rows]

    async def count(self, narrow: AlertFilter) -> int:
        """See the port."""
        where, values = _where(narrow)
        count: int = await self._raw.fetchval(f"SELECT count(*) FROM alerts WHERE {where}", *values)
        return count

    async def usual(self, pipelines: Collection[UUID]) -> dict[UUID, Usual]:
        """See the port."""
        rows = await self._raw.fetch(_USUAL, list(pipelines))
        return {row["pipeline"]: _usual(row["samples"]) for row in rows}

    async def remember(self, usual: Mapping[UUID, Usual]) -> None:
        """See the port."""
        if usual:
            samples = [json.dumps([astuple(sample) for sample in each.samples]) for each in usual.values()]
            late = [_late_after(each) for each in usual.values()]
            await self._raw.execute(_REMEMBER, list(usual), samples, late)

    async def overdue(self, limit: int) -> list[Going]:
        """See the port."""
        return [
            Going(
                run=row["id"],
                tenant=row["tenant"],
                workspace=row["workspace"],
                pipeline=row["pipeline"],
                accepted_at=row["created_at"],
                started_at=row["started_at"],
                usual=_usual(row["samples"]),
            )
            for row in await self._raw.fetch(_OVERDUE, self._now, limit)
        ]

    async def runs(self, runs: Collection[UUID]) -> dict[UUID, Run]:
        """See the port."""
        return await read_many(self._raw, runs, self._recipes)

    async def forget_resolved(self, age: timedelta, limit: int) -> int:
        """See the port."""
        status: str = await self._raw.execute(_FORGET, self._now - age, limit)
        return int(status.rpartition(" ")[2])


def _late_after(usual: Usual) -> int | None:
    durations = usual.durations
    return round(durations.high) if durations is not None else None


def _usual(samples: str) -> Usual:
    return Usual(tuple(Sample(*sample) for sample in json.loads(samples)))


def _values(alert: Alert) -> dict[str, Any]:
    return {**asdict(alert), "details": json.dumps(dict(alert.details))}


def _alert(row: Any) -> Alert:
    values = {name: row[name] for name in _TYPES}
    values |= {
        "rule": Rule(row["rule"]),
        "severity": Severity(row["severity"]),
        "state": AlertState(row["state"]),
        "details": json.loads(row["details"]),
    }
    return Alert(**values)


def _where(narrow: AlertFilter) -> tuple[str, list[Any]]:
    values: list[Any] = [narrow.tenant]
    parts = ["tenant = $1"]
    for column, value in (
        ("pipeline", narrow.pipeline),
        ("state", narrow.state),
        ("severity", narrow.severity),
        ("rule", narrow.rule),
    ):
        if value is not None:
            values.append(value)
            parts.append(f"{column} = ${len(values)}")
    if narrow.workspaces is not None:
        values.append(list(narrow.workspaces))
        parts.append(f"workspace = ANY (${len(values)})")
    return " AND ".join(parts), values
