"""Which rows an incremental read of PostgreSQL takes, so that none is lost that is committed late.

A row's cursor value is given out before its transaction commits: by a clock at the start of it, by a
sequence in the middle. So when a reading sees the value 100, the row with 99 may still be to come. Assumed is
only that values are *given out* in the order in which they grow; a ``lag`` allows for the rest.

A reading first notes the largest value, then which transactions run in the database, and only then takes its
snapshot. Whoever commits a value at or below the noted one after that snapshot was running when the note was
taken. Once those are over, the snapshot that is taken next has everything up to the noted value: that value
is the *floor* of the readings after it, which read from there on, including it. A reading waits a moment for
them, since most transactions are short; else a later one finds them gone.

Where rows must not come again, what was read is told from what is new by the transaction that wrote it. Of a
table (not of a view or a query) a reading then takes rows of transactions below the *horizon* of its
snapshot, below which none runs any more, and the next one those below the floor of values only from the last
horizon on. A row of a transaction above the horizon is left to the next reading, which its floor then keeps
in view.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

import asyncpg

from headrace_connectors import cursors
from headrace_connectors.cursors import Cursor, Pending
from headrace_connectors.errors import ConnectorError, configuration
from headrace_connectors.identifiers import literal, quote
from headrace_connectors.model import Incremental, SourceSpec
from headrace_connectors.postgres.catalog import NativeColumn
from headrace_connectors.postgres.session import Backend, Session

_RUNNING = """
SELECT l.virtualtransaction AS id FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
WHERE l.locktype = 'virtualxid' AND l.granted AND l.pid <> pg_backend_pid()
  AND (l.pid, a.application_name) IS DISTINCT FROM ($1, $2) AND a.usesysid IS NOT NULL
  AND a.datid = (SELECT oid FROM pg_database WHERE datname = current_database())
UNION SELECT 'x' || xid FROM pg_snapshot_xip(pg_current_snapshot()) AS xid
"""
"""Every transaction that runs holds the lock of its virtual id until what it committed can be seen. Prepared
ones, and on a standby those of the primary, hold none there, but are in the snapshot once they have written.
Autovacuum has no user."""

_VERSIONED = """
SELECT has_table_privilege($1::text::regclass, 'SELECT') AND NOT EXISTS (
  SELECT FROM pg_class AS c LEFT JOIN pg_am AS m ON m.oid = c.relam
  WHERE c.oid IN (SELECT $1::text::regclass UNION SELECT relid FROM pg_partition_tree($1::text::regclass))
    AND c.relkind <> 'p' AND (c.relkind <> 'r' OR m.amname IS DISTINCT FROM 'heap'))
