"""A definition as nodes and edges, for a visual editor. `spellings.graph` reads it back."""

from collections.abc import Iterator
from typing import Any

from headrace_definition.model import Definition, LayoutNode
from headrace_definition.rendering.text import canonical_tree

_NODE_TYPES = {
    "sources": "source",
    "transformations": "transform",
    "quality_checks": "quality_check",
    "sinks": "target",
}
_COLUMN_WIDTH = 240
_ROW_HEIGHT = 120


def to_graph(definition: Definition) -> dict[str, Any]:
    """The definition with `nodes` and `edges` in place of its four lists.

    Nodes and edges look as they did where the definition came from an editor; others are placed in columns
    from sources to sinks. Inputs are drawn as edges and left out of a node's `config`.
    """
    tree = canonical_tree(definition)
    tree.pop("layout", None)
    layout = definition.layout.nodes if definition.layout else {}
    shown_ids: dict[str, str] = {}
    nodes, edges = [], []
    for list_name, element in _elements(definition):
        key = element.get("id") or _free_key("discard", shown_ids)
        shown = layout.get(key, LayoutNode())
        shown_ids[key] = shown.id or key
        nodes.append((list_name, key, element, shown))
    columns = _columns(nodes)
    rows: dict[int, int] = {}
    rendered = []
    for list_name, key, element, shown in nodes:
        column = columns[key]
        place = {"x": column * _COLUMN_WIDTH, "y": rows.get(column, 0) * _ROW_HEIGHT}
        rows[column] = rows.get(column, 0) + 1
        rendered.append(
            {
                "id": shown_ids[key],
                "nodeType": shown.node_type or _NODE_TYPES[list_name],
                "label": shown.label or key,
                "config": _config(element, shown_ids),
                "position": shown.position or place,
            }
        )
        edges += [(source, key) for source in _inputs(element)]
    for name in _NODE_TYPES:
        tree.pop(name, None)
    return {**tree, "nodes": rendered, "edges": _drawn(definition, edges, shown_ids)}


def _elements(definition: Definition) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in _NODE_TYPES:
        for element in getattr(definition, name):
            yield name, element.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def _free_key(wish: str, taken: dict[str, str]) -> str:
    number, key = 1, wish
    while key in taken:
        number += 1
        key = f"{wish}_{number}"
    return key


def _inputs(element: dict[str, Any]) -> list[str]:
    keys = [element.get("input"), element.get("lookup"), element.get("to"), *(element.get("inputs") or ())]
    return list(dict.fromkeys(key for key in keys if key is not None))


def _config(element: dict[str, Any], shown_ids: dict[str, str]) -> dict[str, Any]:
    """The element without what edges say. Second inputs stay, since an edge does not say which it is."""
    ordered = element.get("type") in ("union", "sql")
    hidden = ("id", "input") if not ordered else ("id",)
    config = {key: value for key, value in element.items() if key not in hidden}
    if not ordered:
        config.pop("inputs", None)
    for name in ("lookup", "to", "input"):
        if name in config:
            config[name] = shown_ids.get(config[name], config[name])
    if "inputs" in config:
        config["inputs"] = [shown_ids.get(key, key) for key in config["inputs"]]
    return config


def _columns(nodes: list[tuple[str, str, dict[str, Any], LayoutNode]]) -> dict[str, int]:
    """A column for each node, to the right of its inputs. Transformations may stand before what they read."""
    inputs = {key: _inputs(element) for _, key, element, _ in nodes}
    columns = dict.fromkeys(inputs, 0)
    readers: dict[str, list[str]] = {key: [] for key in inputs}
    waiting = {key: sum(1 for source in sources if source in inputs) for key, sources in inputs.items()}
    for key, sources in inputs.items():
        for source in sources:
            if source in readers:
                readers[source].append(key)
    ready = [key for key, count in waiting.items() if count == 0]
    for key in ready:
        for reader in readers[key]:
            columns[reader] = max(columns[reader], columns[key] + 1)
            waiting[reader] -= 1
            if waiting[reader] == 0:
                ready.append(reader)
    return columns


def _drawn(
    definition: Definition, edges: list[tuple[str, str]], shown_ids: dict[str, str]
) -> list[dict[str, Any]]:
    """The edges; one that an editor had drawn by way of a check, or with a label, is drawn so again."""
    checked = {check.id: check.input for check in definition.quality_checks}
    given = definition.layout.edges if definition.layout else ()
    by_ends = {(checked.get(edge.source) or edge.source, edge.target): edge for edge in given}
    drawn = []
    for source, target in edges:
        edge = by_ends.get((source, target))
        start = edge.source if edge else source
        rendered = {"source": shown_ids.get(start, start), "target": shown_ids.get(target, target)}
        if edge and edge.id is not None:
            rendered["id"] = edge.id
        if edge and edge.label is not None:
            rendered["label"] = edge.label
        drawn.append(rendered)
    return drawn
