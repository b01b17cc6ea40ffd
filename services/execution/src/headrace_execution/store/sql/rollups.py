"""Days of pipelines in SQL. Nothing here reads a run."""

import json
from collections.abc import Collection, Sequence
from datetime import date
from typing import Any
from uuid import UUID

from headrace_execution.domain.durations import Durations
from headrace_execution.domain.figures import Figures
from headrace_execution.domain.rollups import Day, DayTotals, Totals, added
from headrace_execution.domain.states import RunState

_TYPES = {
    "pipeline": "uuid",
    "day": "date",
    "tenant": "uuid",
    "completed": "bigint",
    "failed": "bigint",
    "cancelled": "bigint",
    "warned": "bigint",
    "durations": "text",
    "rows_read": "bigint",
    "rows_written": "bigint",
    "bytes_read": "bigint",
    "bytes_written": "bigint",
    "slot_us": "bigint",
    "last_state": "text",
    "last_at": "timestamptz",
}
_NAMES = ", ".join(_TYPES)
_SELECT = f"SELECT {_NAMES} FROM pipeline_days"
_KNOWN = f"{_SELECT} WHERE (pipeline, day) IN (SELECT * FROM unnest($1::uuid[], $2::date[]))"
_ARRAYS = ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(_TYPES.values(), start=1))
_SETS = ", ".join(f"{name} = excluded.{name}" for name in list(_TYPES)[3:])
_PUT = f"""
INSERT INTO pipeline_days ({_NAMES}) SELECT * FROM unnest({_ARRAYS})
ON CONFLICT (pipeline, day) DO UPDATE SET {_SETS}
"""
DAYS = f"{_SELECT} WHERE pipeline = $2 AND day BETWEEN $3 AND $4 AND tenant = $1 ORDER BY day"
"""The days of a pipeline; a test looks at its plan."""


class SqlRollups:
    """Days of pipelines, in one transaction."""

    def __init__(self, conn: Any) -> None:
        self._conn = conn

    async def add(self, days: Sequence[DayTotals]) -> None:
        """See the port."""
        if not days:
            return
        known = await self._known([day.key for day in days])
        rows = [_row(day) for day in added(days, known)]
        await self._conn.execute(_PUT, *(list(column) for column in zip(*rows, strict=True)))

    async def _known(self, keys: Collection[Day]) -> dict[Day, Totals]:
        rows = await self._conn.fetch(_KNOWN, [key[0] for key in keys], [key[1] for key in keys])
        return {(row["pipeline"], row["day"]): _totals(row) for row in rows}


async def read_days(conn: Any, tenant: UUID, pipeline: UUID, first: date, last: date) -> list[DayTotals]:
    """See the port."""
    rows = await conn.fetch(DAYS, tenant, pipeline, first, last)
    return [DayTotals(tenant, pipeline, row["day"], _totals(row)) for row in rows]


def _row(day: DayTotals) -> tuple[Any, ...]:
    """The values of a row, in the order of its columns."""
    totals, figures = day.totals, day.totals.figures
    return (
        day.pipeline,
        day.day,
        day.tenant,
        totals.completed,
        totals.failed,
        totals.cancelled,
        totals.warned,
        _dump_durations(totals.durations),
        figures.rows_read,
        figures.rows_written,
        figures.bytes_read,
        figures.bytes_written,
        figures.slot_us,
        totals.last_state,
        totals.last_at,
    )


def _totals(row: Any) -> Totals:
    return Totals(
        completed=row["completed"],
        failed=row["failed"],
        cancelled=row["cancelled"],
        warned=row["warned"],
        durations=_load_durations(row["durations"]),
        figures=Figures(
            row["rows_read"], row["rows_written"], row["bytes_read"], row["bytes_written"], row["slot_us"]
        ),
        last_state=RunState(row["last_state"]),
        last_at=row["last_at"],
    )


def _dump_durations(durations: Durations) -> str:
    buckets = sorted(durations.buckets.items())
    return json.dumps([durations.count, durations.sum, durations.min, durations.max, buckets])


def _load_durations(text: str) -> Durations:
    count, total, least, most, buckets = json.loads(text)
    return Durations(count, total, least, most, dict(buckets))
