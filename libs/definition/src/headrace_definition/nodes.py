"""A YAML text as a tree that remembers where each part stands.

Spellings rewrite this tree; as parts keep their place and path, an error found in the canonical form still
points at what the user wrote.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

ScalarValue = str | int | float | bool | None
ScalarStyle = Literal["plain", "single", "double", "literal", "folded"]

# A path is linked, not a string: strings for each node of a deep text with long keys would fill the memory.
Path = tuple["Path", str | int] | None


@dataclass(slots=True, eq=False)
class Scalar:
    """A single value. `start` is where its first character is in the source; None for one made up."""

    value: ScalarValue
    line: int
    column: int
    where: Path = None
    text: str = ""
    style: ScalarStyle = "plain"
    start: int | None = None

    def position_of(self, offset: int, source: str) -> tuple[int, int]:
        """Line and column, from 1, of the value's character at `offset` in the source it was read from."""
        if self.start is None or not isinstance(self.value, str):
            return self.line, self.column
        wanted = sum(1 for character in self.value[:offset] if not character.isspace())
        last = None
        for count, index in enumerate(_content(source, self.start, self.style)):
            last = index
            if count == wanted:
                break
        # Counted from the scalar on: counting from the top would cost a large text dearly for each of many
        # errors.
        lines, column = line_and_column(source[self.start : last if last is not None else self.start], None)
        return self.line + lines - 1, column + (self.column - 1 if lines == 1 else 0)


@dataclass(slots=True, eq=False)
class Sequence:
    """A list."""

    items: list["Node"]
    line: int
    column: int
    where: Path = None


@dataclass(slots=True, eq=False)
class Mapping:
    """A mapping with string keys, in the order of the text; each entry keeps the node of its key."""

    entries: dict[str, tuple[Scalar, "Node"]] = field(default_factory=dict)
    line: int = 1
    column: int = 1
    where: Path = None

    def __contains__(self, key: str) -> bool:
        return key in self.entries

    def get(self, key: str) -> "Node | None":
        """The value of a key, or None where it is missing."""
        entry = self.entries.get(key)
        return entry[1] if entry else None

    def key_node(self, key: str) -> "Node":
        """The node of a key, for an error about the key itself; the mapping where the key is missing."""
        entry = self.entries.get(key)
        return entry[0] if entry else self

    def items(self) -> Iterator[tuple[str, "Node"]]:
        """Keys and values."""
        for key, (_, value) in self.entries.items():
            yield key, value


Node = Scalar | Sequence | Mapping
Plain = str | int | float | bool | list["Plain"] | dict[str, "Plain"] | None


def path_text(path: Path) -> str:
    """A path as people write it: `sources[0].schema.year`."""
    parts: list[str] = []
    while path is not None:
        path, part = path
        parts.append(f"[{part}]" if isinstance(part, int) else f".{_shorten(part)}")
    return "".join(reversed(parts)).removeprefix(".")


def plain(node: Node) -> Plain:
    """The tree as Python's own lists, dicts and scalars. Its depth is bounded by the loader."""
    if isinstance(node, Scalar):
        return node.value
    if isinstance(node, Sequence):
        return [plain(item) for item in node.items]
    return {key: plain(value) for key, value in node.items()}


def _shorten(part: str) -> str:
    return part if len(part) <= 80 else part[:79] + "…"


def _content(source: str, start: int, style: ScalarStyle) -> Iterator[int]:
    """Indexes of the source's characters that stand for the value's characters other than white space.

    White space is skipped on both sides, because folding and indentation change it; every other character
    of a value has exactly one place, whatever the style.
    """
    index = _skip_properties(source, start)
    if style in ("literal", "folded"):
        index = source.find("\n", index) + 1
        if index == 0:
            return
    elif style in ("single", "double"):
        index += 1
    while index < len(source):
        here, character = index, source[index]
        if style == "single" and source.startswith("''", index):
            index += 2
        elif style == "double" and character == "\\":
            length, is_space = _escape(source, index)
            index += length
            if is_space:
                continue
        else:
            index += 1
            if character.isspace():
                continue
        yield here


def _skip_properties(source: str, index: int) -> int:
    while index < len(source) and source[index] in "&!":
        while index < len(source) and not source[index].isspace():
            index += 1
        while index < len(source) and source[index].isspace():
            index += 1
    return index


def _escape(source: str, index: int) -> tuple[int, bool]:
    """Length of a double-quoted scalar's escape at `index`, and whether it stands for white space."""
    kind = source[index + 1 : index + 2]
    digits = {"x": 2, "u": 4, "U": 8}.get(kind, 0)
    if digits:
        code = int(source[index + 2 : index + 2 + digits] or "0", 16)
        return 2 + digits, chr(code).isspace()
    return 2, kind in " \t\n\r\tntvfrNLP_"


def line_and_column(source: str, index: int | None) -> tuple[int, int]:
    """Line and column, from 1, of a character of a text; of the one after its last for None."""
    before = source[:index].replace("\r\n", "\n").replace("\r", "\n")
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
