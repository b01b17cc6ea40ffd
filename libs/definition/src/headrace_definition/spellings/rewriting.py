"""Small steps that spellings are made of. Trees are never changed: each step gives a new one."""

import re
from collections.abc import Iterable
from collections.abc import Mapping as Words
from dataclasses import replace

from headrace_definition.nodes import Mapping, Node, Scalar, ScalarValue, Sequence
from headrace_definition.problems import Findings

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,62}")


def made(value: ScalarValue, like: Node) -> Scalar:
    """A scalar that stands for something of the text; errors about it point there."""
    text = value if isinstance(value, str) else ""
    return Scalar(value, like.line, like.column, like.where, text)


def made_list(items: Iterable[Node], like: Node) -> Sequence:
    """A list made of nodes of the text."""
    return Sequence(list(items), like.line, like.column, like.where)


def made_mapping(entries: Iterable[tuple[str, Node]], like: Node) -> Mapping:
    """A mapping made of nodes of the text."""
    pairs = {key: (made(key, value), value) for key, value in entries}
    return Mapping(pairs, like.line, like.column, like.where)


def with_entry(mapping: Mapping, key: str, value: Node) -> Mapping:
    """The mapping with one more, or another, value."""
    return replace(
        mapping, entries={**mapping.entries, key: (mapping.entries.get(key, (made(key, value),))[0], value)}
    )


def without(mapping: Mapping, *keys: str) -> Mapping:
    """The mapping without some keys."""
    return replace(mapping, entries={key: entry for key, entry in mapping.entries.items() if key not in keys})


def rename_keys(mapping: Mapping, words: Words[str, str], findings: Findings) -> Mapping:
    """The mapping with other words for its keys replaced; two words for one thing are an error."""
    if not any(key in words for key in mapping.entries):
        return mapping
    entries: dict[str, tuple[Scalar, Node]] = {}
    for key, entry in mapping.entries.items():
        name = words.get(key, key)
        if name in entries or (name != key and name in mapping.entries):
            findings.error("CONFLICTING_KEYS", entry[0], f"says the same as `{name}`, which is given too")
            continue
        entries[name] = entry
    return replace(mapping, entries=entries)


def snake_keys(mapping: Mapping, known: Iterable[str], findings: Findings) -> Mapping:
    """The mapping with keys in camelCase or with hyphens spelled as the known ones are."""
    known = frozenset(known)
    words = {key: snake(key) for key in mapping.entries if key not in known and snake(key) in known}
    return rename_keys(mapping, words, findings)


def snake(word: str) -> str:
    """`camelCase` and `kebab-case` as `snake_case`."""
    return _CAMEL.sub("_", word).replace("-", "_").replace(" ", "_").lower()


def text_of(node: Node | None) -> str | None:
    """The text of a scalar that is a string or number, as it was written."""
    if isinstance(node, Scalar) and node.value is not None:
        return node.text or str(node.value)
    return None


def one_as_list(mapping: Mapping, keys: Iterable[str]) -> Mapping:
    """The mapping with a single scalar under any of `keys` as a list of one."""
    for key in keys:
        value = mapping.get(key)
        if isinstance(value, Scalar) and value.value is not None:
            mapping = with_entry(mapping, key, made_list([value], value))
    return mapping


def task_key(words: str, taken: set[str]) -> str:
    """A valid task key made from any words, unlike those taken (whatever their case); it is then taken
    too."""
    base = re.sub(r"[^A-Za-z0-9_]+", "_", words).strip("_")[:55] or "task"
    if not _KEY.match(base):
        base = f"n_{base}"
    candidate, number = base, 1
    while candidate.lower() in taken:
        number += 1
        candidate = f"{base}_{number}"
    taken.add(candidate.lower())
    return candidate


def is_task_key(words: str) -> bool:
    """Whether it can be a task key as it is."""
    return _KEY.fullmatch(words) is not None
