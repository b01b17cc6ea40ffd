"""Every spelling, and every definition that the API references print, against the canonical form."""

import json
from itertools import pairwise

import pytest
from headrace_definition import ConnectionDefaults, Definition, compile_definition, to_yaml
from headrace_definition.loading import LoadLimits, load
from headrace_definition.model import Filter, LookupJoin, Sink, Source, SqlTransform
from headrace_definition.nodes import plain
from headrace_definition.problems import Findings
from headrace_definition.testing import compiled, error_codes, warning_codes

CANONICAL = """
version: 1
sources:
  - {id: orders, connection: shop, table: public.orders}
  - {id: products, connection: shop, table: public.products}
transformations:
  - {id: priced, type: lookup_join, input: orders, lookup: products, on: [product_id], columns: [price]}
  - {id: large, type: filter, input: priced, condition: "price > 10"}
quality_checks:
  - {id: known, type: not_null, input: large, columns: [product_id]}
sinks:
  - {id: load, input: large, connection: dwh, table: orders, mode: merge, keys: [id]}
"""

MAPPINGS = """
sources:
  orders: {connection: shop, table: public.orders}
  products: {connection: shop, table: public.products}
transformations:
  priced: {type: lookup, inputs: [orders, products], on: product_id, columns: price}
  large: {type: filter, condition: "price > 10"}
quality_checks:
  known: {type: not-null, column: product_id}
sinks:
  load: {connection: dwh, table: orders, mode: upsert, keys: id}
"""

LISTS = """
sources:
  - {name: orders, connectionId: shop, table: public.orders}
  - {name: products, connection_id: shop, table: public.products}
transforms:
  - {name: priced, type: join, from: orders, lookup: products, on: [product_id], columns: [price]}
  - {name: large, where: "price > 10", from: priced}
checks:
  - {name: known, type: notNull, on: large, columns: [product_id]}
destinations:
  - {name: load, from: large, connection: dwh, table: orders, writeMode: merge, primaryKey: [id]}
"""

GRAPH = """
nodes:
  - {id: orders, nodeType: source, config: {connection: shop, table: public.orders}}
  - {id: products, nodeType: source, config: {connection: shop, table: public.products}}
  - {id: priced, nodeType: join, config: {on: [product_id], columns: [price]}}
  - {id: large, nodeType: filter, config: {condition: "price > 10"}}
  - {id: known, nodeType: quality_check, config: {type: not_null, columns: [product_id]}}
  - {id: load, nodeType: target, config: {connection: dwh, table: orders, mode: merge, keys: [id]}}
edges:
  - {source: orders, target: priced}
  - {source: products, target: priced, label: lookup}
  - {source: priced, target: large}
  - {source: large, target: known}
  - {source: known, target: load}
"""


def meaning(text: str) -> Definition:
    return compiled(text).definition.model_copy(update={"layout": None, "version_label": None, "name": None})


@pytest.mark.parametrize("text", [MAPPINGS, LISTS, GRAPH], ids=["mappings", "lists", "graph"])
def test_every_spelling_means_the_same(text: str) -> None:
    assert meaning(text) == meaning(CANONICAL)


@pytest.mark.parametrize(
    "text", [CANONICAL, MAPPINGS, LISTS, GRAPH], ids=["canonical", "mappings", "lists", "graph"]
)
def test_every_spelling_may_be_json(text: str) -> None:
    tree = plain(load(text, LoadLimits(), Findings()).root)
    assert meaning(json.dumps(tree)) == meaning(text)


