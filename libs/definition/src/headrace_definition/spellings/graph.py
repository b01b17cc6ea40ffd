"""`nodes` and `edges`, as a visual editor draws a pipeline. How it looks is kept in `layout`.

A check stands in the flow of an editor: what comes after it reads what the check reads.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from headrace_definition.nodes import Mapping, Node, Scalar, Sequence
from headrace_definition.problems import Findings
from headrace_definition.spellings.rewriting import (
    is_task_key,
    made,
    made_list,
    made_mapping,
    rename_keys,
    snake,
    task_key,
    text_of,
    with_entry,
    without,
)
from headrace_definition.spellings.words import CHECK_TYPES, TRANSFORMATION_TYPES

_SOURCE = frozenset({"source", "input", "extract", "extractor", "reader", "read"})
_SINK = frozenset({"target", "sink", "destination", "output", "load", "loader", "writer", "write"})
_CHECK = frozenset({"quality_check", "check", "quality", "validate", "validation", "test"})
_TRANSFORM = frozenset({"transform", "transformation"})
_ALL = _SOURCE | _SINK | _CHECK | _TRANSFORM | frozenset(TRANSFORMATION_TYPES) | frozenset(CHECK_TYPES)
_LISTS = {"source": "sources", "transform": "transformations", "check": "quality_checks", "sink": "sinks"}
_NODE_WORDS = {"nodeType": "type", "node_type": "type", "kind": "type"}
_NODE_KEYS = frozenset({"id", "type", "label", "config", "position"})
_EDGE_KEYS = frozenset({"id", "source", "target", "label"})
_REFERENCES = ("lookup", "to", "input")


@dataclass(slots=True)
class _Vertex:
    key: str
    role: str
    type: str | None
    config: Mapping
    node: Mapping
    incoming: list[tuple[str, str | None]] = field(default_factory=list)
    """Task key and label of the edges that lead here, in the order of the text."""


def rewrite(root: Mapping, findings: Findings) -> Mapping:
    """The tree with nodes as sources, transformations, checks and sinks."""
    if "nodes" not in root and "edges" not in root:
        return root
    root = rename_keys(root, {"executionConfig": "execution"}, findings)
    for name in (
        "sources",
        "transformations",
        "transforms",
        "quality_checks",
        "sinks",
        "destinations",
        "source",
    ):
        if name in root:
            findings.error("CONFLICTING_KEYS", root.key_node(name), "cannot stand beside `nodes`")
            return without(root, "nodes", "edges")
    vertices, ids = _vertices(root, findings)
    layout_edges = _edges(root, vertices, ids, findings)
    checked = _checked_tasks(vertices)
    result = without(root, "nodes", "edges", "connectorId")
    for role, name in _LISTS.items():
        elements = [_element(vertex, checked, ids) for vertex in vertices.values() if vertex.role == role]
        if role == "source":
            elements = [_with_connector(element, root.get("connectorId")) for element in elements]
        if elements:
            result = with_entry(result, name, made_list(elements, root.get("nodes") or root))
    if "layout" in result or not vertices:
        return result
    return with_entry(result, "layout", _layout(vertices, layout_edges, root))


def role_of(word: str) -> tuple[str, str | None] | None:
    """What a word for a kind of node stands for: a key of `LISTS`, and the type where the word says that too;
    None for a word that is not known."""
    kind = snake(word)
    for role, words in (("source", _SOURCE), ("sink", _SINK), ("check", _CHECK), ("transform", _TRANSFORM)):
        if kind in words:
            return role, None
    for role, types in (("transform", TRANSFORMATION_TYPES), ("check", CHECK_TYPES)):
        if kind in types:
            return role, types[kind]
    return None


def said_by_edges(
    kind: str | None, other: str | None, edges: Iterable[tuple[str, str | None]]
) -> dict[str, str | list[str]]:
    """What the edges into a node say of its inputs, by keys of the element.

    Args:
        kind: The type of the element.
        other: The task that its `lookup` or `to` names; None where it has neither.
        edges: Task key and label of each, in the order of the text and without repeats.
    """
    inputs = list(edges)
    said: dict[str, str | list[str]] = {}
    if not inputs:
        return said
    if other is not None:
        inputs = [pair for pair in inputs if pair[0] != other] or inputs
    elif kind == "lookup_join" and len(inputs) > 1:
        chosen = next((key for key, label in inputs if (label or "").lower() == "lookup"), inputs[1][0])
        said["lookup"] = chosen
        inputs = [pair for pair in inputs if pair[0] != chosen]
    keys = [key for key, _ in inputs]
    if len(keys) == 1 and kind not in ("sql_transform", "union"):
        said["input"] = keys[0]
    else:
        said["inputs"] = keys
    return said


def _items(root: Mapping, name: str, findings: Findings) -> list[Mapping]:
    value = root.get(name)
    if value is None or (isinstance(value, Scalar) and value.value is None):
        return []
    if not isinstance(value, Sequence):
        findings.error("WRONG_TYPE", value, "must be a list")
        return []
    mappings = []
    for item in value.items:
        if isinstance(item, Mapping):
            mappings.append(item)
        else:
            findings.error("WRONG_TYPE", item, "must be a mapping")
    return mappings


def _vertices(root: Mapping, findings: Findings) -> tuple[dict[str, _Vertex], dict[str, str]]:
    """Vertices by task key, and the task key of each of the editor's ids."""
    vertices: dict[str, _Vertex] = {}
    ids: dict[str, str] = {}
    nodes = [rename_keys(item, _NODE_WORDS, findings) for item in _items(root, "nodes", findings)]
    taken = {name.lower() for node in nodes if (name := text_of(node.get("id"))) and is_task_key(name)}
    for node in nodes:
        _refuse_unknown(node, _NODE_KEYS, findings)
        own_id = text_of(node.get("id"))
        if own_id is None:
            findings.error("MISSING_KEY", node, "a node needs an id", key="id")
            continue
        if own_id in ids:
            findings.error("DUPLICATE_TASK_KEY", node.get("id") or node, "another node has this id")
            continue
        key = own_id if is_task_key(own_id) else task_key(text_of(node.get("label")) or own_id, taken)
        vertex = _vertex(key, node, findings)
        if vertex is not None:
            ids[own_id] = key
            vertices[key] = vertex
    return vertices, ids


