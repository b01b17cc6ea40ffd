"""PostgreSQL to PostgreSQL: every type byte for byte, every mode, every refusal before the target is
touched."""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from headrace_connectors.api import (
    Catalogue,
    Connection,
    ConnectorError,
    Environment,
    ErrorClass,
    LoadKey,
    PartitionRange,
    Receipt,
    Scratch,
    Secret,
    SinkSpec,
    SourceSpec,
    Split,
    copy_through,
    list_tables,
    open_sink,
    open_source,
)
from headrace_connectors.api import test_connection as probe_connection

Sql = Callable[..., Awaitable[list[tuple[Any, ...]]]]
KEY = LoadKey("run-1", "load")

# One row a value; every value comes back as the text PostgreSQL writes of it.
TORTURE: dict[str, Sequence[str]] = {
    "boolean": ["true", "false"],
    "smallint": ["-32768", "32767"],
    "integer": ["-2147483648", "2147483647"],
    "bigint": ["-9223372036854775808", "9223372036854775807"],
    "real": ["1.1", "NaN", "Infinity", "-Infinity", "-0", "3.4028235e+38", "1e-45"],
    "double precision": ["0.1", "NaN", "Infinity", "-0", "5e-324", "1.7976931348623157e+308",
    "123456789012345680"],
    "numeric(10,2)": ["12345678.90", "-0.01", "0.00"],
    "numeric(38,10)": ["1234567890123456789012345678.0123456789"],
    "numeric": ["0.10", "NaN", "Infinity", "-Infinity", "1" + "0" * 200 + ".5", "1e-100"],
    "numeric(60,5)": ["1" * 55 + ".12345"],
    "text": ["", " ", "a", "NULL", "\\N", "\\.", 'quo"te', "a,b", "a\nb", "a\r\nb", "a\rb", "tab\t",
    "żółć 🌊", "'", "=1+1"],
    "varchar(5)": ["", "abcde"],
    "char(5)": ["ab   ", "     "],
    "bytea": ["\\x", "\\x00ff10", "\\x5c"],
    "date": ["2024-02-29", "infinity", "-infinity", "0044-03-15 BC", "5874897-12-31", "4713-01-01 BC",
    "10000-01-01"],
    "time": ["00:00:00", "24:00:00", "23:59:59.999999"],
    "time with time zone": ["12:00:00.5+02:30", "00:00:00-15:59"],
    "timestamp": ["2024-02-29 23:59:59.999999", "infinity", "-infinity", "0044-03-15 12:00:00 BC",
    "12024-01-01 00:00:00"],
    "timestamp with time zone": ["2024-07-01 00:00:00.000001+00", "infinity", "0044-03-15 00:00:00+00 BC"],
    "interval": ["1 mon -2 days +00:00:01.5", "-1 years -2 mons +3 days -04:05:06.789", "3000000:00:00",
    "00:00:00"],
    "uuid": ["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"],
    "json": ['{"b":1, "a":1,"b" : 2}', "null", '"x"', "1.10", '{"n": 1e400}'],
    "jsonb": ['{"a": 1.10, "b": [null, "\\""]}', "null"],
    "integer[]": ["{1,NULL,3}", "{}", "[0:1]={1,2}", "{{1,2},{3,4}}"],
    "text[]": ['{"a,b","",NULL,"NULL"}'],
    "inet": ["10.0.0.1/8", "::1"],
    "int4range": ["[1,5)", "empty"],
    "bit varying": ["101", ""],
    "point": ["(1.5,-2)"],
    "money": ["$1,234.50"],
    "mood": ["sad", "it's \"ok\""],
    "positive": ["1", "99"],
    "pair": ['(1,"a,b")', "(,)"],
    '"char"': ["a"],
    "tsvector": ["'a':1 'b':2"],
}  # fmt: skip


async def load(
    spec: SinkSpec,
    target: Connection,
    environment: Environment,
    scratch: Scratch,
    relation: str = "rows",
    key: LoadKey = KEY,
    fence: int = 1,
    cursor: bytes | None = None,
) -> Receipt:
    sink = await open_sink(spec, target, environment)
    try:
        found = await sink.claim(key, fence)
        if found is not None:
            return found
        await sink.stage(scratch, relation)
        return await sink.commit(key, fence, cursor)
    finally:
        await sink.close()


