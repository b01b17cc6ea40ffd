"""Bounds of incremental reads, as the opaque bytes a receipt keeps."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass

from headrace_connectors.errors import ConnectorError, configuration, data
from headrace_connectors.identifiers import split_table
from headrace_connectors.model import Incremental

_UNBOUNDED = frozenset({"infinity", "Infinity", "NaN", "inf", "nan"})


@dataclass(frozen=True)
class Pending:
    """What must be over before everything below ``value`` is known to have been seen.

    ``running`` names the transactions that were running when no value above ``value`` had been committed:
    one of them may still commit a row at or below it.
    """

    value: str
    running: tuple[str, ...]


@dataclass(frozen=True)
class Cursor:
    """How far a source has been read.

    ``value`` is the largest value of ``column`` when the reading began, ``before`` what it was when the
    reading before began. A system that knows of running transactions also says from where the next reading
    must look for late commits (``floor``; and what it will be once some transactions are over, ``pending``),
    and below which number all transactions were over (``horizon``). ``table`` is :attr:`Incremental.table`.
    """

    column: str
    value: str
    before: str | None = None
    floor: str | None = None
    pending: Pending | None = None
    horizon: int | None = None
    table: str | None = None

    def encode(self) -> bytes:
        """As a receipt keeps it."""
        body: dict[str, object] = {"column": self.column, "value": self.value}
        if self.before is not None:
            body["before"] = self.before
        if self.floor is not None:
            body["floor"] = self.floor
        if self.pending is not None:
            body["pending"] = [self.pending.value, list(self.pending.running)]
        if self.horizon is not None:
            body["horizon"] = self.horizon
        if self.table is not None:
            body["table"] = self.table
        return json.dumps(body, sort_keys=True).encode()

    @staticmethod
    def decode(stored: bytes) -> Cursor:
        """What ``encode`` wrote.

        :raises ConnectorError: CURSOR_INVALID.
        """
        try:
            body = json.loads(stored)
            pending, before, floor = body.get("pending"), body.get("before"), body.get("floor")
            horizon, table = body.get("horizon"), body.get("table")
            return Cursor(
                str(body["column"]),
                str(body["value"]),
                None if before is None else str(before),
                None if floor is None else str(floor),
                None if pending is None else Pending(str(pending[0]), tuple(map(str, pending[1]))),
                None if horizon is None else int(horizon),
                None if table is None else str(table),
            )
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise configuration(
                "CURSOR_INVALID", "the stored cursor cannot be read; run a full refresh"
            ) from error


def stored_cursor(incremental: Incremental) -> Cursor | None:
    """Where the last load came to; None where none has landed.

    :raises ConnectorError: CURSOR_CHANGED when the stored bound is that of another column or table;
        CURSOR_INVALID.
    """
    if incremental.lower is None:
        return None
    stored = Cursor.decode(incremental.lower)
    if stored.column != incremental.cursor:
        raise configuration(
            "CURSOR_CHANGED",
            f"the stored cursor belongs to column {stored.column}, not {incremental.cursor}; "
            "run a full refresh",
            column=incremental.cursor,
        )
    if stored.table and incremental.table and not _may_be_same(stored.table, incremental.table):
        raise configuration(
            "CURSOR_CHANGED",
            f"the stored cursor belongs to table {stored.table}, not {incremental.table}; run a full refresh",
            table=incremental.table,
        )
    return stored


def _may_be_same(one: str, other: str) -> bool:
    """Whether two names can mean one table: without its schema, a name may mean any."""
    if one == other or "${" in one + other:
        return one == other
    (schema, name), (other_schema, other_name) = split_table(one), split_table(other)
    return name == other_name and (schema is None or other_schema is None or schema == other_schema)


def begins_at(incremental: Incremental | None) -> str | None:
    """The value that a reading goes on from; None where it begins at the beginning.

    :raises ConnectorError: as :func:`stored_cursor`.
    """
    if incremental is None:
        return None
    stored = stored_cursor(incremental)
    return stored.value if stored else incremental.initial


def value_of(cursor: bytes | None) -> str | None:
    """The largest value that a reading has seen."""
    return None if cursor is None else Cursor.decode(cursor).value


def reached(incremental: Incremental, top: str, before: str | None) -> Cursor:
    """The cursor after a reading in which ``top`` was the largest value.

    :raises ConnectorError: CURSOR_UNBOUNDED when nothing can ever lie above it.
    """
    if top in _UNBOUNDED:
        raise data(
            "CURSOR_UNBOUNDED",
            f"the cursor column {incremental.cursor} holds {top}, above which nothing new can lie; "
            "leave such rows out by a query",
            column=incremental.cursor,
        )
    return Cursor(incremental.cursor, top, before, table=incremental.table)


def misfit(incremental: Incremental, kind: str) -> ConnectorError:
    """The error of a value to go on from that is not of the type of its column: without the value."""
    column = incremental.cursor
    if incremental.lower is None:
        text = f"initial is no {kind}, which the cursor column {column} is"
    else:
        text = f"the stored cursor is no {kind}, which the cursor column {column} is now; run a full refresh"
    return configuration("CURSOR_INVALID", text, column=column)


def lag_unsupported(incremental: Incremental, kind: str) -> ConnectorError:
    """The error of a lag that cannot be taken from values of a type."""
    return configuration(
        "LAG_NOT_SUPPORTED",
        f"no lag can be taken from {kind}, which the cursor column {incremental.cursor} is: it would have to "
        "hold numbers, dates or times",
        column=incremental.cursor,
    )


def null_warnings(column: str) -> tuple[str, ...]:
    """What is said where rows have no cursor value."""
    return (
        f"there are rows whose {column} is NULL: they are read by a first run and by a full refresh only",
    )


def repeat_warnings(incremental: Incremental) -> tuple[str, ...]:
    """What is said where a lag makes rows come again that were read before, and no merge absorbs them."""
    if incremental.repeats or incremental.lag is None or incremental.lower is None:
        return ()
    return (
        "the lag reads rows again, and their sink does not merge them by key: those that it has are "
        "loaded again",
    )


def lag_number(incremental: Incremental) -> int:
    """The lag for a column of numbers: a definition has it in seconds, `lag: 100` for 100."""
    lag = incremental.lag
    return int(lag.total_seconds()) if isinstance(lag, dt.timedelta) else int(lag or 0)


def lag_interval(incremental: Incremental) -> dt.timedelta:
    """The lag for a column of dates or times."""
    lag = incremental.lag
    return lag if isinstance(lag, dt.timedelta) else dt.timedelta(seconds=lag or 0)
