"""What PostgreSQL's catalogue says of tables, columns, keys and queries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import asyncpg

from headrace_connectors.errors import configuration
from headrace_connectors.identifiers import quote, split_table
from headrace_connectors.model import Catalogue, Column, TableInfo, TablePage
from headrace_connectors.postgres import types
from headrace_connectors.postgres.session import Session


@dataclass(frozen=True)
class NativeColumn:
    """A column as the catalogue has it; ``native`` is what ``format_type`` says, domains resolved to their
    base."""

    name: str
    native: str
    declared: str
    not_null: bool
    has_default: bool
    generated: bool
    identity_always: bool
    builtin: bool

    def as_column(self) -> Column:
        return Column(
            self.name, types.canonical_of(self.native), not self.not_null, self.declared, types.SYSTEM
        )


@dataclass(frozen=True)
class Table:
    """A relation that exists."""

    schema: str
    name: str
    kind: str
    columns: tuple[NativeColumn, ...]
    primary_key: tuple[str, ...]
    unique_keys: tuple[frozenset[str], ...]

    @property
    def sql(self) -> str:
        return f"{quote(self.schema)}.{quote(self.name)}"

    def column(self, name: str) -> NativeColumn | None:
        return next((column for column in self.columns if column.name == name), None)


_FIND = """
SELECT c.oid::bigint AS oid, n.nspname AS schema, c.relname AS name, c.relkind::text AS kind
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = $2 AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
  AND (n.nspname = $1 OR ($1::text IS NULL AND pg_table_is_visible(c.oid)))
"""
_COLUMNS = """
WITH RECURSIVE base AS (
  SELECT a.attnum, a.attname, a.atttypid AS typid, a.atttypmod AS typmod, a.attnotnull AS not_null
  FROM pg_attribute a WHERE a.attrelid = $1::bigint::oid AND a.attnum > 0 AND NOT a.attisdropped
  UNION ALL
  SELECT b.attnum, b.attname, t.typbasetype, t.typtypmod, b.not_null OR t.typnotnull
  FROM base b JOIN pg_type t ON t.oid = b.typid WHERE t.typtype = 'd'
)
SELECT a.attname AS name, format_type(b.typid, b.typmod) AS native,
       format_type(a.atttypid, a.atttypmod) AS declared,
       b.not_null, a.atthasdef OR a.attidentity <> '' AS has_default, a.attgenerated <> '' AS generated,
       a.attidentity = 'a' AS identity_always, b.typid::bigint < 16384 AND a.atttypid = b.typid AS builtin
FROM base b JOIN pg_type t ON t.oid = b.typid AND t.typtype <> 'd'
JOIN pg_attribute a ON a.attrelid = $1::bigint::oid AND a.attnum = b.attnum
ORDER BY a.attnum
"""
_TYPES = """
WITH RECURSIVE base AS (
  SELECT name, to_regtype(name)::oid AS typid, -1 AS typmod FROM unnest($1::text[]) AS name
  UNION ALL
  SELECT b.name, t.typbasetype, t.typtypmod
  FROM base b JOIN pg_type t ON t.oid = b.typid WHERE t.typtype = 'd'
)
SELECT b.name, CASE WHEN b.typid = to_regtype(b.name)::oid THEN b.name
                    ELSE format_type(b.typid, b.typmod) END AS native
FROM base b JOIN pg_type t ON t.oid = b.typid AND t.typtype <> 'd'
"""
_UNIQUE = """
SELECT i.indisprimary AS is_primary,
       ARRAY(SELECT a.attname::text
             FROM unnest(i.indkey[0:i.indnkeyatts - 1]) WITH ORDINALITY AS k(num, place)
             JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.num ORDER BY k.place) AS names
FROM pg_index i
WHERE i.indrelid = $1::bigint::oid AND i.indisunique AND i.indisvalid AND i.indimmediate
  AND i.indpred IS NULL AND i.indexprs IS NULL
"""
_TABLES = """
SELECT c.oid::bigint AS oid, n.nspname AS schema, c.relname AS name, c.relkind::text AS kind,
       c.reltuples::bigint AS estimate
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition
  AND n.nspname NOT IN ('pg_catalog', 'information_schema', $4) AND n.nspname NOT LIKE 'pg\\_%'
  AND has_schema_privilege(n.oid, 'USAGE') AND (n.nspname, c.relname) > ($1, $2)
ORDER BY n.nspname, c.relname LIMIT $3
"""
_SURVEY = """
SELECT n.nspname AS schema, count(c.oid) AS tables
FROM pg_namespace n
LEFT JOIN pg_class c ON c.relnamespace = n.oid
  AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition
WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', $1) AND n.nspname NOT LIKE 'pg\\_%'
  AND has_schema_privilege(n.oid, 'USAGE')