async def make_torture(sql: Sql) -> None:
    await sql(
        "CREATE TYPE mood AS ENUM ('sad', 'it''s \"ok\"'); CREATE DOMAIN positive AS integer CHECK "
        "(VALUE > 0); "
        "CREATE TYPE pair AS (a integer, b text);"
    )
    for number, (kind, values) in enumerate(TORTURE.items()):
        await sql(f"CREATE TABLE t{number} (id integer PRIMARY KEY, v {kind});")
        for row, value in enumerate(values):
            await sql(
                f"INSERT INTO t{number} VALUES ($1::text::integer, ($2::text)::{kind})", str(row), value
            )
        await sql(f"INSERT INTO t{number} VALUES (-1, NULL);")
        await sql(f"CREATE TABLE u{number} (LIKE t{number});")


async def differences(sql: Sql) -> list[str]:
    found: list[str] = []
    for number, kind in enumerate(TORTURE):
        left, right = [await sql(f"SELECT id, v::text FROM {side}{number} ORDER BY id") for side in "tu"]
        if left != right:
            found.append(f"{kind}: {set(left) ^ set(right)}")
    return found


async def test_every_type_survives_the_typed_lane(
    database: Connection, environment: Environment, scratch: Scratch, sql: Sql
) -> None:
    await make_torture(sql)
    for number in range(len(TORTURE)):
        source = await open_source(SourceSpec(table=f"t{number}"), database, environment)
        await source.load(scratch, f"r{number}")
        await source.close()
        await load(
            SinkSpec(table=f"u{number}"),
            database,
            environment,
            scratch,
            f"r{number}",
            LoadKey("r", f"l{number}"),
        )
    assert await differences(sql) == []


async def test_every_type_survives_copy_through_or_is_left_to_the_typed_lane(
    database: Connection, environment: Environment, sql: Sql
) -> None:
    await make_torture(sql)
    left: set[str] = set()
    for number, kind in enumerate(TORTURE):
        source = await open_source(SourceSpec(table=f"t{number}"), database, environment)
        sink = await open_sink(SinkSpec(table=f"u{number}"), database, environment)
        key = LoadKey("r", f"l{number}")
        await sink.claim(key, 1)
        if await copy_through(source, sink) is None:
            left.add(kind)
            await sql(f"INSERT INTO u{number} SELECT * FROM t{number};")
        else:
            await sink.commit(key, 1)
        await source.close()
        await sink.close()
    assert await differences(sql) == []
    assert left == {"mood", "positive", "pair"}  # types of the database's own


@pytest.mark.parametrize(
    ("kind", "value", "value_class"),
    [
        ("numeric(5,2)", "NaN", "NaN"),
        ("timestamp", "294276-12-31 00:00:00", "a date or time outside the range or precision of the type"),
        (
            "timestamptz",
            "294276-12-31 00:00:00+00",
            "a date or time outside the range or precision of the type",
        ),
        ("interval", "infinity", "infinity"),
    ],
)
async def test_a_value_without_canonical_form_is_named(
    database: Connection,
    environment: Environment,
    scratch: Scratch,
    sql: Sql,
    kind: str,
    value: str,
    value_class: str,
) -> None:
    await sql(f"CREATE TABLE t (id integer PRIMARY KEY, v {kind}); INSERT INTO t VALUES (7, '{value}');")
    source = await open_source(SourceSpec(table="t"), database, environment)
    with pytest.raises(ConnectorError) as caught:
        await source.load(scratch, "rows")
    await source.close()
    error = caught.value
    assert (error.code, error.error_class) == ("VALUE_NOT_REPRESENTABLE", ErrorClass.DATA)
    assert (error.details["column"], error.details["row"], error.details["value_class"]) == (
        "v",
        "id=7",
        value_class,
    )


