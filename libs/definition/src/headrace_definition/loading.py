"""YAML text to a tree, safely: budgets are counted on the parser's events, before anything is expanded.

Nothing here recurses over the input, constructs a Python object by tag, or lets an alias copy what it names.
JSON is YAML, so JSON texts are read by the same code.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from headrace_definition.nodes import (
    Mapping,
    Node,
    Path,
    Scalar,
    ScalarStyle,
    ScalarValue,
    Sequence,
    line_and_column,
)
from headrace_definition.problems import DefinitionError, Findings, Problem
from headrace_definition.scalars import resolve

DEFAULT_MAX_BYTES = 1024 * 1024
DEFAULT_MAX_NODES = 200_000


@dataclass(frozen=True, slots=True)
class LoadLimits:
    """How large a definition may be."""

    max_bytes: int = DEFAULT_MAX_BYTES
    max_depth: int = 64
    """Levels of nesting."""
    max_nodes: int = DEFAULT_MAX_NODES
    """Keys, values, lists and mappings, aliases counted with all that they stand for."""
    max_aliases: int = 1000
    max_key_length: int = 1024


@dataclass(frozen=True, slots=True)
class Document:
    """A loaded text: the tree, and the text that its places refer to."""

    root: Mapping
    text: str


_TAG = "tag:yaml.org,2002:"
_STYLES: dict[str | None, ScalarStyle] = {
    None: "plain",
    "": "plain",
    "'": "single",
    '"': "double",
    "|": "literal",
    ">": "folded",
}
# What not even quoted texts may hold: YAML 1.2.2, section 5.1, nb-json, which is what JSON allows too.
_NOT_ALLOWED = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\U0010ffff]")
_HALF = re.compile(r"\\u[dD][89abAB]")
# Any escape, so that the backslash of an escaped one does not count; of interest are pairs of halves.
_SURROGATES = re.compile(
    r"(?P<pair>\\u(?P<high>d[89ab][0-9a-f]{2})\\u(?P<low>d[c-f][0-9a-f]{2}))|\\\\", re.IGNORECASE
)
# What libyaml would refuse, or take for a line break as YAML 1.1 does; to YAML 1.2 they are ordinary
# characters.
_ORDINARY = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_ENCODINGS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


def load(text: str | bytes, limits: LoadLimits, findings: Findings) -> Document:
    """The tree of a definition's text. Duplicate keys and refused tags are added to `findings`.

    Raises:
        DefinitionError: when the text is too large, not text, not YAML, or not one mapping.
    """
    source = _decode(text, limits)
    if _HALF.search(source) and _is_json(source):
        # JSON escapes characters beyond the first plane in halves, which YAML does not know.
        source = _SURROGATES.sub(_joined_halves, source)
    try:
        root = _TreeBuilder(limits, findings, _stand_ins(source)).build(source)
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, source) from None
    except yaml.YAMLError as error:
        raise _refuse("YAML_SYNTAX", f"the text is not YAML: {error}") from None
    return Document(root, source)


def _is_json(source: str) -> bool:
    try:
        json.loads(source)
    except (ValueError, RecursionError):
        return False
    return True


def _joined_halves(match: re.Match[str]) -> str:
    if match["pair"] is None:
        return match[0]
    high, low = int(match["high"], 16), int(match["low"], 16)
    return f"\\U{0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00):08x}"


def _decode(text: str | bytes, limits: LoadLimits) -> str:
    if len(text) > limits.max_bytes:
        raise _too_large(limits)
    if isinstance(text, bytes):
        text = _decode_bytes(text)
    text = text.removeprefix("\ufeff")
    if bad := _NOT_ALLOWED.search(text):
        row = text.count("\n", 0, bad.start()) + 1
        column = bad.start() - text.rfind("\n", 0, bad.start())
        code = f"U+{ord(bad[0]):04X}"
        message = f"the character {code} is not allowed in YAML; write it as an escape in double quotes"
        raise _refuse("YAML_CHARACTER", message, row, column)
    if len(text) * 4 > limits.max_bytes and len(text.encode()) > limits.max_bytes:
        raise _too_large(limits)
    return text


def _decode_bytes(data: bytes) -> str:
    encoding = next((name for mark, name in _ENCODINGS if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        row = data.count(b"\n", 0, error.start) + 1
        message = f"byte {error.start} is not valid {encoding.upper()}"
        raise _refuse("NOT_UTF8", message, row, 1) from None


def _stand_ins(source: str) -> dict[str, str]:
    """Private characters, unused in the text, that stand in for what libyaml would not read as it is."""
    present = sorted(set(_ORDINARY.findall(source)))
    if not present:
        return {}
    unused = (chr(code) for code in range(0xE000, 0xF8FF) if chr(code) not in source)
    return dict(zip(present, unused, strict=False))


def _refuse(code: str, message: str, line: int | None = None, column: int | None = None) -> DefinitionError:
    return DefinitionError((Problem(code, "", message, line, column),))


def _too_large(limits: LoadLimits) -> DefinitionError:
    return _refuse("TOO_LARGE", f"the definition is larger than {limits.max_bytes:,} bytes")


def _syntax_error(error: yaml.MarkedYAMLError, source: str) -> DefinitionError:
    mark = error.problem_mark or error.context_mark
    message = str(error.problem or error.context or "the text is not YAML")
    if mark is None:
        return _refuse("YAML_SYNTAX", message)
    index = min(int(mark.index), len(source))
    if source[index : index + 1] == "\t":
        message = "a tab cannot indent or begin a value here; use spaces"
    elif error.context and error.problem:
        message = f"{error.problem} {error.context}"
    if index == len(source):  # libyaml ends a text with a line of its own
        return _refuse("YAML_SYNTAX", message, *line_and_column(source, index))
    return _refuse("YAML_SYNTAX", message, mark.line + 1, mark.column + 1)


@dataclass(slots=True)
class _Open:
    """A list or mapping that is being read."""

    node: Sequence | Mapping
    anchor: str | None
    size_before: int
    height: int = 1
    key: Scalar | None = None
    skip_value: bool = False


@dataclass(slots=True, frozen=True)
class _Anchored:
    node: Node
    size: int
    """Nodes in it, aliases counted with all that they stand for."""
    height: int
    """Levels of nesting in it, counted likewise: aliases of aliases could nest without bound."""


class _TreeBuilder:
    """Builds the tree from events on a stack of its own, counting as it goes."""

    def __init__(self, limits: LoadLimits, findings: Findings, stand_ins: dict[str, str]) -> None:
        self._limits = limits
        self._findings = findings
        self._hide = str.maketrans(stand_ins)
        self._show = str.maketrans({private: old for old, private in stand_ins.items()})
        self._stack: list[_Open] = []
        self._anchors: dict[str, _Anchored | None] = {}
        self._nodes = 0
        self._aliases = 0
        self._root: Node | None = None

    def build(self, source: str) -> Mapping:
        documents = 0
        for event in _events(source.translate(self._hide) if self._hide else source):
            if isinstance(event, yaml.ScalarEvent):
                self._scalar(event)
            elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
                self._open(event)
            elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                self._close()
            elif isinstance(event, yaml.AliasEvent):
                self._alias(event)
            elif isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self._stop(
                        event, "MULTIPLE_DOCUMENTS", "a definition is one YAML document, without `---`"
                    )
        root = self._root
        if root is None or (isinstance(root, Scalar) and root.value is None):
            raise _refuse("EMPTY", "the definition is empty", 1, 1)
        if not isinstance(root, Mapping):
            raise _refuse("WRONG_TYPE", "the definition must be a mapping of keys", root.line, root.column)
        return root

    def _stop(self, event: Any, code: str, message: str) -> DefinitionError:
        return _refuse(code, message, event.start_mark.line + 1, event.start_mark.column + 1)

    def _count(self, event: Any, added: int = 1) -> None:
        self._nodes += added
        if self._nodes > self._limits.max_nodes:
            what = f"the definition has more than {self._limits.max_nodes:,} parts, aliases counted in full"
            raise self._stop(event, "TOO_MANY_NODES", what)

    def _too_deep(self, event: Any) -> DefinitionError:
        message = f"the definition is nested more than {self._limits.max_depth} levels deep"
        return self._stop(event, "TOO_DEEP", message)

    def _raise_height(self, child: int) -> None:
        if self._stack:
            self._stack[-1].height = max(self._stack[-1].height, child + 1)

    def _where(self) -> Path:
        """The path of the value that comes next."""
        if not self._stack:
            return None
        top = self._stack[-1]
        if isinstance(top.node, Sequence):
            return (top.node.where, len(top.node.items))
        return (top.node.where, top.key.text) if top.key is not None else top.node.where

    def _scalar(self, event: Any) -> None:
        self._count(event)
        text: str = event.value.translate(self._show) if self._show else event.value
        mark = event.start_mark
        node = Scalar(
            value=None,
            line=mark.line + 1,
            column=mark.column + 1,
            where=self._where(),
            text=text,
            style=_STYLES[event.style],
            start=mark.index,
        )
        node.value = self._value(event, node)
        if event.anchor is not None:
            self._anchors[event.anchor] = _Anchored(node, 1, 0)
        self._place(event, node)

    def _value(self, event: Any, node: Scalar) -> ScalarValue:
        plain, tag = event.implicit[0], event.tag
        untagged = "plain" if plain else "str"
        kind = untagged if tag is None else "str" if tag == "!" else tag.removeprefix(_TAG)
        if kind == "str":
            return node.text
        if kind not in ("plain", "null", "bool", "int", "float"):
            self._findings.error("TAG", node, "tags are not allowed; only YAML's core types are")
            return node.text
        try:
            value = resolve(node.text)
        except ValueError as error:
            self._findings.error("NUMBER_RANGE", node, str(error))
            return 0
        if kind == "plain" or type(value).__name__.removeprefix("None") == kind:
            return value
        if kind == "null" and value is None:
            return None
        if kind == "float" and type(value) is int:
            return float(value)
        self._findings.error("TAG", node, f"the value is not of the type that its tag !!{kind} names")
        return value

    def _open(self, event: Any) -> None:
        self._count(event)
        if len(self._stack) >= self._limits.max_depth:
            raise self._too_deep(event)
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        where = self._where()
        is_mapping = isinstance(event, yaml.MappingStartEvent)
        node = Mapping({}, line, column, where) if is_mapping else Sequence([], line, column, where)
        if event.tag not in (None, "!", f"{_TAG}map" if is_mapping else f"{_TAG}seq"):
            self._findings.error("TAG", node, "tags are not allowed; only YAML's core types are")
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        self._stack.append(_Open(node, event.anchor, self._nodes - 1))

    def _close(self) -> None:
        done = self._stack.pop()
        if done.anchor is not None:
            size = self._nodes - done.size_before
            self._anchors[done.anchor] = _Anchored(done.node, size, done.height)
        self._raise_height(done.height)
        self._place(None, done.node)

    def _alias(self, event: Any) -> None:
        self._aliases += 1
        if self._aliases > self._limits.max_aliases:
            raise self._stop(
                event, "TOO_MANY_ALIASES", f"more than {self._limits.max_aliases} aliases are used"
            )
        if event.anchor not in self._anchors:
            raise self._stop(event, "YAML_SYNTAX", f"the alias *{event.anchor} names no anchor before it")
        anchored = self._anchors[event.anchor]
        if anchored is None:
            raise self._stop(event, "ALIAS_CYCLE", f"the alias *{event.anchor} stands inside what it names")
        if len(self._stack) + anchored.height > self._limits.max_depth:
            raise self._too_deep(event)
        self._count(event, anchored.size)
        self._raise_height(anchored.height)
        self._place(event, anchored.node)

    def _place(self, event: Any, node: Node) -> None:
        if not self._stack:
            self._root = node
            return
        top = self._stack[-1]
        if isinstance(top.node, Sequence):
            top.node.items.append(node)
        elif top.key is None:
            self._key(event, node, top)
        else:
            key, top.key = top.key, None
            if not top.skip_value:
                top.node.entries[key.text] = (key, node)
            top.skip_value = False

    def _key(self, event: Any, node: Node, top: _Open) -> None:
        if not isinstance(node, Scalar):
            raise _refuse("KEY_TYPE", "a key must be a single word or text", node.line, node.column)
        if len(node.text) > self._limits.max_key_length:
            message = f"a key is longer than {self._limits.max_key_length} characters"
            raise _refuse("KEY_TYPE", message, node.line, node.column)
        assert isinstance(top.node, Mapping)  # noqa: S101 - for the type checker: sequences have no keys
        # An alias may stand as a key: the key is where the alias is, and the anchored node stays as it was.
        line = event.start_mark.line + 1 if event is not None else node.line
        column = event.start_mark.column + 1 if event is not None else node.column
        key = Scalar(node.text, line, column, (top.node.where, node.text), node.text, node.style, node.start)
        if key.text in top.node.entries:
            first = top.node.entries[key.text][0]
            self._findings.error("DUPLICATE_KEY", key, f"the key is given twice; first on line {first.line}")
            top.skip_value = True
        top.key = key


def _events(source: str) -> Iterator[Any]:
    # The C parser: ten times as fast, and the same limits hold, since they are counted on its events.
    return iter(yaml.parse(source, Loader=yaml.CSafeLoader))