GROUP BY n.nspname ORDER BY n.nspname
"""


async def find_table(raw: Any, text: str) -> Table | None:
    """The table or view a user named, or None; an unqualified name is looked up along the search path."""
    schema, name = split_table(text)
    found = await raw.fetchrow(_FIND, schema, name)
    return None if found is None else await _describe(raw, found)


async def require_table(raw: Any, text: str) -> Table:
    """The table or view a user named.

    :raises ConnectorError: TABLE_NOT_FOUND.
    """
    table = await find_table(raw, text)
    if table is None:
        raise configuration("TABLE_NOT_FOUND", f"there is no table {text}, or it may not be seen", table=text)
    return table


async def known_types(raw: Any, declared: list[str]) -> dict[str, str]:
    """Those of the types that this database has, domains with the type they stand on and others with
    themselves."""
    return {row["name"]: row["native"] for row in await raw.fetch(_TYPES, declared)} if declared else {}


async def describe_query(raw: Any, query: str) -> list[NativeColumn]:
    """The columns of a query, which must be one reading statement.

    :raises ConnectorError: SQL_INVALID, TABLE_NOT_FOUND, COLUMN_NOT_FOUND, DUPLICATE_COLUMN, …
    """
    statement = await raw.prepare(query)
    attributes = statement.get_attributes()
    if not attributes:
        raise configuration(
            "QUERY_NOT_SUPPORTED", "the query gives no rows: it must be a SELECT, VALUES or WITH"
        )
    names = [attribute.name for attribute in attributes]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise configuration("DUPLICATE_COLUMN", f"the query has more than one column {twice!r}", column=twice)
    try:
        return await _through_view(raw, query)
    except (asyncpg.InsufficientPrivilegeError, asyncpg.ReadOnlySQLTransactionError):
        return [await _from_attribute(raw, attribute) for attribute in attributes]


async def _through_view(raw: Any, query: str) -> list[NativeColumn]:
    """The columns with their type modifiers, which only a view's catalogue entry tells; the view never
    stays."""
    await raw.execute("SAVEPOINT headrace_describe")
    try:
        await raw.execute(f"CREATE TEMPORARY VIEW headrace_described AS {query}\n")
        oid = await raw.fetchval("SELECT 'pg_temp.headrace_described'::regclass::oid::bigint")
        return [_native(row) for row in await raw.fetch(_COLUMNS, oid)]
    finally:
        await raw.execute("ROLLBACK TO SAVEPOINT headrace_describe")


async def _from_attribute(raw: Any, attribute: Any) -> NativeColumn:
    """A column of a server that allows no temporary view (a standby): the modifiers are unknown."""
    native = str(await raw.fetchval("SELECT format_type($1::bigint::oid, NULL)", int(attribute.type.oid)))
    builtin = int(attribute.type.oid) < 16384
    return NativeColumn(attribute.name, native, native, False, False, False, False, builtin)


async def survey(session: Session, ledger_schema: str) -> Catalogue:
    """The schemas that the user may use, and how many tables and views there are in them."""
    async with session.transaction("read") as raw:
        rows = await raw.fetch(_SURVEY, ledger_schema)
    return Catalogue(tuple(row["schema"] for row in rows), sum(row["tables"] for row in rows))


async def list_page(session: Session, limit: int, after: str, ledger_schema: str) -> TablePage:
    """One page of tables and views with their columns."""
    schema, _, name = after.partition("\t")
    async with session.transaction("read") as raw:
        rows = await raw.fetch(_TABLES, schema, name, limit + 1, ledger_schema)
        infos: list[TableInfo] = []
        for row in rows[:limit]:
            columns = tuple(_native(entry).as_column() for entry in await raw.fetch(_COLUMNS, row["oid"]))
            kind: Literal["table", "view"] = "view" if row["kind"] in ("v", "m") else "table"
            estimate = None if kind == "view" or row["estimate"] < 0 else int(row["estimate"])
            infos.append(TableInfo(row["schema"], row["name"], kind, columns, estimate))
    more = len(rows) > limit and infos
    return TablePage(tuple(infos), f"{infos[-1].schema}\t{infos[-1].name}" if more else "")


async def _describe(raw: Any, found: Any) -> Table:
    columns = tuple(_native(row) for row in await raw.fetch(_COLUMNS, found["oid"]))
    indexes = await raw.fetch(_UNIQUE, found["oid"])
    primary = next((tuple(row["names"]) for row in indexes if row["is_primary"]), ())
    unique = tuple(frozenset(row["names"]) for row in indexes)
    return Table(found["schema"], found["name"], found["kind"], columns, primary, unique)


def _native(row: Any) -> NativeColumn:
    return NativeColumn(
        row["name"],
        row["native"],
        row["declared"],
        row["not_null"],
        row["has_default"],
        row["generated"],
        row["identity_always"],
        row["builtin"],
    )
