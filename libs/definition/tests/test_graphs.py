"""Definitions as nodes and edges: whatever is drawn, they read as the definition they are made of."""

import json
from typing import Any

import pytest
from headrace_definition import Definition
from headrace_definition.graphs import Graph, to_graph
from headrace_definition.testing import compiled
from hypothesis import given
from hypothesis import strategies as st

from .test_rendering import FULL
from .test_spellings import CANONICAL, GRAPH, LISTS, MAPPINGS, PRINTED

ODD = """
sources:
  - {id: a, values: [{x: 1}], after: [gate]}
  - {id: b, values: [{x: 1}]}
transformations:
  - {id: gate, type: wait_for_signal, after: [b]}
  - {id: twice, type: union, inputs: [a, a]}
  - {id: self, type: lookup_join, input: a, lookup: a, on: [x], columns: {y: x}}
  - {id: constant, type: sql_transform, inputs: [], sql: SELECT 1 AS x}
quality_checks:
  - {id: known, type: sql, input: a, inputs: [b], sql: SELECT * FROM a ANTI JOIN b USING (x)}
  - {id: theirs, type: referential, input: b, columns: [x], to: a}
sinks:
  - {input: twice, discard: true}
  - {input: self, discard: true}
  - {id: out, input: constant, output: csv}
"""
SAMPLES = [FULL, CANONICAL, MAPPINGS, LISTS, GRAPH, ODD, *PRINTED.values()]
DEFINITIONS = [compiled(text).definition for text in SAMPLES]


def _read_again(graph: Graph) -> Definition:
    return compiled(json.dumps(graph.tree())).definition


def _meaning(definition: Definition, graph: Graph) -> Definition:
    """The definition without its look, and with the ids that nodes gave to sinks that had none."""
    ids = iter([node.id for node in graph.nodes][-len(definition.sinks) :])
    named = tuple(sink.model_copy(update={"id": next(ids)}) for sink in definition.sinks)
    return definition.model_copy(update={"layout": None, "sinks": named})


@st.composite
def _drawings(draw: st.DrawFn, definition: Definition) -> dict[str, Any]:
    lists = (definition.sources, definition.transformations, definition.quality_checks, definition.sinks)
    keys = [*(each.id for elements in lists for each in elements if each.id), "discard", "nobody", 7]
    label = st.none() | st.sampled_from(["lookup", "rows"])
    position = st.none() | st.fixed_dictionaries({"x": st.integers(), "y": st.integers()})
    node = st.fixed_dictionaries({"id": st.sampled_from(keys), "label": label, "position": position})
    end = st.sampled_from(keys)
    edge = st.fixed_dictionaries({"source": end, "target": end, "label": label})
    return {"nodes": draw(st.lists(node, max_size=5)), "edges": draw(st.lists(edge, max_size=12))}


@given(st.data())
def test_a_graph_reads_as_the_definition_it_is_made_of_whatever_is_drawn(data: st.DataObject) -> None:
    definition = data.draw(st.sampled_from(DEFINITIONS))
    graph = to_graph(definition, data.draw(_drawings(definition)))
    again = _read_again(graph)
    assert again.model_copy(update={"layout": None}) == _meaning(definition, graph)
    shown = again.layout.nodes if again.layout else {}
    assert [(n.label, n.position) for n in graph.nodes] == [
        (shown[n.id].label, shown[n.id].position) for n in graph.nodes
    ]


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_what_is_not_drawn_follows_from_the_inputs(definition: Definition) -> None:
    graph = to_graph(definition.model_copy(update={"layout": None}))
    again = _read_again(graph)
    assert again.model_copy(update={"layout": None}) == _meaning(definition, graph)
    assert to_graph(again).tree() == graph.tree()


def test_an_editors_own_graph_comes_back_as_it_was_drawn() -> None:
    graph = to_graph(compiled(GRAPH).definition)
    assert [(edge.source, edge.target, edge.label) for edge in graph.edges] == [
        ("orders", "priced", None),
        ("products", "priced", "lookup"),
        ("priced", "large", None),
        ("large", "known", None),
        ("known", "load", None),
    ]
    nodes = {node.id: node for node in graph.nodes}
    assert [nodes[key].node_type for key in ("orders", "priced", "known", "load")] == [
        "source",
        "join",
        "quality_check",
        "target",
    ]
    assert nodes["large"].config == {"type": "filter", "condition": "price > 10"}


def test_a_kept_drawing_wins_over_the_definitions_layout_and_names_nodes_by_either_id() -> None:
    definition = compiled(PRINTED["nodes without edges"]).definition
    drawing = {
        "nodes": [{"id": "1", "position": {"x": 5, "y": 6}}, {"id": "Large", "label": "Big ones"}],
        "edges": [{"source": "1", "target": "2", "label": "all"}],
    }
    graph = to_graph(definition, drawing)
    assert [(node.id, node.label, node.position) for node in graph.nodes] == [
        ("Orders", "Orders", {"x": 5, "y": 6}),
        ("Clean", "Clean", None),
        ("Large", "Big ones", None),
        ("Warehouse", "Warehouse", None),
    ]
    assert graph.edges[0].label == "all"


def test_an_edge_that_is_moved_moves_the_input() -> None:
    tree = to_graph(compiled(CANONICAL).definition).tree()
    moved = [edge | ({"source": "priced"} if edge["target"] == "load" else {}) for edge in tree["edges"]]
    assert compiled(json.dumps({**tree, "edges": moved})).definition.sinks[0].input == "priced"