async def test_on_unrepresentable_null_is_a_choice(
    database: Connection, environment: Environment, scratch: Scratch, sql: Sql
) -> None:
    await sql("CREATE TABLE t (id integer, v numeric(5,2)); INSERT INTO t VALUES (1, 'NaN'), (2, 1.5);")
    source = await open_source(
        SourceSpec(table="t", options={"on_unrepresentable": "null"}), database, environment
    )
    result = await source.load(scratch, "rows")
    await source.close()
    assert result.rows == 2
    assert await scratch.fetch("SELECT id, v::VARCHAR FROM rows ORDER BY id") == [(1, None), (2, "1.50")]


@pytest.mark.parametrize(
    ("create", "select", "code", "column"),
    [
        ("v integer", "3000000000 AS v", "VALUE_DOES_NOT_FIT", "v"),
        ("v smallint", "1.5::DOUBLE AS v", "VALUE_DOES_NOT_FIT", "v"),
        ("v varchar(3)", "'abcd' AS v", "VALUE_DOES_NOT_FIT", "v"),
        ("v numeric(5,2)", "1.005::DECIMAL(10,3) AS v", "VALUE_DOES_NOT_FIT", "v"),
        ("v numeric(5,2)", "'1.005' AS v", "VALUE_DOES_NOT_FIT", "v"),
        ("v text", "'a' || chr(0) AS v", "VALUE_DOES_NOT_FIT", "v"),
        ("v integer NOT NULL", "NULL::INTEGER AS v", "VALUE_DOES_NOT_FIT", "v"),
        ("v date", "TIMESTAMP '2024-01-01 10:00:00' AS v", "VALUE_DOES_NOT_FIT", "v"),
        ("v timestamp(0)", "TIMESTAMP '2024-01-01 10:00:00.5' AS v", "VALUE_DOES_NOT_FIT", "v"),
        ("v timestamptz", "TIMESTAMP '2024-01-01' AS v", "TYPE_MISMATCH", "v"),
        ("v integer", "DATE '2024-01-01' AS v", "TYPE_MISMATCH", "v"),
        ("v inet", "'no address' AS v", "VALUE_DOES_NOT_FIT", "v"),
        ("v jsonb", '\'{"a": "\\u0000"}\'::JSON AS v', "VALUE_DOES_NOT_FIT", "v"),
        ("v integer", "1 AS v, 2 AS w", "COLUMN_NOT_IN_TARGET", "w"),
        ("v integer, n integer NOT NULL", "1 AS v", "REQUIRED_COLUMN_MISSING", "n"),
        ("v integer, g integer GENERATED ALWAYS AS (v) STORED", "1 AS v, 1 AS g", "COLUMN_NOT_WRITABLE", "g"),
        ("v text", "[1, 2] AS v", "TYPE_MISMATCH", "v"),
    ],
)
async def test_what_does_not_fit_is_named_and_the_target_stays(
    database: Connection,
    environment: Environment,
    scratch: Scratch,
    sql: Sql,
    create: str,
    select: str,
    code: str,
    column: str,
) -> None:
    await sql(f"CREATE TABLE target ({create});")
    await scratch.execute(f"CREATE TABLE rows AS SELECT {select}")
    with pytest.raises(ConnectorError) as caught:
        await load(SinkSpec(table="target"), database, environment, scratch)
    assert (caught.value.code, caught.value.details.get("column")) == (code, column)
    assert caught.value.error_class in (ErrorClass.DATA, ErrorClass.CONFIGURATION)
    assert await sql("SELECT count(*) FROM target") == [(0,)]


async def test_a_new_table_takes_types_and_key(
    database: Connection, environment: Environment, scratch: Scratch, sql: Sql
) -> None:
    await scratch.execute(
        "CREATE TABLE rows AS SELECT 1 AS id, 1.50::DECIMAL(10,2) AS d, 'x' AS s, DATE '2024-01-01' AS t"
    )
    receipt = await load(
        SinkSpec(table="public.fresh", mode="merge", keys=("id",)), database, environment, scratch
    )
    assert receipt.rows == 1
    described = await sql(
        "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute "
        "WHERE attrelid = 'fresh'::regclass AND attnum > 0 ORDER BY attnum"
    )
    assert described == [("id", "integer"), ("d", "numeric(10,2)"), ("s", "text"), ("t", "date")]
    assert await sql("SELECT count(*) FROM pg_index WHERE indrelid = 'fresh'::regclass AND indisprimary") == [
        (1,)
    ]
    assert await sql("SELECT relpersistence::text FROM pg_class WHERE relname = 'fresh'") == [("p",)]


