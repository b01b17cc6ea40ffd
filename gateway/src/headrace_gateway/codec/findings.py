"""What is wrong with a request: every problem with its place, collected while decoding goes on."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from headrace_chassis.errors import Problem

MAX_FINDINGS = 100
"""More problems than these are not listed: they help nobody and would let a small body cause a large
answer."""

_MAX_SUGGESTIONS = 20
_MAX_SUGGESTED_LENGTH = 64
_MAX_SHOWN_LENGTH = 80

_KINDS: dict[type, str] = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    type(None): "null",
}


class Findings:
    """The problems of one request, in the order in which they were found."""

    __slots__ = ("_suggested", "problems", "unknown")

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.unknown = 0
        self._suggested = 0

    def __bool__(self) -> bool:
        return bool(self.problems)

    def add(
        self, path: str, message: str, code: str = "INVALID_VALUE", suggestion: str | None = None
    ) -> None:
        """Notes a problem at a path of JSON names ("" is the whole request)."""
        if len(self.problems) < MAX_FINDINGS:
            self.problems.append(Problem(code=code, path=path, message=message, suggestion=suggestion))

    def wrong_type(self, path: str, expected: str, value: object) -> None:
        """Notes that a value has another JSON type than expected; `expected` reads like "a string"."""
        self.add(path, f"expected {expected}, got {_KINDS.get(type(value), 'a number')}", code="WRONG_TYPE")

    def unknown_name(self, path: str, kind: str, name: str, known: Iterable[str]) -> None:
        """Notes a name that nothing knows, with the nearest known one. `kind` reads like "field"."""
        self.unknown += 1
        suggestion = self.nearest(name, known)
        hint = f"; did you mean {suggestion!r}?" if suggestion else ""
        self.add(
            path, f"unknown {kind} {shown(name)}{hint}", code=f"UNKNOWN_{kind.upper()}", suggestion=suggestion
        )

    def nearest(self, word: str, known: Iterable[str]) -> str | None:
        """Returns the known word that is most like `word`, if one is; bounded, because comparing is slow."""
        if len(word) > _MAX_SUGGESTED_LENGTH or self._suggested >= _MAX_SUGGESTIONS:
            return None
        self._suggested += 1
        folded = {name.casefold(): name for name in known}
        matches = difflib.get_close_matches(word.casefold().replace("_", ""), folded, n=1, cutoff=0.6)
        return folded[matches[0]] if matches else None


def shown(text: str) -> str:
    """Returns a text of the caller's in quotes, cut where it is long, fit for a message."""
    return repr(text if len(text) <= _MAX_SHOWN_LENGTH else text[:_MAX_SHOWN_LENGTH] + "…")


def join(path: str, name: str) -> str:
    """Returns the path of a member: "a" + "b" is "a.b"."""
    return f"{path}.{name}" if path else name
