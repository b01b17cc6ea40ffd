"""Schedules as rows."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from headrace_scheduler.domain.schedules import (
    Catchup,
    LastTick,
    ManagedBy,
    Overlap,
    Progress,
    Reprieve,
    Schedule,
    Status,
    Terms,
    Times,
    Window,
)

SELECT = """
SELECT s.*, p.*, coalesce(w.holidays, '{}') AS own_holidays
FROM schedule AS s
JOIN progress AS p ON p.schedule_id = s.id
LEFT JOIN workspace AS w ON w.id = s.workspace_id
"""

SELECT_WITH_LAST_TICK = """
SELECT s.*, p.*, coalesce(w.holidays, '{}') AS own_holidays, t.at AS tick_at, t.through AS tick_through,
       t.state AS tick_state, t.reason AS tick_reason, t.message AS tick_message, t.run_id AS tick_run_id,
       t.decided_at AS tick_decided_at
FROM schedule AS s
JOIN progress AS p ON p.schedule_id = s.id
LEFT JOIN workspace AS w ON w.id = s.workspace_id
LEFT JOIN LATERAL (
    SELECT * FROM tick WHERE tick.schedule_id = s.id ORDER BY tick.at DESC LIMIT 1
) AS t ON true
"""

Row = Mapping[str, Any]


def schedule(row: Row) -> Schedule:
    """A schedule of SELECT, or with its last tick of SELECT_WITH_LAST_TICK."""
    return Schedule(
        id=row["id"],
        tenant=row["tenant"],
        workspace_id=row["workspace_id"],
        pipeline_id=row["pipeline_id"],
        managed_by=ManagedBy(row["managed_by"]),
        version=row["version"],
        status=Status(row["status"]),
        terms=_terms(row),
        progress=_progress(row),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        created_by=row["created_by"],
        own_holidays=tuple(row["own_holidays"]),
        last_tick=_last_tick(row),
    )


def terms_values(terms: Terms) -> list[Any]:
    """The values of the columns of terms, in the order of TERMS_COLUMNS."""
    times = terms.times
    return [
        times.cron_expression,
        times.timezone,
        times.business_days_only,
        times.skip_holidays,
        times.country,
        times.subdivision,
        windows_text(times.windows),
        terms.overlap.value,
        terms.queue_limit,
        terms.catchup.value,
        terms.catchup_limit,
        terms.parameters,
    ]


TERMS_COLUMNS = (
    "cron_expression",
    "timezone",
    "business_days_only",
    "skip_holidays",
    "country",
    "subdivision",
    "windows",
    "overlap",
    "queue_limit",
    "catchup",
    "catchup_limit",
    "parameters",
)

PROGRESS_COLUMNS = (
    ("decided_until", "timestamptz"),
    ("pipeline_active", "boolean"),
    ("reprieve_until", "timestamptz"),
    ("reprieve_catchup", "text"),
    ("reprieve_limit", "integer"),
    ("reprieve_reason", "text"),
    ("next_due", "timestamptz"),
    ("next_run_at", "timestamptz"),
    ("held_until", "timestamptz"),
    ("starting", "boolean"),
)


def progress_values(progress: Progress) -> list[Any]:
    """The values of the columns of progress, in the order of PROGRESS_COLUMNS."""
    reprieve = progress.reprieve
    return [
        progress.decided_until,
        progress.pipeline_active,
        reprieve and reprieve.until,
        reprieve and reprieve.catchup.value,
        reprieve and reprieve.limit,
        reprieve and reprieve.reason,
        progress.next_due,
        progress.next_run_at,
        progress.held_until,
        progress.starting,
    ]


def windows_text(windows: Sequence[Window]) -> str:
    """Maintenance windows as the JSON that is stored."""
    return json.dumps(
        [
            {
                "start": window.start.isoformat() if window.start else None,
                "end": window.end.isoformat() if window.end else None,
                "days": list(window.days),
                "from": window.from_time,
                "to": window.to_time,
            }
            for window in windows
        ]
    )


def _window(stored: Mapping[str, Any]) -> Window:
    return Window(
        start=datetime.fromisoformat(stored["start"]) if stored["start"] else None,
        end=datetime.fromisoformat(stored["end"]) if stored["end"] else None,
        days=tuple(stored["days"]),
        from_time=stored["from"],
        to_time=stored["to"],
    )


def _terms(row: Row) -> Terms:
    times = Times(
        cron_expression=row["cron_expression"],
        timezone=row["timezone"],
        business_days_only=row["business_days_only"],
        skip_holidays=row["skip_holidays"],
        country=row["country"],
        subdivision=row["subdivision"],
        windows=tuple(_window(each) for each in json.loads(row["windows"])),
    )
    return Terms(
        times=times,
        overlap=Overlap(row["overlap"]),
        queue_limit=row["queue_limit"],
        catchup=Catchup(row["catchup"]),
        catchup_limit=row["catchup_limit"],
        parameters=row["parameters"],
    )


def _progress(row: Row) -> Progress:
    reprieve = None
    if row["reprieve_until"] is not None:
        reprieve = Reprieve(
            until=row["reprieve_until"],
            catchup=Catchup(row["reprieve_catchup"]),
            limit=row["reprieve_limit"],
            reason=row["reprieve_reason"],
        )
    return Progress(
        decided_until=row["decided_until"],
        pipeline_active=row["pipeline_active"],
        reprieve=reprieve,
        next_due=row["next_due"],
        next_run_at=row["next_run_at"],
        held_until=row["held_until"],
        starting=row["starting"],
    )


def _last_tick(row: Row) -> LastTick | None:
    at = row.get("tick_at")
    if at is None:
        return None
    return LastTick(
        at=at,
        through=row["tick_through"],
        state=row["tick_state"],
        reason=row["tick_reason"],
        message=row["tick_message"],
        run_id=row["tick_run_id"],
        decided_at=row["tick_decided_at"],
    )