@pytest.mark.parametrize(
    ("forgotten", "expected"),
    [
        ("TABLE own", ["integer", "mood", "positive", "pair", "mood[]"]),
        ("TYPE mood, pair, positive", ["integer", "text", "integer", "text", "text"]),
    ],
)
async def test_a_new_table_keeps_a_databases_own_types_where_the_target_has_them(
    database: Connection,
    environment: Environment,
    scratch: Scratch,
    sql: Sql,
    forgotten: str,
    expected: list[str],
) -> None:
    await sql(
        "CREATE TYPE mood AS ENUM ('ok'); CREATE DOMAIN positive AS integer CHECK (VALUE > 0);"
        "CREATE TYPE pair AS (a integer, b text);"
        "CREATE TABLE own (id integer, m mood, n positive, p pair, l mood[]);"
        "INSERT INTO own VALUES (1, 'ok', 5, '(1,\"a,b\")', '{ok,NULL}'), (2, NULL, NULL, NULL, NULL);"
    )
    source = await open_source(SourceSpec(table="own"), database, environment)
    columns = await source.columns()
    await source.load(scratch, "rows")
    await source.close()
    await sql(f"DROP {forgotten} CASCADE;")  # as in a database that never had them
    sink = await open_sink(SinkSpec(table="fresh"), database, environment)
    await sink.claim(KEY, 1)
    await sink.stage(scratch, "rows", columns)
    await sink.commit(KEY, 1)
    await sink.close()
    described = await sql(
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute "
        "WHERE attrelid = 'fresh'::regclass AND attnum > 0 ORDER BY attnum"
    )
    assert [kind for (kind,) in described] == expected
    assert await sql("SELECT m::text, n::int, p::text, l::text FROM fresh ORDER BY id") == [
        ("ok", 5, '(1,"a,b")', "{ok,NULL}"),
        (None, None, None, None),
    ]


@pytest.mark.parametrize(
    ("select", "native"),
    [
        ("TIMESTAMP '2024-02-29 23:59:59.999999'", "timestamp without time zone"),
        ("TIMESTAMP_S '2024-02-29 23:59:59'", "timestamp without time zone"),
        ("TIMESTAMPTZ '2024-02-29 23:59:59+00'", "timestamp with time zone"),
        ("TIME '23:59:59'", "time without time zone"),
        ("DATE '2024-02-29'", "date"),
        ("UUID '01900000-0000-7000-8000-000000000001'", "uuid"),
        ("INTERVAL 1 DAY", "interval"),
    ],
)
async def test_computed_values_of_every_kind_make_a_new_table_and_land_in_it(
    database: Connection, environment: Environment, scratch: Scratch, sql: Sql, select: str, native: str
) -> None:
    await scratch.execute(f"CREATE TABLE rows AS SELECT {select} AS v")
    await load(SinkSpec(table="made"), database, environment, scratch)
    assert await sql("SELECT pg_typeof(v)::text FROM made") == [(native,)]


async def test_modes(database: Connection, environment: Environment, scratch: Scratch, sql: Sql) -> None:
    await sql("CREATE TABLE plain (id integer, v text); CREATE TABLE keyed (id integer PRIMARY KEY, v text);")
    for table in ("plain", "keyed"):
        await sql(f"INSERT INTO {table} VALUES (1, 'old'), (2, 'old');")
    await scratch.execute("CREATE TABLE rows AS SELECT * FROM (VALUES (2, 'new'), (3, 'new')) v(id, v)")
    for table in ("plain", "keyed"):
        spec = SinkSpec(table=table, mode="merge", keys=("id",))
        await load(spec, database, environment, scratch, key=LoadKey("r", f"merge {table}"))
        assert await sql(f"SELECT * FROM {table} ORDER BY id") == [(1, "old"), (2, "new"), (3, "new")]
    await load(
        SinkSpec(table="plain", mode="append"), database, environment, scratch, key=LoadKey("r", "append")
    )
    assert await sql("SELECT id FROM plain ORDER BY id") == [(1,), (2,), (2,), (3,), (3,)]
    await load(
        SinkSpec(table="plain", mode="replace"), database, environment, scratch, key=LoadKey("r", "replace")
    )
    assert await sql("SELECT id FROM plain ORDER BY id") == [(2,), (3,)]
    assert await sql("SELECT count(*) FROM pg_class WHERE relname LIKE '\\_stg\\_%'") == [(0,)]


