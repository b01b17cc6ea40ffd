"""Bounds of incremental reads, as the opaque bytes a receipt keeps."""

from __future__ import annotations

import datetime as dt
import json

from headrace_connectors.errors import configuration
from headrace_connectors.identifiers import literal
from headrace_connectors.model import Incremental


def encode(column: str, value: str, snapshot: str = "") -> bytes:
    """The bound ``value`` of ``column``; ``snapshot`` is kept for people who look into late commits."""
    body = {"column": column, "value": value, **({"snapshot": snapshot} if snapshot else {})}
    return json.dumps(body, sort_keys=True).encode()


def lower_bound(incremental: Incremental) -> str | None:
    """The text of the value to read from, or None to read everything.

    :raises ConnectorError: CURSOR_CHANGED when the stored bound is that of another column; CURSOR_INVALID.
    """
    if incremental.lower is None:
        return incremental.initial
    try:
        body = json.loads(incremental.lower)
        column, value = str(body["column"]), str(body["value"])
    except (ValueError, KeyError, TypeError) as error:
        raise configuration(
            "CURSOR_INVALID", "the stored cursor cannot be read; run a full refresh"
        ) from error
    if column != incremental.cursor:
        raise configuration(
            "CURSOR_CHANGED",
            f"the stored cursor belongs to column {column}, not {incremental.cursor}; run a full refresh",
            column=incremental.cursor,
        )
    return value


def lag_sql(incremental: Incremental) -> str:
    """The lag as PostgreSQL SQL: an interval, or a number."""
    lag = incremental.lag
    if isinstance(lag, dt.timedelta):
        return f"{literal(f'{lag.total_seconds():f} seconds')}::interval"
    return str(int(lag or 0))
