"""Canonical texts and the published schema."""

import json

import jsonschema_rs
import pytest
from headrace_definition import Definition, json_schema, to_yaml, validate
from headrace_definition.rendering import tree_to_yaml
from headrace_definition.testing import compiled
from hypothesis import given
from hypothesis import strategies as st
from yaml import safe_load

FULL = """
version: 1
name: flights
description: |
  Two lines
  of words
tags: [daily]
parameters:
  min_delay: {type: integer, default: 0, enum: [0, 5]}
sources:
  - id: flights
    connection: warehouse
    table: public.flights
    columns: [year, carrier]
    incremental: {cursor: updated_at, lag: 5m, initial: 2025-01-01}
    split: {column: id, ranges: 2}
  - id: airlines
    path: airlines.csv
    schema: {carrier: text, name: VARCHAR}
    options: {delimiter: ";", null_values: ["", NA]}
  - {id: more, values: [{carrier: "no", n: 1.5, deep: {a: [1, null]}}, {carrier: "0o14", n: null}]}
transformations:
  - id: joined
    type: lookup_join
    input: flights
    lookup: airlines
    on: {carrier: carrier}
    columns: {airline: name}
  - id: cleaned
    type: sql_transform
    inputs: [joined]
    sql: |
      SELECT *
      FROM joined
      WHERE year > ${params.min_delay}
    materialize: true
  - {id: s, type: select, input: cleaned, columns: {a: "carrier || 'x'"}}
  - {id: r, type: rename, input: s, columns: {a: b}}
  - {id: c, type: cast, input: r, columns: {b: "DECIMAL(10,2)"}, on_error: "null"}
  - {id: g, type: aggregate, input: c, group_by: [b], aggregates: {n: count(*)}, having: count(*) > 1}
  - {id: d, type: deduplicate, input: g, keys: [b], order_by: [n desc]}
  - {id: u, type: union, inputs: [d, more], distinct: true}
quality_checks:
  - {id: c1, type: not_null, input: u, columns: [b], severity: warning, max_ratio: 0.1}
  - {id: c2, type: referential, input: u, columns: [b], to: airlines, to_columns: [carrier]}
  - {id: c3, type: sql, input: u, inputs: [airlines], sql: SELECT * FROM u ANTI JOIN airlines ON b = carrier}
  - {id: c4, type: freshness, input: u, column: t, max_age: 1d}
sinks:
  - id: load
    input: u
    connection: warehouse
    table: out
    mode: replace_partition
    partition: {column: day, from: 1, to: 2}
  - {id: file, input: u, path: out.csv, options: {delimiter: "|"}}
  - {input: d, discard: true}
orchestration:
  depends_on: [upstream, {pipeline: other, type: WEAK}]
  schedule:
    cron: 0 2 * * *
    timezone: Europe/Warsaw
    maintenance_windows: [{days: [SUN], from: "02:00", to: "04:00"}]
engine: JDBC
notifications: [{on: [FAILED], type: WEBHOOK, target: "https://example.com/hook"}]
execution: {max_retries: 3, retry_delay: 60s, timeout: 1h, priority: HIGH}
"""


def test_the_canonical_text_compiles_to_an_equal_definition() -> None:
    definition = compiled(FULL).definition
    text = to_yaml(definition)
    assert compiled(text).definition == definition
    assert to_yaml(compiled(text).definition) == text


def test_the_canonical_text_keeps_sql_readable() -> None:
    text = to_yaml(compiled(FULL).definition)
    assert "  sql: |\n    SELECT *\n    FROM joined\n    WHERE year" in text


NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False)
    | st.text(max_size=30)
)


@given(
    st.lists(st.dictionaries(NAMES, VALUES, min_size=1, max_size=4), min_size=1, max_size=3),
    st.text(max_size=60),
)
def test_any_values_survive_the_canonical_text(rows: list[dict[str, object]], description: str) -> None:
    definition = Definition.model_validate_json(
        json.dumps({"description": description, "sources": [{"id": "a", "values": rows}]})
    )
    text = to_yaml(definition)
    report = validate(text)
    if any(isinstance(value, str) and "${" in value for row in rows for value in row.values()):
        return
    assert report.compiled is not None, report.errors
    assert report.compiled.definition == definition


@given(st.text(max_size=40).filter(lambda text: all(c.isprintable() or c in "\n\t" for c in text)))
def test_yaml_1_1_readers_take_texts_for_texts_too(text: str) -> None:
    assert safe_load(tree_to_yaml({"key": text})) == {"key": text}


def test_the_schema_accepts_what_the_model_accepts() -> None:
    validator = jsonschema_rs.validator_for(json_schema())
    tree = json.loads(compiled(FULL).definition.model_dump_json(by_alias=True, exclude_defaults=True))
    assert [error.message for error in validator.iter_errors(tree)] == []


@pytest.mark.parametrize(
    "tree",
    [
        {"colour": "red"},
        {"version": 2},
        {"sources": [{"id": "a", "tabel": "t"}]},
        {"transformations": [{"type": "fliter"}]},
        {"transformations": [{"type": "filter", "columns": ["x"]}]},
        {"sinks": [{"mode": "mege"}]},
        {"execution": {"max_retries": -1}},
        {"sources": [{"id": "9 lives"}]},
    ],
)
def test_the_schema_refuses_what_the_model_refuses(tree: dict[str, object]) -> None:
    assert not jsonschema_rs.validator_for(json_schema()).is_valid(tree)
    assert not validate(json.dumps(tree)).valid


def test_every_field_of_the_schema_is_described_and_every_object_closed() -> None:
    schema = json_schema()
    objects = [schema, *(each for each in schema["$defs"].values() if "properties" in each)]
    for each in objects:
        assert each["additionalProperties"] is False, each["title"]
        for name, field in each["properties"].items():
            assert "description" in field or "const" in field, (each["title"], name)
