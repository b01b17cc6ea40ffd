"""Canonical definitions as texts and as graphs."""

from headrace_definition.rendering.graph import to_graph
from headrace_definition.rendering.text import to_yaml, tree_to_yaml

__all__ = ["to_graph", "to_yaml", "tree_to_yaml"]
