"""SQL within a definition: one SELECT, declared inputs, errors at their place in the YAML."""

import pytest
from headrace_definition import validate
from headrace_definition.sql_lexing import without_terminator
from headrace_definition.sqltext import parse_expression, parse_select
from headrace_definition.testing import compiled, errors, with_transformations
from hypothesis import given
from hypothesis import strategies as st


def place_of(sql_lines: str) -> tuple[str, int | None, int | None]:
    """The one error of a definition with these lines as its SQL, which begins on line 5."""
    head = "sources: [{id: a, values: [{x: 1}]}]\ntransformations:\n- id: t\n  type: sql_transform\n"
    found = errors(head + sql_lines)
    assert len(found) == 1, found
    code, _, line, column = found[0]
    return code, line, column


@pytest.mark.parametrize(
    ("sql_lines", "line", "column"),
    [
        ("  sql: SELECT * FROM bb", 5, 22),
        ("  sql: 'SELECT ''x'', * FROM bb'", 5, 30),
        ('  sql: "SELECT \\"x\\", \\u002a FROM bb"', 5, 35),
        ('  sql: "SELECT *\\n\\tFROM bb"', 5, 26),
        ("  sql: |\n    SELECT *\n    FROM bb", 7, 10),
        ("  sql: |2-\n      SELECT *\n    FROM bb", 7, 10),
        ("  sql: >\n    SELECT *\n    FROM\n\n    bb", 9, 5),
        ("  sql: &anchor !!str SELECT * FROM bb", 5, 36),
        ("  sql: SELECT *\n    FROM bb", 6, 10),
    ],
)
def test_the_place_is_that_of_the_word_in_every_style(sql_lines: str, line: int, column: int) -> None:
    if (
        "--" in sql_lines
    ):  # folded onto one line, the comment swallows the rest: nothing is wrong with the SQL
        return
    assert place_of(sql_lines) == ("SQL_UNDECLARED_TABLE", line, column)


def test_syntax_errors_point_at_the_word_that_does_not_fit() -> None:
    assert place_of("  sql: |\n    SELECT x,\n      y FRM a\n    WHERE x > 1") == ("SQL_SYNTAX", 7, 13)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM a",
        "SELECT * FROM A;",
        "WITH c AS (SELECT x FROM a) SELECT * FROM c JOIN b USING (x)",
        "WITH RECURSIVE r AS (SELECT x FROM a UNION ALL SELECT x + 1 FROM r WHERE x < 5) SELECT * FROM r",
        "FROM a",
        "FROM a SELECT x",
        "VALUES (1), (2)",
        "(SELECT * FROM a) UNION ALL (SELECT x, z AS y FROM b)",
        "SELECT * FROM a UNION ALL BY NAME SELECT * FROM b",
        "SELECT x, sum(y) OVER (PARTITION BY x) FROM a QUALIFY row_number() OVER () = 1",
        "SELECT * EXCLUDE (y) FROM a",
        "SELECT unnest([1, 2]) AS n, * FROM a",
        "SELECT * FROM a, range(3) AS r(n)",
        "SELECT * FROM a WHERE x IN (SELECT x FROM b)",
        "PIVOT a ON x USING sum(y)",
        "SELECT * FROM a LIMIT ${params.n}",
        "SELECT '${params.n}' AS n FROM a /* ${anything goes in a comment} */",
        "SELECT x FROM a ASOF JOIN b ON a.x >= b.x",
    ],
)
def test_selects_over_declared_inputs_are_accepted(sql: str) -> None:
    text = with_transformations(
        "- id: t", "  type: sql_transform", "  inputs: [a, b]", "  sql: |", f"    {sql}"
    )
    assert validate(text + "parameters: {n: 1}").errors == ()


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("", "SQL_SYNTAX"),
        ("-- nothing", "SQL_SYNTAX"),
        ("SELECT 1; SELECT 2", "SQL_NOT_SELECT"),
        ("DROP TABLE a", "SQL_NOT_SELECT"),
        ("INSERT INTO a SELECT * FROM b", "SQL_NOT_SELECT"),
        ("WITH d AS (DELETE FROM a RETURNING *) SELECT * FROM d", "SQL_NOT_SELECT"),
        ("SELECT x INTO c FROM a", "SQL_NOT_SELECT"),
        ("SELECT * FROM a FOR UPDATE", "SQL_NOT_SELECT"),
        ("COPY a TO 'out.csv'", "SQL_NOT_SELECT"),
        ("ATTACH 'x.db'", "SQL_NOT_SELECT"),
        ("PRAGMA version", "SQL_NOT_SELECT"),
        ("SET memory_limit = '1TB'", "SQL_NOT_SELECT"),
        ("INSTALL httpfs", "SQL_NOT_SELECT"),
        ("LOAD httpfs", "SQL_NOT_SELECT"),
        ("CALL pragma_version()", "SQL_NOT_SELECT"),
        ("EXPLAIN SELECT 1", "SQL_NOT_SELECT"),
        ("SUMMARIZE a", "SQL_NOT_SELECT"),
        ("SHOW TABLES", "SQL_NOT_SELECT"),
        ("CREATE TABLE c AS SELECT 1", "SQL_NOT_SELECT"),
        ("BEGIN", "SQL_NOT_SELECT"),
        ("SELECT * FROM read_csv('/etc/passwd')", "SQL_FORBIDDEN"),
        ("SELECT * FROM read_parquet('s3://x')", "SQL_FORBIDDEN"),
        ("SELECT * FROM glob('*')", "SQL_FORBIDDEN"),
        ("SELECT read_text('/etc/passwd')", "SQL_FORBIDDEN"),
        ("SELECT getenv('HOME')", "SQL_FORBIDDEN"),
        ("SELECT current_setting('x') FROM a", "SQL_FORBIDDEN"),
        ("SELECT * FROM duckdb_settings()", "SQL_FORBIDDEN"),
        ("SELECT * FROM query('SELECT 1')", "SQL_FORBIDDEN"),
        ("SELECT * FROM query_table('a')", "SQL_FORBIDDEN"),
        ("SELECT * FROM postgres_scan('x', 'y', 'z')", "SQL_FORBIDDEN"),
        ("SELECT * FROM some_function(1)", "SQL_FORBIDDEN"),
        ("SELECT * FROM 'data.csv'", "SQL_UNDECLARED_TABLE"),
        ("SELECT * FROM main.a", "SQL_UNDECLARED_TABLE"),
        ("SELECT * FROM information_schema.tables", "SQL_UNDECLARED_TABLE"),
        ("SELECT * FROM b", "SQL_UNDECLARED_TABLE"),
        ("SELECT (SELECT max(x) FROM secret)", "SQL_UNDECLARED_TABLE"),
        ("SELECT * FROM (WITH c AS (SELECT 1) SELECT * FROM c) JOIN c ON true", "SQL_UNDECLARED_TABLE"),
        ("SELECT ${params.x} FROM a", "UNDECLARED_PARAMETER"),
        ("SELECT ${secrets.x} FROM a", "PLACEHOLDER"),
        ('SELECT "${params.n}" FROM a', "PLACEHOLDER"),
        ("SELECT E'${params.n}' FROM a", "PLACEHOLDER"),
        ("SELECT ${run.nothing} FROM a", "PLACEHOLDER"),
        ("SELECT ${ FROM a", "PLACEHOLDER"),
        ("SELECT " + "(" * 200 + "1" + ")" * 200, "SQL_SYNTAX"),
        ("SELECT x" + "[1]" * 5000 + " FROM a", "SQL_SYNTAX"),
        ("SELECT " + "NOT " * 20_000 + "true", "SQL_SYNTAX"),
        ("SELECT 1 " + "-" * 300_000, "SQL_TOO_LONG"),
    ],
    ids=lambda value: value[:40],
)
def test_anything_else_is_refused(sql: str, code: str) -> None:
    text = with_transformations("- id: t", "  type: sql_transform", "  inputs: [a]", "  sql: |", f"    {sql}")
    if sql == "":
        text = with_transformations('- {id: t, type: sql_transform, inputs: [a], sql: " "}')
    assert [c for c, *_ in errors(text + "parameters: {n: 1}")] == [code]


