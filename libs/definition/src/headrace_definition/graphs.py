"""Definitions as nodes and edges, for a visual editor to show and to send back as a definition.

The other way round is `headrace_definition.spellings.graph`, and what is made here reads as the same
definition: edges stand for inputs where they say all of them, and the inputs stay in a node's `config` where
they do not. An edge that an editor moves thus moves the input with it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from headrace_definition.model import Definition, LookupJoin, Source
from headrace_definition.model.settings import LayoutEdge
from headrace_definition.spellings.graph import role_of, said_by_edges
from headrace_definition.spellings.rewriting import task_key
from headrace_definition.tasks import LISTS, Element, TaskKind, find_cycle

_PLAIN_WORDS: Mapping[TaskKind, str] = {
    "source": "source",
    "transform": "transform",
    "check": "quality_check",
    "sink": "target",
}
_INPUTS = ("input", "inputs")


@dataclass(frozen=True, slots=True)
class GraphNode:
    """A task. `id` is its task key, as runs name it."""

    id: str
    node_type: str
    label: str | None
    config: Mapping[str, Any]
    """The element without its id, and without the inputs that edges say; of a transformation and of a check
    with its `type`."""
    position: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class GraphEdge:
    """Rows on their way from one task to another, or by way of a check that looks at them."""

    source: str
    target: str
    id: str | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Graph:
    """A definition as nodes and edges."""

    nodes: tuple[GraphNode, ...]
    edges: tuple[GraphEdge, ...]
    settings: Mapping[str, Any]
    """All else that the definition says, in its canonical spelling."""

    def tree(self) -> dict[str, Any]:
        """The definition in the spelling of nodes and edges."""
        nodes = [
            _given(id=n.id, nodeType=n.node_type, label=n.label, config=n.config, position=n.position)
            for n in self.nodes
        ]
        edges = [_given(id=e.id, source=e.source, target=e.target, label=e.label) for e in self.edges]
        return {**self.settings, "nodes": nodes, "edges": edges}


def to_graph(definition: Definition, drawing: Mapping[str, Any] | None = None) -> Graph:
    """A compiled definition as nodes and edges.

    Args:
        definition: One in canonical form, with the inputs that were inferred. A discard sink without a task
            key gets one, since a node needs an id.
        drawing: What an editor keeps of its own: lists of `nodes` (id, label, position) and of `edges`
            (source, target, id, label). It wins over the definition's `layout`. Ids are task keys or those
            of the layout; what it says of anything else, or in another form, is passed over.
    """
    tree = definition.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    tasks = list(_tasks(definition, tree))
    look = _look(definition, drawing or {}, {task.key for task in tasks})
    drawn = _drawn(tasks, look.edges)
    checks = {task.key for task in tasks if task.kind == "check"}
    circles = {key: tuple(edge.source for edge in drawn[key][0] if edge.source in checks) for key in checks}
    if find_cycle(circles) is not None:  # only a drawing can have one: checks do not read checks
        drawn = _drawn(tasks, ())
    return Graph(
        nodes=tuple(_node(task, drawn[task.key][1], look) for task in tasks),
        edges=tuple(edge for task in tasks for edge in drawn[task.key][0]),
        settings={
            "version": definition.version,
            **{name: value for name, value in tree.items() if name not in (*LISTS.values(), "layout")},
        },
    )


@dataclass(frozen=True, slots=True)
class _Task:
    key: str
    kind: TaskKind
    element: Element
    config: dict[str, Any]


@dataclass(slots=True)
class _Look:
    words: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    positions: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    edges: list[list[GraphEdge]] = field(default_factory=list)
    """What is drawn, in the order in which it is to be believed."""


def _tasks(definition: Definition, tree: Mapping[str, Any]) -> Iterator[_Task]:
    elements = [
        (kind, element, config)
        for kind, name in LISTS.items()
        for element, config in zip(getattr(definition, name), tree.get(name, ()), strict=True)
    ]
    taken = {element.id.lower() for _, element, _ in elements if element.id is not None}
    for kind, element, config in elements:
        key = element.id or task_key("discard" if kind == "sink" else kind, taken)
        yield _Task(key, kind, element, {name: value for name, value in config.items() if name != "id"})


def _look(definition: Definition, drawing: Mapping[str, Any], keys: set[str]) -> _Look:
    look, ids = _Look(), {key: key for key in keys}
    if definition.layout is not None:
        for key, node in definition.layout.nodes.items():
            if node.id is not None:
                ids.setdefault(node.id, key)
            if node.node_type is not None:
                look.words[key] = node.node_type
            _note(look, key, node.label, node.position)
    for each in _mappings(drawing.get("nodes")):
        if (named := ids.get(str(each.get("id")))) is not None:
            _note(look, named, each.get("label"), each.get("position"))
    of_drawing = (_drawn_edge(each, ids) for each in _mappings(drawing.get("edges")))
    look.edges.append([edge for edge in of_drawing if edge is not None])
    if definition.layout is not None:
        look.edges.append([_edge(edge) for edge in definition.layout.edges])
    return look


def _note(look: _Look, key: str, label: object, position: object) -> None:
    if isinstance(label, str):
        look.labels[key] = label
    if isinstance(position, Mapping):
        look.positions[key] = position


def _mappings(value: object) -> Iterator[Mapping[str, Any]]:
    yield from (each for each in (value if isinstance(value, list) else ()) if isinstance(each, Mapping))


def _drawn_edge(given: Mapping[str, Any], ids: Mapping[str, str]) -> GraphEdge | None:
    source, target = (ids.get(str(given.get(end))) for end in ("source", "target"))
    if source is None or target is None:
        return None
    own, label = (value if isinstance(value := given.get(name), str) else None for name in ("id", "label"))
    return GraphEdge(source, target, own, label)


def _edge(edge: LayoutEdge) -> GraphEdge:
    return GraphEdge(edge.source, edge.target, edge.id, edge.label)


def _drawn(
    tasks: Iterable[_Task], drawings: Iterable[Iterable[GraphEdge]]
) -> dict[str, tuple[list[GraphEdge], dict[str, Any]]]:
    """The edges into each task, and its config without what they say: as drawn where that is what the
    definition says, else as it follows from the inputs."""
    tasks = list(tasks)
    keys = {task.key for task in tasks}
    checked = {task.key: task.element.input_keys[0] for task in tasks if _looks_at_rows(task)}
    into: list[dict[str, list[GraphEdge]]] = []
    for drawing in drawings:
        by_target: dict[str, list[GraphEdge]] = {}
        for edge in drawing:
            if edge.source in keys:
                by_target.setdefault(edge.target, []).append(edge)
        into.append(by_target)
    return {task.key: _edges_into(task, [each.get(task.key, []) for each in into], checked) for task in tasks}


def _looks_at_rows(task: _Task) -> bool:
    return task.kind == "check" and bool(task.element.input_keys)


def _edges_into(
    task: _Task, candidates: Iterable[list[GraphEdge]], checked: Mapping[str, str]
) -> tuple[list[GraphEdge], dict[str, Any]]:
    config = task.config
    inputs = list(dict.fromkeys(task.element.input_keys))
    wanted = {name: config[name] for name in _INPUTS if name in config}
    rest = {name: value for name, value in config.items() if name not in _INPUTS}
    other = next((str(config[name]) for name in ("lookup", "to") if name in config), None)
    derived = [GraphEdge(key, task.key, label=_label(task, key)) for key in inputs]
    for edges in (*candidates, derived):
        pairs = list(dict.fromkeys((checked.get(edge.source, edge.source), edge.label) for edge in edges))
        keys = [key for key, _ in pairs]
        # What comes after a check reads what its first edge leads from.
        if set(keys) != set(inputs) or (task.kind == "check" and keys[:1] != inputs[:1]):
            continue
        if said_by_edges(config.get("type"), other, pairs) == wanted:
            return edges, rest
    # Edges to an element that names no input would give it one.
    return (derived if wanted else []), config


def _label(task: _Task, key: str) -> str | None:
    element = task.element
    return "lookup" if isinstance(element, LookupJoin) and key == element.lookup else None


def _node(task: _Task, config: Mapping[str, Any], look: _Look) -> GraphNode:
    kind = None if isinstance(task.element, Source) else task.config.get("type")
    word = look.words.get(task.key)
    if word is None or role_of(word) not in ((task.kind, None), (task.kind, kind)):
        word = kind if kind is not None and role_of(kind) == (task.kind, kind) else _PLAIN_WORDS[task.kind]
    return GraphNode(task.key, word, look.labels.get(task.key), config, look.positions.get(task.key))


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
