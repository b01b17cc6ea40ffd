"""A visual editor over HTTP: it sends nodes and edges, gets them back, moves them, and runs them."""

import json
import uuid

import httpx
from headrace_local.testing import demand, wait_for_end

NODES = [
    {"id": "n1", "nodeType": "source", "label": "Orders", "config": {"values": [{"x": 1}, {"x": 5}]}},
    {"id": "n2", "nodeType": "filter", "label": "Large", "config": {"condition": "x > 3"}},
    {"id": "n3", "nodeType": "target", "config": {"discard": True}, "position": {"x": 9, "y": 0}},
]
EDGES = [{"source": "n1", "target": "n2", "label": "all"}, {"source": "n2", "target": "n3"}]


def test_an_editor_draws_reads_moves_and_runs_a_pipeline(admin: httpx.Client) -> None:
    layout = {"nodes": [{"id": "n1", "position": {"x": 1.25, "y": 2}}], "edges": [], "zoom": 1}
    ids = {"connectorId": str(uuid.uuid4()), "schemaId": str(uuid.uuid4())}
    text = json.dumps({"nodes": NODES, "edges": EDGES, "parameters": {"days": 3}})
    body = {"name": f"drawn {uuid.uuid4()}", "yamlDefinition": text, "layout": layout, **ids}
    created = demand(admin.post("pipelines", json=body), 201)
    assert {name: created[name] for name in ("layout", *ids)} == {"layout": layout, **ids}

    path = f"pipelines/{created['id']}"
    graph = demand(admin.get(path, params={"view": "graph"}), 200)["graph"]
    nodes = {node["id"]: node for node in graph["nodes"]}
    assert nodes["n1"] == {**NODES[0], "position": {"x": 1.25, "y": 2}}
    assert nodes["n2"] == {**NODES[1], "config": {"type": "filter", "condition": "x > 3"}}
    assert (graph["edges"], nodes["n3"]["position"]) == (EDGES, {"x": 9, "y": 0})

    # What was answered is a definition again; an edge that is moved moves the input.
    moved = [edge | ({"source": "n1"} if edge["target"] == "n3" else {}) for edge in graph["edges"]]
    again = json.dumps({**graph["settings"], "nodes": graph["nodes"], "edges": moved})
    changed = demand(admin.put(path, json={"yamlDefinition": again, "layout": None}), 200)
    assert (changed["version"], "layout" in changed, changed["schemaId"]) == (2, False, ids["schemaId"])
    run = demand(admin.post(f"{path}/run", json={}), 202)
    status = wait_for_end(admin, run["runId"])
    assert status["overallStatus"] == "COMPLETED", status["errors"]
    assert {task["id"]: task["rowsOut"] for task in status["tasks"]}["n1"] == 2


def test_a_layout_that_is_too_large_or_of_another_shape_is_refused(admin: httpx.Client) -> None:
    for layout, place in (({"zoom": "x" * 300_000}, "layout"), ({"nodes": [1]}, "layout.nodes[0]")):
        body = {"name": f"wrong {uuid.uuid4()}", "yamlDefinition": "version: 1", "layout": layout}
        refused = admin.post("pipelines", json=body)
        assert (refused.status_code, refused.json()["errors"][0]["path"]) == (400, place)