@pytest.mark.parametrize(
    ("mode", "other", "seen"),
    [
        ("append", "CREATE TABLE made (id integer, v text)", [(1,), (2,)]),
        ("merge", "CREATE TABLE made (id integer PRIMARY KEY, v text)", [(1,), (2,)]),
        ("append", "CREATE TABLE made (id integer, v varchar(1))", "TARGET_APPEARED"),
        ("append", "CREATE TABLE made (id integer, v text NOT NULL)", "TARGET_APPEARED"),
        ("append", "CREATE TABLE made (id integer, v text, more text)", "TARGET_APPEARED"),
        ("append", "CREATE VIEW made AS SELECT 1 AS id, 'v'::text AS v", "TARGET_APPEARED"),
    ],
)
async def test_a_table_that_another_load_has_made_meanwhile_is_filled_where_it_is_alike(
    database: Connection,
    environment: Environment,
    scratch: Scratch,
    sql: Sql,
    mode: Any,
    other: str,
    seen: Any,
) -> None:
    await scratch.execute("CREATE TABLE rows AS SELECT 2 AS id, 'mine' AS v")
    keys = ("id",) if mode == "merge" else ()
    sink = await open_sink(SinkSpec(table="made", mode=mode, keys=keys), database, environment)
    await sink.claim(KEY, 1)
    await sink.stage(scratch, "rows")
    await sql(other)
    if "TABLE" in other:
        await sql("INSERT INTO made VALUES (1, 'o')")
    try:
        await sink.commit(KEY, 1)
        found: Any = await sql("SELECT id FROM made ORDER BY id")
    except ConnectorError as error:
        found = error.code
    finally:
        await sink.close()
    assert found == seen


async def test_replace_partition_replaces_the_half_open_range(
    database: Connection, environment: Environment, scratch: Scratch, sql: Sql
) -> None:
    await sql("CREATE TABLE days (day timestamptz, v integer); ")
    await sql("INSERT INTO days VALUES ('2024-01-01Z', 1), ('2024-01-01 23:59Z', 1), ('2024-01-02Z', 1);")
    await scratch.execute("CREATE TABLE rows AS SELECT TIMESTAMPTZ '2024-01-01 12:00:00+00' AS day, 2 AS v")
    day = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    spec = SinkSpec(
        table="days",
        mode="replace_partition",
        partition=PartitionRange("day", day, day + dt.timedelta(days=1)),
    )
    await load(spec, database, environment, scratch)
    assert await sql("SELECT v FROM days ORDER BY day") == [(2,), (1,)]
    await scratch.execute("INSERT INTO rows VALUES (TIMESTAMPTZ '2024-01-02 00:00:00+00', 3)")
    with pytest.raises(ConnectorError, match="outside the partition"):
        await load(spec, database, environment, scratch, key=LoadKey("other", "load"))
    await scratch.execute("CREATE TABLE texts AS SELECT '2024-01-01' AS day, 3 AS v")
    with pytest.raises(ConnectorError, match="column day of the rows is VARCHAR: it must hold dates"):
        await load(spec, database, environment, scratch, "texts", key=LoadKey("third", "load"))
    assert await sql("SELECT v FROM days ORDER BY day") == [(2,), (1,)]


async def test_duplicate_and_missing_keys_are_named(
    database: Connection, environment: Environment, scratch: Scratch, sql: Sql
) -> None:
    await sql("CREATE TABLE keyed (id integer PRIMARY KEY, v text);")
    await scratch.execute("CREATE TABLE rows AS SELECT * FROM (VALUES (5, 'a'), (5, 'b')) v(id, v)")
    spec = SinkSpec(table="keyed", mode="merge", keys=("id",))
    with pytest.raises(ConnectorError, match="key id=5 2 times") as caught:
        await load(spec, database, environment, scratch)
    assert caught.value.code == "DUPLICATE_KEY"
    await scratch.execute("CREATE OR REPLACE TABLE rows AS SELECT NULL::INTEGER AS id, 'a' AS v")
    with pytest.raises(ConnectorError, match="NULL does not fit"):
        await load(spec, database, environment, scratch)