PRINTED = {
    "one source and target": (
        "version: 1\nsource:\n  connection: teradata-prod\ntarget:\n  connection: snowflake-dwh\n"
    ),
    "mappings and lists": json.dumps(
        {
            "sources": {"raw": {"connection": "sales_db", "table": "public.raw_transactions"}},
            "transformations": [
                {"name": "clean_transactions", "type": "sql_transform", "sql": "SELECT * FROM raw"}
            ],
            "sinks": {"daily": {"connection": "analytics", "table": "sales.daily_transactions"}},
            "quality_checks": [{"type": "not_null", "columns": ["id"]}],
            "orchestration": {"schedule": "0 6 * * *"},
        }
    ),
    "placeholders left empty": json.dumps(
        {"sources": {}, "transformations": [], "sinks": {}, "quality_checks": [], "orchestration": {}}
    ),
    "whole request around it": json.dumps(
        {
            "name": "daily-sales-etl",
            "version": "1.0.0",
            "description": "Daily sales data extraction and loading",
            "definition": {
                "sources": {"s": {"connection": "c", "table": "t"}},
                "sinks": {"k": {"discard": True}},
            },
            "tags": ["sales", "daily", "etl"],
        }
    ),
    "transforms and destinations": json.dumps(
        {
            "name": "new-pipeline",
            "version": "1.0",
            "sources": [{"name": "events", "type": "postgres", "table": "events"}],
            "transforms": [{"name": "daily", "sql": "SELECT * FROM events"}],
            "destinations": [{"name": "out", "type": "bigquery"}],
        }
    ),
    "empty lists": '{"name": "p", "version": "1.0", "sources": [], "transforms": [], "destinations": []}',
    "connectors in place": json.dumps(
        {
            "name": "hubspot-contacts",
            "source": {
                "name": "hubspot",
                "stream": "contacts",
                "authentication": {"type": "api_key", "params": {"token": "${secrets.hubspot}"}},
            },
            "destination": {
                "name": "bigquery",
                "config": {"project_id": "my-project", "dataset": "raw_data"},
            },
        }
    ),
    "config of a request": json.dumps(
        {
            "name": "HubSpot to BigQuery",
            "config": {
                "name": "hubspot-contacts",
                "source": {
                    "name": "hubspot",
                    "stream": "contacts",
                    "authentication": {"type": "api_key", "params": {"token": "${secrets.hubspot}"}},
                },
                "destination": {
                    "name": "bigquery",
                    "config": {"project_id": "my-project", "dataset": "raw_data"},
                },
            },
            "schedule": "0 */6 * * *",
            "enabled": True,
            "domain_id": "uuid",
        }
    ),
    "nodes without edges": json.dumps(
        {
            "nodes": [
                {"id": "1", "nodeType": "source", "label": "Orders", "position": {"x": 0, "y": 0}},
                {"id": "2", "nodeType": "transform", "label": "Clean", "config": {}},
                {"id": "3", "nodeType": "filter", "label": "Large", "config": {}},
                {"id": "4", "nodeType": "target", "label": "Warehouse"},
            ],
            "edges": [
                {"source": "1", "target": "2", "label": "rows"},
                {"source": "2", "target": "3"},
                {"source": "3", "target": "4"},
            ],
        }
    ),
    "canvas request": json.dumps(
        {
            "name": "p",
            "connectorId": "a1b2c3d4-0000-0000-0000-000000000001",
            "schemaId": "a1b2c3d4-0000-0000-0000-000000000002",
            "schedule": "0 * * * *",
            "executionConfig": {"batchSize": 500, "parallelism": 2, "partitioning": {"by": "day"}},
            "nodes": [{"id": "n-1", "nodeType": "source", "label": "S", "config": {"table": "t"}}],
            "edges": [],
        }
    ),
}


@pytest.mark.parametrize("text", PRINTED.values(), ids=PRINTED.keys())
def test_every_printed_definition_is_accepted(text: str) -> None:
    assert compiled(text).plan.engine == "JDBC"


def test_one_source_and_target_become_extract_and_load() -> None:
    plan = compiled(PRINTED["one source and target"]).plan
    assert [task.key for task in plan.tasks] == ["extract", "load"]
    assert plan.connections == ("snowflake-dwh", "teradata-prod")


def test_what_is_not_there_yet_is_a_warning() -> None:
    assert warning_codes(PRINTED["one source and target"]) == ["INCOMPLETE", "INCOMPLETE"]
    assert warning_codes(PRINTED["connectors in place"]) == ["UNKNOWN_CONNECTOR", "UNKNOWN_CONNECTOR"]
    assert warning_codes("version: 1") == ["NO_TASKS"]


