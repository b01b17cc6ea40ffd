"""Path templates as google.api.http writes them: "/api/v1/pipelines/{id}/versions/{version}",
"/v1/{name=a/*}:verb".

Grammar (google/api/http.proto): Template = "/" Segments [ Verb ]; Segment = "*" | "**" | LITERAL | Variable;
Variable = "{" FieldPath [ "=" Segments ] "}"; Verb = ":" LITERAL.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

_TOKEN: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_.]*)(?:=([^{}]+))?\}|([^{}]+)")
_LITERAL: Final = re.compile(r"[A-Za-z0-9._~!$&'()+,;=@-]+")


class TemplateError(Exception):
    """A path template in a contract does not follow the grammar."""

    def __init__(self, template: str, problem: str) -> None:
        super().__init__(f"path template {template!r}: {problem}")


@dataclass(frozen=True, slots=True)
class Variable:
    """A field that is bound to the path's segments from `start` to `end` (exclusive; None: to the end)."""

    field_path: str
    start: int
    end: int | None


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template. `segments` are literals, "*" (one segment) and, at the end only, "**" (any
    number)."""

    text: str
    segments: tuple[str, ...]
    variables: tuple[Variable, ...]
    verb: str

    @property
    def fields(self) -> frozenset[str]:
        """The field paths that the path binds."""
        return frozenset(variable.field_path for variable in self.variables)

    def shape(self) -> str:
        """Returns what decides whether two templates match the same paths."""
        return "/" + "/".join(self.segments) + (f":{self.verb}" if self.verb else "")

    def expand(self, values: dict[str, str]) -> str:
        """Returns the path with its variables filled. Each value is escaped, slashes too, unless it spans
        segments."""
        spanning = {v.field_path for v in self.variables if v.end is None or v.end - v.start > 1}
        return self.fill(
            {name: quote(text, safe="/" if name in spanning else "") for name, text in values.items()}
        )

    def fill(self, values: dict[str, str]) -> str:
        """Returns the path with its variables replaced by texts as they are."""
        out = list(self.segments)
        for variable in reversed(self.variables):
            out[variable.start : len(out) if variable.end is None else variable.end] = [
                values[variable.field_path]
            ]
        return "/" + "/".join(out) + (f":{self.verb}" if self.verb else "")


def parse_template(text: str) -> Template:
    """Returns a parsed template. Raises TemplateError."""
    if not text.startswith("/") or text == "/":
        raise TemplateError(text, 'it must start with "/" and a segment')
    segments: list[str] = []
    variables: list[Variable] = []
    verb = ""
    parts = _split(text)
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if last and ":" in part.rpartition("}")[2]:
            head, _, verb = part.rpartition(":")
            if not head or not _LITERAL.fullmatch(verb):
                raise TemplateError(text, "a verb needs a segment before it and a word after its colon")
            part = head
        match = _TOKEN.fullmatch(part)
        if match is None:
            raise TemplateError(text, f"the segment {part!r} is no literal, wildcard or variable")
        field_path, pattern, plain = match.groups()
        inner = (pattern or "*").split("/") if field_path else [plain]
        start = len(segments)
        segments += inner
        if field_path:
            variables.append(Variable(field_path, start, None if inner[-1] == "**" else len(segments)))
    _check(text, segments, variables)
    return Template(text, tuple(segments), tuple(variables), verb)


def _split(text: str) -> list[str]:
    """Returns the segments between slashes, with a variable that spans several as one."""
    parts: list[str] = []
    depth = 0
    for letter in text[1:]:
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if letter == "/" and depth == 0:
            parts.append("")
        elif parts:
            parts[-1] += letter
        else:
            parts.append(letter)
    return parts


def _check(text: str, segments: list[str], variables: list[Variable]) -> None:
    for index, segment in enumerate(segments):
        if segment == "**" and index != len(segments) - 1:
            raise TemplateError(text, '"**" may stand at the end only')
        if segment not in ("*", "**") and not _LITERAL.fullmatch(segment):
            raise TemplateError(text, f"the segment {segment!r} has letters that a path may not have")
    names = [variable.field_path for variable in variables]
    if len(set(names)) != len(names):
        raise TemplateError(text, "a field is bound twice")
