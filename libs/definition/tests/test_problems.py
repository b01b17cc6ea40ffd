"""What is wrong, where, and what was probably meant: all of it at once."""

import json

import pytest
from headrace_definition import Definition, validate
from headrace_definition.testing import error_codes, errors, warning_codes, with_transformations
from hypothesis import given
from hypothesis import strategies as st

BROKEN = """\
version: 1
sources:
  - id: a
    conection: x
    values: [{x: 1}]
  - id: b
    table: t
    connection: w
transformations:
  - id: j
    type: sql_transform
    sql: |
      SELECT *
      FROM a
      JOIN bb USING (x)
  - {id: k, type: fliter, condition: x > 1}
  - {id: l, type: filter, input: k, condition: "x >"}
  - {id: m, type: filter, input: n, condition: "x > 1"}
  - {id: n, type: filter, input: m, condition: "x > ${params.nope}"}
quality_checks:
  - {type: range, column: x, input: j}
sinks:
  - {id: s, input: jj, mode: mege, connection: w, table: z}
  - {id: B, input: j, mode: merge, connection: w, table: z}
orchestration: {schedule: {cron: "61 * * * *", timezone: Europe/Warsw}}
engine: SPRK
"""


def test_all_errors_are_reported_at_once_with_their_places() -> None:
    assert errors(BROKEN) == [
        ("UNKNOWN_KEY", "sources[0].conection", 4, 5),
        ("SQL_UNDECLARED_TABLE", "transformations[0].sql", 15, 12),
        ("UNKNOWN_TYPE", "transformations[1].type", 16, 19),
        ("SQL_SYNTAX", "transformations[2].condition", 17, 51),
        ("CYCLE", "transformations[3]", 18, 5),
        ("UNDECLARED_PARAMETER", "transformations[4].condition", 19, 48),
        ("MISSING_KEY", "quality_checks[0].min", 21, 5),
        ("INVALID_VALUE", "sinks[0].mode", 23, 30),
        ("DUPLICATE_TASK_KEY", "sinks[1].id", 24, 10),
        ("MISSING_KEY", "sinks[1].mode", 24, 29),
        ("INVALID_CRON", "orchestration.schedule.cron", 25, 34),
        ("INVALID_TIMEZONE", "orchestration.schedule.timezone", 25, 58),
        ("INVALID_VALUE", "engine", 26, 9),
    ]


def test_near_words_are_suggested() -> None:
    suggestions = {problem.path: problem.suggestion for problem in validate(BROKEN).errors}
    assert suggestions["sources[0].conection"] == "connection"
    assert suggestions["transformations[1].type"] == "filter"
    assert suggestions["sinks[0].mode"] == "merge"
    assert suggestions["engine"] == "SPARK"


def message_of(text: str) -> str:
    found = validate(text).errors
    assert len(found) == 1, found
    return str(found[0])


def test_cycles_are_named_with_their_path() -> None:
    text = with_transformations(
        "- {id: p, type: filter, input: r, condition: x}",
        "- {id: q, type: filter, input: p, condition: x}",
        "- {id: r, type: filter, input: q, condition: x}",
    )
    assert "p → q → r → p" in message_of(text)


def test_a_task_that_reads_itself_is_a_cycle() -> None:
    assert "p → p" in message_of(with_transformations("- {id: p, type: filter, input: p, condition: x}"))


def test_undefined_inputs_are_named_with_the_nearest_task() -> None:
    found = validate(
        "sources: [{id: orders, values: [{x: 1}]}]\nsinks: [{id: s, input: ordesr, discard: true}]"
    ).errors
    assert [(p.code, p.line, p.column, p.suggestion) for p in found] == [("UNDEFINED_INPUT", 2, 24, "orders")]


def test_sinks_and_checks_offer_no_rows() -> None:
    text = (
        "sources: [{id: a, values: [{x: 1}]}]\nquality_checks: [{id: c, type: row_count, min: 1, input: a}]\n"
    )
    assert error_codes(text + "sinks: [{id: s, input: c, discard: true}]") == ["INVALID_INPUT"]