"""
"""Whether all rows of a relation tell which transaction wrote them, and keep telling it. Who may read some of
the columns only, may not ask."""

_NUMBERS = ("smallint", "integer", "bigint", "numeric", "real", "double precision")
_TIMES = ("date", "time", "interval")
_NO_SUCH_FUNCTION = "42883"

_WAITS = (0.01, 0.03, 0.06)
"""Seconds to wait for transactions that run: what is committed by then need not be read again next time."""


@dataclass(frozen=True)
class Noted:
    """What was noted before the snapshot."""

    top: str | None
    nulls: bool
    running: frozenset[str]
    """The transactions that ran when ``top`` had been seen, and still do."""
    current: frozenset[str]
    """All transactions that run."""


@dataclass(frozen=True)
class Bounds:
    """The cursor to keep, the condition on rows (empty for all), and warnings."""

    cursor: bytes | None = None
    condition: str = ""
    warnings: tuple[str, ...] = ()


class Increment:
    """One incremental reading of a relation."""

    def __init__(
        self, incremental: Incremental, native: NativeColumn, origin: str, table: str | None
    ) -> None:
        self._incremental = incremental
        self._native = native
        self._origin = origin
        self._table = table
        self._column = quote(native.name)
        self._stored = cursors.stored_cursor(incremental)

    @classmethod
    def of(cls, spec: SourceSpec, natives: tuple[NativeColumn, ...], origin: str) -> Increment | None:
        """The increment that a specification asks for, if it does.

        :raises ConnectorError: COLUMN_NOT_FOUND; LAG_NOT_SUPPORTED; CURSOR_CHANGED, CURSOR_INVALID.
        """
        if spec.incremental is None:
            return None
        name = spec.incremental.cursor
        native = next((column for column in natives if column.name == name), None)
        if native is None:
            raise configuration(
                "COLUMN_NOT_FOUND",
                f"the cursor column {name} is not among the columns read",
                column=name,
            )
        if spec.incremental.lag is not None and not native.native.startswith(_NUMBERS + _TIMES):
            raise cursors.lag_unsupported(spec.incremental, native.declared)
        return cls(spec.incremental, native, origin, None if spec.query else origin)

    async def note(self, session: Session, own: Backend | None = None) -> Noted:
        """What must be known before the snapshot is taken. ``own`` writes what is read: it is not waited
        for.

        :raises ConnectorError: CURSOR_UNORDERED when there is no largest value of the column's type.
        """
        try:
            async with session.transaction("read") as raw:
                row = await raw.fetchrow(self._note_sql())
                # Only now: a transaction that ends in between must be among these, or in what was seen above.
                current = running = await _running(raw, own)
        except ConnectorError as error:
            if error.details.get("sqlstate") != _NO_SUCH_FUNCTION:
                raise
            raise configuration(
                "CURSOR_UNORDERED",
                f"the cursor column {self._native.name} is of type {self._native.declared}, of which "
                "PostgreSQL finds no largest value: read it as another type by a query",
                column=self._native.name,
            ) from error
        for pause in _WAITS:
            if not running:
                break
            await asyncio.sleep(pause)
            async with session.transaction("read") as raw:
                current = await _running(raw, own)
            running &= current
        return Noted(row["top"], bool(row["nulls"]), running, current)

    async def bounds(self, raw: Any, noted: Noted) -> Bounds:
        """What to read of the snapshot of the transaction of ``raw``.

        :raises ConnectorError: CURSOR_UNBOUNDED; CURSOR_INVALID when what the reading goes on from is not of
            the column's type.
        """
        stored, initial = self._stored, self._incremental.initial
        left_out = noted.nulls and (stored is not None or initial is not None or noted.top is None)
        warnings = cursors.null_warnings(self._native.name) if left_out else ()
        top = await self._top(raw, noted.top)
        if top is None:
            # Without a cursor there is no telling later what of it was read.
            return Bounds(None, self._from_initial() if self._incremental.repeats else "false", warnings)
        cursor = cursors.reached(self._incremental, top, stored.value if stored else initial)
        cursor = self._with_floor(cursor, noted)
        if self._incremental.repeats:
            return Bounds(cursor.encode(), self._again(), warnings)
        if self._table is not None and await raw.fetchval(_VERSIONED, self._table):
            return await self._by_version(raw, cursor, warnings)
        warnings += cursors.repeat_warnings(self._incremental)
        return Bounds(cursor.encode(), self._above(cursor), warnings)

    def _note_sql(self) -> str:
        column, origin = self._column, self._origin
        if self._table is None:  # one pass: the query may be a long one
            return f"SELECT max({column})::text AS top, bool_or({column} IS NULL) AS nulls FROM {origin}"
        # One by one, so that an index of the column answers each.
        nulls = "false"
        if not self._native.not_null:
            nulls = f"EXISTS (SELECT FROM {origin} WHERE {column} IS NULL)"
        return f"SELECT (SELECT max({column}) FROM {origin})::text AS top, {nulls} AS nulls"

    def _typed(self, value: str) -> str:
        return f"{literal(value)}::{self._native.declared}"

    async def _top(self, raw: Any, noted: str | None) -> str | None:
        """The largest value of all readings; None where there is none from which to go on."""
        lower = cursors.begins_at(self._incremental)
        if lower is None:
            return noted
        known, new = self._typed(lower), "NULL" if noted is None else self._typed(noted)
        largest = f"greatest({known}, {new})"
        if (
            self._stored is None
        ):  # below the initial value nothing is read: the next reading begins there, too
            largest = f"CASE WHEN {new} >= {known} THEN {new} END"
        try:
            top = await raw.fetchval(f"SELECT ({largest})::text")
        except asyncpg.DataError as error:
            raise cursors.misfit(self._incremental, self._native.declared) from error
        return None if top is None else str(top)

    @property
    def _floor(self) -> str | None:
        """From where this reading must look; None: late rows may lie anywhere."""
        if self._stored is None:
            return self._incremental.initial
        if self._stored.floor is None and self._stored.pending is None:
            return self._stored.value  # written before floors were known
        return self._stored.floor

    def _with_floor(self, cursor: Cursor, noted: Noted) -> Cursor:
        """The cursor with the floor of the next reading."""
        if not noted.running:
            return replace(cursor, floor=cursor.value)
        before = self._stored.pending if self._stored else None
        if before is None:
            floor, pending = self._floor, Pending(cursor.value, tuple(sorted(noted.running)))
        elif noted.current.isdisjoint(before.running):
            floor, pending = before.value, Pending(cursor.value, tuple(sorted(noted.running)))
        else:
            floor, pending = self._floor, before
        return replace(cursor, floor=floor, pending=pending)

    def _from_initial(self) -> str:
        initial = self._incremental.initial
        return "" if initial is None else f"{self._column} >= {self._typed(initial)}"

    def _lagging(self, value: str) -> str:
        typed = self._typed(value)
        if self._incremental.lag is None:
            return typed
        if self._native.native.startswith(_NUMBERS):
            return f"({typed} - {cursors.lag_number(self._incremental)})"
        seconds = cursors.lag_interval(self._incremental).total_seconds()
        return f"({typed} - {literal(f'{seconds:f} seconds')}::interval)"

    def _again(self) -> str:
        """Everything from the floor on; what was read before comes again."""
        if self._stored is None or self._floor is None:
            return self._from_initial()
        return f"{self._column} >= {self._lagging(self._floor)}"

    def _above(self, cursor: Cursor) -> str:
        """Above the last value, up to the noted one: of a relation whose rows do not tell their
        transaction."""
        upper = f"{self._column} <= {self._typed(cursor.value)}"
        if self._stored is None:
            lower = self._from_initial()
            return f"{lower} AND {upper}" if lower else f"({upper} OR {self._column} IS NULL)"
        sign = ">" if self._incremental.lag is None else ">="
        return f"{self._column} {sign} {self._lagging(self._stored.value)} AND {upper}"

    async def _by_version(self, raw: Any, cursor: Cursor, warnings: tuple[str, ...]) -> Bounds:
        """Each version of a row once, told by the transaction that wrote it."""
        row = await raw.fetchrow(
            "SELECT pg_snapshot_xmin(s)::text::bigint AS horizon, pg_snapshot_xmax(s)::text::bigint AS ahead "
            "FROM pg_current_snapshot() AS s"
        )
        horizon, writer = int(row["horizon"]), _writer_sql(int(row["ahead"]))
        view = self._from_initial() or "true"
        if self._stored is not None and self._floor is not None:
            view = f"{self._column} >= {self._lagging(self._floor)}"
        cursor = await self._keeping_in_view(raw, replace(cursor, horizon=horizon), writer, view)
        upper = f"{self._column} <= {self._typed(cursor.value)} AND {writer} < {horizon}"
        if self._stored is None:
            lower = self._from_initial()
            condition = f"{lower} AND {upper}" if lower else f"({upper} OR {self._column} IS NULL)"
            return Bounds(cursor.encode(), condition, warnings)
        fresh = f"{self._column} > {self._typed(self._stored.value)}"
        if self._stored.horizon is not None:
            fresh = f"{view} AND ({fresh} OR {writer} >= {self._stored.horizon})"
        return Bounds(cursor.encode(), f"{fresh} AND {upper}", warnings)

    async def _keeping_in_view(self, raw: Any, cursor: Cursor, writer: str, view: str) -> Cursor:
        """The cursor with floors that are not above any row which this reading sees and leaves for later."""
        left = f"SELECT min({self._column}) FROM {self._origin} WHERE {view} AND {writer} >= {cursor.horizon}"

        async def not_above(value: str) -> str:
            return str(await raw.fetchval(f"SELECT least({self._typed(value)}, ({left}))::text"))

        floor, pending = cursor.floor, cursor.pending
        return replace(
            cursor,
            floor=None if floor is None else await not_above(floor),
            pending=None if pending is None else replace(pending, value=await not_above(pending.value)),
        )


async def _running(raw: Any, own: Backend | None) -> frozenset[str]:
    apart = (own.pid, own.application) if own is not None else (0, "")
    return frozenset(str(row["id"]) for row in await raw.fetch(_RUNNING, *apart))


def _writer_sql(ahead: int) -> str:
    """The number of the transaction that wrote a row version, as it counts beyond 32 bits: the last one with
    these 32 bits before ``ahead``. Those up to 2 stand for rows older than all that is known."""
    low = "xmin::text::bigint"
    return f"(CASE WHEN {low} < 3 THEN 0 ELSE {ahead} - (({ahead} - {low}) & 4294967295) END)"
