"""How rows would meet a table of PostgreSQL: looked up in one reading transaction, which changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headrace_connectors.errors import configuration
from headrace_connectors.identifiers import split_table
from headrace_connectors.model import Column, Connection, Environment, SinkMode, SinkSpec
from headrace_connectors.postgres.catalog import Table
from headrace_connectors.postgres.session import connect
from headrace_connectors.postgres.sink import PostgresSink
from headrace_connectors.previews import LoadPreview, load_preview

_NEEDED: dict[SinkMode, tuple[str, ...]] = {
    "append": ("INSERT",),
    "replace": ("INSERT", "DELETE"),
    "merge": ("SELECT", "INSERT", "UPDATE"),
    "replace_partition": ("SELECT", "INSERT", "DELETE"),
}
_LACKING = """
SELECT right_ FROM unnest($2::text[]) AS right_
WHERE NOT has_table_privilege($1::text::regclass, right_)
  AND NOT (right_ <> 'DELETE' AND has_any_column_privilege($1::text::regclass, right_))
"""
_OWNED = "SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = $1::text::regclass"
_PLACE = """
SELECT name, space IS NULL AS missing, coalesce(has_schema_privilege(space, 'CREATE'), false) AS allowed
FROM (SELECT name, to_regnamespace(quote_ident(name)) AS space
      FROM (SELECT coalesce($1::text, current_schema()) AS name) AS named) AS place
"""
_MAY_MAKE = """
SELECT to_regclass($1) IS NOT NULL
    OR coalesce(has_schema_privilege(to_regnamespace(quote_ident($2)), 'CREATE'),
                has_database_privilege(current_database(), 'CREATE'))
"""


async def preview_load(
    spec: SinkSpec, connection: Connection, environment: Environment, columns: Sequence[Column]
) -> LoadPreview:
    """What loading rows of these columns would do.

    :raises ConnectorError: what matching columns, types and permissions meet, as the load itself would.
    """
    PostgresSink.check_name(spec, connection)
    session = await connect(connection, environment)
    try:
        sink = PostgresSink(spec, session)
        async with session.transaction("read") as raw:
            plan = await sink.match(raw, columns)
            sink.checks(plan)
            table = plan.table
            if table is None:
                await _require_room(raw, spec, connection)
            else:
                await _require_rights(raw, spec, connection, table, evolves=bool(plan.shape.added))
            if not await raw.fetchval(_MAY_MAKE, sink.ledger.table, sink.ledger.schema):
                raise sink.ledger.not_permitted(connection)
    finally:
        await session.close()
    return load_preview(
        plan.shape, plan.natives, None if table is None else (each.name for each in table.columns)
    )


async def _require_rights(
    raw: Any, spec: SinkSpec, connection: Connection, table: Table, *, evolves: bool
) -> None:
    lacking = [row["right_"] for row in await raw.fetch(_LACKING, table.sql, list(_NEEDED[spec.mode]))]
    if evolves and not await raw.fetchval(_OWNED, table.sql):
        lacking.append("ALTER, which its owner has")
    if lacking:
        raise configuration(
            "PERMISSION_DENIED",
            f"user {connection.username} lacks rights on table {spec.table}: {', '.join(lacking)}",
            table=spec.table or "",
        )


async def _require_room(raw: Any, spec: SinkSpec, connection: Connection) -> None:
    schema, _ = split_table(spec.table or "")
    place = await raw.fetchrow(_PLACE, schema)
    if place["missing"]:
        raise configuration(
            "SCHEMA_NOT_FOUND",
            f"there is no schema {place['name'] or 'on the search path'} to make table {spec.table} in",
            table=spec.table or "",
        )
    if not place["allowed"]:
        raise configuration(
            "PERMISSION_DENIED",
            f"user {connection.username} may not make table {spec.table} in schema {place['name']}",
            table=spec.table or "",
        )