async def test_drift_ignore_leaves_out_and_evolve_adds(
    database: Connection, environment: Environment, scratch: Scratch, sql: Sql
) -> None:
    await sql("CREATE TABLE target (id integer);")
    await scratch.execute("CREATE TABLE rows AS SELECT 1 AS id, 'x' AS extra")
    await load(
        SinkSpec(table="target", schema_drift="ignore"), database, environment, scratch, key=LoadKey("a", "l")
    )
    assert await sql("SELECT * FROM target") == [(1,)]
    await load(
        SinkSpec(table="target", schema_drift="evolve"), database, environment, scratch, key=LoadKey("b", "l")
    )
    assert await sql("SELECT id, extra FROM target ORDER BY extra NULLS FIRST") == [(1, None), (1, "x")]


@pytest.mark.parametrize("ranges", [2, 5])
async def test_split_reads_every_row_once(
    database: Connection, environment: Environment, scratch: Scratch, sql: Sql, ranges: int
) -> None:
    await sql(
        "CREATE TABLE t AS SELECT CASE WHEN i % 10 > 0 THEN i * i END AS id, i FROM generate_series(1, "
        "5000) i;"
    )
    spec = SourceSpec(table="t", split=Split("id", ranges))
    source = await open_source(spec, database, environment)
    assert (await source.load(scratch, "rows")).rows == 5000
    assert await scratch.fetch("SELECT count(DISTINCT i) FROM rows") == [(5000,)]
    sink = await open_sink(SinkSpec(table="copied", mode="replace"), database, environment)
    await sink.claim(KEY, 1)
    assert (await copy_through(source, sink)) is not None
    assert (await sink.commit(KEY, 1)).rows == 5000
    assert await sql("SELECT count(*) FROM (TABLE t EXCEPT ALL TABLE copied) x") == [(0,)]
    await source.close()
    await sink.close()


async def test_copy_through_refuses_what_the_gate_would(
    database: Connection, environment: Environment, sql: Sql
) -> None:
    await sql("CREATE TABLE t (id integer, v text); INSERT INTO t VALUES (1, NULL), (1, 'x');")
    await sql(
        "CREATE TABLE keyed (id integer PRIMARY KEY, v text); CREATE TABLE strict (id integer, v text "
        "NOT NULL);"
    )
    for spec, code in (
        (SinkSpec(table="keyed", mode="merge", keys=("id",)), "DUPLICATE_KEY"),
        (SinkSpec(table="strict", mode="replace"), "VALUE_DOES_NOT_FIT"),
        (SinkSpec(table="strict"), "NULL_NOT_ALLOWED"),
    ):
        source = await open_source(SourceSpec(table="t"), database, environment)
        sink = await open_sink(spec, database, environment)
        await sink.claim(LoadKey("r", code), 1)
        with pytest.raises(ConnectorError) as caught:
            await copy_through(source, sink)
        assert (caught.value.code, caught.value.error_class) == (code, ErrorClass.DATA)
        await sink.abandon()
        await source.close()
        await sink.close()
    assert await sql("SELECT (SELECT count(*) FROM keyed) + (SELECT count(*) FROM strict)") == [(0,)]