@pytest.mark.parametrize(
    ("expression", "good"),
    [
        ("x > 1", True),
        ("x > 1 -- a comment", True),
        ("x IN (1, 2) AND y IS NOT NULL", True),
        ("count(*) FILTER (WHERE x > 1)", True),
        ("CASE WHEN x THEN 1 END", True),
        ("x > 1;", False),
        ("1 = 1) UNION SELECT (2", False),
        ("x AS y", False),
        ("x, y", False),
        ("*", False),
        ("x FROM b", False),
        ("DISTINCT x", False),
        ("x LIMIT 1", False),
        ("", False),
    ],
)
def test_an_expression_is_one_expression(expression: str, good: bool) -> None:
    parsed = parse_expression(expression)
    assert (parsed.tree is not None and not parsed.issues) is good


def test_expressions_read_their_input_alone() -> None:
    text = with_transformations("- {id: f, type: filter, input: a, condition: x IN (SELECT x FROM b)}")
    assert [c for c, *_ in errors(text)] == ["SQL_UNDECLARED_TABLE"]


def test_inputs_are_taken_from_the_sql_where_they_are_left_out() -> None:
    plan = compiled(
        with_transformations("- {id: t, type: sql_transform, sql: SELECT * FROM A JOIN b USING (x)}")
    ).plan
    assert plan.tasks[-1].inputs == ("a", "b")


@pytest.mark.parametrize(
    ("query", "types", "good"),
    [
        ("SELECT * FROM t WHERE x = '${params.n}'", None, True),
        ("SELECT TOP 10 * FROM t", None, True),
        ("SELECT * FROM a MINUS SELECT * FROM b", None, True),
        ("DELETE FROM t", None, False),
        ("SELECT FRM WHERE", None, False),
        ("SELECT x::jsonb->>'a' FROM t", "postgresql", True),
        ("SELECT 1; SELECT 2", "postgresql", False),
    ],
)
def test_a_sources_query_is_one_select_in_its_systems_sql(query: str, types: str | None, good: bool) -> None:
    text = f'sources: [{{id: s, connection: c, query: "{query}"}}]\nparameters: {{n: 1}}'
    found = errors(text, connection_types={"c": types} if types else None)
    assert (not found) is good, found


@pytest.mark.parametrize("kept", ["';'", "e'\\';'", '";"', "$q$;$q$", "/* ; /* ; */ ; */ 1", "1 -- ;\n"])
def test_a_statement_is_cut_at_its_own_semicolon(kept: str) -> None:
    assert without_terminator(f"SELECT {kept} AS x FROM a; -- end;") == f"SELECT {kept} AS x FROM a"
    assert without_terminator(f"SELECT {kept} AS x FROM a") == f"SELECT {kept} AS x FROM a"


@given(st.text(alphabet="SELECTFROM abxy'\"()[]*,;-/$1{}.\n", max_size=60))
def test_any_text_is_judged_without_raising(text: str) -> None:
    for parsed in (parse_select(text), parse_select("SELECT " + text), parse_expression(text)):
        assert parsed.tree is not None or parsed.issues
