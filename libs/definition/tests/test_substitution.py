"""Placeholders: typed literals in SQL, plain text elsewhere, and no way out of either."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal

import duckdb
import pytest
from headrace_definition.substitution import BoundValue, SubstitutionError, bind, mask_sql, placeholders
from hypothesis import given, settings
from hypothesis import strategies as st

CHARACTERS = st.characters(exclude_characters="\x00", exclude_categories=["Cs"])
NASTY = st.sampled_from(
    [
        "'",
        "''",
        "\\'",
        "'; DROP TABLE t; --",
        "*/",
        "/*",
        "--",
        "\n",
        "\r\n",
        "$$",
        "${params.v}",
        "E'",
        '"',
        "\\",
    ]
)
TEXTS = st.text(alphabet=CHARACTERS, max_size=30) | st.lists(NASTY, max_size=4).map("".join)
NUMBERS = st.integers(-(10**18), 10**18) | st.floats(allow_nan=False, allow_infinity=False)
# Where a value may stand: as a literal, next to an operator, inside a string, after what looks like an
# opening.
FRAMES = [
    "SELECT ${params.v} AS v",
    "SELECT ${params.v}AS v",
    "SELECT /* ' */ ${params.v} -- '\n AS v",
    "SELECT (${params.v}) AS v",
    "SELECT coalesce(NULL,${params.v}) AS v",
    "SELECT 'it''s' AS a, ${params.v} AS v, E'\\'' AS b, $$ ' $$ AS c",
    "SELECT/* /* nested */ ' */${params.v} AS v",
    'SELECT "q""\'" AS a, ${params.v} AS v FROM (SELECT 1 AS "q""\'")',
]


@pytest.fixture(scope="module")
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


@settings(max_examples=60, deadline=None)
@given(value=TEXTS, frame=st.sampled_from(FRAMES))
def test_text_in_sql_comes_back_as_it_was(
    database: duckdb.DuckDBPyConnection, value: str, frame: str
) -> None:
    cursor = database.execute(bind(frame, {"params.v": value}, sql=True))
    assert cursor.description is not None
    row = dict(zip([name for name, *_ in cursor.description], cursor.fetchall()[0], strict=True))
    assert row["v"] == value


@pytest.mark.parametrize("frame", FRAMES)
def test_wide_spaces_in_text_are_kept_whatever_the_comments_hold(
    database: duckdb.DuckDBPyConnection, frame: str
) -> None:
    spaces = "a\xa0b\u2003c\u3000d\u200be"
    assert spaces in database.execute(bind(frame, {"params.v": spaces}, sql=True)).fetchall()[0]


@settings(max_examples=60, deadline=None)
@given(value=TEXTS)
def test_text_inside_a_string_stays_inside(database: duckdb.DuckDBPyConnection, value: str) -> None:
    sql = bind("SELECT 'before ${params.v} after' AS v, 1 AS one", {"params.v": value}, sql=True)
    assert database.execute(sql).fetchall() == [(f"before {value} after", 1)]


@settings(max_examples=60, deadline=None)
@given(value=NUMBERS)
def test_numbers_in_sql_come_back_as_they_were(database: duckdb.DuckDBPyConnection, value: float) -> None:
    sql = bind("SELECT ${params.v} AS v, 0 -${params.v} AS negated", {"params.v": value}, sql=True)
    found = database.execute(sql).fetchall()[0]
    assert [type(value)(number) for number in found] == [value, -value]


@pytest.mark.parametrize(
    ("value", "expression", "expected"),
    [
        (True, "${params.v}", True),
        (None, "${params.v}", None),
        (Decimal("1.10"), "${params.v}", Decimal("1.10")),
        (Decimal("-1E+3"), "${params.v} + 0", -1000),
        (date(2025, 1, 31), "${params.v}", date(2025, 1, 31)),
        (datetime(2025, 1, 31, 6), "${params.v}", datetime(2025, 1, 31, 6)),  # noqa: DTZ001 - a time without zone
        (datetime(2025, 1, 31, 6, tzinfo=UTC), "epoch(${params.v})", 1738303200.0),
    ],
)
def test_values_keep_their_types(
    database: duckdb.DuckDBPyConnection, value: BoundValue, expression: str, expected: object
) -> None:
    sql = bind(f"SELECT {expression}", {"params.v": value}, sql=True)
    assert database.execute(sql).fetchall() == [(expected,)]


def test_a_bound_table_survives_an_injection(database: duckdb.DuckDBPyConnection) -> None:
    # given a table that the value tries to drop
    database.execute("CREATE OR REPLACE TABLE t AS SELECT 'x' AS name")
    sql = bind("SELECT * FROM t WHERE name = ${params.v}", {"params.v": "'; DROP TABLE t; --"}, sql=True)
    # when it is run
    assert database.execute(sql).fetchall() == []
    # then the table is still there
    assert database.execute("SELECT count(*) FROM t").fetchall() == [(1,)]


@pytest.mark.parametrize(
    "text",
    [
        'SELECT "${params.v}"',
        "SELECT E'${params.v}'",
        "SELECT e'\\' ${params.v}'",
        "SELECT $$${params.v}$$",
        "SELECT $tag$ ${params.v} $tag$",
        "SELECT `${params.v}`",
        "SELECT 1 -- \r ${params.v}",
        "SELECT ${params.v",
        "SELECT ${params}",
        "SELECT ${other.v}",
        "SELECT ${run.password}",
        "SELECT ${interval.middle}",
        "SELECT ${params.missing}",
        "SELECT ${secrets.v}",
        "SELECT ${params.v|upper}",
        "SELECT ${{params.v}}",
    ],
)
def test_where_no_value_can_safely_stand_binding_refuses(text: str) -> None:
    with pytest.raises(SubstitutionError):
        bind(text, {"params.v": "x", "secrets.v": "s"}, sql=True)


@pytest.mark.parametrize("value", ["a\x00b", float("nan"), float("inf"), Decimal("NaN")])
def test_values_that_sql_cannot_hold_are_refused(value: BoundValue) -> None:
    with pytest.raises(SubstitutionError):
        bind("SELECT ${params.v}", {"params.v": value}, sql=True)


def test_sqlite_has_no_escape_strings_and_no_types_of_dates() -> None:
    sql = bind("SELECT E'a\\', ${params.v}", {"params.v": date(2025, 1, 31)}, sql=True, dialect="sqlite")
    assert sql == "SELECT E'a\\', '2025-01-31'"


def test_plain_text_takes_values_and_knows_an_escape() -> None:
    values: dict[str, BoundValue] = {
        "params.day": date(2025, 1, 31),
        "run.id": "r1",
        "params.n": 5,
        "env.X": "y",
    }
    text = "out/${params.day}/${run.id}/$${params.day}-${params.n}${env.X}.csv"
    assert bind(text, values, sql=False) == "out/2025-01-31/r1/${params.day}-5y.csv"


def test_a_value_is_not_looked_into_again() -> None:
    values: dict[str, BoundValue] = {"params.a": "${params.b}", "params.b": "no"}
    assert bind("${params.a}", values, sql=False) == "${params.b}"
    assert bind("SELECT ${params.a}", values, sql=True) == "SELECT '${params.b}'"


def test_masking_keeps_every_place() -> None:
    sql = "SELECT ${params.v}, '${params.v}' -- ${params.v}\nFROM a"
    masked = mask_sql(sql)
    assert len(masked) == len(sql)
    assert masked.index("FROM") == sql.index("FROM")
    assert "${" not in masked.split("'")[0]


@given(st.text(alphabet="${}.params run_1 \n", max_size=40))
def test_any_text_has_placeholders_or_is_refused_with_a_place(text: str) -> None:
    try:
        offsets = [found.start for found in placeholders(text)]
    except SubstitutionError as error:
        offsets = [error.offset]
    assert all(text.startswith("${", offset) for offset in offsets)
