"""What a read and a load would do: told truly, and nothing of the system is changed."""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest
from headrace_connectors import cursors
from headrace_connectors.api import (
    Column,
    Connection,
    ConnectorError,
    Environment,
    Incremental,
    ReadPreview,
    Scratch,
    Secret,
    SinkSpec,
    SourceSpec,
    open_source,
    preview_load,
)

Sql = Callable[..., Awaitable[list[tuple[Any, ...]]]]
ROWS = (Column("id", "BIGINT"), Column("note", "VARCHAR"))


async def preview(
    spec: SourceSpec, connection: Connection | None, environment: Environment, scratch: Scratch
) -> ReadPreview:
    source = await open_source(spec, connection, environment)
    try:
        return await source.preview(scratch)
    finally:
        await source.close()


def place(kind: str, root: Path) -> Connection:
    return Connection("f", "file base", kind, path=str(root / f"base.{kind}"))  # type: ignore[arg-type]


def prepare(kind: str, root: Path, *statements: str) -> None:
    connect: Any = sqlite3.connect if kind == "sqlite" else duckdb.connect
    with connect(root / f"base.{kind}") as base:
        for statement in statements:
            base.execute(statement)
    base.close()


def made(root: Path) -> list[Path]:
    return list(root.iterdir())


@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
async def test_a_database_file_is_looked_at_and_not_made(
    kind: str, root: Path, environment: Environment, scratch: Scratch
) -> None:
    connection = place(kind, root)
    new = await preview_load(SinkSpec(table="t"), connection, environment, ROWS)
    assert (new.exists, [name for name, _ in new.columns]) == (False, ["id", "note"])
    assert not made(root)

    prepare(kind, root, "CREATE TABLE t (id BIGINT, seen BIGINT)", "INSERT INTO t VALUES (1, 7), (2, 9)")
    evolving = SinkSpec(table="t", schema_drift="evolve")
    met = await preview_load(evolving, connection, environment, ROWS)
    assert ([name for name, _ in met.added], met.not_given) == (["note"], ("seen",))
    bound = cursors.Cursor("seen", "7").encode()
    read = await preview(
        SourceSpec(table="t", incremental=Incremental("seen", bound)), connection, environment, scratch
    )
    assert (read.lower, read.upper) == ("7", "9")
    assert '"seen" > ' in read.query


async def test_a_load_is_refused_as_the_load_itself_would_be(
    database: Connection, environment: Environment, sql: Sql
) -> None:
    await sql(
        "CREATE TABLE t (id bigint); CREATE TABLE d (id date, note text); CREATE VIEW v AS SELECT 1 AS id;"
    )
    for spec, code in (
        (SinkSpec(table="t"), "COLUMN_NOT_IN_TARGET"),
        (SinkSpec(table="d"), "TYPE_MISMATCH"),
        (SinkSpec(table="v"), "TARGET_NOT_A_TABLE"),
        (SinkSpec(table="nowhere.t"), "SCHEMA_NOT_FOUND"),
        (SinkSpec(table="t", mode="merge", keys=("key",), schema_drift="ignore"), "COLUMN_NOT_FOUND"),
    ):
        with pytest.raises(ConnectorError) as caught:
            await preview_load(
                spec, database, environment, ROWS if code != "TARGET_NOT_A_TABLE" else ROWS[:1]
            )
        assert caught.value.code == code
    assert await sql("SELECT to_regnamespace('headrace')::text") == [(None,)]


async def test_rights_that_a_load_needs_are_demanded(
    database: Connection, environment: Environment, sql: Sql
) -> None:
    role = f"role_{database.database}"
    await sql(f"CREATE ROLE {role} LOGIN PASSWORD 'some-password'; CREATE TABLE t (id bigint, note text);")
    await sql(f"GRANT SELECT, INSERT, UPDATE ON t TO {role};")
    user = replace(database, username=role, password=Secret("some-password"))

    async def refusal(spec: SinkSpec) -> str:
        with pytest.raises(ConnectorError) as caught:
            await preview_load(spec, user, environment, ROWS)
        return f"{caught.value.code}: {caught.value.message}"

    try:
        assert "PERMISSION_DENIED" in (found := await refusal(SinkSpec(table="t", mode="replace")))
        assert "DELETE" in found
        assert "may not make table new" in await refusal(SinkSpec(table="new"))
        assert "LEDGER_NOT_PERMITTED" in await refusal(SinkSpec(table="t"))
        await sql(f"CREATE SCHEMA headrace AUTHORIZATION {role};")
        assert (await preview_load(SinkSpec(table="t"), user, environment, ROWS)).exists
        more = (*ROWS, Column("more", "DATE"))
        with pytest.raises(ConnectorError, match="ALTER"):
            await preview_load(SinkSpec(table="t", schema_drift="evolve"), user, environment, more)
    finally:
        await sql(f"DROP OWNED BY {role}; DROP ROLE {role};")


async def test_bounds_and_rows_of_a_reading_are_told(
    database: Connection, environment: Environment, scratch: Scratch, sql: Sql
) -> None:
    await sql(
        "CREATE TABLE t (id integer, at timestamptz NOT NULL);"
        "INSERT INTO t SELECT g, '2024-01-01Z'::timestamptz + g * interval '1 second' "
        "FROM generate_series(1, 500) AS g;"
        "ANALYZE t;"
    )
    whole = await preview(SourceSpec(table="t"), database, environment, scratch)
    assert (whole.estimated_rows, whole.lower, whole.upper) == (500, None, None)
    lagging = Incremental(
        "at",
        cursors.Cursor("at", "2024-01-01 00:05:00+00").encode(),
        lag=dt.timedelta(seconds=9),
        repeats=True,
    )
    rest = await preview(SourceSpec(table="t", incremental=lagging), database, environment, scratch)
    assert rest.upper == "2024-01-01 00:08:20+00"
    assert await sql(f"SELECT count(*) FROM ({rest.query}) AS rest") == [(210,)]
