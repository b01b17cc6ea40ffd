"""Built-in transformations and checks, run in DuckDB."""

import json
from collections.abc import Iterator
from typing import Any

import duckdb
import pytest
from headrace_definition.model import QualityCheck, Transformation
from headrace_definition.sql import ColumnError, check_sql, output_columns, transformation_sql
from pydantic import TypeAdapter

TRANSFORMATION: TypeAdapter[Transformation] = TypeAdapter(Transformation)
CHECK: TypeAdapter[QualityCheck] = TypeAdapter(QualityCheck)

TABLES = """
CREATE TABLE flights AS SELECT * FROM (VALUES (1, 'AA', 10), (2, 'BB', NULL), (3, 'ZZ', 30))
    AS t(id, carrier, delay);
CREATE TABLE airlines AS SELECT * FROM (VALUES ('AA', 'American'), ('BB', 'Blue'), (NULL, 'x'), (NULL, 'y'))
    AS t(carrier, name);
CREATE TABLE doubled AS SELECT * FROM (VALUES ('AA', 'American'), ('AA', 'Alpha')) AS t(carrier, name);
CREATE TABLE empty AS SELECT 1 AS id, now() AS seen WHERE false;
CREATE TABLE seen AS SELECT now() - INTERVAL 2 HOUR AS at_zone,
    (now() AT TIME ZONE 'UTC') - INTERVAL 2 HOUR AS plain,
    (now() AT TIME ZONE 'UTC')::DATE - 3 AS day;
CREATE TABLE "my-task" AS SELECT 1 AS "a ""b"" c", 2 AS violating, 3 AS s, 4 AS i;
"""


@pytest.fixture(scope="module")
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'Asia/Tokyo'")
        connection.execute(TABLES)
        yield connection


def transform(database: duckdb.DuckDBPyConnection, **fields: Any) -> tuple[list[str], list[tuple[Any, ...]]]:
    transformation = TRANSFORMATION.validate_json(json.dumps(fields))
    cursor = database.execute(transformation_sql(transformation))
    names = [name for name, *_ in cursor.description or ()]
    rows = sorted(cursor.fetchall(), key=repr)
    known = {key: columns_of(database, key) for key in transformation.input_keys}
    expected = output_columns(transformation, known)
    assert expected is None or list(expected) == names
    return names, rows


def columns_of(database: duckdb.DuckDBPyConnection, table: str) -> list[str]:
    return [name for name, *_ in database.execute(f'SELECT * FROM "{table}" LIMIT 0').description or ()]


def check(database: duckdb.DuckDBPyConnection, **fields: Any) -> tuple[int, int, Any]:
    row = database.execute(check_sql(CHECK.validate_json(json.dumps(fields)))).fetchall()
    assert len(row) == 1
    violations, total, sample = row[0]
    return violations, total, sample


def test_lookup_join_keeps_each_row_once(database: duckdb.DuckDBPyConnection) -> None:
    names, rows = transform(database, type="lookup_join", input="flights", lookup="airlines", on=["carrier"])
    assert names == ["id", "carrier", "delay", "name"]
    assert rows == [(1, "AA", 10, "American"), (2, "BB", None, "Blue"), (3, "ZZ", 30, None)]


def test_lookup_join_can_rename_and_drop_what_has_no_match(database: duckdb.DuckDBPyConnection) -> None:
    fields = {"on": {"carrier": "carrier"}, "columns": {"airline": "name"}, "join": "inner"}
    names, rows = transform(database, type="lookup_join", input="flights", lookup="airlines", **fields)
    assert names == ["id", "carrier", "delay", "airline"]
    assert [row[3] for row in rows] == ["American", "Blue"]


