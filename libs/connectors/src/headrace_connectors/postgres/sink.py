"""Writing PostgreSQL: rows land once, by COPY and one committing transaction.

Two ways to stage.  An *append* into a table that exists copies straight into it, inside a transaction that
stays open until :meth:`commit`: nobody sees a row before, a crash leaves nothing, and rows are written once.
Every other mode copies into an unlogged staging table and swaps in one transaction.  A table that does not
exist is staged as a logged table and moved into place.

*replace* is DELETE and INSERT: readers are never blocked nor see an empty table, and grants, views, foreign
keys and identity stay (TRUNCATE would take the table away from readers until the commit).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from headrace_connectors import gate, ledger, shape
from headrace_connectors.csv_blocks import csv_blocks
from headrace_connectors.errors import configuration, transient
from headrace_connectors.identifiers import check_postgresql_name, literal, quote, quote_all, split_table
from headrace_connectors.model import (
    Column,
    Connection,
    Environment,
    Guarantee,
    LoadKey,
    ProgressListener,
    Receipt,
    Series,
    SinkSpec,
    Staged,
    no_progress,
)
from headrace_connectors.postgres import catalog, staging_tables, types
from headrace_connectors.postgres.catalog import Table
from headrace_connectors.postgres.errors import CONNECTION_ERRORS, from_server
from headrace_connectors.postgres.ledger import PostgresLedger
from headrace_connectors.postgres.session import Backend, Session, connect, end_backend
from headrace_connectors.scratch import Scratch
from headrace_connectors.shape import Shape, TargetColumn
from headrace_connectors.swap import Swap
from headrace_connectors.transfer import Meter


@dataclass(frozen=True)
class Plan:
    """What a stage has prepared for its commit."""

    table: Table | None
    shape: Shape
    natives: tuple[str, ...]
    """Types of the loaded columns in the target, as they are declared there."""
    bases: tuple[str, ...]
    """The same with domains resolved, which is what values are checked against."""
    direct: bool = False
    staging: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.shape.loaded)


class PostgresSink:
    """One table of one database."""

    guarantee: Guarantee = "EXACTLY_ONCE"

    def __init__(self, spec: SinkSpec, session: Session) -> None:
        self.spec = spec
        self.session = session
        self.ledger = PostgresLedger(session.connection)
        self._claimed: tuple[LoadKey, int] | None = None
        self.plan: Plan | None = None
        self._staged: Staged | None = None

    @classmethod
    async def open(cls, spec: SinkSpec, connection: Connection, environment: Environment) -> PostgresSink:
        """Connect and make sure of the ledger.

        :raises ConnectorError: what connecting can meet; LEDGER_NOT_PERMITTED, TABLE_NAME_INVALID.
        """
        cls.check_name(spec, connection)
        session = await connect(connection, environment)
        try:
            sink = cls(spec, session)
            await sink.ledger.ensure(session)
        except BaseException:
            await asyncio.shield(session.close())
            raise
        return sink

    @staticmethod
    def check_name(spec: SinkSpec, connection: Connection) -> None:
        """Whether the table has a name that a table can have.

        :raises ConnectorError: TABLE_MISSING, TABLE_NAME_INVALID.
        """
        if not spec.table:
            raise configuration("TABLE_MISSING", f"a sink of connection {connection.name} needs a table")
        for part in split_table(spec.table):
            check_postgresql_name(part or "x", "table")

    async def claim(self, key: LoadKey, fence: int) -> Receipt | None:
        """Commit ``fence``; the server process of the attempt before is ended, since it can do nothing any
        more."""
        async with self.session.transaction() as raw:
            await self.ledger.make_row(raw, key)
            entry = await self.ledger.read(raw, key, lock=True)
            receipt = ledger.check_claim(key, fence, entry)
            if receipt is not None:
                return receipt
            before = await self.ledger.predecessor(raw, key)
            await self.ledger.claim(raw, key, fence, self.spec.table or "", self.session.backend)
        self._claimed = (key, fence)
        if before is not None and before != self.session.backend:
            await end_backend(self.session.connection, self.session.environment, before)
        async with self.session.transaction() as raw:
            await staging_tables.sweep(raw, self.ledger.schema, key)
        return None

    async def stage(
        self,
        scratch: Scratch,
        relation: str,
        columns: Sequence[Column] = (),
        progress: ProgressListener = no_progress,
    ) -> Staged:
        """Check every row, then COPY; see :class:`headrace_connectors.ports.Sink`."""
        described = _with_natives(await scratch.columns(relation), columns)
        source = await gate.materialised(scratch, relation)
        try:
            plan = await self.prepare(described)
            passed = await gate.inspect(scratch, source, plan.shape.loaded, self.checks(plan), self.spec.keys)
            if self.spec.mode == "merge":
                await gate.require_unique(scratch, source, self.spec.keys)
            meter = Meter(progress)
            what = f"loading {self.spec.table}"
            sql = self._select(source, plan)
            async with aclosing(csv_blocks(scratch, sql, passed.row_bytes, meter, what)) as blocks:
                await self.copy(plan, blocks, "csv")
        finally:
            await gate.release(scratch, relation, source)
        added = tuple(column.name for column in plan.shape.added)
        return self.staged(Staged(passed.rows, meter.bytes, passed.checksum, added, plan.shape.dropped))

    def staged(self, staged: Staged) -> Staged:
        """Remember what stands ready."""
        self._staged = staged
        return staged

    async def prepare(self, columns: Sequence[Column], direct: bool = True) -> Plan:
        """Match the columns with the target's and make an empty staging place; nothing of the target is
        touched."""
        key, fence = self._claim_of_this_attempt()
        await self._leave_transaction()
        staging = f"{quote(self.ledger.schema)}.{quote(ledger.staging_name(key, fence))}"
        async with self.session.transaction() as raw:
            matched = await self.match(raw, columns)
            append = matched.table is not None and self.spec.mode == "append" and not matched.shape.added
            plan = replace(matched, direct=direct and append, staging=staging)
            if not plan.direct:
                body = ", ".join(
                    f"{quote(name)} {native}" for name, native in zip(plan.names, plan.natives, strict=True)
                )
                await staging_tables.make(raw, staging, body, logged=plan.table is None)
        self.plan = plan
        return plan

    async def match(self, raw: Any, columns: Sequence[Column]) -> Plan:
        """The target, if it is there; how the columns meet its own; the types that those to load have there.

        :raises ConnectorError: as :func:`headrace_connectors.shape.match`; TARGET_NOT_A_TABLE.
        """
        table = await catalog.find_table(raw, self.spec.table or "")
        matched = shape.match(columns, _target_columns(table), self.spec, f"table {self.spec.table}")
        if table is not None and table.kind not in ("r", "p", "f"):
            raise configuration("TARGET_NOT_A_TABLE", f"{self.spec.table} is a view; rows go into tables")
        made = matched.loaded if table is None else matched.added
        known = await catalog.known_types(raw, [each.native for each in made if types.is_own(each)])
        natives, bases = zip(*(_native(each, table, known) for each in matched.loaded), strict=True)
        return Plan(table, matched, natives, bases)

    async def copy(self, plan: Plan, blocks: AsyncIterator[bytes | bytearray], form: str) -> None:
        """COPY blocks into the staging place (or, for a direct append, into the open transaction's
        target)."""
        schema, name = (
            (plan.table.schema, plan.table.name) if plan.direct and plan.table else self.staging_place()
        )
        options: dict[str, str] = {"format": form, **({"encoding": "UTF8"} if form == "csv" else {})}
        if not plan.direct:
            async with self.session.transaction() as raw:
                await raw.copy_to_table(
                    name, schema_name=schema, columns=list(plan.names), source=blocks, **options
                )
            return
        try:
            await self.session.begin("write")
            await self.session.raw.copy_to_table(
                name, schema_name=schema, columns=list(plan.names), source=blocks, **options
            )
        except asyncio.CancelledError:
            await self.session.stop()
            raise
        except Exception as error:
            await self.session.roll_back()
            raise from_server(error, f"loading {self.spec.table}") from error

    def staging_place(self) -> tuple[str, str]:
        """Schema and name of this attempt's staging table."""
        return self.ledger.schema, ledger.staging_name(*self._claim_of_this_attempt())

    async def take_turn(self, series: Series, fence: int) -> Receipt | None:
        """Raise the fence of the series; one statement."""
        async with self.session.transaction() as raw:
            return (await self.ledger.take_turn(raw, ledger.series_key(series), fence)).receipt

    async def commit(
        self, key: LoadKey, fence: int, cursor: bytes | None = None, series: Series | None = None
    ) -> Receipt:
        """Lock, check, swap, write the receipt, commit; a lost answer is settled by the receipt."""
        plan, staged = self.plan, self._staged
        if plan is None or staged is None or self._claimed != (key, fence):
            raise configuration(
                "NOT_STAGED", f"task {key.task}: commit comes after claim and stage of the same attempt"
            )
        try:
            return await self._commit(plan, staged, key, fence, cursor, series)
        except asyncio.CancelledError:
            await self.session.stop()
            raise
        except CONNECTION_ERRORS as error:
            return await self._settle_unknown(key, fence, error)
        except Exception as error:
            await self.session.roll_back()
            raise from_server(error, f"loading {self.spec.table}") from error

    async def receipt(self, key: LoadKey) -> Receipt | None:
        """The receipt of ``key``, if it landed; waits for a commit that is under way."""
        entry = await self._on_fresh(lambda raw: self.ledger.read(raw, key, lock=True))
        return None if entry is None else entry.receipt

    async def tombstone(self, key: LoadKey, fence: int | None = None) -> Receipt | None:
        """Raise the fence; a commit under way is waited for, and its receipt is the answer.

        What the attempt that it shuts out has left at the server goes as well: its process may have been
        killed, and there will be no further attempt to clean up behind it.
        """

        async def bury(raw: Any) -> tuple[ledger.Entry, Backend | None]:
            await self.ledger.make_row(raw, key)
            after = ledger.buried(await self.ledger.read(raw, key, lock=True), fence)
            await self.ledger.bury(raw, key, after)
            return after, await self.ledger.predecessor(raw, key)

        entry: ledger.Entry
        entry, before = await self._on_fresh(bury)
        if entry.tombstoned and entry.receipt is None:
            if before is not None and before != self.session.backend:
                await end_backend(self.session.connection, self.session.environment, before)
            await self._on_fresh(lambda raw: staging_tables.sweep(raw, self.ledger.schema, key))
        return entry.receipt

    async def abandon(self) -> None:
        """Undo the open transaction and drop the staging table."""
        await self._leave_transaction()
        if self.plan is None or self.plan.direct:
            return
        staging = self.plan.staging
        await self._on_fresh(lambda raw: raw.execute(f"DROP TABLE IF EXISTS {staging}"))
        self.plan = self._staged = None

    async def close(self) -> None:
        """Let go of the connection; an open transaction is undone.  Safe to call again."""
        await self._leave_transaction()
        await self.session.close()

    def partition_condition(self, plan: Plan) -> str:
        """SQL for the target's rows that a replace_partition load replaces."""
        partition = self.spec.partition
        if partition is None:
            return ""
        kind = plan.natives[plan.names.index(partition.column)]
        column = quote(partition.column)
        low, high = (_bound(value, kind) for value in (partition.start, partition.end))
        return f"{column} >= {low} AND {column} < {high}"

    async def _commit(
        self,
        plan: Plan,
        staged: Staged,
        key: LoadKey,
        fence: int,
        cursor: bytes | None,
        series: Series | None,
    ) -> Receipt:
        raw = self.session.raw
        if not plan.direct:
            await self.session.begin("write")
        receipt = ledger.check_commit(key, fence, await self.ledger.read(raw, key, lock=True))
        if receipt is not None:
            await self.session.roll_back()
            return receipt
        if series is not None:
            standing = await self.ledger.read(raw, ledger.series_key(series), lock=True)
            ledger.check_turn(series, fence, standing)
        await raw.fetchval(
            "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"headrace:{self.spec.table}"
        )
        table = plan.table or await catalog.find_table(raw, self.spec.table or "")
        if table is None:
            await self._move_into_place(plan, staged)
        elif not plan.direct:
            if plan.table is None:
                self._require_alike(plan, table)
            await self._swap(plan, table, staged)
        receipt = await self.ledger.settle(
            raw, key, fence, staged.rows, staged.bytes, staged.checksum, cursor
        )
        if series is not None:
            await self.ledger.copy_receipt(raw, key, ledger.series_key(series))
        await raw.execute("COMMIT")
        return receipt

    async def _move_into_place(self, plan: Plan, staged: Staged) -> None:
        """The staging table becomes the target."""
        raw = self.session.raw
        schema, name = split_table(self.spec.table or "")
        where = (
            quote(schema) if schema else quote(str(await raw.fetchval("SELECT current_schema()") or "public"))
        )
        await self._require_staged(plan, staged)
        if self.spec.mode == "merge":
            await raw.execute(
                f"ALTER TABLE {plan.staging} ADD PRIMARY KEY ({quote_all(tuple(self.spec.keys))})"
            )
        unqualified = plan.staging.split(".", 1)[1]
        await staging_tables.disown(raw, plan.staging)
        await raw.execute(f"ALTER TABLE {plan.staging} SET SCHEMA {where}")
        await raw.execute(f"ALTER TABLE {where}.{unqualified} RENAME TO {quote(name)}")

    def _require_alike(self, plan: Plan, table: Table) -> None:
        """Somebody has made the target since the rows were checked, such as another interval of a backfill.

        Where it is what this load would have made, the rows fit; else they must be checked anew.
        """
        made = dict(zip(plan.names, plan.natives, strict=True))
        alike = {column.name: column.declared for column in table.columns} == made and not any(
            column.generated or (column.not_null and column.name not in self.spec.keys)
            for column in table.columns
        )
        if alike and table.kind in ("r", "p"):
            return
        raise transient(
            "TARGET_APPEARED",
            f"table {self.spec.table} was created by somebody else meanwhile, in another shape",
        )

    async def _swap(self, plan: Plan, table: Table, staged: Staged) -> None:
        raw = self.session.raw
        keys = frozenset(self.spec.keys)
        unique = self.spec.mode == "merge" and keys in table.unique_keys
        if self.spec.mode != "append" and not unique:
            # Readers go on reading; other writers wait, or rows could slip between the parts of the swap.
            await raw.execute(f"LOCK TABLE {table.sql} IN SHARE ROW EXCLUSIVE MODE")
        if plan.shape.added:
            await self._widen(plan, table)
        await self._require_staged(plan, staged)
        always = any(native.identity_always and native.name in plan.names for native in table.columns)
        swap = Swap(
            self.spec.mode,
            table.sql,
            plan.staging,
            plan.names,
            tuple(self.spec.keys),
            unique,
            self.partition_condition(plan),
            " OVERRIDING SYSTEM VALUE" if always else "",
        )
        for statement in swap.statements():
            await raw.execute(statement)
        await raw.execute(f"DROP TABLE {plan.staging}")

    async def _widen(self, plan: Plan, table: Table) -> None:
        """Add the columns that the table lacks; all of them may be NULL.

        Another load may have added one since the rows were matched: then it must be of the type that the rows
        were checked against.
        """
        raw = self.session.raw
        await raw.execute(f"LOCK TABLE {table.sql} IN ACCESS EXCLUSIVE MODE")
        now = await catalog.require_table(raw, self.spec.table or "")
        for column, native in zip(plan.shape.loaded, plan.natives, strict=True):
            if column not in plan.shape.added:
                continue
            found = now.column(column.name)
            if found is None:
                await raw.execute(f"ALTER TABLE {table.sql} ADD COLUMN {quote(column.name)} {native}")
            elif found.declared != native or found.not_null:
                raise transient(
                    "TARGET_CHANGED",
                    f"table {self.spec.table} got a column {column.name} meanwhile, as {found.declared}",
                    column=column.name,
                )

    async def _require_staged(self, plan: Plan, staged: Staged) -> None:
        """A crash of the server empties unlogged tables: what was staged must still be there."""
        rows = await self.session.raw.fetchval(f"SELECT count(*) FROM {plan.staging}")
        if rows != staged.rows:
            raise transient(
                "STAGING_LOST", f"the staged rows of {self.spec.table} are gone (the server restarted)"
            )

    async def _settle_unknown(self, key: LoadKey, fence: int, cause: Exception) -> Receipt:
        """The connection broke before the answer: end the server process, then the ledger knows.

        :raises FencedOut: when it was ended by a newer attempt or a tombstone.
        """
        await self.session.stop()
        entry = await self._on_fresh(lambda raw: self.ledger.read(raw, key, lock=True))
        receipt = ledger.check_commit(key, fence, entry)
        if receipt is not None:
            return receipt
        raise transient(
            "CONNECTION_LOST", f"loading {self.spec.table}: the connection broke before the commit"
        ) from cause

    async def _on_fresh(self, work: Any) -> Any:
        """Run ``work(raw)`` in a transaction on a connection of its own."""
        session = await connect(self.session.connection, self.session.environment, "/ledger")
        try:
            async with session.transaction() as raw:
                return await work(raw)
        finally:
            await asyncio.shield(session.close())

    async def _leave_transaction(self) -> None:
        if not self.session.raw.is_closed() and self.session.raw.is_in_transaction():
            await self.session.roll_back()

    def _claim_of_this_attempt(self) -> tuple[LoadKey, int]:
        if self._claimed is None:
            raise configuration("NOT_CLAIMED", f"table {self.spec.table}: stage comes after claim")
        return self._claimed

    def checks(self, plan: Plan) -> list[gate.Check]:
        """What every row must satisfy before one of them moves.

        :raises ConnectorError: TYPE_MISMATCH where no value of a column can.
        """
        checks: list[gate.Check] = []
        for column, base in zip(plan.shape.loaded, plan.bases, strict=True):
            found = plan.table.column(column.name) if plan.table else None
            required = bool(found and found.not_null and not found.identity_always)
            checks += types.Fit(column, base, required).checks()
        if self.spec.mode == "merge":
            checks += gate.key_checks(self.spec.keys)
        if self.spec.partition is not None and self.spec.mode == "replace_partition":
            kind = next(c.type for c in plan.shape.loaded if c.name == self.spec.partition.column)
            checks += gate.partition_checks(self.spec.partition, kind)
        return checks

    def _select(self, source: str, plan: Plan) -> str:
        parts = [types.to_text(quote(column.name), column.type) for column in plan.shape.loaded]
        listed = ", ".join(f"{part} AS c{index}" for index, part in enumerate(parts))
        return f"SELECT {listed} FROM {quote(source)}"