@pytest.mark.parametrize(
    ("line", "code", "path"),
    [
        ("sources: 5", "WRONG_TYPE", "sources"),
        ("sources: [5]", "WRONG_TYPE", "sources[0]"),
        ("sources: [{id: a b, values: [{x: 1}]}]", "INVALID_VALUE", "sources[0].id"),
        ("sources: [{id: a, table: 5, connection: c}]", "WRONG_TYPE", "sources[0].table"),
        (
            "sources: [{id: a, table: t, query: SELECT 1, connection: c}]",
            "CONFLICTING_KEYS",
            "sources[0].query",
        ),
        ("sources: [{id: a, values: [{x: 1}], connection: c}]", "CONFLICTING_KEYS", "sources[0].connection"),
        ("sources: [{id: a, values: []}]", "INVALID_VALUE", "sources[0].values"),
        ("sources: [{id: a, path: data.xyz}]", "MISSING_KEY", "sources[0].path"),
        ("sources: [{id: a, path: a.csv, format: xml}]", "INVALID_VALUE", "sources[0].format"),
        ("sources: [{id: a, path: a.csv, schema: {x: money}}]", "INVALID_VALUE", "sources[0].schema.x"),
        (
            "sources: [{id: a, path: a.csv, options: {delimitr: ;}}]",
            "UNKNOWN_KEY",
            "sources[0].options.delimitr",
        ),
        (
            "sources: [{id: a, path: a.csv, options: {delimiter: ab}}]",
            "INVALID_VALUE",
            "sources[0].options.delimiter",
        ),
        ("sources: [{id: a, path: a.csv, split: {ranges: 2}}]", "CONFLICTING_KEYS", "sources[0].split"),
        (
            "sources: [{id: a, connection: c, table: t, split: {ranges: 0}}]",
            "INVALID_VALUE",
            "sources[0].split.ranges",
        ),
        (
            "sources: [{id: a, connection: c, query: SELECT 1, split: {ranges: 2}}]",
            "MISSING_KEY",
            "sources[0].split",
        ),
        (
            "sources: [{id: a, connection: c, table: t, columns: [x, X]}]",
            "DUPLICATE_COLUMN",
            "sources[0].columns",
        ),
        ("sources: [{id: a, connection: c, table: t, stream: s}]", "CONFLICTING_KEYS", "sources[0].stream"),
        (
            "sources: [{id: a, connection: c, table: t, incremental: {lag: 5m}}]",
            "MISSING_KEY",
            "sources[0].incremental.cursor",
        ),
        (
            "sources: [{id: a, connection: c, table: t, incremental: {cursor: u, lag: 5 parsecs}}]",
            "INVALID_VALUE",
            "sources[0].incremental.lag",
        ),
        ("execution: {max_retries: -1}", "INVALID_VALUE", "execution.max_retries"),
        ("execution: {max_retries: '3'}", "WRONG_TYPE", "execution.max_retries"),
        ("execution: {timeout: true}", "INVALID_VALUE", "execution.timeout"),
        ("notifications: [{type: PIGEON, target: x}]", "INVALID_VALUE", "notifications[0].type"),
        ("notifications: [{type: EMAIL, target: ada}]", "INVALID_VALUE", "notifications[0]"),
        ("notifications: [{type: EMAIL, target: 'a@b.de,c@d.de'}]", "INVALID_VALUE", "notifications[0]"),
        ("notifications: [{type: SLACK, target: 'ftp://x'}]", "INVALID_VALUE", "notifications[0]"),
        (
            "notifications: [{type: SLACK, target: 'https://elsewhere.com/?key=${secrets.x}'}]",
            "INVALID_VALUE",
            "notifications[0]",
        ),
        (
            "notifications: [{type: SLACK, target: 'https://x.com', signing_secret: '${secrets.x}'}]",
            "INVALID_VALUE",
            "notifications[0]",
        ),
        (
            "notifications: [{type: WEBHOOK, target: 'https://x.com', signing_secret: 'env://X'}]",
            "INVALID_VALUE",
            "notifications[0].signing_secret",
        ),
        ("parameters: {a b: 1}", "INVALID_VALUE", "parameters.a b"),
        ("parameters: {n: {type: integer, default: many}}", "PARAMETER_VALUE", "parameters.n.default"),
        (
            "parameters: {n: {type: integer, default: 3, enum: [1, 2]}}",
            "PARAMETER_VALUE",
            "parameters.n.default",
        ),
        (
            "orchestration: {schedule: {cron: 0 * * * *, catchup_strategy: RUN_LATEST_N}}",
            "MISSING_KEY",
            "orchestration.schedule.catchup_limit",
        ),
        ("<<: {a: 1}", "UNKNOWN_KEY", "<<"),
        ("colour: red", "UNKNOWN_KEY", "colour"),
    ],
)
def test_one_fault_is_one_error_at_its_key(line: str, code: str, path: str) -> None:
    assert [(c, p) for c, p, *_ in errors(line)] == [(code, path)]