def test_what_is_not_there_yet_is_left_to_the_run_unless_there_is_nothing_to_run() -> None:
    for name in ("one source and target", "nodes without edges", "connectors in place"):
        assert error_codes(PRINTED[name], for_run=True) == []
    assert error_codes("version: 1", for_run=True) == ["NO_TASKS"]


def test_the_pipelines_connections_serve_where_none_is_named() -> None:
    text = "source: {table: a}\ntarget: {table: b}"
    with_defaults = compile_definition(text, defaults=ConnectionDefaults("from-here", "to-there"))
    assert with_defaults.plan.connections == ("from-here", "to-there")
    assert not with_defaults.warnings
    assert with_defaults.definition.sources[0].connection is None


def test_a_connectors_settings_are_its_config() -> None:
    assert compiled(PRINTED["config of a request"]).definition.sources[0].config == {
        "authentication": {"type": "api_key", "params": {"token": "${secrets.hubspot}"}}
    }


def test_a_version_of_the_authors_own_is_kept() -> None:
    assert compiled(PRINTED["transforms and destinations"]).definition.version_label == "1.0"
    assert compiled("version: '1'").definition.version_label is None
    assert compiled("version: 1.0").definition.version_label is None
    assert error_codes("version: 2") == ["INVALID_VALUE"]


def test_a_schedule_may_be_just_its_cron_expression() -> None:
    for text in (
        "schedule: 0 6 * * *",
        "orchestration: {schedule: 0 6 * * *}",
        "orchestration: {cron: 0 6 * * *}",
    ):
        orchestration = compiled(text).definition.orchestration
        assert orchestration is not None
        assert orchestration.schedule is not None
        assert orchestration.schedule.cron == "0 6 * * *"


def test_parameters_may_be_a_list_or_just_defaults() -> None:
    listed = compiled("parameters: [{name: URL, required: true}, {name: days, type: integer, default: 3}]")
    assert listed.definition.parameters["URL"].required
    short = compiled("parameters: {days: 3, label: x, ratio: 0.5, full: false, open: }").definition.parameters
    assert [p.type for p in short.values()] == ["integer", "string", "number", "boolean", "string"]


def test_an_editors_nodes_keep_their_look() -> None:
    layout = compiled(PRINTED["nodes without edges"]).definition.layout
    assert layout is not None
    assert layout.nodes["Orders"].position == {"x": 0, "y": 0}
    assert layout.nodes["Orders"].id == "1"
    assert layout.edges[0].label == "rows"


def test_an_editors_connector_serves_its_sources() -> None:
    result = compiled(PRINTED["canvas request"])
    assert result.plan.connections == ("a1b2c3d4-0000-0000-0000-000000000001",)
    assert result.definition.execution is not None
    assert result.definition.execution.batch_size == 500


def test_keys_may_be_in_camel_case() -> None:
    result = compiled(
        "source: {connection: c, table: t}\nsinks: [{discard: true}]\nexecution: {maxRetries: 3}"
    )
    assert result.definition.execution is not None
    assert result.definition.execution.max_retries == 3


def test_partitions_are_ranges_to_split_by() -> None:
    source = compiled("sources: {gateway: {connection: c, table: t, partitions: 16}}").definition.sources[0]
    assert source.split is not None
    assert source.split.ranges == 16