def _vertex(key: str, node: Mapping, findings: Findings) -> _Vertex | None:
    word = text_of(node.get("type"))
    if word is None:
        findings.error(
            "MISSING_KEY", node, "a node needs a nodeType, such as source or target", key="nodeType"
        )
        return None
    config = node.get("config")
    if isinstance(config, Scalar) and config.value is None:
        config = None
    if config is not None and not isinstance(config, Mapping):
        findings.error("WRONG_TYPE", config, "must be a mapping")
        return None
    config = config or Mapping({}, node.line, node.column, (node.where, "config"))
    role = role_of(word)
    if role is not None:
        return _Vertex(key, role[0], role[1], config, node)
    at = node.get("type") or node
    findings.error(
        "UNKNOWN_TYPE", at, "not a known kind of node", suggestion=findings.nearest(snake(word), sorted(_ALL))
    )
    return None


def _edges(
    root: Mapping, vertices: dict[str, _Vertex], ids: dict[str, str], findings: Findings
) -> list[tuple[str, str, Mapping]]:
    edges = []
    for edge in _items(root, "edges", findings):
        _refuse_unknown(edge, _EDGE_KEYS, findings)
        ends = []
        for end in ("source", "target"):
            name = text_of(edge.get(end))
            if name is None:
                findings.error("MISSING_KEY", edge, f"an edge needs a {end}", key=end)
            elif name not in ids:
                at = edge.get(end) or edge
                findings.error(
                    "UNDEFINED_NODE", at, "no node has this id", suggestion=findings.nearest(name, ids)
                )
            else:
                ends.append(ids[name])
        if len(ends) == 2:
            vertices[ends[1]].incoming.append((ends[0], text_of(edge.get("label"))))
            edges.append((ends[0], ends[1], edge))
    return edges


