"""The tasks of a definition beside the text they come from, and how they hang together."""

import heapq
from collections.abc import Iterable, Iterator
from collections.abc import Mapping as ReadOnly
from dataclasses import dataclass
from typing import Literal

from headrace_definition.model import Definition, QualityCheck, Sink, Source, Transformation, WaitForSignal
from headrace_definition.nodes import Mapping, Node, Sequence
from headrace_definition.spellings.rewriting import text_of
from headrace_definition.sqltext import ParsedSql

TaskKind = Literal["source", "transform", "check", "sink"]
Element = Source | Transformation | QualityCheck | Sink

LISTS: ReadOnly[TaskKind, str] = {
    "source": "sources",
    "transform": "transformations",
    "check": "quality_checks",
    "sink": "sinks",
}


@dataclass(slots=True)
class TaskDraft:
    """A task while it is compiled: its element gains what is inferred; its node says where it stands."""

    key: str | None
    """None for a discard sink without a task key of its own."""
    kind: TaskKind
    element: Element
    node: Mapping
    after: tuple[str, ...] = ()
    """Keys of tasks that must have completed first: those it names, and those whose signals it uses."""
    judged: ParsedSql | None = None
    """What was seen of its SQL while its inputs were inferred, without the tree, which is large."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Keys of the tasks it reads."""
        return self.element.input_keys

    @property
    def wait(self) -> WaitForSignal | None:
        """What it waits for, where it is a task that no worker runs."""
        return self.element if isinstance(self.element, WaitForSignal) else None

    def place(self, key: str) -> Node:
        """The value of a key of the text, or the whole element where the text has none."""
        return self.node.get(key) or self.node


def drafts(definition: Definition, root: Mapping) -> list[TaskDraft]:
    """The tasks in the order of the definition: sources, transformations, checks, sinks."""
    return [
        TaskDraft(element.id, kind, element, node)
        for kind, name in LISTS.items()
        for element, node in _paired(getattr(definition, name), root.get(name))
    ]


def _paired(elements: Iterable[Element], nodes: Node | None) -> Iterator[tuple[Element, Mapping]]:
    """Elements with their nodes. Broken elements were left out of the model, so they are matched by task
    key."""
    items = [item for item in nodes.items if isinstance(item, Mapping)] if isinstance(nodes, Sequence) else []
    position = 0
    for element in elements:
        while position < len(items) and text_of(items[position].get("id")) != element.id:
            position += 1
        yield element, items[position] if position < len(items) else Mapping()
        position += 1


def task_keys_in(root: Mapping) -> dict[str, TaskKind]:
    """All task keys of the text by kind, those of broken elements too."""
    keys: dict[str, TaskKind] = {}
    for kind, name in LISTS.items():
        value = root.get(name)
        for item in value.items if isinstance(value, Sequence) else ():
            if isinstance(item, Mapping) and (key := text_of(item.get("id"))) is not None:
                keys.setdefault(key, kind)
    return keys


def find_cycle(inputs: ReadOnly[str, tuple[str, ...]]) -> list[str] | None:
    """A cycle of tasks, first and last the same, each reading the one before it; None where there is none."""
    done: set[str] = set()
    for start in inputs:
        if start in done:
            continue
        path: list[str] = [start]
        on_path = {start}
        pending = [iter(inputs[start])]
        while pending:
            following = next(pending[-1], None)
            if following is None:
                pending.pop()
                done.add(path[-1])
                on_path.discard(path.pop())
            elif following in on_path:
                return [following, *reversed(path[path.index(following) :])]
            elif following in inputs and following not in done:
                path.append(following)
                on_path.add(following)
                pending.append(iter(inputs[following]))
    return None


def in_order(inputs: ReadOnly[str, tuple[str, ...]]) -> list[str]:
    """Keys with each after its inputs, and otherwise in the order given. The graph must have no cycle."""
    rank = {key: index for index, key in enumerate(inputs)}
    waiting = {key: len(set(needed) & rank.keys()) for key, needed in inputs.items()}
    readers: dict[str, list[str]] = {}
    for key, needed in inputs.items():
        for needs in set(needed) & rank.keys():
            readers.setdefault(needs, []).append(key)
    ready = [rank[key] for key, count in waiting.items() if count == 0]
    heapq.heapify(ready)
    keys, ordered = list(inputs), []
    while ready:
        key = keys[heapq.heappop(ready)]
        ordered.append(key)
        for reader in readers.get(key, ()):
            waiting[reader] -= 1
            if waiting[reader] == 0:
                heapq.heappush(ready, rank[reader])
    return ordered