def test_a_name_that_is_no_task_key_becomes_one() -> None:
    source = compiled("sources: [{name: Daily sales (EU), values: [{x: 1}]}]").definition.sources[0]
    assert (source.id, source.description) == ("Daily_sales_EU", "Daily sales (EU)")


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("source: {values: [{x: 1}]}\nsources: []", ["CONFLICTING_KEYS"]),
        ("transforms: []\ntransformations: []", ["CONFLICTING_KEYS"]),
        ("nodes: []\nsources: []", ["CONFLICTING_KEYS"]),
        ("nodes: {}", ["WRONG_TYPE"]),
        ("nodes: [{id: a}]", ["MISSING_KEY"]),
        ("nodes: [{nodeType: source}]", ["MISSING_KEY"]),
        ("nodes: [{id: a, nodeType: sauce}]", ["UNKNOWN_TYPE"]),
        ("nodes: [{id: a, nodeType: source, colour: red}]", ["UNKNOWN_KEY"]),
        ("nodes: [{id: a, nodeType: source}]\nedges: [{source: a, target: b}]", ["UNDEFINED_NODE"]),
        ("nodes: [{id: a, nodeType: source}]\nedges: [{source: a}]", ["MISSING_KEY"]),
        ("nodes: [{id: a, nodeType: source}, {id: a, nodeType: source}]", ["DUPLICATE_TASK_KEY"]),
        ("parameters: [{type: integer}]", ["MISSING_KEY"]),
        ("parameters: [{name: a}, {name: a}]", ["DUPLICATE_KEY"]),
        ("schedule: 0 * * * *\norchestration: {schedule: 0 * * * *}", ["CONFLICTING_KEYS"]),
    ],
)
def test_contradictions_between_spellings_are_errors(text: str, codes: list[str]) -> None:
    assert error_codes(text) == codes


def test_models_can_be_made_in_python_too() -> None:
    definition = Definition(
        sources=(Source(id="a", values=({"x": 1},)),),
        transformations=(
            SqlTransform(id="t", type="sql_transform", sql="SELECT x FROM a"),
            Filter(id="f", type="filter", input="t", condition="x > 0"),
            LookupJoin(id="l", type="lookup_join", input="f", lookup="a", on=("x",), columns={"y": "x"}),
        ),
        sinks=(Sink(discard=True),),
    )
    assert [task.key for task in compiled(to_yaml(definition)).plan.tasks] == ["a", "t", "f", "l"]


def test_what_follows_several_checks_reads_what_they_check() -> None:
    nodes = [{"id": "s", "nodeType": "source", "config": {"values": [{"x": 1}]}}]
    nodes += [{"id": f"c{i}", "nodeType": "row_count", "config": {"min": 1}} for i in range(3)]
    nodes += [{"id": "k", "nodeType": "target", "config": {"discard": True}}]
    path = ["s", "c0", "c1", "c2", "k"]
    edges = [{"source": source, "target": target} for source, target in pairwise(path)]
    plan = compiled(json.dumps({"nodes": nodes, "edges": edges})).plan
    assert {task.key: task.inputs for task in plan.tasks if task.inputs} == dict.fromkeys(path[1:], ("s",))


def test_checks_in_a_circle_do_not_hang() -> None:
    nodes = [{"id": key, "nodeType": "row_count", "config": {"min": 1}} for key in ("a", "b")]
    edges = [{"source": "a", "target": "b"}, {"source": "b", "target": "a"}]
    assert error_codes(json.dumps({"nodes": nodes, "edges": edges}))


@pytest.mark.parametrize(
    "text",
    [
        "source: {values: [{x: 1}]}\ntarget: {output: csv}",
        "sources: [{values: [{x: 1}]}]\ndestinations: [{type: output, format: csv}]",
        "config: {source: {name: shop, stream: orders}, destination: {name: output, config: {format: csv}}}",
        json.dumps(
            {
                "nodes": [
                    {"id": "extract", "nodeType": "source", "config": {"values": [{"x": 1}]}},
                    {"id": "load", "nodeType": "target", "config": {"type": "output", "format": "csv"}},
                ],
                "edges": [{"source": "extract", "target": "load"}],
            }
        ),
    ],
)
def test_an_output_in_every_spelling(text: str) -> None:
    (sink,) = compile_definition(text).definition.sinks
    assert (sink.output, sink.format, sink.connector) == ("csv", None, None)


def test_an_output_of_no_format_is_parquet() -> None:
    (sink,) = compile_definition("source: {values: [{x: 1}]}\ntarget: {type: output}").definition.sinks
    assert sink.output == "parquet"