@pytest.mark.parametrize(
    ("sink", "code", "path"),
    [
        ("{connection: c, table: t, mode: merge}", "MISSING_KEY", "sinks[0].mode"),
        ("{path: o.csv, mode: merge, keys: [x]}", "CONFLICTING_KEYS", "sinks[0].mode"),
        ("{connection: c, table: t, mode: replace_partition}", "MISSING_KEY", "sinks[0].mode"),
        ("{path: out.dat}", "MISSING_KEY", "sinks[0].path"),
        ("{discard: true, path: o.csv}", "CONFLICTING_KEYS", "sinks[0].path"),
        ("{output: csv, path: o.csv}", "CONFLICTING_KEYS", "sinks[0].path"),
        ("{output: csv, connection: c}", "CONFLICTING_KEYS", "sinks[0].connection"),
        ("{output: csv, format: json}", "CONFLICTING_KEYS", "sinks[0].format"),
        ("{output: csv, mode: merge, keys: [x]}", "CONFLICTING_KEYS", "sinks[0].mode"),
        ("{output: xlsx}", "INVALID_VALUE", "sinks[0].output"),
        ("{connection: c, table: t, mode: merge, keys: [x, X]}", "DUPLICATE_COLUMN", "sinks[0].keys"),
        ("{connection: c, table: t, mode: merge, keys: []}", "INVALID_VALUE", "sinks[0].keys"),
    ],
)
def test_faults_of_sinks(sink: str, code: str, path: str) -> None:
    assert [(c, p) for c, p, *_ in errors(f"sources: [{{values: [{{x: 1}}]}}]\nsinks: [{sink}]")] == [
        (code, path)
    ]


@pytest.mark.parametrize(
    ("check", "code"),
    [
        ("{type: range, column: x}", "MISSING_KEY"),
        ("{type: range, column: x, min: 5, max: 1}", "INVALID_VALUE"),
        ("{type: row_count, min: 5, max: 1}", "INVALID_VALUE"),
        ("{type: not_null}", "MISSING_KEY"),
        ("{type: not_null, columns: []}", "INVALID_VALUE"),
        ("{type: accepted_values, column: x, values: []}", "INVALID_VALUE"),
        ("{type: referential, columns: [x], to: a, to_columns: [x, y]}", "INVALID_VALUE"),
        ("{type: referential, columns: [x], to: nowhere}", "UNDEFINED_INPUT"),
        ("{type: freshness, column: x}", "MISSING_KEY"),
        ("{type: sql, sql: SELECT FROM WHERE}", "SQL_SYNTAX"),
        ("{type: nonsense}", "UNKNOWN_TYPE"),
        ("{columns: [x]}", "MISSING_KEY"),
        ("{type: row_count, min: 1, severity: fatal}", "INVALID_VALUE"),
        ("{type: row_count, min: 1, max_ratio: 2}", "INVALID_VALUE"),
    ],
)
def test_faults_of_checks(check: str, code: str) -> None:
    assert error_codes(f"sources: [{{id: a, values: [{{x: 1}}]}}]\nquality_checks: [{check}]") == [code]


def test_connections_that_do_not_exist_are_warnings_with_a_suggestion() -> None:
    text = "source: {connection: warehose, table: t}\nsinks: [{discard: true}]"
    found = validate(text).warnings
    assert not found
    known = {"warehouse": "postgresql"}
    assert warning_codes(text, connection_types=known, all_connections=False) == []
    codes = warning_codes(text, connection_types=known)
    assert codes == ["UNKNOWN_CONNECTION"]


def test_rules_about_columns_of_a_table_are_unused_where_there_is_none() -> None:
    sink = "sinks: [{input: a, schema_drift: evolve, missing_columns: fail, "
    text = "sources: [{id: a, values: [{x: 1}]}]\n" + sink
    assert warning_codes(text + "path: x.csv}]") == ["UNUSED_KEY", "UNUSED_KEY"]
    assert warning_codes(text + "connection: c, table: t}]") == []


def test_problems_of_a_large_broken_text_are_cut_off() -> None:
    text = "sources:\n" + "".join(f"- {{id: a{i}, tabel: t}}\n" for i in range(1000))
    found = validate(text).errors
    assert len(found) == 201
    assert found[-1].message == "and 800 more"


WORDS = st.sampled_from(
    [
        "version",
        "sources",
        "sinks",
        "id",
        "type",
        "a",
        "b",
        "filter",
        "sql",
        "input",
        "values",
        "nodes",
        "edges",
        "config",
    ]
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | WORDS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=20,
)
OTHER_KEYS = [
    "source",
    "target",
    "transforms",
    "destinations",
    "schedule",
    "nodes",
    "edges",
    "config",
    "definition",
]
TOP_KEYS = st.sampled_from([*sorted(Definition.model_fields), *OTHER_KEYS])


@given(st.dictionaries(TOP_KEYS, ANYTHING, max_size=5))
def test_no_tree_whatsoever_makes_validation_raise(tree: dict[str, object]) -> None:
    report = validate(json.dumps(tree))
    assert report.valid == (report.compiled is not None)


def test_ten_thousand_tasks_in_a_row_compile() -> None:
    lines = (f"- {{id: t{i}, type: filter, condition: x > {i}}}\n" for i in range(10_000))
    text = (
        "sources: [{id: s, values: [{x: 1}]}]\ntransformations:\n"
        + "".join(lines)
        + "sinks: [{discard: true}]\n"
    )
    compiled = validate(text).compiled
    assert compiled is not None
    assert len(compiled.plan.tasks) == 10_001
    assert compiled.plan.tasks[-1].discards
