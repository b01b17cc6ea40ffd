"""`config.source` and `config.destination`: connectors described in place, credentials and all.

Values of secret fields are lifted out and leave a reference behind, so that no canonical definition holds
them. Also unwraps `definition:`, as some clients send it.
"""

from headrace_definition.nodes import Mapping, Node, Sequence
from headrace_definition.problems import Findings
from headrace_definition.secret_words import is_reference, is_secret_key
from headrace_definition.spellings.rewriting import (
    made,
    made_mapping,
    rename_keys,
    task_key,
    with_entry,
    without,
)

ENDS = {"source": "source", "destination": "destination", "target": "destination"}
"""The keys of the two ends, and the words that begin the names of their secrets."""

_OWN = frozenset(
    {"id", "connector", "stream", "config", "incremental", "description", "mode", "keys", "input"}
)
# Fields of the request around a definition; they belong to the API, not to the language.
_REQUEST_ONLY = frozenset(
    {"domain_id", "workspace_id", "workspaceId", "workspaceSlug", "schemaId", "scheduleCron", "isActive"}
)


def rewrite(root: Mapping, findings: Findings, lifted: dict[str, str]) -> Mapping:
    """The tree with wrappers taken off and connectors as sources and sinks; secrets go into `lifted`."""
    root = _unwrap(root, "definition", findings)
    config = root.get("config")
    if isinstance(config, Mapping) and any(end in config for end in ENDS):
        root = _unwrap(root, "config", findings)
        root = _connectors(root, findings, lifted, always=True)
    else:
        root = _connectors(root, findings, lifted, always=False)
    for key in _REQUEST_ONLY & root.entries.keys():
        findings.warning("IGNORED_KEY", root.key_node(key), "belongs to the request, not to the definition")
    return without(root, *_REQUEST_ONLY)


def _unwrap(root: Mapping, key: str, findings: Findings) -> Mapping:
    inner = root.get(key)
    if not isinstance(inner, Mapping):
        return root
    outer = without(root, key)
    for shared in outer.entries.keys() & inner.entries.keys():
        if shared in ("name", "version", "description", "tags"):
            findings.warning("GIVEN_TWICE", outer.key_node(shared), f"the one inside `{key}` is used")
        else:
            findings.error("CONFLICTING_KEYS", outer.key_node(shared), f"is given inside `{key}` too")
    return Mapping({**outer.entries, **inner.entries}, root.line, root.column, root.where)


def _connectors(root: Mapping, findings: Findings, lifted: dict[str, str], *, always: bool) -> Mapping:
    for end, label in ENDS.items():
        element = root.get(end)
        if isinstance(element, Mapping) and (always or _describes_connector(element)):
            root = with_entry(root, end, _connector(element, label, findings, lifted))
    return root


def _describes_connector(element: Mapping) -> bool:
    return (
        "name" in element
        and "connection" not in element
        and ("authentication" in element or "config" in element)
    )


def _connector(element: Mapping, label: str, findings: Findings, lifted: dict[str, str]) -> Mapping:
    element = rename_keys(element, {"name": "connector"}, findings)
    inner = element.get("config")
    settings = dict(inner.entries) if isinstance(inner, Mapping) else {}
    for key, entry in element.entries.items():
        if key in _OWN:
            continue
        if key in settings:
            findings.error("CONFLICTING_KEYS", entry[0], "is given inside `config` too")
        settings[key] = entry
    own = without(element, *(key for key in element.entries if key not in _OWN), "config")
    if settings:
        config = Mapping(settings, element.line, element.column, (element.where, "config"))
        own = with_entry(own, "config", lift(config, label, lifted))
    return own


def lift(node: Node, label: str, lifted: dict[str, str], *, secret: bool = False) -> Node:
    """The node with the values of secret fields moved into `lifted`, each leaving `${secrets.<name>}`."""
    if isinstance(node, Mapping):
        return made_mapping(
            (
                (key, lift(value, f"{label}_{key}", lifted, secret=secret or is_secret_key(key)))
                for key, value in node.items()
            ),
            node,
        )
    if isinstance(node, Sequence):
        items = [
            lift(item, f"{label}_{index}", lifted, secret=secret) for index, item in enumerate(node.items)
        ]
        return Sequence(items, node.line, node.column, node.where)
    if (
        not secret
        or node.value in (None, "")
        or isinstance(node.value, bool)
        or is_reference(str(node.value))
    ):
        return node
    name = task_key(label, {taken.lower() for taken in lifted})
    lifted[name] = str(node.value)
    return made(f"${{secrets.{name}}}", node)