def test_lookup_join_fails_on_a_key_that_stands_twice(database: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(duckdb.Error, match=r"key \(carrier\) is not unique in doubled"):
        transform(database, type="lookup_join", input="flights", lookup="doubled", on=["carrier"])


@pytest.mark.parametrize(
    ("fields", "names", "rows"),
    [
        ({"type": "filter", "condition": "delay > 5 -- late"}, None, [(1, "AA", 10), (3, "ZZ", 30)]),
        ({"type": "select", "columns": ["delay", "id"]}, ["delay", "id"], [(10, 1), (30, 3), (None, 2)]),
        ({"type": "select", "columns": {"twice": "id * 2 -- x"}}, ["twice"], [(2,), (4,), (6,)]),
        ({"type": "select"}, None, [(1, "AA", 10), (2, "BB", None), (3, "ZZ", 30)]),
        ({"type": "rename", "columns": {"id": "key"}}, ["key", "carrier", "delay"], None),
        (
            {"type": "cast", "columns": {"id": "text"}},
            None,
            [("1", "AA", 10), ("2", "BB", None), ("3", "ZZ", 30)],
        ),
        (
            {"type": "cast", "columns": {"carrier": "int"}, "on_error": "null"},
            None,
            [(1, None, 10), (2, None, None), (3, None, 30)],
        ),
        (
            {"type": "aggregate", "aggregates": {"n": "count(*)", "top": "max(delay)"}},
            ["n", "top"],
            [(3, 30)],
        ),
        (
            {
                "type": "aggregate",
                "group_by": ["carrier"],
                "aggregates": {"n": "sum(delay)"},
                "having": "sum(delay) > 15",
            },
            ["carrier", "n"],
            [("ZZ", 30)],
        ),
        ({"type": "deduplicate"}, None, [(1, "AA", 10), (2, "BB", None), (3, "ZZ", 30)]),
    ],
)
def test_transformations_of_one_input(
    database: duckdb.DuckDBPyConnection,
    fields: dict[str, Any],
    names: list[str] | None,
    rows: list[Any] | None,
) -> None:
    found_names, found = transform(database, input="flights", **fields)
    assert found_names == (names or ["id", "carrier", "delay"])
    assert rows is None or found == rows


def test_deduplicate_keeps_the_first_in_order(database: duckdb.DuckDBPyConnection) -> None:
    order = ["name desc -- last name", "carrier"]
    _, rows = transform(database, type="deduplicate", input="doubled", keys=["carrier"], order_by=order)
    assert rows == [("AA", "American")]


def test_a_cast_that_does_not_fit_fails(database: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(duckdb.Error, match="AA"):
        transform(database, type="cast", input="flights", columns={"carrier": "INTEGER"})


def test_union_matches_by_name_or_position(database: duckdb.DuckDBPyConnection) -> None:
    names, rows = transform(database, type="union", inputs=["flights", "doubled"])
    assert names == ["id", "carrier", "delay", "name"]
    assert len(rows) == 5
    _, rows = transform(database, type="union", inputs=["doubled", "doubled"], by_name=False, distinct=True)
    assert len(rows) == 2


def test_sql_transform_is_its_statement(database: duckdb.DuckDBPyConnection) -> None:
    _, rows = transform(
        database, type="sql_transform", inputs=["flights"], sql="SELECT max(id) FROM flights; -- x"
    )
    assert rows == [(3,)]


def test_odd_names_are_quoted(database: duckdb.DuckDBPyConnection) -> None:
    names, _ = transform(database, type="rename", input="my-task", columns={'a "b" c': 'c "d"'})
    assert names[0] == 'c "d"'
    assert check(database, type="not_null", input="my-task", columns=["violating", "s", "i"])[:2] == (0, 1)
    assert check(database, type="range", input="my-task", column="s", max=1)[0] == 1


@pytest.mark.parametrize(
    ("fields", "violations"),
    [
        ({"type": "not_null", "columns": ["delay", "id"]}, 1),
        ({"type": "not_null", "columns": ["id"]}, 0),
        ({"type": "unique", "columns": ["carrier"]}, 0),
        ({"type": "accepted_values", "column": "carrier", "values": ["AA", "it's"]}, 2),
        ({"type": "accepted_values", "column": "delay", "values": [10]}, 1),
        ({"type": "range", "column": "delay", "min": 11, "max": 20}, 2),
        ({"type": "range", "column": "delay", "max": 30}, 0),
        ({"type": "row_count", "min": 4}, 1),
        ({"type": "row_count", "max": 3}, 0),
        ({"type": "referential", "columns": ["carrier"], "to": "airlines"}, 1),
        ({"type": "sql", "sql": "SELECT * FROM flights WHERE delay IS NULL -- none"}, 1),
    ],
)
def test_checks_count_violations(
    database: duckdb.DuckDBPyConnection, fields: dict[str, Any], violations: int
) -> None:
    assert check(database, input="flights", **fields)[:2] == (violations, 3)


def test_unique_counts_each_row_beyond_the_first(database: duckdb.DuckDBPyConnection) -> None:
    violations, total, sample = check(database, type="unique", input="doubled", columns=["carrier"])
    assert (violations, total, json.loads(sample)) == (1, 2, [{"carrier": "AA", "occurrences": 2}])
    assert check(database, type="unique", input="airlines", columns=["carrier"])[0] == 0


def test_violating_rows_are_sampled(database: duckdb.DuckDBPyConnection) -> None:
    *_, sample = check(database, type="range", input="flights", column="id", min=100)
    assert [row["id"] for row in json.loads(sample)] == [1, 2, 3]


@pytest.mark.parametrize("column", ["at_zone", "plain"])
def test_freshness_reads_times_without_a_zone_as_utc(
    database: duckdb.DuckDBPyConnection, column: str
) -> None:
    assert check(database, type="freshness", input="seen", column=column, max_age="3h")[0] == 0
    assert check(database, type="freshness", input="seen", column=column, max_age="1h")[0] == 1


def test_freshness_of_days_and_of_nothing(database: duckdb.DuckDBPyConnection) -> None:
    assert check(database, type="freshness", input="seen", column="day", max_age="1d")[0] == 1
    assert check(database, type="freshness", input="seen", column="day", max_age="5d")[0] == 0
    assert check(database, type="freshness", input="empty", column="seen", max_age="1d")[0] == 1


@pytest.mark.parametrize(
    ("fields", "column"),
    [
        ({"type": "select", "input": "a", "columns": ["nope"]}, "nope"),
        ({"type": "rename", "input": "a", "columns": {"x": "Y"}}, "y"),
        ({"type": "cast", "input": "a", "columns": {"nope": "INTEGER"}}, "nope"),
        ({"type": "aggregate", "input": "a", "group_by": ["x"], "aggregates": {"X": "count(*)"}}, "X"),
        ({"type": "deduplicate", "input": "a", "keys": ["nope"]}, "nope"),
        ({"type": "lookup_join", "input": "a", "lookup": "b", "on": ["x"]}, "Y"),
        ({"type": "lookup_join", "input": "a", "lookup": "b", "on": ["nope"]}, "nope"),
        ({"type": "lookup_join", "input": "a", "lookup": "b", "on": ["x"], "columns": {"x": "z"}}, "x"),
        ({"type": "union", "inputs": ["a", "b"], "by_name": False}, "b"),
    ],
)
def test_missing_and_doubled_columns_are_found_before_running(fields: dict[str, Any], column: str) -> None:
    transformation = TRANSFORMATION.validate_json(json.dumps(fields))
    with pytest.raises(ColumnError) as caught:
        output_columns(transformation, {"a": ["x", "y"], "b": ["x", "Y", "z"]})
    assert caught.value.column == column
