"""Finds what serves a path: a tree of segments in which a literal always wins over a wildcard."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar
from urllib.parse import unquote

from .templates import Template

T = TypeVar("T")


class RouteConflictError(Exception):
    """Two routes would serve the same requests."""

    def __init__(self, method: str, first: str, second: str) -> None:
        super().__init__(f"{method} {second} would serve the same requests as {method} {first}")


class _Node(Generic[T]):
    """The paths that share a beginning."""

    __slots__ = ("ends", "literals", "rest", "star")

    def __init__(self) -> None:
        self.literals: dict[str, _Node[T]] = {}
        self.star: _Node[T] | None = None
        self.rest: dict[str, dict[str, tuple[Template, T]]] = {}
        """By verb, then method: what takes all further segments ("**")."""
        self.ends: dict[str, dict[str, tuple[Template, T]]] = {}
        """By verb, then method: what ends here."""


class Match(Generic[T]):
    """What serves a path: by method, the target and the texts of the path's variables."""

    __slots__ = ("_methods", "_segments")

    def __init__(self, methods: dict[str, tuple[Template, T]], segments: list[str]) -> None:
        self._methods = methods
        self._segments = segments

    def get(self, method: str) -> tuple[T, list[str]] | None:
        """Returns the target for a method with the values of its template's variables, in their order."""
        found = self._methods.get(method)
        if found is None:
            return None
        template, target = found
        return target, [
            self._segments[variable.start]
            if variable.end == variable.start + 1
            else "/".join(self._segments[variable.start : variable.end])
            for variable in template.variables
        ]

    def methods(self) -> list[str]:
        """Returns the methods that are served, in alphabetical order."""
        return sorted(self._methods)


class Router(Generic[T]):
    """The table of all paths."""

    def __init__(self, routes: Iterable[tuple[str, Template, T]]) -> None:
        """Takes routes as (method, template, target). Raises RouteConflictError."""
        self._root: _Node[T] = _Node()
        self._verbs: set[str] = {""}
        for method, template, target in routes:
            self._add(method, template, target)

    def _add(self, method: str, template: Template, target: T) -> None:
        node = self._root
        table: dict[str, dict[str, tuple[Template, T]]] | None = None
        for segment in template.segments:
            if segment == "**":
                table = node.rest
            elif segment == "*":
                node.star = node.star or _Node()
                node = node.star
            else:
                node = node.literals.setdefault(segment, _Node())
        self._verbs.add(template.verb)
        methods = (node.ends if table is None else table).setdefault(template.verb, {})
        if method in methods:
            raise RouteConflictError(method, methods[method][0].text, template.text)
        methods[method] = (template, target)

    def match(self, raw_path: bytes) -> Match[T] | None:
        """Returns what serves a path as it stands in the request line, or None.

        Segments are unescaped after they are split, so that an escaped slash stays within its segment. Text
        that is no UTF-8 matches nothing. A word after a colon is a verb where a route has that verb, else
        part of the segment.
        """
        try:
            text = raw_path.decode("ascii")
            segments = text[1:].split("/")
            if "%" in text:
                segments = [unquote(segment, errors="strict") for segment in segments]
        except UnicodeDecodeError:
            return None
        if not text.startswith("/"):
            return None
        head, colon, verb = segments[-1].rpartition(":")
        if colon and head and verb in self._verbs:
            before = [*segments[:-1], head]
            found = self._find(self._root, before, 0, verb)
            if found is not None:
                return Match(found, before)
        found = self._find(self._root, segments, 0, "")
        return None if found is None else Match(found, segments)

    def _find(
        self, node: _Node[T], segments: list[str], index: int, verb: str
    ) -> dict[str, tuple[Template, T]] | None:
        if index == len(segments):
            return node.ends.get(verb)
        segment = segments[index]
        below = node.literals.get(segment)
        if below is not None:
            found = self._find(below, segments, index + 1, verb)
            if found is not None:
                return found
        if node.star is not None and segment:
            found = self._find(node.star, segments, index + 1, verb)
            if found is not None:
                return found
        return node.rest.get(verb)