async def test_a_query_is_read_with_its_exact_types(
    database: Connection, environment: Environment, scratch: Scratch, sql: Sql
) -> None:
    query = "SELECT 1.50::numeric(10,2) AS d, 'x'::text AS s -- the end;"
    source = await open_source(SourceSpec(query=query), database, environment)
    assert [(column.name, column.type) for column in await source.columns()] == [
        ("d", "DECIMAL(10,2)"),
        ("s", "VARCHAR"),
    ]
    await source.load(scratch, "rows")
    await source.close()
    assert await scratch.fetch("SELECT d::VARCHAR, s FROM rows") == [("1.50", "x")]


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        (SourceSpec(table="nowhere"), "TABLE_NOT_FOUND"),
        (SourceSpec(table="t", columns=("gone",)), "COLUMN_NOT_FOUND"),
        (SourceSpec(query="SELECT gone FROM t"), "COLUMN_NOT_FOUND"),
        (SourceSpec(query="SELECT 1 AS a, 2 AS a"), "DUPLICATE_COLUMN"),
        (SourceSpec(query="SELECT 1) q) TO PROGRAM 'true' --"), "SQL_INVALID"),
        (SourceSpec(query="DELETE FROM t"), "QUERY_NOT_SUPPORTED"),
        (SourceSpec(query="SELECT 1; SELECT 2"), "SQL_INVALID"),
        (SourceSpec(table='t"; DROP TABLE t; --'), "TABLE_NOT_FOUND"),
        (SourceSpec(table="t", split=Split("gone", 2)), "COLUMN_NOT_FOUND"),
    ],
)
async def test_bad_sources_are_refused_precisely(
    database: Connection, environment: Environment, scratch: Scratch, sql: Sql, spec: SourceSpec, code: str
) -> None:
    await sql("CREATE TABLE t (id integer);")

    async def read() -> None:
        source = await open_source(spec, database, environment)
        try:
            await source.load(scratch, "rows")
        finally:
            await source.close()

    with pytest.raises(ConnectorError) as caught:
        await read()
    assert caught.value.code == code
    assert await sql("SELECT count(*) FROM t") == [(0,)]


async def test_a_reading_query_cannot_write(
    database: Connection, environment: Environment, scratch: Scratch, sql: Sql
) -> None:
    await sql("CREATE TABLE t (id integer); CREATE FUNCTION sneak() RETURNS integer LANGUAGE sql AS "
              "'INSERT INTO t VALUES (1) RETURNING 1';")  # fmt: skip
    source = await open_source(SourceSpec(query="SELECT sneak() AS x"), database, environment)
    with pytest.raises(ConnectorError) as caught:
        await source.load(scratch, "rows")
    await source.close()
    assert caught.value.code == "TARGET_READ_ONLY"
    assert await sql("SELECT count(*) FROM t") == [(0,)]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"password": Secret("wrong-secret")}, "AUTHENTICATION_FAILED"),
        ({"username": "nobody"}, "AUTHENTICATION_FAILED"),
        ({"database": "nowhere"}, "DATABASE_NOT_FOUND"),
        ({"port": 1}, "UNREACHABLE"),
        ({"host": "name.invalid"}, "HOST_NOT_FOUND"),
        ({"host": "169.254.169.254"}, "ADDRESS_NOT_ALLOWED"),
        ({"host": "/tmp"}, "HOST_INVALID"),
        ({"options": {"service": "x"}}, "OPTION_NOT_ALLOWED"),
        ({"options": {"sslmode": "require"}}, "TLS_FAILED"),
        ({"options": {"sslmode": "maybe"}}, "OPTION_INVALID"),
        ({"options": {"connect_timeout": "0"}}, "OPTION_INVALID"),
    ],
)
async def test_connection_failures_are_told_apart_without_the_secret(
    database: Connection, environment: Environment, change: dict[str, Any], code: str
) -> None:
    report = await probe_connection(replace(database, **change), environment)
    assert (report.ok, report.code) == (False, code)
    assert "secret" not in report.message
    assert "correct-horse" not in report.message


async def test_a_good_connection_reports_its_server_and_lists_its_tables(
    database: Connection, environment: Environment, sql: Sql
) -> None:
    assert (await probe_connection(database, environment)).ok
    await sql("CREATE TABLE b (id integer); CREATE VIEW a AS SELECT 1 AS x; CREATE TABLE c (v text);")
    await sql("CREATE SCHEMA staging")
    assert (await probe_connection(database, environment)).catalogue == Catalogue(("public", "staging"), 3)
    page = await list_tables(database, environment, limit=2)
    assert [(table.name, table.kind) for table in page.tables] == [("a", "view"), ("b", "table")]
    rest = await list_tables(database, environment, limit=2, after=page.next_after)
    assert [table.name for table in rest.tables] == ["c"]
    assert rest.next_after == ""
