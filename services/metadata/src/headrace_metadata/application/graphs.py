"""Showing definitions as nodes and edges."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
from headrace_chassis.database import Database
from headrace_chassis.errors import InvalidDefinition, InvalidRequest, Problem
from headrace_definition import Definition
from headrace_definition.graphs import GraphEdge, GraphNode, to_graph

from headrace_metadata.application.definitions import DefinitionChecker, Text
from headrace_metadata.domain.pipelines import Content
from headrace_metadata.errors import told
from headrace_metadata.store import references


@dataclass(frozen=True)
class GraphText:
    """A definition as nodes and edges; values of any type are JSON text."""

    nodes: Sequence[tuple[GraphNode, bytes, bytes]]
    """Each with its config and its position, which is empty where it has none."""
    edges: Sequence[GraphEdge]
    settings: bytes


class GraphReader:
    """Compiles versions to show them. Nothing is stored: a version's own spelling stays as it is."""

    def __init__(self, db: Database, checker: DefinitionChecker) -> None:
        self._db = db
        self._checker = checker

    async def read(self, workspace_id: UUID, content: Content) -> GraphText:
        """The definition of a version, drawn as its layout says.

        Raises:
            InvalidDefinition: the text was accepted once and no longer is.
            InvalidRequest: it holds a number that JSON has no form for.
            Unavailable: too many definitions are being looked at.
        """
        async with self._db.read() as conn:
            types = await references.connection_types(conn, workspace_id)
        report = await self._checker.report(Text.of(content), types)
        if report.compiled is None:
            raise InvalidDefinition(told(report.errors))
        definition = report.compiled.definition
        return await self._checker.in_thread(lambda: _graph(definition, content.given.layout))


def _graph(definition: Definition, layout: str | None) -> GraphText:
    graph = to_graph(definition, None if layout is None else orjson.loads(layout))
    return GraphText(
        nodes=[
            (node, _json(node.config), b"" if node.position is None else _json(node.position))
            for node in graph.nodes
        ],
        edges=graph.edges,
        settings=_json(graph.settings),
    )


def _json(value: Any) -> bytes:
    # The one module writes integers of any size, the other refuses what no answer could hold.
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        flaw = "GRAPH is JSON, which has no form for a number of this definition, such as .inf"
        raise InvalidRequest([Problem("NOT_ALLOWED", "view", flaw)]) from None
    return text.encode()