def _native(column: Column, table: Table | None, known: Mapping[str, str]) -> tuple[str, str]:
    """The type that a column has in the target, or is to get there, and the type that this one stands on.

    A type of the source's own database (an enum, a domain, one of an extension) is kept where the target has
    one of that name (``known``); else the column gets the built-in type that holds all its values.
    """
    check_postgresql_name(column.name, "column")
    found = table.column(column.name) if table else None
    if found is not None:
        return found.declared, found.native
    if types.is_own(column) and column.native in known:
        return column.native, known[column.native]
    made = types.created_type(column)
    return made, made


def _target_columns(table: Table | None) -> list[TargetColumn] | None:
    if table is None:
        return None
    return [
        TargetColumn(
            c.name,
            c.not_null and not c.has_default and not c.generated,
            not c.generated,
            c.has_default or c.generated,
        )
        for c in table.columns
    ]


def _with_natives(found: list[Column], told: Sequence[Column]) -> list[Column]:
    """The scratch's columns, with native types where the caller knows them and the type is still the same."""
    known = {column.name: column for column in told}
    return [
        known[column.name] if column.name in known and known[column.name].type == column.type else column
        for column in found
    ]


def _bound(value: object, native: str) -> str:
    import datetime as dt

    if isinstance(value, dt.datetime):
        if native.startswith("timestamp") and native.endswith("with time zone"):
            aware = value if value.tzinfo else value.replace(tzinfo=dt.UTC)
            return f"{literal(aware.isoformat())}::timestamptz"
        naive = value.astimezone(dt.UTC).replace(tzinfo=None) if value.tzinfo else value
        return f"{literal(naive.isoformat())}::timestamp"
    if isinstance(value, dt.date):
        return f"{literal(value.isoformat())}::date"
    return str(int(str(value)))