def _checked_tasks(vertices: dict[str, _Vertex]) -> dict[str, str]:
    """For each check the task whose rows it looks at, be it by way of other checks."""
    checked: dict[str, str] = {}
    for start in vertices:
        passed: dict[str, None] = {}
        key = start
        while vertices[key].role == "check" and vertices[key].incoming and key not in passed:
            if key in checked:
                key = checked[key]
                break
            passed[key] = None
            key = vertices[key].incoming[0][0]
        checked.update(dict.fromkeys(passed, key))
    return checked


def _element(vertex: _Vertex, checked: dict[str, str], ids: dict[str, str]) -> Mapping:
    element = _with_task_keys(vertex.config, ids)
    element = with_entry(element, "id", made(vertex.key, vertex.node.get("id") or vertex.node))
    if vertex.role == "transform" and "type" not in element:
        element = with_entry(element, "type", made(vertex.type or _guess(element), vertex.node))
    elif vertex.role == "check" and vertex.type is not None and "type" not in element:
        element = with_entry(element, "type", made(vertex.type, vertex.node))
    inputs = list(dict.fromkeys((checked.get(key, key), label) for key, label in vertex.incoming))
    return _with_inputs(element, vertex, inputs)


def _guess(config: Mapping) -> str:
    """The type of an editor's plain transform node; one that is not filled in yet becomes SQL still to be
    written."""
    return "filter" if "condition" in config else "sql_transform"


def _with_task_keys(config: Mapping, ids: dict[str, str]) -> Mapping:
    for name in _REFERENCES:
        value = config.get(name)
        key = ids.get(text_of(value) or "")
        if value is not None and key is not None:
            config = with_entry(config, name, made(key, value))
    return config


def _with_inputs(element: Mapping, vertex: _Vertex, inputs: list[tuple[str, str | None]]) -> Mapping:
    if not inputs or "input" in element or "inputs" in element:
        return element
    other = next((text_of(element.get(name)) or "" for name in ("lookup", "to") if name in element), None)
    for name, said in said_by_edges(text_of(element.get("type")), other, inputs).items():
        keys = [said] if isinstance(said, str) else said
        nodes: list[Node] = [made(key, vertex.node) for key in keys]
        value = nodes[0] if isinstance(said, str) else made_list(nodes, vertex.node)
        element = with_entry(element, name, value)
    return element


def _with_connector(element: Mapping, connector: Node | None) -> Mapping:
    if connector is None or any(key in element for key in ("connection", "values", "path", "connector")):
        return element
    return with_entry(element, "connection", connector)


def _layout(vertices: dict[str, _Vertex], edges: list[tuple[str, str, Mapping]], root: Mapping) -> Mapping:
    nodes = []
    for vertex in vertices.values():
        shown = [("id", made(text_of(vertex.node.get("id")), vertex.node))]
        shown += [("node_type", made(text_of(vertex.node.get("type")), vertex.node))]
        entries: list[tuple[str, Node]] = [*shown]
        entries += [
            (name, value) for name in ("label", "position") if (value := vertex.node.get(name)) is not None
        ]
        nodes.append((vertex.key, made_mapping(entries, vertex.node)))
    drawn = []
    for source, target, edge in edges:
        ends: list[tuple[str, Node]] = [("source", made(source, edge)), ("target", made(target, edge))]
        ends += [(name, value) for name in ("id", "label") if (value := edge.get(name)) is not None]
        drawn.append(made_mapping(ends, edge))
    parts: list[tuple[str, Node]] = [("nodes", made_mapping(nodes, root)), ("edges", made_list(drawn, root))]
    return made_mapping(parts, root)


def _refuse_unknown(item: Mapping, known: frozenset[str], findings: Findings) -> None:
    for key in item.entries:
        if key not in known:
            findings.error(
                "UNKNOWN_KEY",
                item.key_node(key),
                "not a known key",
                suggestion=findings.nearest(key, sorted(known)),
            )
