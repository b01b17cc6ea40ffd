"""A look at a database file: does it open, what is in it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

from headrace_connectors import duck
from headrace_connectors.blocking import in_thread
from headrace_connectors.embedded.sqlite import canonical_of, translate
from headrace_connectors.embedded.sqlite_source import open_read_only
from headrace_connectors.errors import ConnectorError
from headrace_connectors.ledger import TABLE
from headrace_connectors.model import Column, Connection, Environment, TableInfo, TablePage
from headrace_connectors.roots import readable_file


async def probe(connection: Connection, environment: Environment) -> str:
    """Open the file and read its catalogue; gives the engine's version."""

    def look(database: Any) -> str:
        if connection.type == "sqlite":
            database.execute("SELECT count(*) FROM sqlite_master").fetchone()
            return f"SQLite {sqlite3.sqlite_version}"
        return f"DuckDB {database.execute('SELECT version()').fetchall()[0][0]}"

    return str(await _with_file(connection, environment, look))


async def list_page(connection: Connection, environment: Environment, limit: int, after: str) -> TablePage:
    """One page of tables and views with their columns."""

    def look(database: Any) -> TablePage:
        if connection.type == "sqlite":
            return _sqlite_page(database, limit, after)
        return _duckdb_page(database, limit, after)

    page: TablePage = await _with_file(connection, environment, look)
    return page


def _sqlite_page(database: Any, limit: int, after: str) -> TablePage:
    rows = database.execute(
        "SELECT name, type FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE "
        "'sqlite\\_%' ESCAPE '\\' "
        "AND name <> ? AND name > ? ORDER BY name LIMIT ?",
        [TABLE, after, limit + 1],
    ).fetchall()
    found = []
    for name, kind in rows[:limit]:
        declared = database.execute(
            'SELECT name, type, "notnull" FROM pragma_table_xinfo(?)', [name]
        ).fetchall()
        columns = tuple(
            Column(str(c[0]), canonical_of(str(c[1])) or "VARCHAR", not c[2], str(c[1]), "sqlite")
            for c in declared
        )
        found.append(TableInfo("main", str(name), "view" if kind == "view" else "table", columns, None))
    return TablePage(tuple(found), found[-1].name if len(rows) > limit and found else "")


def _duckdb_page(database: Any, limit: int, after: str) -> TablePage:
    schema, _, name = after.partition("\t")
    rows = database.execute(
        "SELECT schema_name, name, kind, estimate FROM ("
        "SELECT schema_name, table_name AS name, 'table' AS kind, estimated_size AS estimate FROM "
        "duckdb_tables() "
        "WHERE database_name = current_database() UNION ALL "
        "SELECT schema_name, view_name, 'view', NULL FROM duckdb_views() "
        "WHERE NOT internal AND database_name = current_database()) "
        "WHERE name <> ? AND NOT starts_with(name, '_stg_') AND (schema_name, name) > (?, ?) "
        "ORDER BY schema_name, name LIMIT ?",
        [TABLE, schema, name, limit + 1],
    ).fetchall()
    found = []
    for place, table, kind, estimate in rows[:limit]:
        described = database.execute(
            "SELECT column_name, data_type, is_nullable FROM duckdb_columns() "
            "WHERE database_name = current_database() AND schema_name = ? AND table_name = ? ORDER BY "
            "column_index",
            [place, table],
        ).fetchall()
        columns = tuple(Column(str(c[0]), str(c[1]), bool(c[2]), str(c[1]), "duckdb") for c in described)
        found.append(TableInfo(str(place), str(table), kind, columns, estimate))
    return TablePage(
        tuple(found), f"{found[-1].schema}\t{found[-1].name}" if len(rows) > limit and found else ""
    )


async def _with_file(connection: Connection, environment: Environment, look: Callable[[Any], Any]) -> Any:
    path = readable_file(connection.path or "", None, environment)

    def call() -> Any:
        if connection.type == "sqlite":
            try:
                database: Any = open_read_only(path, environment.lock_timeout)
            except sqlite3.Error as error:
                raise translate(error, path.name) from error
        else:
            from headrace_connectors.embedded.duckdb_target import open_file

            database = open_file(path, environment)
        try:
            return look(database)
        except ConnectorError:
            raise
        except sqlite3.Error as error:
            raise translate(error, path.name) from error
        except Exception as error:
            raise duck.translate(error, path.name) from error
        finally:
            database.close()

    return await in_thread(call)
